package builderfile

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func schemaPath() string { return filepath.Join("..", "..", "docs", "schema", "berth.schema.json") }

func loadSchema(t *testing.T) (map[string]any, *jsonschema.Schema) {
	t.Helper()
	f, err := os.Open(schemaPath())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource(SchemaURL, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(SchemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return doc.(map[string]any), s
}

// The published schema takes what Parse takes, and refuses what a schema can
// see: all but the inside of texts and what must be different.
func TestSchema(t *testing.T) {
	doc, s := loadSchema(t)
	if doc["$id"] != SchemaURL {
		t.Errorf("the schema is %v, and files point to %s", doc["$id"], SchemaURL)
	}
	check := func(text string) error {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		return s.Validate(v)
	}
	if err := check(whole); err != nil {
		t.Error(err)
	}
	out, err := Print(parse(t, whole), "/repo", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := check(string(out)); err != nil {
		t.Errorf("what berth writes: %v", err)
	}
	unseen := []string{
		"twice", "unknown parameter", "node twice", "same endpoint", "option twice", "certs and option",
		"tls over unix", "certs over unix", "platform", "platforms", "platform of a path", "alias", "documents", "not utf-8", "control", "tag", "merge",
	}
	for _, c := range refusals() {
		err := check(c.text)
		if see := !slices.Contains(unseen, c.name); see && err == nil {
			t.Errorf("%s: the schema takes what Parse refuses:\n%s", c.name, c.text)
		}
	}
}

// The schema knows every option, and no other.
func TestSchemaOptions(t *testing.T) {
	doc, _ := loadSchema(t)
	options := doc["$defs"].(map[string]any)["options"].(map[string]any)["properties"].(map[string]any)
	var got []string
	for name := range options {
		got = append(got, name)
	}
	want := endpoint.OptionNames()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the schema has the options %q, and berth %q", got, want)
	}
}
