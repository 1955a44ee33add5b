package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/state"
)

// dockerWorld is a service whose docker configuration the test can change.
type dockerWorld struct {
	*Service
	dir, docker string
	env         map[string]string
}

func newDockerWorld(t *testing.T) *dockerWorld {
	t.Helper()
	w := &dockerWorld{dir: t.TempDir(), docker: t.TempDir(), env: map[string]string{}}
	config := func() (*dockerconfig.Config, error) {
		return dockerconfig.Load(dockerconfig.Input{ConfigDir: w.docker, Env: func(k string) string { return w.env[k] }})
	}
	w.Service = &Service{
		Store: state.Open(w.dir), Schemes: schemes.All(dialEnv(config)), Docker: config,
		Key: func() (string, error) {
			c, err := config()
			if err != nil {
				return "", err
			}
			return c.CurrentKey()
		},
	}
	return w
}

// context makes a docker context.
func (w *dockerWorld) context(t *testing.T, name, host string) {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	meta, err := json.Marshal(map[string]any{
		"Name": name, "Metadata": map[string]any{}, "Endpoints": map[string]any{"docker": map[string]any{"Host": host}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, filepath.Join(w.docker, "contexts", "meta", hex.EncodeToString(sum[:]), "meta.json"), string(meta))
}

// instance stores a builder as buildx would.
func (w *dockerWorld) instance(t *testing.T, name, text string) {
	t.Helper()
	w.put(t, filepath.Join(w.dir, "instances", name), text)
}

func (w *dockerWorld) put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rows is what List gives: names, with the chosen one's star.
func (w *dockerWorld) rows(t *testing.T) string {
	t.Helper()
	all, err := w.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range all {
		name := b.Name
		if b.Current {
			name += "*"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func TestContextsAreBuilders(t *testing.T) {
	w := newDockerWorld(t)
	if got := w.rows(t); got != "default*" {
		t.Errorf("without anything: %s", got)
	}
	w.context(t, "zeta", "unix:///z.sock")
	w.context(t, "alpha", "unix:///a.sock")
	w.instance(t, "own", `{"Name":"own","Driver":"remote","Nodes":[{"Name":"own0","Endpoint":"unix:///o.sock"}]}`)
	w.instance(t, "zeta", `{"Name":"zeta","Driver":"remote","Nodes":[{"Name":"zeta0","Endpoint":"unix:///o.sock"}]}`)
	if got := w.rows(t); got != "own zeta default* alpha" {
		t.Errorf("a stored builder hides a context of its name, and comes first: %s", got)
	}
	w.env["DOCKER_CONTEXT"] = "alpha"
	if got := w.rows(t); got != "own zeta default alpha*" {
		t.Errorf("in another context: %s", got)
	}
	w.env["DOCKER_CONTEXT"] = "gone"
	if got := w.rows(t); got != "own zeta default alpha gone*" {
		t.Errorf("in a context that is not there: %s", got)
	}
	if err := w.Use(t.Context(), "own", UseOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := w.rows(t); got != "own* zeta default alpha gone" {
		t.Errorf("after use: %s", got)
	}
	w.put(t, filepath.Join(w.docker, "contexts", "meta", "x", "meta.json"), "garbage")
	all, err := w.List(t.Context())
	if last := all[len(all)-1]; err != nil || last.Err == nil || !strings.Contains(last.Err.Error(), "meta.json") {
		t.Errorf("a context that cannot be read: %v, %+v", err, last)
	}
}

func TestFindContexts(t *testing.T) {
	w := newDockerWorld(t)
	w.context(t, "we+ird", "unix:///a.sock")
	for _, c := range []struct{ name, want string }{{"", "default"}, {"default", "default"}, {"we+ird", "we+ird"}} {
		b, err := w.Find(t.Context(), c.name)
		if err != nil {
			t.Errorf("%q: %v", c.name, err)
			continue
		}
		n := b.Nodes[0]
		if b.Name != c.want || b.Driver != DriverDocker || n.Name != c.want || n.Endpoint != c.want || b.Current != (c.name == "") {
			t.Errorf("%q: %+v", c.name, b)
		}
		target, err := n.Target()
		if err != nil || target.Endpoint != endpoint.DockerEngine(c.want) || target.Options.ConnectTimeout != engineBudget {
			t.Errorf("%q: target %+v, %v", c.name, target, err)
		}
		if (len(target.Tries) > 0) != (c.name == "") {
			t.Errorf("%q: hints %q", c.name, target.Tries)
		}
	}
	for _, name := range []string{"missing", "mis+sing", "../x"} {
		if _, err := w.Find(t.Context(), name); err == nil {
			t.Errorf("%q was found", name)
		}
	}
	w.Docker = nil
	if _, err := w.Find(t.Context(), ""); err == nil || len(hint.Of(err)) == 0 {
		t.Errorf("without docker: %v", err)
	}
}

func TestUseAndRemoveContexts(t *testing.T) {
	w := newDockerWorld(t)
	w.context(t, "ctx", "unix:///a.sock")
	w.instance(t, "own", `{"Name":"own","Driver":"remote","Nodes":[{"Name":"own0","Endpoint":"unix:///o.sock"}]}`)
	use := func(name string) error { return w.Use(t.Context(), name, UseOptions{}) }
	if err := use("own"); err != nil {
		t.Fatal(err)
	}
	if err := use("ctx"); err == nil || !slices.Contains(hint.Of(err), "choose the context: docker context use ctx") {
		t.Errorf("use of a context that is not in force: %v", err)
	}
	if err := use("default"); err != nil {
		t.Fatal(err)
	}
	if got := w.rows(t); got != "own default* ctx" {
		t.Errorf("use default: %s", got)
	}
	w.env["DOCKER_CONTEXT"] = "ctx"
	if err := use("default"); err == nil {
		t.Error("use default, in another context, was taken")
	}
	if err := use("ctx"); err != nil {
		t.Error(err)
	}
	if err := w.Remove(t.Context(), "ctx"); err == nil || !slices.Contains(hint.Of(err), "docker context rm ctx") {
		t.Errorf("rm of a context: %v", err)
	}
	if _, err := w.Create(t.Context(), CreateOptions{Name: "ctx", Endpoint: "unix:///x.sock"}); err == nil ||
		err.Error() != `instance name "ctx" already exists as context builder` {
		t.Errorf("create with a context's name: %v", err)
	}
}

func TestBundled(t *testing.T) {
	for host, want := range map[string]string{
		"Docker/20.10.24+dfsg1 (linux)": "v0.8+unknown", "Docker/23.0.1 (linux)": "v0.10+unknown", "Docker/19.03.15 (linux)": "v0.6+unknown",
		"Docker/28.0.0 (linux)": "", "Docker/20": "", "Libpod/20.10.0": "", "": "",
	} {
		if got := bundled(host); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}

func TestAdopt(t *testing.T) {
	w := newDockerWorld(t)
	w.env["DOCKER_HOST"] = "unix:///run/d.sock"
	w.context(t, "far", "tcp://far.example:2375")
	for _, c := range []struct{ node, want string }{
		{`"Name":"x0","Endpoint":"far"`, "docker-container://buildx_buildkit_x0?context=far"},
		{`"Name":"x0","Endpoint":"unix:///run/d.sock"`, "docker-container://buildx_buildkit_x0?context=default"},
		{`"Name":"x0","Endpoint":"tcp://far.example:2375"`, "docker-container://buildx_buildkit_x0?context=far"},
		{`"Name":"x0","Endpoint":""`, "docker-container://buildx_buildkit_x0?context=default"},
	} {
		w.instance(t, "x", `{"Name":"x","Driver":"docker-container","Nodes":[{`+c.node+`,"DriverOpts":{"image":"any","network":"host"},"Flags":["--debug"]}]}`)
		target := mustTarget(t, w.Service, "x")
		if got := target.Endpoint.String(); got != c.want {
			t.Errorf("%s: dialled at %s, want %s", c.node, got, c.want)
		}
		if !slices.ContainsFunc(target.Tries, func(h string) bool { return strings.Contains(h, " start buildx_buildkit_x0") }) {
			t.Errorf("hints: %q", target.Tries)
		}
	}
	w.instance(t, "lost", `{"Name":"lost","Driver":"docker-container","Nodes":[{"Name":"lost0","Endpoint":"tcp://u:hunter2@gone:1"}]}`)
	b, err := w.Find(t.Context(), "lost")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Nodes[0].Target(); err == nil || strings.Contains(err.Error(), "hunter2") || len(hint.Of(err)) == 0 {
		t.Errorf("an engine of no context: %v", err)
	}
	if got := Left(b); len(got) != 1 || got[0] != "docker rm -f -v buildx_buildkit_lost0" {
		t.Errorf("left: %q", got)
	}
}

func TestAdoptKubernetes(t *testing.T) {
	w := newDockerWorld(t)
	for _, c := range []struct{ endpoint, opts, want, left string }{
		{"kubernetes:///k?deployment=k_0&kubeconfig=", `{}`, "kube-deployment://k-0", "kubectl delete deployment k-0"},
		{
			"kubernetes:///k?deployment=k_0&kubeconfig=%2Fhome%2Fme%2Fkc", `{"namespace":"ns","replicas":"2"}`, "kube-deployment://k-0?kubeconfig=%2Fhome%2Fme%2Fkc&namespace=ns",
			"kubectl --kubeconfig /home/me/kc --namespace ns delete deployment k-0",
		},
		{"kubernetes:///k?deployment=k_0&kubeconfig=%2Fa%3A%2Fb", `{"persistent-volume-claim.requests.storage":"1Gi"}`, "kube-statefulset://k-0", "kubectl delete statefulset k-0"},
	} {
		w.instance(t, "k", `{"Name":"k","Driver":"kubernetes","Nodes":[{"Name":"k_0","Endpoint":"`+c.endpoint+`","DriverOpts":`+c.opts+`}]}`)
		if got := mustTarget(t, w.Service, "k").Endpoint.String(); got != c.want {
			t.Errorf("%s: dialled at %s, want %s", c.endpoint, got, c.want)
		}
		b, err := w.Find(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if got := Left(b); len(got) != 1 || got[0] != c.left {
			t.Errorf("left: %q", got)
		}
	}
}

// A builder may mix schemes, and have several nodes on one host.
func TestMixedSchemes(t *testing.T) {
	w := newDockerWorld(t)
	for i, e := range []string{
		"unix:///a.sock", "unix:///b.sock", "tcp://one.example:1", "tcp://one.example:2",
		"docker-container://c", "docker-container://d", "docker-container://c?context=far", "ssh://one.example", "kube-pod://p",
	} {
		o := CreateOptions{Name: "mixed", Endpoint: e, Append: i > 0}
		if strings.HasPrefix(e, "tcp://") {
			o.DriverOpts = []string{"servername=x.example"}
		}
		if _, err := w.Create(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
	}
	b, err := w.Find(t.Context(), "mixed")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range b.Nodes {
		if target, err := n.Target(); err != nil || target.Endpoint.String() != n.Endpoint {
			t.Errorf("%s: %v, %v", n.Endpoint, target, err)
		}
	}
	if _, err := w.Create(t.Context(), CreateOptions{Name: "mixed", Endpoint: "docker-container://d", Append: true}); err == nil {
		t.Error("the same daemon twice")
	}
}

func TestNodeFor(t *testing.T) {
	amd := buildkittest.New(t, buildkittest.Options{Network: "unix", Workers: []buildkittest.Worker{{ID: "a", Platforms: []string{"linux/amd64"}}}})
	arm := buildkittest.New(t, buildkittest.Options{Network: "unix", Workers: []buildkittest.Worker{{ID: "b", Platforms: []string{"linux/arm64"}}}})
	w := newDockerWorld(t)
	fixed := endpoint.DockerEngine("x") // is never dialled
	b := &Builder{Name: "b", Nodes: []Node{
		{Builder: "b", Name: "b0", Driver: DriverRemote, Endpoint: amd.Endpoint()},
		{Builder: "b", Name: "b1", Driver: DriverRemote, Endpoint: arm.Endpoint()},
		{Builder: "b", Name: "b2", Driver: DriverDocker, reach: fixed, Platforms: platformsOf("linux/s390x")},
	}}
	for _, c := range []struct{ platform, want string }{{"", "b0"}, {"linux/arm64", "b1"}, {"linux/amd64", "b0"}, {"linux/s390x", "b2"}} {
		n, err := w.NodeFor(t.Context(), b, onePlatformOf(c.platform), ProbeOptions{Once: true})
		if err != nil || n.Name != c.want {
			t.Errorf("%s: %s, %v; want %s", c.platform, n.Name, err, c.want)
		}
	}
	b.Nodes = b.Nodes[:2]
	if _, err := w.NodeFor(t.Context(), b, onePlatformOf("linux/riscv64"), ProbeOptions{Once: true}); err == nil || len(hint.Of(err)) == 0 {
		t.Errorf("a platform that nobody offers: %v", err)
	}
	b.Nodes[1].Endpoint = "unix:///nowhere.sock"
	if _, err := w.NodeFor(t.Context(), b, onePlatformOf("linux/riscv64"), ProbeOptions{Once: true}); err == nil || !strings.Contains(err.Error(), "no such socket") {
		t.Errorf("a node that may be the one does not answer: %v", err)
	}
	if _, err := w.NodeFor(t.Context(), &Builder{Name: "e"}, nil, ProbeOptions{}); err == nil {
		t.Error("a builder without nodes has one")
	}
}
