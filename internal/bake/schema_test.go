package bake

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaURL = "https://raw.githubusercontent.com/berthbuild/berth/main/docs/schema/bake.schema.json"

func loadSchema(t *testing.T) (map[string]any, *jsonschema.Schema) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "schema", "bake.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource(schemaURL, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(schemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return doc.(map[string]any), s
}

func against(s *jsonschema.Schema, text string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// The schema takes every definition in JSON of the corpus that evaluates, and
// all that --print writes.
func TestSchema(t *testing.T) {
	doc, s := loadSchema(t)
	if doc["$id"] != schemaURL {
		t.Errorf("the schema is %v", doc["$id"])
	}
	paths, err := filepath.Glob(filepath.Join("testdata", "cases", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	read, printed := 0, 0
	for _, path := range paths {
		cases := readCases(t, path)
		for i := range cases {
			c := &cases[i]
			if strings.HasPrefix(c.want, "!") {
				continue
			}
			for _, f := range c.files {
				if f.Format != eval.FormatJSON {
					continue
				}
				read++
				if err := against(s, string(f.Data)); err != nil {
					t.Errorf("%s: %v\n%s", c.title, err, f.Data)
				}
			}
			if text, ok := c.printed(t); ok {
				printed++
				if err := against(s, text); err != nil {
					t.Errorf("what is printed of %s: %v\n%s", c.title, err, text)
				}
			}
		}
	}
	if read < 20 || printed < 60 {
		t.Errorf("only %d files were read, and %d printed", read, printed)
	}
}

// It refuses what berth refuses, where it can see it.
func TestSchemaRefuses(t *testing.T) {
	_, s := loadSchema(t)
	for _, text := range []string{
		`[]`, `{"target": 1}`, `{"target": {"a": 1}}`, `{"target": {"a b": {}}}`,
		`{"target": {"a": {"tags": "x"}}}`, `{"target": {"a": {"tags": {"x": 1}}}}`, `{"target": {"a": {"tags": [["x"]]}}}`,
		`{"target": {"a": {"tags": [null]}}}`, `{"target": {"a": {"args": ["x"]}}}`, `{"target": {"a": {"args": {"x": []}}}}`,
		`{"target": {"a": {"pull": 1}}}`, `{"target": {"a": {"pull": "yes"}}}`, `{"target": {"a": {"dockerfile": []}}}`,
		`{"target": {"a": {"output": "type=image"}}}`, `{"target": {"a": {"output": [{"dest": "x"}]}}}`, `{"target": {"a": {"cache-to": [1]}}}`,
		`{"target": {"a": {"ssh": [{"paths": "x"}]}}}`, `{"target": {"a": {"resources": {"cpu-shares": "x"}}}}`,
		`{"target": {"a": {"name": "x", "matrix": ["a"]}}}`, `{"target": {"a": {"name": "x", "matrix": {"a": 1}}}}`,
		`{"group": {"a": {}}}`, `{"group": {"a": {"targets": "b"}}}`, `{"group": {"a": {"targets": ["b"], "description": 1.5}}}`,
		`{"function": {"f": {"params": ["x"]}}}`, `{"function": {"f": {"result": "x"}}}`, `{"function": {"f": {"params": [], "result": "x", "y": 1}}}`,
		`{"variable": {"a": {"type": 1}}}`, `{"variable": {"a": {"validation": {}}}}`,
	} {
		if against(s, text) == nil {
			t.Errorf("the schema takes %s", text)
		}
	}
}

// The schema knows every attribute of a target, and no other.
func TestSchemaAttributes(t *testing.T) {
	doc, _ := loadSchema(t)
	known := doc["$defs"].(map[string]any)["target"].(map[string]any)["properties"].(map[string]any)
	want := append(eval.TargetAttributes(), "name", "matrix")
	for _, name := range want {
		if known[name] == nil {
			t.Errorf("the schema has no %s", name)
		}
	}
	if len(known) != len(want) {
		t.Errorf("the schema has %d attributes, and a target %d", len(known), len(want))
	}
}
