//go:build e2e && e2ekube && linux

package test

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// A pod whose buildkitd mounts the Secret, as in BuildKit's examples.
const certsPod = `
apiVersion: v1
kind: Pod
metadata: {name: certs, namespace: default}
spec:
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  containers:
  - name: buildkitd
    image: docker.io/moby/buildkit:local
    imagePullPolicy: Never
    args: [--addr, "unix:///run/buildkit/buildkitd.sock", --addr, "tcp://127.0.0.1:1234", --oci-worker-net=host,
           --tlscacert, /certs/ca.pem, --tlscert, /certs/cert.pem, --tlskey, /certs/key.pem]
    securityContext: {privileged: true}
    readinessProbe: {exec: {command: [buildctl, debug, workers]}, periodSeconds: 1, timeoutSeconds: 5}
    volumeMounts: [{name: state, mountPath: /var/lib/buildkit}, {name: certs, mountPath: /certs, readOnly: true}]
  volumes: [{name: state, emptyDir: {}}, {name: certs, secret: {secretName: buildkit-daemon-certs}}]
`

// The Secrets of certs create are those that kubectl makes of the same files;
// a pod uses the daemon's, and a client outside reaches it with its own.
func TestKubeCerts(t *testing.T) {
	k := lab.Kubernetes(t)
	berth := lab.Berth(t)
	dir := join(berth.Work, ".certs")
	berth.OK("certs", "create", "--kubernetes", "localhost", "127.0.0.1")
	for _, side := range []string{"daemon", "client"} {
		name := "buildkit-" + side + "-certs"
		theirs := k.Do(t, "", "create", "secret", "generic", name, "--dry-run=client", "-o", "yaml", "--from-file="+join(dir, side))
		if ours := read(t, join(dir, name+".yaml")); ours != theirs {
			t.Errorf("%s is\n%s\nand kubectl's\n%s", name, ours, theirs)
		}
		has(t, "apply", k.Do(t, "", "apply", "-f", join(dir, name+".yaml")), "secret/"+name+" created")
		t.Cleanup(func() { k.Do(t, "", "delete", "secret", name, "--ignore-not-found") })
	}
	k.Do(t, certsPod, "apply", "-f", "-")
	t.Cleanup(func() { k.Do(t, "", "delete", "pod", "certs", "--ignore-not-found", "--now", "--wait") })
	k.Do(t, "", "wait", "--for=condition=Ready", "pod/certs", "--timeout=60s")
	port := forward(t, k, "pod/certs")
	berth.OK("create", "--name", "certs", "--driver", "remote", "--bootstrap",
		"--driver-opt", "cacert=.certs/client/ca.pem,cert=.certs/client/cert.pem,key=.certs/client/key.pem", "tcp://localhost:"+port)
	out := join(t.TempDir(), "out")
	if r := berth.Cmd("build", "--builder", "certs", "-o", out, ".").Dir(lab.HelloContext(t)).Run(); r.Code != 0 {
		t.Fatal(r)
	}
	berth.OK("create", "--name", "nobody", "--driver", "remote", "--driver-opt", "cacert=.certs/client/ca.pem", "tcp://localhost:"+port)
	if got := errClass(t, berth, "nobody"); got != "tls-client-cert" {
		t.Errorf("without a client certificate: class %q", got)
	}
	has(t, "renew", berth.OK("certs", "renew").Stdout, "kubectl apply -f .certs/buildkit-daemon-certs.yaml")
	has(t, "apply after renew", k.Do(t, "", "apply", "-f", join(dir, "buildkit-daemon-certs.yaml")), "configured")
}

// forward is a local port that the real kubectl forwards to the pod's 1234.
func forward(t *testing.T, k *lab.Kube, pod string) string {
	t.Helper()
	cmd := exec.Command(k.Kubectl(), "--kubeconfig", k.Config(lab.KubeAdmin), "port-forward", pod, ":1234")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	_, rest, ok := strings.Cut(line, "Forwarding from 127.0.0.1:")
	port, _, _ := strings.Cut(rest, " ")
	if err != nil || !ok {
		t.Fatalf("kubectl port-forward: %q, %v", line, err)
	}
	return port
}
