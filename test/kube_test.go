//go:build e2e && e2ekube && linux

package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// needsKube gives a guide kubectl and a cluster.
func needsKube(t *testing.T, bin string) []string {
	t.Helper()
	k := lab.Kubernetes(t)
	if err := os.Symlink(k.Kubectl(), join(bin, "kubectl")); err != nil {
		t.Fatal(err)
	}
	return []string{"KUBECONFIG=" + k.Config(lab.KubeAdmin), "FORWARDER=" + k.Config("forwarder")}
}

func TestKubeGuide(t *testing.T) {
	runGuide(t, join(lab.ModuleRoot(t), "docs", "guides", "kubernetes.md"))
}

// kubePod is a pod with buildkitd on a socket and, for port-forward, on the
// loopback interface of its network.
func kubePod(name string, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, labels: {app: buildkitd, pod: %[1]s}}
spec:
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  containers:
  - name: buildkitd
    image: docker.io/moby/buildkit:local
    imagePullPolicy: Never
    args: [--addr, "unix:///run/buildkit/buildkitd.sock", --addr, "tcp://127.0.0.1:1234", --oci-worker-net=host]
    securityContext: {privileged: true}
    readinessProbe: {exec: {command: [buildctl, debug, workers]}, periodSeconds: 1, timeoutSeconds: 5}
    volumeMounts: [{name: state, mountPath: /var/lib/buildkit}]
%s
  volumes: [{name: state, emptyDir: {}}]
`, name, more)
}

// startPod makes a pod, waits until it is ready, and deletes it with the test.
func startPod(t *testing.T, k *lab.Kube, name, more string) {
	t.Helper()
	k.Do(t, kubePod(name, more), "apply", "-f", "-")
	t.Cleanup(func() { k.Do(t, "", "delete", "pod", name, "--ignore-not-found", "--now", "--wait") })
	k.Do(t, "", "wait", "--for=condition=Ready", "pod/"+name, "--timeout=60s")
}

// kubeBerth is berth with the administrator's kubeconfig and a builder of the
// given endpoint.
func kubeBerth(t *testing.T, k *lab.Kube, endpoint string, flags ...string) *lab.CLI {
	t.Helper()
	berth := lab.Berth(t).With("KUBECONFIG=" + k.Config(lab.KubeAdmin))
	berth.OK(append([]string{"create", "--name", "k", "--driver", "remote", "--use", endpoint}, flags...)...)
	return berth
}

func buildHello(t *testing.T, berth *lab.CLI) {
	t.Helper()
	out := t.TempDir()
	berth.OK("build", "--output", "type=local,dest="+out, lab.HelloContext(t))
	if !exists(join(out, "hello")) {
		t.Errorf("no hello in %s: %s", out, strings.Join(names(t, out), " "))
	}
}

// runningObjects are objects with pods of their own, as users have them.
func runningObjects(t *testing.T, k *lab.Kube) {
	t.Helper()
	yaml := read(t, join(lab.ModuleRoot(t), "examples", "kubernetes", "buildkitd.yaml"))
	set := strings.NewReplacer("kind: Deployment", "kind: StatefulSet", "app: buildkitd", "app: set", "name: buildkitd\n  labels", "name: set\n  labels",
		"spec:\n  replicas", "spec:\n  serviceName: set\n  replicas").Replace(yaml)
	service := "---\napiVersion: v1\nkind: Service\nmetadata: {name: buildkitd}\nspec: {selector: {app: buildkitd}, ports: [{port: 1234}]}\n"
	none := "---\n" + strings.NewReplacer("replicas: 1", "replicas: 0", "app: buildkitd", "app: nobody", "name: buildkitd\n  labels", "name: nobody\n  labels").Replace(yaml)
	all := yaml + "---\n" + set + service + none
	k.Do(t, all, "apply", "-f", "-")
	t.Cleanup(func() { k.Do(t, all, "delete", "--wait", "-f", "-") })
	k.Do(t, "", "rollout", "status", "deployment/buildkitd", "--timeout=90s")
	k.Do(t, "", "rollout", "status", "statefulset/set", "--timeout=90s")
}

func TestKubeBuilds(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "pod", "")
	runningObjects(t, k)
	for _, e := range []string{
		"kube-pod://pod",
		"kube-pod://pod?context=lab&namespace=default&container=buildkitd&socket=/run/buildkit/buildkitd.sock",
		"kube-pod://pod?via=port-forward",
		"kube-pod://set-0",
		"kube-deployment://buildkitd",
		"kube-deployment://buildkitd?via=port-forward&port=1234",
		"kube-statefulset://set",
		"kube-service://buildkitd",
		"kube-selector://?selector=app%3Dbuildkitd",
		"kube-selector://?selector=app+in+%28buildkitd%29&via=port-forward",
	} {
		t.Run(e, func(t *testing.T) { buildHello(t, kubeBerth(t, k, e)) })
	}
	t.Run("kubeconfig", func(t *testing.T) {
		berth := lab.Berth(t)
		berth.OK("create", "--name", "k", "--driver", "remote", "--use", "kube-pod://pod?kubeconfig="+k.Config(lab.KubeAdmin))
		buildHello(t, berth)
	})
}

// What cannot be dialled is told in the words of what refused.
func TestKubeRefusals(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "buildkitd", "  - {name: other, image: \"localhost/pause:local\", imagePullPolicy: Never}\n")
	runningObjects(t, k)
	k.Do(t, strings.Replace(kubePod("broken", ""), "buildkit:local", "nonexistent:1", 1), "apply", "-f", "-")
	t.Cleanup(func() { k.Do(t, "", "delete", "pod", "broken", "--now") })
	for _, c := range []struct{ endpoint, says, try string }{
		{"kube-pod://nobody", "there is no pod nobody in namespace default", "get pods"},
		{"kube-pod://buildkitd?namespace=nowhere", "there is no namespace nowhere", "get namespaces"},
		{"kube-selector://?selector=a%3Db&namespace=nowhere", "there is no namespace nowhere", "get namespaces"},
		{"kube-statefulset://nobody", "there is no statefulset nobody in namespace default", "get statefulsets"},
		{"kube-deployment://nobody", "no ready pod behind the deployment nobody in namespace default: 0 of 0 ready", "get pods -l app=nobody"},
		{"kube-pod://buildkitd?container=x", `the pod buildkitd has no container "x"; it has: buildkitd, other`, ""},
		{"kube-pod://buildkitd?container=other", "the container other of the pod buildkitd has no buildctl", "'kube-pod://buildkitd?container=buildkitd'"},
		{"kube-pod://buildkitd?socket=/run/x.sock", "says: error: dial unix /run/x.sock: connect: no such file", "socket="},
		{"kube-pod://buildkitd?via=port-forward&port=77", "nobody listens on port 77 of the pod buildkitd", "--addr tcp://"},
		{"kube-pod://broken", "the pod broken in namespace default is not ready: container buildkitd waits (ErrImageNeverPull)", "describe pod broken"},
		{"kube-pod://buildkitd?context=nowhere", `no context "nowhere"`, "get-contexts"},
	} {
		t.Run(c.endpoint, func(t *testing.T) {
			berth := lab.Berth(t).With("KUBECONFIG=" + k.Config(lab.KubeAdmin))
			berth.OK("create", "--name", "k", "--driver", "remote", "--driver-opt", "connect-timeout=2s", "--use", c.endpoint)
			r := berth.Fail("build", lab.HelloContext(t))
			has(t, "the last line", lastLine(r.Stderr), c.says)
			has(t, "standard error", r.Stderr, c.try)
		})
	}
	t.Run("no kubeconfig", func(t *testing.T) {
		berth := lab.Berth(t)
		berth.OK("create", "--name", "k", "--driver", "remote", "--use", "kube-pod://buildkitd")
		has(t, "the last line", lastLine(berth.Fail("build", lab.HelloContext(t)).Stderr), "there is no kubeconfig (looked for "+berth.Home)
	})
}

// A user with the right to forward ports, and no other, builds; what the hints
// say about the rest is what is missing.
func TestKubeRBAC(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "buildkitd", "")
	k.Do(t, "", "delete", "rolebindings,roles", "--all") // whatever another test left
	k.Do(t, "", "create", "role", "forward", "--verb=create", "--resource=pods/portforward")
	k.Do(t, "", "create", "rolebinding", "forward", "--role=forward", "--user=forwarder")
	t.Cleanup(func() { k.Do(t, "", "delete", "rolebindings,roles", "--all") })
	berth := lab.Berth(t).With("KUBECONFIG=" + k.Config("forwarder"))
	berth.OK("create", "--name", "exec", "--driver", "remote", "kube-pod://buildkitd")
	berth.OK("create", "--name", "forward", "--driver", "remote", "kube-pod://buildkitd?via=port-forward")
	berth.OK("create", "--name", "labels", "--driver", "remote", "kube-selector://?selector=app%3Dbuildkitd&via=port-forward")
	berth.OK("build", "--builder", "forward", lab.HelloContext(t))

	for builder, verb := range map[string]string{"exec": "create pods/exec", "labels": "list pods"} {
		r := berth.Fail("build", "--builder", builder, lab.HelloContext(t))
		has(t, "the last line", lastLine(r.Stderr), "not allowed to "+verb+" in namespace default (as forwarder)")
		if builder == "exec" {
			has(t, "standard error", r.Stderr, "'kube-pod://buildkitd?via=port-forward'")
		}
		for line := range strings.Lines(r.Stderr) { // the hints are to be pasted
			if _, command, ok := strings.Cut(line, "kubectl --context lab "); ok && strings.Contains(command, "create role") {
				k.Do(t, "", strings.Fields(command)...)
			}
		}
		berth.OK("build", "--builder", builder, lab.HelloContext(t))
	}
}

// The other ways to say who one is: a client certificate, and a plugin.
func TestKubeCredentials(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "buildkitd", "")
	k.Do(t, "", "create", "rolebinding", "cert", "--clusterrole=cluster-admin", "--user=berth lab client")
	t.Cleanup(func() { k.Do(t, "", "delete", "rolebinding", "cert") })
	dir := lab.Dir(t)
	token := strings.TrimSpace(k.Do(t, "", "config", "view", "--raw", "-o", "jsonpath={.users[0].user.token}"))
	plugin := "#!/bin/sh\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{\"token\":\"" + token + "\"}}'\n"
	if err := os.WriteFile(join(dir, "plugin"), []byte(plugin), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, user := range map[string]string{
		"certificate": fmt.Sprintf("client-certificate: %s, client-key: %s", k.CA().Client.Cert, k.CA().Client.Key),
		"plugin":      "exec: {command: ./plugin, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}",
	} {
		t.Run(name, func(t *testing.T) {
			config := join(dir, "config-"+name)
			if err := k.WriteConfig(config, user); err != nil {
				t.Fatal(err)
			}
			berth := lab.Berth(t).With("KUBECONFIG=" + config)
			berth.OK("create", "--name", "k", "--driver", "remote", "--use", "kube-pod://buildkitd")
			berth.OK("build", lab.HelloContext(t))
		})
	}
	t.Run("wrong token", func(t *testing.T) {
		config := join(dir, "wrong")
		if err := k.WriteConfig(config, "token: hunter2"); err != nil {
			t.Fatal(err)
		}
		berth := lab.Berth(t).With("KUBECONFIG=" + config)
		berth.OK("create", "--name", "k", "--driver", "remote", "--use", "kube-pod://buildkitd")
		r := berth.Fail("build", lab.HelloContext(t))
		has(t, "the last line", lastLine(r.Stderr), `does not accept the credentials of "me"`)
		hasNot(t, "standard error", r.Stderr, "hunter2")
	})
}

// A pod that goes away in the middle of a build is what the error names.
func TestKubePodGone(t *testing.T) {
	k := lab.Kubernetes(t)
	// As `kubectl drain` does. The pod may be gone by the time it is asked for:
	// it "was evicted (EvictionByEvictionAPI)", or it "was deleted".
	evict := func(t *testing.T) {
		k.Do(t, `{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "victim", "namespace": "default"}}`,
			"create", "--raw", "/api/v1/namespaces/default/pods/victim/eviction", "-f", "-")
	}
	const victim = "the pod victim in namespace default "
	for _, c := range []struct {
		endpoint string
		how      func(t *testing.T)
		says     []string
	}{
		{"kube-pod://victim", evict, []string{victim + "was "}},
		{"kube-pod://victim?via=port-forward", evict, []string{victim + "was "}},
		{"kube-pod://victim", func(t *testing.T) { k.Do(t, "", "delete", "pod", "victim", "--now", "--wait=false") }, []string{victim, "deleted"}},
		{"kube-pod://victim?via=port-forward", func(t *testing.T) { k.Do(t, "", "delete", "pod", "victim", "--now", "--wait=false") }, []string{victim, "deleted"}},
		{"kube-pod://victim", func(t *testing.T) { k.Kill(t, "victim") }, []string{"kube-pod://victim was lost during the build"}},
	} {
		startPod(t, k, "victim", "")
		berth := kubeBerth(t, k, c.endpoint, "--driver-opt", "retries=0")
		p := berth.Start("build", "--progress=plain", lab.ShellContext(t, "RUN echo started; sleep 100\n", nil))
		p.WaitFor("started")
		c.how(t)
		r := p.Wait()
		if r.Code != 1 {
			t.Errorf("exit %d\n%s", r.Code, r)
		}
		has(t, "the last line", lastLine(r.Stderr), c.says...)
		if n := strings.Count(r.Stderr, "ERROR: failed to build"); n != 1 {
			t.Errorf("%d errors:\n%s", n, r.Stderr)
		}
		k.Do(t, "", "delete", "pod", "victim", "--ignore-not-found", "--now", "--wait")
	}
}

// Ctrl-C ends a build at once, although the pod's process goes on.
func TestKubeInterrupted(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "buildkitd", "")
	berth := kubeBerth(t, k, "kube-pod://buildkitd")
	p := berth.Start("build", "--progress=plain", lab.ShellContext(t, "RUN echo started; sleep 100\n", nil))
	p.WaitFor("started")
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 {
		t.Errorf("exit %d\n%s", r.Code, r)
	}
	berth.OK("build", lab.HelloContext(t))
}

// Within a pod no kubeconfig is needed: the pod's service account is enough.
func TestKubeInCluster(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "buildkitd", "")
	k.Do(t, "", "create", "role", "build", "--verb=get,create", "--resource=pods,pods/exec")
	k.Do(t, "", "create", "rolebinding", "build", "--role=build", "--serviceaccount=default:default")
	t.Cleanup(func() { k.Do(t, "", "delete", "rolebinding/build", "role/build") })
	_, port, _ := strings.Cut(strings.TrimPrefix(k.Server(), "https://"), ":")
	k.Do(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  hostNetwork: true
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  containers:
  - name: client
    image: docker.io/moby/buildkit:local
    imagePullPolicy: Never
    command: [sleep, "1000"]
    env: [{name: KUBERNETES_SERVICE_HOST, value: "127.0.0.1"}, {name: KUBERNETES_SERVICE_PORT, value: "%s"}, {name: HOME, value: /tmp}]
`, port), "apply", "-f", "-")
	t.Cleanup(func() { k.Do(t, "", "delete", "pod", "client", "--now") })
	k.Do(t, "", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	out := k.Do(t, "", "exec", "client", "--", "sh", "-euc", `
cd /tmp
berth create --name k --driver remote --use kube-pod://buildkitd
mkdir context && cat /etc/passwd >context/file
printf 'FROM scratch\nCOPY file /\n' >context/Dockerfile
berth build -o out context
cat out/file
`)
	has(t, "the output", out, "root:x:0:0")
}
