package compose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
)

func inFile(text string) []eval.File { return []eval.File{{Name: "compose.yaml", Data: []byte(text)}} }

// bombs are files that would cost more than they should.
func bombs() map[string]string {
	laughs := func(leaf string, levels int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "x-0: &a0 %s\n", leaf)
		for i := 1; i <= levels; i++ {
			fmt.Fprintf(&b, "x-%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
		}
		return b.String() + "services: {a: {build: .}}\n"
	}
	var merged strings.Builder
	merged.WriteString("x-0: &m0 {k0: v}\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&merged, "x-%d: &m%d {k%d: {<<: *m%d}, l%d: {<<: *m%d}}\n", i, i, i, i-1, i, i-1)
	}
	var chain strings.Builder
	chain.WriteString("services:\n  s0: {build: {context: ., args: {A0: 0}}}\n")
	for i := 1; i < 5000; i++ {
		fmt.Fprintf(&chain, "  s%d: {extends: s%d, build: {args: {A%d: 0}}}\n", i, i-1, i)
	}
	return map[string]string{
		"laughs":          laughs("lol", 9),
		"laughs of texts": laughs(strings.Repeat("x", 10_000), 3),
		"laughs of reset": laughs("!reset x", 4),
		"merges":          merged.String() + "services: {a: {build: .}}\n",
		"deep":            "services: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"deeper":          "services: " + strings.Repeat("{a: ", 200_000),
		"long":            "x: " + strings.Repeat("y", maxFile),
		"variables":       "services: {a: {image: \"" + strings.Repeat("${A:-", 40_000) + strings.Repeat("}", 40_000) + "\"}}",
		"dollars":         "services: {a: {image: \"" + strings.Repeat("$", 1_000_000) + "\"}}",
		"ports":           "services: {a: {build: ., ports: [" + strings.Repeat(`"1-65535", `, 100) + "]}}",
		"ports hidden":    "services: {a: {build: ., ports: [" + strings.Repeat(`"${A:-1}-65535", `, 100) + "]}}",
		"extends":         chain.String(),
		"itself":          "x: &a [*a]\nservices: {a: {build: .}}",
	}
}

// No file costs more than a moment, whatever it says.
func TestBombs(t *testing.T) {
	for name, text := range bombs() {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Load(t.Context(), Input{Files: inFile(text)})
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if err == nil {
				t.Error("no error")
			} else if len(err.Error()) > 3000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestLimitsAreNamed(t *testing.T) {
	for name, want := range map[string]string{
		"laughs":          "200000 values, with what its aliases stand for",
		"laughs of texts": "8388608 bytes in its values",
		"laughs of reset": "1000 !reset and !override",
		"deep":            "100 lists and mappings within each other",
		"variables":       "16777216 variables in long lines",
		"ports":           "200000 ports in ranges",
		"ports hidden":    "200000 ports in ranges",
		"extends":         "2000000 values, with what its services extend",
	} {
		_, err := Load(t.Context(), Input{Files: inFile(bombs()[name])})
		var limit *LimitError
		if !errors.As(err, &limit) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	large := Input{Files: inFile("services: {a: {build: {context: ., tags: [" + strings.Repeat("$V, ", 1000) + "]}}}"), Env: map[string]string{"V": strings.Repeat("v", 100_000)}}
	var limit *LimitError
	if _, err := Load(t.Context(), large); !errors.As(err, &limit) {
		t.Errorf("variables: %v", err)
	}
}

// Nobody waits for the library when the context has ended.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stop")
	cancel(cause)
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "  s%d: {build: {context: ., args: {A: 1}}}\n", i)
	}
	if _, err := Load(ctx, Input{Files: inFile(b.String())}); !errors.Is(err, cause) {
		t.Error(err)
	}
	in := Input{Files: inFile("include: [x.yaml]"), Read: os.ReadFile, MayRead: func(name string) error { t.Error("asked for", name); return nil }}
	if _, err := Load(ctx, in); !errors.Is(err, cause) {
		t.Error(err)
	}
}

// What a definition from elsewhere refers to is not read.
func TestElsewhere(t *testing.T) {
	for _, text := range []string{
		"services: {a: {build: ., extends: {service: b, file: /etc/passwd}}}",
		"services: {a: {build: .}}\ninclude: [/etc/passwd]",
		"services: {a: {build: .}}\ninclude: [{path: x, env_file: /etc/passwd}]",
		"x: &i {service: b, file: other.yaml}\nservices: {a: {build: ., extends: *i}}",
		"x: &i {extends: {service: b, file: other.yaml}}\nservices: {a: {build: ., <<: *i}}",
	} {
		_, err := Load(t.Context(), Input{Files: inFile(text), Read: os.ReadFile})
		if err == nil || !strings.Contains(err.Error(), "reads no file of this machine") {
			t.Errorf("%s: %v", text, err)
		}
	}
	dir := t.TempDir()
	env := filepath.Join(dir, "env")
	write(t, env, "SECRET=s\n")
	def, err := Load(t.Context(), Input{Files: inFile("services: {a: {env_file: " + env + ", label_file: " + env + ", build: {context: ., args: [SECRET]}}}"), Read: os.ReadFile})
	if err != nil || def.Targets[0].Args["SECRET"] != nil {
		t.Error(def, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Everything that is read was asked for before, also what others refer to.
func TestReferredFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "sub/compose.yaml", "include: [more/c.yaml]\nservices: {inc: {build: ./x, env_file: inc.env}}")
	write(t, "sub/more/c.yaml", "services: {deep: {build: ., extends: {service: base, file: ../../base/b.yaml}}}")
	write(t, "base/b.yaml", "services: {base: {build: {context: ctx, args: {FROM: base}}}}")
	write(t, "sub/inc.env", "E=inc\n")
	write(t, "own.env", "OWN=own\n")
	var asked []string
	in := Input{
		Files: inFile("include: [sub/compose.yaml]\nservices: {a: {env_file: own.env, build: {context: ., args: [OWN]}}}"),
		Read:  os.ReadFile, MayRead: func(name string) error { asked = append(asked, filepath.Clean(name)); return nil },
	}
	def, err := Load(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub/compose.yaml", "sub/more/c.yaml", "base/b.yaml", "sub/inc.env", "own.env", "sub/.env"} {
		if !strings.Contains("\n"+strings.Join(asked, "\n")+"\n", "\n"+name+"\n") {
			t.Errorf("%s was not asked for: %q", name, asked)
		}
	}
	args := map[string]string{}
	for _, target := range def.Targets {
		for k, v := range target.Args {
			args[target.Name+"."+k] = *v
		}
	}
	if args["a.OWN"] != "own" || args["deep.FROM"] != "base" {
		t.Error(args)
	}
	refused := errors.New("not that")
	in.MayRead = func(name string) error {
		if strings.HasSuffix(name, "base/b.yaml") {
			return refused
		}
		return nil
	}
	if _, err := Load(t.Context(), in); !errors.Is(err, refused) {
		t.Error(err)
	}
	in.MayRead = func(string) error { return nil }
	in.Files = inFile("services: {a: {build: ., extends: {service: b, file: nosuch.yaml}}}")
	if _, err := Load(t.Context(), in); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// The paths of a file lead from where it is, however it was reached. (Compose's own
// loader counts the folders of an include within an include twice.)
func TestIncludeWithinInclude(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "sub/deep/two.yaml", "services: {two: {build: {context: ./ctx, args: [E]}, env_file: ../some.env}}")
	write(t, "sub/inc.yaml", "include: [deep/two.yaml]\nservices: {inc: {build: ./inc, extends: two}}")
	write(t, "sub/some.env", "E=env\n")
	for _, text := range []string{"include: [sub/inc.yaml]", "include: [sub/inc.yaml, sub/deep/two.yaml, sub/inc.yaml]"} {
		var asked []string
		def, err := Load(t.Context(), Input{Files: inFile(text), Read: os.ReadFile, MayRead: func(name string) error {
			asked = append(asked, name)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		inc, two := def.Targets[0], def.Targets[1]
		if *inc.Context != "sub/inc" || *two.Context != "sub/deep/ctx" || *two.Args["E"] != "env" || *inc.Args["E"] != "env" {
			t.Error(*inc.Context, *two.Context, two.Args, inc.Args)
		}
		if asked[len(asked)-1] != "sub/some.env" {
			t.Error(asked)
		}
	}
}

// What extends over files comes to is bounded as well.
func TestExtendsOverFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "base.yaml", "services: {base: {build: {context: ., platforms: ["+strings.Repeat("p, ", 20_000)+"]}}}")
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "  s%d: {extends: {file: base.yaml, service: base}}\n", i)
	}
	var limit *LimitError
	_, err := Load(t.Context(), Input{Files: inFile("services:\n" + b.String()), Read: os.ReadFile, MayRead: func(string) error { return nil }})
	if !errors.As(err, &limit) {
		t.Error(err)
	}
}

// An error names the file, the service and the key.
func TestWhatIsWrongIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"services: {a: {build: {context: ., nosuch: 1}}}":               `compose.yaml: service a: build: unknown key "nosuch"`,
		"services: {a: {build: {context: ., platforms: linux}}}":        `compose.yaml: service a: build: platforms: it is a text, not a list`,
		"services: {a: {build: {context: ., args: {A: [1]}}}}":          `compose.yaml: service a: build: args: A: it is a list, not a text`,
		"services: {a: {build: {context: ., ulimits: {n: {soft: 1}}}}}": `compose.yaml: service a: build: ulimits: n: it has no hard`,
		"services: {a: {build: {context: 1}}}":                          `compose.yaml: service a: build: context: it is a number, not a text`,
		"services: {a: {build: ., image: [x]}}":                         `compose.yaml: service a: image: it is a list, not a text`,
		"services: {a: {build: .}}\nsecrets: {s: {nosuch: 1}}":          `compose.yaml: secret s: unknown key "nosuch"`,
		"services: {'a b': {build: .}}":                                 `compose.yaml: service "a b": invalid name`,
		"services: {a: {build: {context: ., x-bake: {tags: [[1]]}}}}":   `compose.yaml: service a: x-bake: tags: a value is a []interface {}, not a text`,
	} {
		if _, err := Load(t.Context(), Input{Files: inFile(text)}); err == nil || err.Error() != want {
			t.Errorf("%s\n%v\nwanted: %s", text, err, want)
		}
	}
}

// The library takes some values for what they are not.
func TestOddValues(t *testing.T) {
	for _, text := range []string{
		"services: {a: {build: ., extends: {service: b, file: 1}}}", "services: {a: 1}", "services: [1]", "- 1", "text", "null", "{}", "\x00",
		"services: {a: {build: {context: ., x-bake: 1}}}", "services: {a: {build: {context: ., x-bake: {pull: 1}}}}",
		"services: {a: {build: {context: ., x-bake: {contexts: [1]}}}}", "services: {a: {build: {context: ., x-bake: {tags: {a: 1}}}}}",
		"services: {a: {build: {context: ., x-bake: {contexts: {a: [1]}}}}}", "include: [1]", "include: [{path: 1}]", "include: {}",
		"services: {a: {env_file: [1]}}", "services: {a: {build: {context: ., secrets: [{source: ''}]}}}\nsecrets: {'': {file: x}}",
	} {
		_, err := Load(t.Context(), Input{Files: inFile(text), Read: os.ReadFile, MayRead: func(string) error { return nil }})
		if err == nil || !strings.Contains(err.Error(), "compose.yaml") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestUnsetVariablesAreTold(t *testing.T) {
	def, err := Load(t.Context(), Input{Files: inFile("services: {a: {image: \"$UNSET${ALSO}${DFLT:-}${DASH-x}$$NOT${SET}\", build: .}}"), Env: map[string]string{"SET": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range def.Warnings {
		got = append(got, w.String())
	}
	if len(got) != 2 || !strings.Contains(got[0], `"ALSO"`) || !strings.Contains(got[1], `"UNSET"`) {
		t.Error(got)
	}
}

func TestIs(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"x.yaml", "", true}, {"x.YML", "", true}, {"x.json", "services: {}", false}, {"x.hcl", "services: {}", false},
		{"-", "services: {}", true}, {"-", "x: 1\nservices: {}", true}, {"-", "include: [a]", true}, {"-", `{"services": {}}`, true},
		{"-", `{"target": {"services": {}}}`, false}, {"-", `target "services" {}`, false}, {"-", "", false}, {"-", "services = 1", false},
		{"-", "# services: x\ntarget \"a\" {}\n", false}, {"-", "services", false}, {"-", "---\nx: services\n---\nservices: {}", true},
	} {
		if got := Is(c.name, []byte(c.text)); got != c.want {
			t.Errorf("%s %q: %v", c.name, c.text, got)
		}
	}
}

func TestDotEnv(t *testing.T) {
	got, err := DotEnv([]byte("A=1\nB=$A-$C\nC='x'\n"), map[string]string{"C": "env"})
	if err != nil || got["B"] != "1-env" {
		t.Error(got, err)
	}
	var limit *LimitError
	if _, err := DotEnv([]byte("A="+strings.Repeat("$", 1<<20)), nil); !errors.As(err, &limit) {
		t.Error(err)
	}
	if hint.Of(err) != nil {
		t.Error(hint.Of(err))
	}
}
