package compose

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
)

var all = flag.Bool("all", false, "hold all values of all keys against the library, not a fifth of them")

// byLibrary is what Compose's own loader makes of the files, with its schema. The
// product has neither: what they import costs every command a start twice as long.
func byLibrary(t *testing.T, in Input) (def *eval.Definition, err error) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	s := newScan(in)
	for _, f := range in.Files {
		if _, err := s.file(f.Data, ""); err != nil {
			return nil, err
		}
	}
	details := types.ConfigDetails{Environment: maps.Clone(in.Env)}
	if details.Environment == nil {
		details.Environment = map[string]string{}
	}
	for _, f := range in.Files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: f.Name, Content: append([]byte{}, f.Data...)})
	}
	options := func(o *loader.Options) {
		name := in.Env["COMPOSE_PROJECT_NAME"]
		if name == "" {
			name = "bake"
		}
		o.SetProjectName(name, false)
		o.SkipNormalization, o.SkipValidation, o.SkipConsistencyCheck = true, true, true
		o.SkipInclude = in.MayRead == nil
		o.SkipResolveEnvironment = in.MayRead == nil
		o.SkipResolveLabels = true
		o.Profiles = []string{"*"}
		o.Interpolate.Substitute = s.substitute
	}
	all, err := loader.LoadModelWithContext(t.Context(), details, options)
	if err != nil {
		return nil, err
	}
	kept := map[string]any{}
	if v, ok := all["secrets"]; ok {
		kept["secrets"] = v
	}
	if services, ok := all["services"].(map[string]any); ok {
		out := map[string]any{}
		for name, v := range services {
			one := map[string]any{}
			service, _ := v.(map[string]any)
			for _, key := range []string{"image", "build", "environment", "env_file"} {
				if v, ok := service[key]; ok {
					one[key] = v
				}
			}
			out[name] = one
		}
		kept["services"] = out
	}
	if len(kept) == 0 {
		return nil, errors.New("empty compose file")
	}
	if err := schema.Validate(kept); err != nil {
		return nil, err
	}
	project, err := loader.ModelToProject(kept, loader.ToOptions(&details, []func(*loader.Options){options}), details)
	if err != nil {
		return nil, err
	}
	return define(in, project, s.warnings())
}

// agree holds ours against the library's. Ours may take what it refuses only in
// what no build is told by.
func agree(t *testing.T, in Input, strictly bool) {
	t.Helper()
	ours, err := Load(t.Context(), in)
	theirs, libErr := byLibrary(t, in)
	text := func(d *eval.Definition) string {
		data, err := json.MarshalIndent(d, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	switch {
	case libErr == nil && err != nil:
		t.Errorf("%s\nrefused: %v", in.Files[0].Data, err)
	case libErr != nil && err == nil && strictly:
		t.Errorf("%s\nis refused by the library: %v", in.Files[0].Data, libErr)
	case err == nil && libErr == nil && text(ours) != text(theirs):
		t.Errorf("%s\nours:\n%s\nlibrary's:\n%s", in.Files[0].Data, text(ours), text(theirs))
	}
}

// inBuild are values that keys of a build section have, right and wrong ones.
func inBuild() []string {
	keys := []string{
		"context", "dockerfile", "dockerfile_inline", "entitlements", "args", "ssh", "labels", "cache_from", "cache_to", "no_cache", "no_cache_filter",
		"additional_contexts", "network", "provenance", "sbom", "pull", "target", "shm_size", "extra_hosts", "isolation", "privileged", "secrets",
		"tags", "ulimits", "platforms", "x-more", "nosuch",
	}
	values := []string{
		"", "text", "''", "1", "-1", "1.5", "true", "'yes'", "'true'", "2001-01-01", "[]", "{}", "[a]", "[a, a]", "[a=b]", "[a=b, a=c]", "['a:1', 'b=2']", "[1]", "[true]",
		"[null]", "[[a]]", "[{a: b}]", "{a: b}", "{a: 1}", "{a: 1.5}", "{a: null}", "{a: true}", "{a: [b, c]}", "{a: [1]}", "{a: {b: c}}", "{'': a}", "{1: a}",
		"{a: 2001-01-01}", "[default]", "{a: {soft: 1, hard: 2}}", "{a: {soft: 1}}", "{a: {soft: '1', hard: 2}}", "{a: {soft: 1, hard: 2, x-y: 1}}", "{a: '3'}",
		"[{source: s}]", "[{source: s, target: t, uid: '1', gid: '2', mode: 0400}]", "[{source: s, uid: 1}]", "[{source: s, nosuch: 1}]", "[{source: s, mode: '0440'}]",
		"[s]", "[s, s]", "64m", "$V", "[$V]", "{a: $V}", "${N}", "{a: ${N}}", "${YES}", "[$EMPTY]", "$EMPTY", "'a$$b'", "mode=max", "https://x.org/a.git", "./x/../y", "{a: ./x, b: /y, c: 'service:db'}",
		"!reset null", "!override [x]", "!override {q: r}",
	}
	var out []string
	for _, key := range keys {
		for _, value := range values {
			out = append(out, fmt.Sprintf("services: {a: {image: i, build: {context: ., %s: %s}}, db: {image: db}}\nsecrets: {s: {file: f}}", key, value))
		}
	}
	for _, key := range []string{"image", "environment", "env_file", "build"} {
		for _, value := range values {
			out = append(out, fmt.Sprintf("services: {a: {image: i, %s: %s}, db: {image: db, build: .}}\nsecrets: {s: {file: f}}", key, value))
		}
	}
	for _, key := range []string{"name", "file", "environment", "external", "labels", "driver", "driver_opts", "template_driver", "x-more", "nosuch"} {
		for _, value := range values {
			out = append(out, fmt.Sprintf("services: {a: {build: {context: ., secrets: [s]}}}\nsecrets: {s: {%s: %s}}", key, value))
		}
	}
	for _, key := range []string{"services", "secrets", "include", "name", "networks", "volumes"} {
		for _, value := range values {
			out = append(out, fmt.Sprintf("services: {a: {build: .}}\n%s: %s", key, value))
		}
	}
	return out
}

// A build section means what it means to the library, and is refused where the
// schema refuses it; also with another file over or under it, and extended.
func TestLikeTheLibrary(t *testing.T) {
	env := map[string]string{"V": "v", "N": "3", "YES": "yes", "EMPTY": ""}
	other := []eval.File{{Name: "other.yaml", Data: []byte("services: {a: {build: {args: [A=1], tags: [t], labels: {l: 1}, extra_hosts: {h: 1.2.3.4}, ulimits: {a: 1}, secrets: [s]}}}")}}
	for i, text := range inBuild() {
		if strings.Contains(text, "shm_size: 2001") {
			continue // the library takes a date, and leaves the size out then
		}
		if i%5 != 0 && !*all {
			continue
		}
		files := inFile(text)
		switch i % 7 {
		case 0:
			files = append(files, other...)
		case 1:
			files = append(slices.Clone(other), files...)
		case 2:
			files = inFile(strings.Replace(text, "services: {", "services: {more: {extends: a, build: {args: {B: 2}, tags: [u]}}, ", 1))
		}
		agree(t, Input{Files: files, Env: env}, true)
	}
}

// referring are files that refer to others, with !reset and !override in them.
func referring() []string {
	return []string{
		"services: {a: {extends: {file: sub/one.yaml, service: one}, build: {args: {A: a}}}}",
		"services: {a: {extends: {file: ./sub/one.yaml, service: two}}, b: {extends: a, build: {context: b}}}",
		"services: {a: {extends: {file: sub/one.yaml, service: three}}}", "services: {a: {extends: {file: sub/one.yaml, service: none}}}",
		"services: {a: {extends: {file: sub/one.yaml, service: one}, build: {args: !reset null, tags: !override [x]}}}",
		"services: {a: {extends: {file: sub/one.yaml, service: one}, build: !override {context: x}}}",
		"services: {a: {extends: {file: sub/one.yaml, service: round}}}", "services: {a: {extends: b, build: .}, b: {extends: c}, c: {extends: b}}",
		"services: {a: {extends: null, build: .}}", "services: {a: {extends: {service: 1}, build: .}}", "services: {a: {extends: [b], build: .}}",
		"services: {b: , a: {extends: b, build: .}}", "services: {a: {extends: nosuch, build: .}}",
		"include: [sub/one.yaml]\nservices: {a: {build: .}}", "include: [sub/one.yaml]\nservices: {one: {build: {args: {MORE: 1}, tags: !override [z]}}}",
		"include: [{path: [sub/one.yaml, sub/deep/two.yaml]}]", "include: [{path: sub/one.yaml, project_directory: other}]\nservices: {a: {extends: one}}",
		"include: [{path: sub/one.yaml, env_file: sub/some.env}]", "include: [{path: sub/one.yaml, env_file: [sub/some.env, /dev/null]}]",
		"include: [{path: sub/one.yaml, env_file: nosuch.env}]", "include: [sub/one.yaml, sub/deep/two.yaml]", "include: [sub/cycle.yaml]", "include: [compose.yaml]",
		"include: [sub/one.yaml, sub/one.yaml]\nservices: {two: {build: {args: [Z=1]}}}", "include: [1]", "include: {}", "include: null\nservices: {a: {build: .}}",
		"include: [sub/one.yaml]\nservices: [1]", "include: [sub/nosuch.yaml]", "include: [sub/one.yaml]\nservices: {a: {extends: {file: sub/one.yaml, service: two}}}",
		"services: {a: {env_file: sub/some.env, environment: [V, OWN=1], build: {context: ., args: [FROMFILE, V, OWN, NONE]}}}",
		"services: {a: {env_file: [{path: nosuch.env}], build: .}}", "services: {a: {env_file: [{path: nosuch.env, required: 'no'}], build: .}}",
		"x-a: &a {args: !reset null, tags: [t]}\nservices: {a: {build: {context: ., <<: *a}}, b: {build: *a}}",
		"x-a: &a !override [t]\nservices: {a: {build: {context: ., tags: *a}}}", "x-a: &a !reset x\nservices: {a: {image: *a, build: .}}",
		"x-l: &l {labels: [x=1]}\nx-a: &a {args: {Q: 1}}\nservices: {a: {image: !reset null, build: {context: ., <<: [*l, *a], tags: [!reset a, b]}}}",
		"services: {a: !reset null, b: {build: .}}", "!reset x", "!override {services: {a: {build: .}}}", "services: !reset null", "services: !override {z: {build: .}}",
		"services: {a: {build: {context: one, args: {A: 1}}}}\n---\nservices: {a: {build: {args: !reset null}}, b: {extends: a}}", "services: {a: {build: .}, a: {build: x}}",
		"services: {a: {build: {context: one, args: {A: 1}}}}\n---\nservices: {a: {build: {args: !override {B: 1}}}}",
		"name: $V\nservices: {a: {image: \"x-$COMPOSE_PROJECT_NAME\", build: .}}", "name: 1\nservices: {a: {image: \"x-$COMPOSE_PROJECT_NAME\", build: .}}",
		"name: [a]\nservices: {a: {image: \"x-$COMPOSE_PROJECT_NAME\", build: .}}", "services: {a: {image: \"x-$COMPOSE_PROJECT_NAME\", build: {context: ., args: [COMPOSE_PROJECT_NAME]}}}",
		"services: {a: {build: {context: ~/x, ssh: [k=~/k]}}}", "services: {a: {build: ., ports: ['1-3:1-3', {target: 80}], volumes: [./a:/b, {type: bind, source: ./x, target: /y}], ulimits: {nofile: '$N'}}}",
		"services: {a: {build: ., volumes: [{type: bind, target: /y}]}}", "services: {a: {build: ., depends_on: [b]}, b: {image: b}}", "services: {a: {build: ., networks: [x], dns: 1.1.1.1, x-develop: {watch: []}}}",
		"services: {a: {build: .}}\nsecrets: {s: {external: '${YES}'}, t: {external: {name: q}}}", "services: {a: {build: .}}\nsecrets: {s: {external: '${V}'}}",
		"services: {a: {build: .}}\njobs: {j: {build: .}}", "services: {a: {build: .}}\nvolumes: {v: {driver: local}}\nnetworks: {n: }\nconfigs: {c: {file: x}}",
	}
}

// What refers to other files, which is merged in more than one way, as well.
func TestReferringLikeTheLibrary(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "sub/one.yaml", "services:\n  one: {build: {context: ctx, args: {A: one, V: $V, F: $FROMFILE}, tags: [one]}}\n"+
		"  two: {extends: {file: deep/two.yaml, service: two}, build: {tags: [two]}}\n  three: {extends: one, build: {args: !reset null}}\n  round: {extends: {file: one.yaml, service: round}, build: .}")
	write(t, "sub/deep/two.yaml", "services: {two: {build: {context: ., additional_contexts: {x: ./y, s: 'service:one'}, ssh: [k=./key]}, env_file: ../some.env}}\nsecrets: {s: {file: ./sec}}")
	write(t, "sub/cycle.yaml", "include: [cycle.yaml]\nservices: {c: {build: .}}")
	write(t, "sub/some.env", "FROMFILE=file\nV=env\n")
	write(t, "sub/.env", "FROMFILE=dot\n")
	env := map[string]string{"V": "v", "N": "3", "YES": "yes", "HOME": "/home/user"}
	for _, text := range referring() {
		write(t, "compose.yaml", text)
		in := Input{Files: inFile(text), Env: env, Read: os.ReadFile, MayRead: func(string) error { return nil }}
		agree(t, in, true)
		in.Files = append([]eval.File{{Name: "first.yaml", Data: []byte("services: {a: {image: first, build: {args: {FIRST: 1}, tags: [first]}}}")}}, in.Files...)
		agree(t, in, true)
		in.Files = append(in.Files[1:], eval.File{Name: "last.yaml", Data: []byte("services: {a: {build: {args: !override {L: 1}, tags: !reset []}}}")})
		agree(t, in, true)
	}
}

// So do the seeds of the fuzzing.
func TestSeedsLikeTheLibrary(t *testing.T) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "seeds", "*.yaml"))
	if err != nil || len(seeds) == 0 {
		t.Fatal(seeds, err)
	}
	for _, path := range seeds {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		agree(t, Input{Files: inFile(string(data)), Env: map[string]string{"V": "v"}}, false)
	}
}

// FuzzLikeTheLibrary looks for what the library takes, and we do not or otherwise.
func FuzzLikeTheLibrary(f *testing.F) {
	for i, text := range append(inBuild(), referring()...) {
		if i%9 == 0 && !strings.Contains(text, "shm_size: 2001") {
			f.Add([]byte(text), []byte("services: {web: {build: {args: {MORE: 1}}}}"))
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		in := Input{Files: []eval.File{{Name: "compose.yaml", Data: first}}, Env: map[string]string{"V": "v", "N": "3"}}
		if len(second) > 0 {
			in.Files = append(in.Files, eval.File{Name: "second.yaml", Data: second})
		}
		agree(t, in, false)
	})
}
