//go:build e2e && e2ekube && linux

package test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// kubeVolumes are volumes that claims find, since the cluster makes none by
// itself: folders, which go with the test.
func kubeVolumes(t *testing.T, k *lab.Kube, n int) {
	t.Helper()
	dir := lab.Dir(t)
	var yaml strings.Builder
	for i := range n {
		path := join(dir, fmt.Sprintf("volume-%d", i))
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&yaml, `---
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-%d}
spec:
  capacity: {storage: 100Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: %q}
`, i, path)
	}
	k.Do(t, yaml.String(), "apply", "-f", "-")
	t.Cleanup(func() {
		k.Do(t, "", "delete", "statefulset", "--all", "--now", "--wait") // which has them in use
		k.Do(t, "", "delete", "pvc,pv", "--all", "--wait")
	})
}

// printed applies what berth prints, and gives the lines of its comment that
// make a builder.
func printed(t *testing.T, k *lab.Kube, berth *lab.CLI, args ...string) (create []string) {
	t.Helper()
	text := berth.OK(append([]string{"manifests", "kubernetes"}, args...)...).Stdout
	k.Do(t, text, "apply", "--validate=strict", "-f", "-")
	t.Cleanup(func() { k.Do(t, text, "delete", "--ignore-not-found", "--wait", "-f", "-") })
	for _, m := range regexp.MustCompile(`(?m)^#   berth (create .*)$`).FindAllStringSubmatch(text, -1) {
		create = append(create, m[1])
	}
	if len(create) == 0 {
		t.Fatalf("no line makes a builder:\n%s", text)
	}
	return create
}

// line is the words of a command that has no quotes but around a whole word.
func line(text string) []string {
	words := strings.Fields(text)
	for i := range words {
		words[i] = strings.Trim(words[i], "'")
	}
	return words
}

// What is printed is applied as it is; three pods become ready, the printed
// line makes a builder, a service account may do what that needs and no more,
// and a pod that is taken away lets its build end and comes back with its cache.
func TestKubeManifests(t *testing.T) {
	k := lab.Kubernetes(t)
	kubeVolumes(t, k, 3)
	admin := lab.Berth(t).With("KUBECONFIG=" + k.Config(lab.KubeAdmin))
	create := printed(t, k, admin, "--max-parallelism", "3")
	k.Do(t, "", "rollout", "status", "statefulset/buildkitd", "--timeout=120s")
	k.Do(t, "", "wait", "--for=jsonpath={.status.disruptionsAllowed}=1", "pdb/buildkitd", "--timeout=30s")
	has(t, "the daemon's policy", k.Do(t, "", "exec", "buildkitd-0", "--", "buildctl", "debug", "workers", "-v"), "GC Policy rule#0")

	berth := lab.Berth(t).With("KUBECONFIG=" + accountConfig(t, k, "buildkitd-client"))
	berth.OK(line(create[0])...)
	berth.OK("use", "buildkitd")
	buildHello(t, berth)
	t.Run("rights", func(t *testing.T) { onlyRights(t, k, berth) })
	t.Run("drain", func(t *testing.T) { drains(t, k, berth) })
	t.Run("failover", func(t *testing.T) { failsOver(t, k, berth) })
}

// failsOver takes a pod away at once, in the middle of a build that was given to it:
// another pod builds it.
func failsOver(t *testing.T, k *lab.Kube, berth *lab.CLI) {
	out := t.TempDir()
	context := lab.ShellContext(t, "RUN echo sta''rted; sleep 8\nRUN echo done > /result\n", nil)
	p := berth.Start("build", "--progress=plain", "--no-cache", "-o", out, context)
	p.WaitFor("started")
	at := used(t, p.Stderr())[0]
	_, pod, ok := strings.Cut(at, "/")
	if !ok {
		t.Fatalf("built on %q, which is no pod", at)
	}
	k.Do(t, "", "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
	r := p.Wait()
	if r.Code != 0 {
		t.Fatalf("exit %d: %s", r.Code, r)
	}
	has(t, "progress", r.Stderr, "building again: ")
	if nodes := used(t, r.Stderr); nodes[len(nodes)-1] == at {
		t.Errorf("built on %q again, which was taken away", at)
	}
	if got := read(t, join(out, "result")); got != "done\n" {
		t.Errorf("the result is %q", got)
	}
	k.Do(t, "", "wait", "--for=create", "pod/"+pod, "--timeout=60s")
	k.Do(t, "", "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=120s")
}

// accountConfig is a kubeconfig with a token of a service account.
func accountConfig(t *testing.T, k *lab.Kube, account string) string {
	t.Helper()
	path := join(lab.Dir(t), account)
	if err := k.WriteConfig(path, "token: "+strings.TrimSpace(k.Do(t, "", "create", "token", account))); err != nil {
		t.Fatal(err)
	}
	return path
}

// onlyRights holds what the account may do, beyond what every account may,
// against what was meant.
func onlyRights(t *testing.T, k *lab.Kube, berth *lab.CLI) {
	everybody := rights(t, k, "default")
	var got []string
	for _, r := range rights(t, k, "buildkitd-client") {
		if !slices.Contains(everybody, r) {
			got = append(got, r)
		}
	}
	want := []string{
		"pods: get list",
		"pods/exec buildkitd-0: create", "pods/exec buildkitd-1: create", "pods/exec buildkitd-2: create",
		"services buildkitd: get",
		"statefulsets.apps buildkitd: get",
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("rights:\n%s\nwanted:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	startPod(t, k, "other", "")
	berth.OK("create", "--name", "other", "--driver", "remote", "kube-pod://other")
	r := berth.Fail("build", "--builder", "other", lab.HelloContext(t))
	has(t, "the last line", lastLine(r.Stderr), "not allowed to create pods/exec in namespace default")
}

// rights are those of a service account, one line for each resource and name,
// sorted.
func rights(t *testing.T, k *lab.Kube, account string) []string {
	t.Helper()
	var all []string
	row := regexp.MustCompile(`(?m)^(\S+) +\[.*?\] +\[(.*?)\] +\[(.*?)\]`)
	for _, m := range row.FindAllStringSubmatch(k.Do(t, "", "auth", "can-i", "--list", "--as=system:serviceaccount:default:"+account), -1) {
		for _, name := range strings.Split(m[2], " ") {
			all = append(all, strings.TrimSpace(m[1]+" "+name)+": "+m[3])
		}
	}
	slices.Sort(all)
	return all
}

// drains takes a pod away in the middle of a build.
func drains(t *testing.T, k *lab.Kube, berth *lab.CLI) {
	context := lab.ShellContext(t, "RUN echo first >/first\nRUN echo started; sleep 10\n", nil)
	berth.OK("create", "--name", "one", "--driver", "remote", "kube-pod://buildkitd-1")
	p := berth.Start("build", "--builder", "one", "--progress=plain", context)
	p.WaitFor("started")
	before := k.Do(t, "", "get", "pod", "buildkitd-1", "-o", "jsonpath={.metadata.uid}")
	gone := exec.Command(k.Kubectl(), "--kubeconfig", k.Config(lab.KubeAdmin), "delete", "pod", "buildkitd-1", "--wait", "--timeout=120s")
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	buildHello(t, berth) // the others go on
	r := p.Wait()
	if err := gone.Wait(); err != nil || r.Code != 0 {
		t.Fatalf("the build on a pod that is taken away (%v): exit %d\n%s", err, r.Code, r)
	}
	k.Do(t, "", "wait", "--for=create", "pod/buildkitd-1", "--timeout=60s")
	k.Do(t, "", "wait", "--for=condition=Ready", "pod/buildkitd-1", "--timeout=120s")
	if after := k.Do(t, "", "get", "pod", "buildkitd-1", "-o", "jsonpath={.metadata.uid}"); after == before {
		t.Errorf("the pod %s was not replaced", after)
	}
	if again := berth.OK("build", "--builder", "one", "--progress=plain", context); strings.Count(again.Stderr, "CACHED") < 2 {
		t.Errorf("the new pod has not the old one's cache:\n%s", again.Stderr)
	}
	// The builder that leads to all pods has the records of this one among them.
	known := refsOf(t, berth, "--builder", "buildkitd")
	for _, ref := range refsOf(t, berth, "--builder", "one") {
		if !slices.Contains(known, ref) {
			t.Errorf("the record %s of one pod is not among those of all: %q", ref, known)
			continue
		}
		has(t, "the record", berth.OK("history", "inspect", "--builder", "buildkitd", ref, "--format", "{{.Ref}}").Stdout, ref)
	}
}

// With certificates a client reaches the daemon by TCP, and with a forwarded
// port without any; what else can be printed is what the API server takes.
func TestKubeManifestsTCP(t *testing.T) {
	k := lab.Kubernetes(t)
	kubeVolumes(t, k, 2)
	berth := lab.Berth(t).With("KUBECONFIG=" + k.Config(lab.KubeAdmin))
	berth.OK("certs", "create", "*.tls.default.svc", "localhost")
	create := printed(t, k, berth, "--name", "tls", "--replicas", "1", "--certs", ".certs", "--access", "none", "--drain", "0s")
	forwarded := printed(t, k, berth, "--name", "forwarded", "--replicas", "1", "--access", "port-forward", "--port", "4321", "--drain", "0s")
	for _, name := range []string{"tls", "forwarded"} {
		k.Do(t, "", "rollout", "status", "statefulset/"+name, "--timeout=120s")
	}
	berth.OK(line(strings.Replace(create[0], "tls-0.tls.default.svc:1234", "localhost:"+forward(t, k, "pod/tls-0"), 1))...)
	berth.OK("use", "tls")
	buildHello(t, berth)

	client := berth.With("KUBECONFIG=" + accountConfig(t, k, "forwarded-client"))
	client.OK(line(forwarded[0])...)
	client.OK("use", "forwarded")
	buildHello(t, client)

	all := berth.OK("manifests", "kubernetes", "--name", "all", "--rootless", "--certs", ".certs", "--replicas", "2", "--storage-class", "fast",
		"--requests", "cpu=500m,memory=1Gi", "--limits", "memory=2Gi", "--node-selector", "pool=builds", "--toleration", "builds=only:NoSchedule,spot").Stdout
	has(t, "kubectl", k.Do(t, all, "apply", "--dry-run=server", "--validate=strict", "-f", "-"), "statefulset.apps/all created (server dry run)")
}

func TestKubeManyGuide(t *testing.T) {
	kubeVolumes(t, lab.Kubernetes(t), 3)
	runGuide(t, join(lab.ModuleRoot(t), "docs", "guides", "kubernetes-many.md"))
}
