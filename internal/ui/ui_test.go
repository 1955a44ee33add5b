package ui

import (
	"bytes"
	"strings"
	"testing"
)

func TestTableKeepsItsColumns(t *testing.T) {
	var out bytes.Buffer
	table := NewTable(&out, []string{"NAME", "STATUS", "X"}, []string{"a-long-name", "running", ""})
	for _, row := range [][]string{{"NAME", "STATUS", "X"}, {"a-long-name", "running", "1"}, {"b", "inactive-and-long", "2"}} {
		if err := table.Row(row...); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.Join([]string{
		"NAME          STATUS    X",
		"a-long-name   running   1",
		"b             inactive-and-long 2",
		"",
	}, "\n")
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestFormat(t *testing.T) {
	type row struct{ Name, Status string }
	items := []any{row{"a", "running"}, row{"longer", "inactive"}}
	header := map[string]string{"Name": "NAME", "Status": "STATUS"}
	for _, c := range []struct{ format, want string }{
		{"{{.Name}}", "a\nlonger\n"},
		{`{{.Name}}\t{{upper .Status}}`, "a\tRUNNING\nlonger\tINACTIVE\n"},
		{`table {{.Name}}\t{{.Status}}`, "NAME     STATUS\na        running\nlonger   inactive\n"},
		{"{{json .}}", `{"Name":"a","Status":"running"}` + "\n" + `{"Name":"longer","Status":"inactive"}` + "\n"},
	} {
		f, err := ParseFormat(c.format)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := f.Execute(&out, header, items); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want {
			t.Errorf("%s: got %q, want %q", c.format, out.String(), c.want)
		}
	}
}

func TestFormatRefusesNonsense(t *testing.T) {
	if _, err := ParseFormat("{{.Name"); err == nil || !strings.Contains(err.Error(), "--format") {
		t.Errorf("unfinished template: %v", err)
	}
	f, err := ParseFormat("{{.Nmae}}")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Execute(&bytes.Buffer{}, nil, []any{struct{ Name string }{}}); err == nil {
		t.Error("an unknown field was accepted")
	}
	for _, s := range []string{"", "table"} {
		if f, err := ParseFormat(s); err != nil || !f.IsTable() {
			t.Errorf("%q: %v %v", s, f, err)
		}
	}
	if f, err := ParseFormat("json"); err != nil || !f.IsJSON() {
		t.Errorf("json: %v %v", f, err)
	}
}

func FuzzParseFormat(f *testing.F) {
	for _, s := range []string{"", "table", "json", "{{.Name}}", "table {{.Name}}\\t{{.Status}}", "{{", "{{define"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		format, err := ParseFormat(s)
		if err != nil || format.IsTable() || format.IsJSON() {
			return
		}
		if strings.Contains(s, "range") || strings.Contains(s, "template") {
			return // endless templates are the user's own
		}
		_ = format.Execute(&bytes.Buffer{}, nil, []any{struct{ Name string }{"x"}})
	})
}
