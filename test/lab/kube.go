//go:build e2e && e2ekube && linux

package lab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/manifests"
)

// KubeNode is the name of the only node. It is its address too: the API server
// then reaches the kubelet on the loopback interface.
const KubeNode = "127.0.0.1"

// KubeAdmin may do everything in the cluster.
const KubeAdmin = "admin"

// Kube is a one-node Kubernetes with RBAC: etcd, API server, controllers,
// scheduler, containerd and kubelet. Its pods have a loopback interface only.
type Kube struct {
	dir     string
	bin     string
	daemons []*daemon // in the order of starting
	tokens  map[string]string
	ports   struct{ api, etcd, peer, kubelet int }
	certs   *Certs
}

// kubeShared is in theRun for what lives as long as the package's tests.
type kubeShared struct{ k *Kube }

// Kubernetes is a cluster that all tests of the package share. The images
// localhost/pause:local and docker.io/moby/buildkit:local are there.
func Kubernetes(t testing.TB) *Kube {
	t.Helper()
	Need(t, "root", "runc", "busybox")
	bin := filepath.Join(cacheDir(t), "kube", "bin")
	if _, err := os.Stat(filepath.Join(bin, "kube-apiserver")); err != nil {
		t.Fatalf("lab: %v: run `make test-kube`", err)
	}
	pause, buildkit := kubeImages(t)
	theRun.mu.Lock()
	defer theRun.mu.Unlock()
	if theRun.kube.k == nil {
		k, err := startKube(bin, pause, buildkit)
		if k != nil {
			theRun.atEnd = append(theRun.atEnd, k.stop)
		}
		if err != nil {
			t.Fatal("lab: ", err)
		}
		theRun.kube.k = k
	}
	return theRun.kube.k
}

func startKube(bin string, images ...string) (*Kube, error) {
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	k := &Kube{dir: dir, bin: bin, tokens: map[string]string{}}
	for _, p := range []*int{&k.ports.api, &k.ports.etcd, &k.ports.peer, &k.ports.kubelet} {
		if *p, err = freePort(); err != nil {
			return nil, err
		}
	}
	if k.certs, err = makeCerts(k.at("certs"), "localhost", "127.0.0.1"); err != nil {
		return nil, err
	}
	if err := k.writeFiles(); err != nil {
		return nil, err
	}
	steps := []func() error{k.startEtcd, k.startAPI, k.startContainerd, func() error { return k.load(images) }, k.startKubelet, k.startControllers}
	for _, step := range steps {
		if err := step(); err != nil {
			return k, err
		}
	}
	return k, nil
}

func (k *Kube) at(name string) string { return filepath.Join(k.dir, name) }

func (k *Kube) start(name string, ready func(context.Context) error, args ...string) error {
	d := newDaemon(name, k.dir, append([]string{filepath.Join(k.bin, name)}, args...)...)
	d.env = []string{"PATH=" + k.bin + ":" + os.Getenv("PATH")}
	k.daemons = append(k.daemons, d)
	return d.start(ready)
}

func (k *Kube) startEtcd() error {
	client, peer := "http://"+loopback(k.ports.etcd), "http://"+loopback(k.ports.peer)
	return k.start("etcd", httpOK(client+"/health", nil, ""), "--data-dir", k.at("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
}

func (k *Kube) startAPI() error {
	insecure := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // only asked whether it is up
	return k.start("kube-apiserver", httpOK(k.Server()+"/readyz", insecure, k.tokens[KubeAdmin]),
		"--etcd-servers=http://"+loopback(k.ports.etcd), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", k.ports.api),
		"--tls-cert-file="+k.certs.Server.Cert, "--tls-private-key-file="+k.certs.Server.Key, "--cert-dir="+k.at("api"),
		"--client-ca-file="+k.certs.CA, "--token-auth-file="+k.at("tokens.csv"), "--anonymous-auth=false",
		"--authorization-mode=RBAC", "--allow-privileged=true",
		"--service-cluster-ip-range=10.99.0.0/24", "--endpoint-reconciler-type=none",
		"--service-account-issuer="+k.Server(), "--service-account-signing-key-file="+k.certs.Server.Key, "--service-account-key-file="+k.certs.Server.Cert,
		"--kubelet-client-certificate="+k.certs.Client.Cert, "--kubelet-client-key="+k.certs.Client.Key)
}

func (k *Kube) startContainerd() error {
	return k.start("containerd", func(ctx context.Context) error { return k.run(ctx, "ctr", k.ctr("version")...) },
		"-c", k.at("containerd.toml"))
}

func (k *Kube) ctr(args ...string) []string {
	return append([]string{"-a", k.at("containerd.sock"), "-n", "k8s.io"}, args...)
}

func (k *Kube) load(images []string) error {
	for _, i := range images {
		if err := k.run(context.Background(), "ctr", k.ctr("images", "import", i)...); err != nil {
			return err
		}
	}
	// as examples/kubernetes and `berth manifests kubernetes` name it
	for _, name := range []string{"moby/buildkit:latest", manifests.DefaultImage(false)} {
		if err := k.run(context.Background(), "ctr", k.ctr("images", "tag", "docker.io/moby/buildkit:local", "docker.io/"+name)...); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kube) startKubelet() error {
	return k.start("kubelet", func(ctx context.Context) error {
		return k.run(ctx, "kubectl", "--kubeconfig", k.Config(KubeAdmin), "wait", "--for=condition=Ready", "node/"+KubeNode, "--timeout=4s")
	}, "--config="+k.at("kubelet.yaml"), "--kubeconfig="+k.Config(KubeAdmin), "--root-dir="+k.at("kubelet"),
		"--cert-dir="+k.at("kubelet-pki"), "--hostname-override="+KubeNode)
}

// startControllers makes objects live.
func (k *Kube) startControllers() error {
	admin := "--kubeconfig=" + k.Config(KubeAdmin)
	err := k.start("kube-controller-manager", func(ctx context.Context) error {
		return k.run(ctx, "kubectl", admin, "get", "serviceaccount/default", "configmap/kube-root-ca.crt")
	}, admin, "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0", "--use-service-account-credentials=false",
		"--root-ca-file="+k.certs.CA, "--service-account-private-key-file="+k.certs.Server.Key,
		"--controllers=deployment-controller,replicaset-controller,statefulset-controller,node-lifecycle-controller,"+
			"garbage-collector-controller,namespace-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,"+
			"disruption-controller,persistentvolume-binder-controller,persistentvolume-protection-controller,persistentvolumeclaim-protection-controller")
	if err != nil {
		return err
	}
	return k.start("kube-scheduler", k.untainted,
		admin, "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0")
}

// untainted tells whether the node takes pods: a controller says that it is
// ready.
func (k *Kube) untainted(ctx context.Context) error {
	out, err := k.output(ctx, "kubectl", "--kubeconfig", k.Config(KubeAdmin), "get", "node", KubeNode, "-o", "jsonpath={.spec.taints}")
	if err == nil && out != "" {
		err = fmt.Errorf("the node has taints: %s", out)
	}
	return err
}

// run runs one of the cluster's programs to its end.
func (k *Kube) run(ctx context.Context, name string, args ...string) error {
	_, err := k.output(ctx, name, args...)
	return err
}

func (k *Kube) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(k.bin, name), args...)
	cmd.Env = baseEnv(k.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// httpOK asks a URL until it answers with 200.
func httpOK(url string, config *tls.Config, token string) func(context.Context) error {
	return func(ctx context.Context) error {
		tr := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, resp.Status)
		}
		return nil
	}
}

// Server is the API server's address.
func (k *Kube) Server() string { return "https://" + loopback(k.ports.api) }

// Config is the kubeconfig of a user: KubeAdmin, or one of User's. Its context
// is called "lab", and its credential is a token.
func (k *Kube) Config(user string) string { return k.at("kubeconfig-" + user) }

// Users that exist from the start, without any right.
func kubeUsers() []string { return []string{KubeAdmin, "forwarder", "nobody"} }

// Kubectl is the path of the real kubectl.
func (k *Kube) Kubectl() string { return filepath.Join(k.bin, "kubectl") }

// CA is the certificate authority of the cluster, which issues clients'
// certificates too.
func (k *Kube) CA() *Certs { return k.certs }

// Do runs kubectl as the administrator, with text as its standard input, and
// gives its output; it fails the test when the command fails.
func (k *Kube) Do(t testing.TB, text string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.Kubectl(), append([]string{"--kubeconfig", k.Config(KubeAdmin)}, args...)...)
	cmd.Env = baseEnv(k.dir)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Kill is kill -9 for a pod's first container.
func (k *Kube) Kill(t testing.TB, pod string) {
	t.Helper()
	id := k.Do(t, "", "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}")
	_, id, _ = strings.Cut(id, "://")
	if err := k.run(context.Background(), "ctr", k.ctr("task", "kill", "-s", "KILL", id)...); err != nil {
		t.Fatal("lab: ", err)
	}
}

// stop ends everything that belongs to the cluster, its containers included.
func (k *Kube) stop() {
	for i := len(k.daemons) - 1; i >= 0; i-- {
		if d := k.daemons[i]; d.ended() != nil {
			d.kill() // sweeps the folder: all of them, and the containers
		}
	}
	// The cgroups of containers that are gone: only empty ones can be removed.
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && e.Name() == "k8s.io" {
			removeEmpty(path)
			return fs.SkipDir
		}
		return nil
	})
}

func removeEmpty(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeEmpty(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

func newToken() string { return rand.Text() }
