package eval

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// seeds are the definitions of the corpus in the form with that ending.
func seeds(f *testing.F, ending string) []string {
	f.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "testdata", "cases", "*.txt"))
	if err != nil || len(paths) == 0 {
		f.Fatal(paths, err)
	}
	var out []string
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, text := range strings.Split("\n"+string(data), "\n=== ")[1:] {
			text, _, _ = strings.Cut(text, "\n<<<\n")
			_, text, _ = strings.Cut(text, "\n")
			if _, body, named := strings.Cut(text, ending+" --\n"); named || ending == ".json" {
				text = body
			}
			if body, _, more := strings.Cut(text, "\n-- "); more {
				text = body
			}
			if text != "" {
				out = append(out, text)
			}
		}
	}
	return out
}

// fuzzed evaluates with limits that keep each run short.
func fuzzed(t *testing.T, text string, format Format, vars map[string]string) {
	t.Helper()
	def, err := Evaluate(context.Background(), Input{
		Files: []File{{Name: "x", Data: []byte(text), Format: format}}, Vars: vars, Now: time.Unix(0, 0), Home: "/home/user",
		Builtins: map[string]string{"BAKE_LOCAL_PLATFORM": "linux/amd64"},
		Limits:   Limits{Steps: 20_000, AllText: 1 << 20, Targets: 500},
	})
	var e *Error
	switch {
	case err == nil && def == nil:
		t.Error("neither a definition nor an error")
	case err != nil && !errors.As(err, &e):
		t.Errorf("not an *Error: %v", err)
	case err != nil:
		_, _ = e.Error(), e.Excerpt()
	}
}

func FuzzHCL(f *testing.F) {
	for _, s := range seeds(f, ".hcl") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { fuzzed(t, text, FormatHCL, nil) })
}

func FuzzJSON(f *testing.F) {
	for _, s := range seeds(f, ".json") {
		f.Add(s)
	}
	f.Add(`{"variable": {"A": {"default": ["${upper(\"x\")}"]}}, "target": {"default": {"args": {"${A[0]}": null}}}}`)
	f.Fuzz(func(t *testing.T, text string) { fuzzed(t, text, FormatJSON, nil) })
}

// FuzzGiven gives a variable of any type any value.
func FuzzGiven(f *testing.F) {
	for _, typ := range []string{"string", "number", "bool", "any", "list(string)", "set(number)", "map(any)", "tuple([string, number])", "object({a = list(any)})"} {
		for _, value := range []string{"", "a", "1", "true", `"a,b",c`, "a:1,b:2", `["a", 1]`, `{"a": [1, "b"]}`} {
			f.Add(typ, value)
		}
	}
	f.Fuzz(func(t *testing.T, typ, value string) {
		text := "variable \"X\" {\n type = " + typ + "\n}\nvariable \"Y\" {\n default = 1\n}\ntarget \"default\" {\n args = { a = jsonencode(X) }\n}\n"
		fuzzed(t, text, FormatHCL, map[string]string{"X": value, "Y": value})
		fuzzed(t, text, FormatHCL, map[string]string{"X_JSON": value})
	})
}
