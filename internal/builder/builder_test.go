package builder

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/state"
)

// What buildx writes: a name in upper case, a driver of its own.
const (
	container = `{"Name":"Box","Driver":"docker-container","Nodes":[{"Name":"Box0","Endpoint":"unix:///var/run/docker.sock","Platforms":null,"DriverOpts":{"network":"host"},"Flags":["--debug"],"Files":null}],"Dynamic":false}`
	foreign   = `{"Name":"far","Driver":"remote","Nodes":[{"Name":"far0","Endpoint":"tcp://far.example:1234","Platforms":[{"architecture":"arm64","os":"linux"}],"DriverOpts":{"cacert":"/ca.pem"},"Flags":null,"Files":{"a":"Yg=="}}],"Dynamic":false}`
)

func TestList(t *testing.T) {
	s, dir := service(t)
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("an empty folder: %v, %v", all, err)
	}
	create(t, s, CreateOptions{Name: "zed", Endpoint: "unix:///z.sock"}, CreateOptions{Name: "abe", Endpoint: "unix:///a.sock", Use: true})
	write(t, filepath.Join(dir, "instances", "box"), container)
	write(t, filepath.Join(dir, "instances", "broken"), "{")
	all, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names, chosen []string
	for _, b := range all {
		names = append(names, b.Name)
		if b.Current {
			chosen = append(chosen, b.Name)
		}
		var damage *state.Damage
		if got := errors.As(b.Err, &damage); got != (b.Name == "broken") {
			t.Errorf("%s: error %v", b.Name, b.Err)
		}
	}
	equal(t, "names", names, []string{"abe", "Box", "broken", "zed"})
	equal(t, "current", chosen, []string{"abe"})
	if b := all[1]; b.Driver != "docker-container" || b.Nodes[0].DriverOpts["network"] != "host" || b.Nodes[0].Flags[0] != "--debug" {
		t.Errorf("buildx's own builder: %+v", b)
	}
}

// Which one is chosen cannot be told; the builders are listed all the same.
func TestListWithoutCurrent(t *testing.T) {
	s, dir := service(t)
	create(t, s, CreateOptions{Name: "a", Endpoint: "unix:///a.sock", Use: true})
	write(t, filepath.Join(dir, "current"), "garbage")
	all, err := s.List(t.Context())
	if len(all) != 1 || all[0].Current || err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "current")) {
		t.Errorf("damaged: %v, %v", all, err)
	}
	if _, err := s.Find(t.Context(), ""); err == nil {
		t.Error("a builder was chosen out of garbage")
	}
	find(t, s, "a") // a named one needs no choice
	cause := errors.New("docker's configuration is garbage")
	s.Key = func() (string, error) { return "", cause }
	if all, err := s.List(t.Context()); len(all) != 1 || !errors.Is(err, cause) {
		t.Errorf("no key: %v, %v", all, err)
	}
	find(t, s, "a")
}

func TestFind(t *testing.T) {
	s, dir := service(t)
	for _, name := range []string{"", Reserved} {
		if _, err := s.Find(t.Context(), name); err == nil || len(hint.Of(err)) == 0 {
			t.Errorf("%q with nothing chosen: %v", name, err)
		}
	}
	_, err := s.Find(t.Context(), "nosuch")
	if !errors.Is(err, state.ErrNotFound) || err.Error() != `no builder "nosuch" found` || len(hint.Of(err)) == 0 {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.Find(t.Context(), "../x"); !errors.Is(err, state.ErrInvalidName) {
		t.Errorf("bad name: %v", err)
	}
	write(t, filepath.Join(dir, "instances", "broken"), "{")
	var damage *state.Damage
	if _, err := s.Find(t.Context(), "broken"); !errors.As(err, &damage) {
		t.Errorf("damaged: %v", err)
	}
	write(t, filepath.Join(dir, "instances", "far"), foreign)
	if b := find(t, s, "FAR"); b.Name != "far" || b.Current || b.Nodes[0].Builder != "far" || string(b.Nodes[0].Files["a"]) != "b" {
		t.Errorf("buildx's builder: %+v", b)
	}
	if err := s.Use(t.Context(), "Far", UseOptions{}); err != nil {
		t.Fatal(err)
	}
	if b := find(t, s, ""); b.Name != "far" || !b.Current {
		t.Errorf("chosen: %+v", b)
	}
}

func TestUse(t *testing.T) {
	s, _ := service(t)
	key := "one"
	s.Key = func() (string, error) { return key, nil }
	create(t, s, CreateOptions{Name: "a", Endpoint: "unix:///a.sock"}, CreateOptions{Name: "b", Endpoint: "unix:///b.sock"})
	chosen := func(want string) {
		t.Helper()
		b, err := s.Find(t.Context(), "")
		switch {
		case want == "" && err == nil:
			t.Errorf("key %s chooses %s", key, b.Name)
		case want != "" && (err != nil || b.Name != want):
			t.Errorf("key %s: %v, %v; want %s", key, b, err, want)
		}
	}
	use := func(name string, o UseOptions) {
		t.Helper()
		if err := s.Use(t.Context(), name, o); err != nil {
			t.Fatal(err)
		}
		if name != Reserved {
			chosen(name)
		}
	}
	use("a", UseOptions{})
	key = "two"
	chosen("")
	use("b", UseOptions{Default: true})
	key = "one"
	use("a", UseOptions{})
	key = "two"
	chosen("b") // the default lasts
	use("a", UseOptions{Global: true})
	key = "three"
	chosen("a")
	use(Reserved, UseOptions{})
	chosen("")
	if err := s.Use(t.Context(), "nosuch", UseOptions{}); !errors.Is(err, state.ErrNotFound) || !strings.HasPrefix(err.Error(), `no builder "nosuch" found`) {
		t.Errorf("missing: %v", err)
	}
	cause := errors.New("no key")
	s.Key = func() (string, error) { return "", cause }
	if err := s.Use(t.Context(), "a", UseOptions{}); !errors.Is(err, cause) {
		t.Errorf("no key: %v", err)
	}
}

func TestRemove(t *testing.T) {
	s, dir := service(t)
	create(t, s, CreateOptions{Name: "a", Endpoint: "unix:///a.sock", Use: true})
	if err := s.Store.SaveRef(t.Context(), "a", "a0", "id", state.Ref{Target: "default"}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "instances", "broken"), "{")
	for _, name := range []string{"A", "broken"} {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for path := range files(t, dir) {
		if strings.Contains(path, "instances") || strings.Contains(path, "activity") || strings.Contains(path, "a0") {
			t.Errorf("left: %s", path)
		}
	}
	if err := s.Remove(t.Context(), "a"); !errors.Is(err, state.ErrNotFound) || err.Error() != `no builder "a" found` {
		t.Errorf("again: %v", err)
	}
	if err := s.Remove(t.Context(), Reserved); err == nil || errors.Is(err, state.ErrNotFound) {
		t.Errorf("default: %v", err)
	}
}

func TestTarget(t *testing.T) {
	good := Node{Builder: "b", Name: "b0", Driver: DriverRemote, Endpoint: "tcp://h:1", DriverOpts: map[string]string{"servername": "x"}}
	target, err := good.Target()
	if err != nil || target.Builder != "b" || target.Node != "b0" || target.Options.ServerName != "x" || target.Endpoint.String() != "tcp://h:1" {
		t.Errorf("%+v, %v", target, err)
	}
	for want, spoil := range map[string]func(*Node){
		"docker-container driver": func(n *Node) { n.Driver = "docker-container" },
		"tcp://":                  func(n *Node) { n.Endpoint = "tcp://h" },
		"nonsense":                func(n *Node) { n.DriverOpts = map[string]string{"nonsense": "1"} },
	} {
		n := good
		spoil(&n)
		_, err := n.Target()
		if err == nil || !strings.HasPrefix(err.Error(), "node b0 of builder b: ") || !strings.Contains(err.Error(), want) || len(hint.Of(err)) == 0 {
			t.Errorf("%s: %v, %q", want, err, hint.Of(err))
		}
	}
}
