package bake

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// What is small in a file and large once it is inherited is refused.
func TestLimits(t *testing.T) {
	quoted := func(n int, but int) string {
		var names []string
		for i := range n {
			if i != but {
				names = append(names, fmt.Sprintf("%q", fmt.Sprintf("t%d", i)))
			}
		}
		return strings.Join(names, ", ")
	}
	each := func(n int, body func(i int) string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "target \"t%d\" {\n %s\n}\n", i, body(i))
		}
		return b.String()
	}
	long := fmt.Sprintf("\"${%s}\"", `join("", [for i in range(1000) : format("%8000s", "x")])`)
	for name, tc := range map[string]struct{ text, target, want string }{
		"all inherit from all": {each(40, func(i int) string { return "inherits = [" + quoted(40, i) + "]" }), "t0", "inherit more than"},
		"large text": {
			"target \"base\" {\n dockerfile-inline = " + long + "\n}\n" + each(100, func(int) string { return `inherits = ["base"]` }), "t*",
			"bytes of text",
		},
		"large maps": {
			"target \"base\" {\n args = {for i in range(1000) : \"a${i}\" => i}\n}\n" +
				each(9000, func(int) string { return "inherits = [\"base\"]\n args = { x = 1 }" }), "t*",
			"inherit more than",
		},
		"chain": {
			each(9999, func(i int) string { return fmt.Sprintf("contexts = { a = \"target:t%d\" }", i+1) }) + "target \"t9999\" {\n contexts = { a = \"target:t0\" }\n}\n", "t0",
			"infinite loop",
		},
	} {
		t.Run(name, func(t *testing.T) {
			def, err := eval.Evaluate(context.Background(), eval.Input{Files: []eval.File{{Name: "x.hcl", Data: []byte(tc.text)}}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = Resolve(def, Selection{Names: []string{tc.target}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("wanted %q, got %.200v", tc.want, err)
			}
		})
	}
}
