package builderfile

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/platforms"
)

const whole = `# a comment
version: 1
builders:
  - name: team
    nodes:
      - endpoint: tcp://buildkitd.example:1234
        platforms: [linux/amd64, linux/arm64/v8]
        options:
          cacert: certs/ca.pem
          cert: certs/cert.pem
          key: ~/key.pem
          default-load: true
          connect-timeout: 1m
      - name: by-url
        endpoint: tcp://other.example:1234?tlsdir=certs
      - endpoint: "kube-pod://buildkitd?kubeconfig=kube/config&namespace=ci"
  - name: Local.2
    nodes:
      - endpoint: unix:///run/buildkit/buildkitd.sock
      - endpoint: exec://?cmd=ssh+host+buildctl+dial-stdio
      - endpoint: tcp://pem.example:1234
        certs:
          cacert: |
            -----BEGIN CERTIFICATE-----
            AAAA
            -----END CERTIFICATE-----
          cert: "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
          key: |
            -----BEGIN PRIVATE KEY-----
            CCCC
            -----END PRIVATE KEY-----
`

func parse(t *testing.T, text string) File {
	t.Helper()
	f, err := Parse([]byte(text), Place{File: "berth.yaml", Dir: "/repo"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParse(t *testing.T) {
	f := parse(t, whole)
	if len(f.Builders) != 2 || f.Builders[0].Name != "team" || f.Builders[0].Line != 4 || f.Builders[1].Name != "Local.2" {
		t.Fatalf("%+v", f.Builders)
	}
	team, ok := f.Find("TEAM")
	if !ok || len(team.Nodes) != 3 {
		t.Fatalf("%+v", team)
	}
	n := team.Nodes[0]
	if n.Name != "team0" || n.Endpoint.String() != "tcp://buildkitd.example:1234" || n.Line != 6 {
		t.Errorf("%+v", n)
	}
	want := map[string]string{"cacert": "certs/ca.pem", "cert": "certs/cert.pem", "key": "~/key.pem", "default-load": "true", "connect-timeout": "1m"}
	if !maps.Equal(n.Options, want) {
		t.Errorf("options %v", n.Options)
	}
	if len(n.Platforms) != 2 || platforms.FormatAll(n.Platforms[1]) != "linux/arm64" {
		t.Errorf("platforms %v", n.Platforms)
	}
	if n := team.Nodes[1]; n.Name != "by-url" || n.Options["tlsdir"] != "certs" || n.Endpoint.Query != "" {
		t.Errorf("%+v", n)
	}
	if n := team.Nodes[2]; n.Endpoint.Param("kubeconfig") != filepath.FromSlash("/repo/kube/config") || n.Name != "team2" {
		t.Errorf("%+v", n)
	}
	certs := f.Builders[1].Nodes[2].Certs
	if !strings.Contains(certs.CACert, "AAAA\n") || !strings.Contains(certs.Cert, "BBBB\n") || !strings.Contains(certs.Key.Reveal(), "CCCC\n") {
		t.Errorf("certs %+v", certs)
	}
	if _, ok := f.Find("nosuch"); ok {
		t.Error("found what is not there")
	}
}

// one is a file with one node that has the lines.
func one(lines ...string) string {
	return "version: 1\nbuilders:\n  - name: b\n    nodes:\n      - " + strings.Join(lines, "\n        ") + "\n"
}

func refusals() []struct{ name, text, want string } {
	const ep = "endpoint: unix:///run/b.sock"
	const tcp = "endpoint: tcp://h:1"
	return []struct{ name, text, want string }{
		{"empty", "", "berth.yaml: holds no builders"},
		{"only a comment", "# nothing\n", "berth.yaml: holds no builders"},
		{"syntax", "version: 1\nbuilders: [\n", "line "},
		{"tab", "version: 1\nbuilders:\n\t- name: x\n", "line 3"},
		{"not a mapping", "- a\n", "berth.yaml:1: the file is a list and not a mapping"},
		{"null", "null\n", `berth.yaml:1: the file is "null"`},
		{"no version", "builders: []\n", "berth.yaml:1: version is missing"},
		{"other version", "version: 2\nbuilders: []\n", `berth.yaml:1: version "2" is not known`},
		{"no builders", "version: 1\n", "berth.yaml:1: builders is missing"},
		{"empty builders", "version: 1\nbuilders: []\n", "berth.yaml:2: builders is empty"},
		{"unknown key", "version: 1\nservices: {}\n", `berth.yaml:2: the file has no key "services"`},
		{"unknown builder key", "version: 1\nbuilders:\n  - name: b\n    driver: remote\n", `berth.yaml:4: a builder has no key "driver"`},
		{"unknown node key", one(ep, "endpont: x"), `berth.yaml:6: a node has no key "endpont"`},
		{"no name", "version: 1\nbuilders:\n  - nodes: []\n", "berth.yaml:3: name is missing"},
		{"empty name", "version: 1\nbuilders:\n  - name: ''\n", "berth.yaml:3: name is empty"},
		{"bad name", "version: 1\nbuilders:\n  - name: ../x\n", "berth.yaml:3: invalid name"},
		{"reserved", "version: 1\nbuilders:\n  - name: Default\n", `berth.yaml:3: the name "default" is reserved`},
		{"twice", one(ep) + "  - name: B\n    nodes:\n      - " + ep + "\n", "berth.yaml:6: a builder named B stands on line 3 already"},
		{"no nodes", "version: 1\nbuilders:\n  - name: b\n", "berth.yaml:3: nodes is missing"},
		{"no endpoint", one("name: n"), "berth.yaml:5: endpoint is missing"},
		{"bad endpoint", one("endpoint: localhost"), "berth.yaml:5: endpoint"},
		{"unknown parameter", one("endpoint: tcp://h:1?tls=1"), `berth.yaml:5: endpoint "tcp://h:1?…": driver option "tls" is unknown`},
		{"node twice", one(ep) + "      - name: b0\n        endpoint: unix:///other\n", "berth.yaml:6: a node named b0 stands on line 5 already"},
		{"same endpoint", one(ep) + "      - name: x\n        " + ep + "\n", "berth.yaml:6: node b0 on line 5 is at unix:///run/b.sock already"},
		{"unknown option", one(ep, "options:", "  connect-timeot: 1s"), `berth.yaml:7: driver option "connect-timeot" is unknown`},
		{"bad option", one(ep, "options:", "  default-load: true", "  connect-timeout: 5"), "berth.yaml:8: "},
		{"tls over unix", one(ep, "options:", "  cacert: a.pem"), `berth.yaml:7: driver option "cacert" is for TLS`},
		{"cert without key", one(tcp, "options:", "  cert: a.pem"), `berth.yaml:7: driver option "cert" needs "key"`},
		{"option of two kinds", one(tcp, "options:", "  proxy: [a]"), "berth.yaml:7: option proxy is a list and not a text"},
		{"option null", one(tcp, "options:", "  proxy:"), "berth.yaml:7: option proxy is empty"},
		{"option twice", one("endpoint: tcp://h:1?ca=system", "options:", "  ca: system"), "berth.yaml:7: option ca is in the endpoint's URL, too"},
		{"options a text", one(tcp, "options: cacert=a"), `berth.yaml:6: options is "cacert=a" and not a mapping`},
		{"certs not pem", one(tcp, "certs:", "  cacert: certs/ca.pem"), "berth.yaml:7: certs.cacert is not PEM"},
		{"certs half", one(tcp, "certs:", "  cert: '-----BEGIN CERTIFICATE-----'"), "berth.yaml:7: certs.cert and certs.key belong together"},
		{"certs and option", one(tcp, "options: {cacert: x}", "certs:", "  cacert: '-----BEGIN CERTIFICATE-----'"), "berth.yaml:8: certs.cacert and the option cacert exclude"},
		{"certs over unix", one(ep, "certs:", "  cacert: '-----BEGIN CERTIFICATE-----'"), "is for TLS"},
		{"unknown cert", one(tcp, "certs:", "  ca: x"), `berth.yaml:7: certs has no key "ca"`},
		{"platform", one(ep, "platforms: [x/y/z/a]"), "berth.yaml:6: "},
		{"platforms", one(ep, "platforms: ['linux/amd64,linux/arm64']"), "is not a platform"},
		{"platform of a path", one(ep, "platforms: [0000/.]"), "is not a platform"},
		{"local platform", one(ep, "platforms: [local]"), "is not a platform"},
		{"no platforms", one(ep, "platforms: []"), "berth.yaml:6: platforms is empty"},
		{"key twice", "version: 1\nversion: 1\n", `berth.yaml:2: the key "version" is given twice`},
		{"alias", "version: 1\nbuilders: &a\n  - *a\n", "is an alias"},
		{"merge", one(ep, "<<: {name: x}"), `a node has no key "<<"`},
		{"tag", "version: 1\nbuilders:\n  - name: !!binary YQ==\n", `has the tag "!!binary"`},
		{"documents", one(ep) + "---\nversion: 1\n", "begins a second document"},
		{"complex key", "? [a]\n: b\n", "a key is a word, and not a list"},
		{"not utf-8", "version: 1 # \xff\n", "is not UTF-8"},
		{"control", one(`endpoint: "unix:///a\u001bb"`), "control character"},
	}
}

func TestRefused(t *testing.T) {
	for _, c := range refusals() {
		_, err := Parse([]byte(c.text), Place{File: "berth.yaml", Dir: "/repo"})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// What bombs do elsewhere: grow, nest, be large.
func TestBombs(t *testing.T) {
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		laughs += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 8) + "*" + string(c-1) + "]\n"
	}
	var many strings.Builder
	many.WriteString("version: 1\nbuilders:\n  - name: b\n    nodes:\n")
	for i := range maxNodes + 1 {
		fmt.Fprintf(&many, "      - endpoint: unix:///n%d\n", i)
	}
	if _, err := Parse([]byte(many.String()), Place{File: "f"}); err == nil || !strings.Contains(err.Error(), "at most 256 nodes") {
		t.Errorf("many: %v", err)
	}
	for name, text := range map[string]string{
		"laughs": laughs, "deep": strings.Repeat("[", 500_000), "deep maps": strings.Repeat("{a: ", 100_000),
		"huge": strings.Repeat("#", MaxSize+1),
	} {
		if _, err := Parse([]byte(text), Place{File: "f"}); err == nil {
			t.Errorf("%s is taken", name)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestRemedies(t *testing.T) {
	_, err := Parse([]byte("version: 1\nserver: x\n"), Place{File: "f"})
	if got := hint.Of(err); len(got) != 1 || got[0] != "known are: version, builders" {
		t.Errorf("hints %q", got)
	}
}

func TestPrint(t *testing.T) {
	f := parse(t, whole)
	for i := range f.Builders {
		for j := range f.Builders[i].Nodes {
			n := &f.Builders[i].Nodes[j]
			n.Options = endpoint.Absolute(n.Options, "/repo", "/home/me")
		}
	}
	out, err := Print(f, "/repo", "/home/me")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"version: 1\n", "cacert: certs/ca.pem\n", "key: ~/key.pem\n", `default-load: "true"`, "kubeconfig=kube%2Fconfig",
		"cert: |\n", "platforms: [linux/amd64, linux/arm64]", "$schema=" + SchemaURL,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	// Read elsewhere, it means the same.
	again, err := Parse(out, Place{File: "g", Dir: "/repo"})
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, f, again, "/repo", "/home/me")
}

// sameFile holds two files against each other, without lines and with the paths
// of the second made absolute.
func sameFile(t *testing.T, want, got File, dir, home string) {
	t.Helper()
	strip := func(f File) (all []Builder) {
		for _, b := range f.Builders {
			b.Line = 0
			nodes := b.Nodes
			b.Nodes = nil
			for _, n := range nodes {
				n.Line = 0
				n.Options = endpoint.Absolute(n.Options, dir, home)
				for _, key := range PathOptions() {
					if v := n.Options[key]; v != "" {
						n.Options[key] = filepath.Clean(v)
					}
				}
				n.Certs.CACert += n.Certs.Key.Reveal()
				n.Certs.Key = endpoint.Secret{}
				b.Nodes = append(b.Nodes, n)
			}
			all = append(all, b)
		}
		return all
	}
	if a, b := strip(want), strip(got); !reflect.DeepEqual(a, b) {
		t.Errorf("wanted %+v\ngot    %+v", a, b)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		dir, path, want string
		ok              bool
	}{
		{"/a", "/a/b/c", "b/c", true},
		{"/a", "/ab", "", false},
		{"/a", "/a/../b", "", false},
		{"/a", "/a/..b", "..b", true},
		{"/a", "b", "", false},
		{"", "/a", "", false},
		{"/", "/a", "a", true},
	} {
		if got, ok := Within(c.dir, c.path); got != c.want || ok != c.ok {
			t.Errorf("%s in %s: %q %v", c.path, c.dir, got, ok)
		}
	}
}

// Whatever a file holds, reading it ends with a file that can be written and
// read again, or with an error that is short and names the file.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	for _, c := range refusals() {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data, Place{File: "berth.yaml", Dir: "/repo"})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), "berth.yaml") {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		out, err := Print(file, "/repo", "/home/me")
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out, Place{File: "again", Dir: "/repo"})
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		sameFile(t, file, again, "/repo", "/home/me")
	})
}
