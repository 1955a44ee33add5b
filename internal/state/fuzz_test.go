package state

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func FuzzGroup(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", `{"Name":"b"}`, `{"name":"b","NAME":"c"}`, `{"Name":"b","Nodes":[null,{}]}`, `{"Name":"b","Nodes":[{"Platforms":[{"os":"linux","x":1}],"New":{"a":[]}}],"X":1}`,
		`{"Name":"b","Nodes":[{"Files":{"a":"!"}}]}`, `{"Name":"b","":null}`, seedFile("testdata/buildx/instances/remote"), strings.Repeat("[", 10001),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := parseGroup(data)
		if err != nil {
			return
		}
		first, err := g.MarshalJSON()
		if err != nil {
			t.Fatalf("%q cannot be stored: %v", data, err)
		}
		again, err := parseGroup(first)
		if err != nil {
			t.Fatalf("%q, stored as %q, cannot be read: %v", data, first, err)
		}
		second, err := again.MarshalJSON()
		if err != nil || string(first) != string(second) {
			t.Fatalf("%q, then %q, %v", first, second, err)
		}
		if !reflect.DeepEqual(keys(g.unknown), keys(again.unknown)) || len(g.Nodes) != len(again.Nodes) {
			t.Fatalf("%q lost something: %+v, %+v", data, g, again)
		}
	})
}

func keys[V any](m map[string]V) map[string]bool {
	all := make(map[string]bool)
	for k := range m {
		all[k] = true
	}
	return all
}

func seedFile(path string) string { data, _ := os.ReadFile(path); return string(data) }

func FuzzCurrent(f *testing.F) {
	for _, seed := range []string{"", "null", "{}", `{"Key":"k","Name":"b","Global":true}`, `{"Name":"../x"}`, `{"Name":1}`, "[]", "{"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCurrent(data)
		if err != nil {
			return
		}
		if c.Name != "" && !nameSyntax(c.Name) {
			t.Fatalf("%q gives the name %q", data, c.Name)
		}
	})
}
