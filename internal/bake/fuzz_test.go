package bake

import (
	"bytes"
	"context"
	"testing"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// FuzzPrint holds any definition, with any --set, to what --print promises: what
// it writes can be baked again, and then writes the same.
func FuzzPrint(f *testing.F) {
	for _, set := range []string{"*.tags=x", "a.args.B=c", "*.output=type=local,dest=x", "a.platform+=linux/arm64", "*.secret=id=x,src=y", "a.attest=type=sbom", "*.push=true", "a.contexts.b=target:c"} {
		f.Add("target \"a\" {\n args = { x = \"$${y}\" }\n output = [\"type=registry\"]\n}\n", "a", set)
	}
	f.Add(string(generated(30)), "default", "*.no-cache=true")
	f.Fuzz(func(t *testing.T, text, name, set string) {
		if !utf8.ValidString(set) {
			return // JSON has no such text: what is printed is another
		}
		limits := eval.Limits{Steps: 20_000, AllText: 1 << 20, Targets: 500}
		def, err := eval.Evaluate(context.Background(), eval.Input{Limits: limits, Files: []eval.File{{Name: "x.hcl", Data: []byte(text), Format: eval.FormatHCL}}})
		if err != nil {
			return
		}
		plan, err := Resolve(def, Selection{Names: []string{name}, Set: []string{set}})
		if err != nil {
			return
		}
		first, err := plan.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := eval.Evaluate(context.Background(), eval.Input{Files: []eval.File{{Name: "x.json", Data: first, Format: eval.FormatJSON}}})
		if err != nil {
			t.Fatalf("what is printed cannot be read: %v\n%s", err, first)
		}
		replan, err := Resolve(again, Selection{})
		if err != nil {
			t.Fatalf("what is printed cannot be baked: %v\n%s", err, first)
		}
		if second, err := replan.JSON(); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%v; first\n%s\nthen\n%s", err, first, second)
		}
	})
}

// FuzzSet reads any --set.
func FuzzSet(f *testing.F) {
	for _, k := range OverrideKeys() {
		f.Add("a." + k + "=x")
		f.Add("*." + k + ".y+=type=x,b=c")
	}
	f.Fuzz(func(t *testing.T, set string) {
		def := &eval.Definition{Targets: []eval.Target{{Name: "a"}, {Name: "b"}}}
		if plan, err := Resolve(def, Selection{Names: []string{"a"}, Set: []string{set}}); err == nil {
			if _, err := plan.JSON(); err != nil {
				t.Error(err)
			}
		}
	})
}
