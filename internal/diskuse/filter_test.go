package diskuse

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/moby/buildkit/client"
)

// matches asks the daemon's own parser and matcher.
func matches(t testing.TB, selector string, r client.UsageInfo) bool {
	t.Helper()
	f, err := filters.Parse(selector)
	if err != nil {
		t.Fatalf("the daemon cannot read %q: %v", selector, err)
	}
	return f.Match(filters.AdapterFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "id":
			return r.ID, r.ID != ""
		case "parents":
			return strings.Join(r.Parents, ";"), len(r.Parents) > 0
		case "description":
			return r.Description, r.Description != ""
		case "inuse":
			return "", r.InUse
		case "mutable":
			return "", r.Mutable
		case "immutable":
			return "", !r.Mutable
		case "type":
			return string(r.RecordType), r.RecordType != ""
		case "shared":
			return "", r.Shared
		case "private":
			return "", !r.Shared
		}
		return "", false
	}))
}

func TestFilterChooses(t *testing.T) {
	records := []client.UsageInfo{
		{ID: "aaa1", RecordType: "regular", Description: "[1/2] COPY a, b /x", Mutable: true},
		{ID: "aab2", RecordType: "source.local", Description: "local source for context", InUse: true},
		{ID: "ccc3", RecordType: "exec.cachemount", Description: `he said "hi" \o/`, Shared: true, Parents: []string{"aaa1", "aab2"}},
	}
	for _, c := range []struct{ given, want string }{
		{"", "aaa1 aab2 ccc3"},
		{"  ", "aaa1 aab2 ccc3"},
		{"type=regular", "aaa1"},
		{"TYPE = regular ", "aaa1"},
		{"type==regular", "aaa1"},
		{`type="regular"`, "aaa1"},
		{"type!=regular", "aab2 ccc3"},
		{"type~=^source", "aab2"},
		{"type!=regular|type!=exec.cachemount", "aab2"},
		{"type=regular|type=regular", "aaa1"},
		{"id=aa", "aaa1 aab2"},
		{"id~=3$", "ccc3"},
		{"id!=aaa1", "aab2 ccc3"},
		{"description~=COPY", "aaa1"},
		{"description~=COPY a, b", "aaa1"},
		{"description=local source for context", "aab2"},
		{`description="local source for context"`, "aab2"},
		{`description~=\[1/2\]`, "aaa1"},
		{`description~=/COPY a/`, "aaa1"},
		{`description~=/x`, "aaa1"},
		{`description~=|said|`, "ccc3"},
		{`description=he said "hi" \o/`, "ccc3"},
		{`description~="hi"`, "ccc3"},
		{"parents=aaa1;aab2", "ccc3"},
		{"parents~=aab2", "ccc3"},
		{"parents!=aaa1;aab2", "aaa1 aab2"},
		{"mutable=true", "aaa1"},
		{"mutable=", "aaa1"},
		{"mutable", "aaa1"},
		{"mutable=false", "aab2 ccc3"},
		{"mutable!=true", "aab2 ccc3"},
		{"immutable=1", "aab2 ccc3"},
		{"immutable=false", "aaa1"},
		{"shared=true", "ccc3"},
		{"private=true", "aaa1 aab2"},
		{"shared=false", "aaa1 aab2"},
		{"inuse=true", "aab2"},
		{"type~=.,mutable", "aaa1"},
		{"type!=regular,description~=source", "aab2"},
		{"type!=regular, id=c", "ccc3"},
		{"until=24h,type=regular", "aaa1"},
		{`description~="a, b",mutable`, "aaa1"},
	} {
		var given []string
		if strings.Contains(c.given, "|type") {
			given = strings.Split(c.given, "|")
		} else {
			given = []string{c.given}
		}
		f, err := ParseFilter(given)
		if err != nil {
			t.Errorf("%s: %v", c.given, err)
			continue
		}
		var got []string
		for _, r := range records {
			if matches(t, f.selector(), r) {
				got = append(got, r.ID)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s chose %q by %s, want %q", c.given, got, f.selector(), c.want)
		}
	}
}

func TestFilterUntil(t *testing.T) {
	f, err := ParseFilter([]string{"until=2h30m", "until=2h30m"})
	if err != nil || f.until != 150*time.Minute || f.selector() != "" || f.Empty() {
		t.Errorf("%+v, error %v", f, err)
	}
	if f, err := ParseFilter([]string{"unused-for=1h"}); err != nil || f.until != time.Hour {
		t.Errorf("%+v, error %v", f, err)
	}
	if f, err := ParseFilter([]string{"until=0s"}); err != nil || f.Empty() {
		t.Errorf("%+v, error %v", f, err)
	}
	if f, err := ParseFilter([]string{"inuse=false"}); err != nil || f.Empty() || f.selector() != "" {
		t.Errorf("%+v, error %v", f, err)
	}
}

func TestFilterRefuses(t *testing.T) {
	for given, want := range map[string]string{
		"x":                               "bad format of filter (expected name=value)",
		"until":                           "bad format of filter (expected name=value)",
		"=":                               "has no name",
		"=x":                              "has no name",
		"!=x":                             "has no name",
		"foo=bar":                         `no record has a "foo"`,
		"foo!=bar":                        `no record has a "foo"`,
		"typ!=regular":                    `no record has a "typ"`,
		"type!!=regular":                  "no operator",
		"type!~=regular":                  "no operator",
		"type=nosuch":                     `there is no type "nosuch"`,
		"type!=exec.cachemonut":           `there is no type "exec.cachemonut"`,
		"type=":                           `"type" filter has no value`,
		"description~=":                   `"description" filter has no value`,
		`description=""`:                  `"description" filter has no value`,
		`description="x`:                  "is not a quoted text",
		"description~=[":                  "missing closing ]",
		"id=(":                            "missing closing )",
		"mutable=maybe":                   `"maybe" is neither true nor false`,
		"mutable~=t":                      "takes no regular expression",
		"until=x":                         `"until" filter expects a duration (e.g., '24h'): time: invalid duration "x"`,
		"until=":                          `"until" filter expects a duration (e.g., '24h'): time: invalid duration ""`,
		"until=7d":                        "unknown unit",
		"until=-1h":                       "is negative",
		"until=99999999h":                 "expects a duration",
		"until!=1h":                       "not by !=",
		"until=1h|until=2h":               `"until" filter expects only one value`,
		"until=1h|unused-for=1h":          `conflicting filters "until" and "unused-for"`,
		"type=regular|type=frontend":      `"type" filter expects only one value`,
		"description=a|description=b":     `"description" filter expects only one value`,
		"mutable=true|immutable=true":     `conflicting filters "mutable" and "immutable"`,
		"mutable=true|mutable=false":      `conflicting filters "mutable" and "immutable"`,
		"inuse=true|inuse=false":          `"inuse" filter expects only one value`,
		"type=regular,type=frontend":      `"type" filter expects only one value`,
		"type=regular\x00":                "there is no type",
		"type=regular || true; rm -rf /":  "there is no type",
		"../../etc/passwd=x":              "no record has",
		strings.Repeat("a", 1<<16) + "=x": "no record has",
		"description~=" + strings.Repeat("(", 2000): "error parsing regexp",
	} {
		_, err := ParseFilter(strings.Split(given, "|"))
		if strings.Contains(given, "||") {
			_, err = ParseFilter([]string{given})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: error = %.200v, want %q", given, err, want)
		}
	}
	_, err := ParseFilter([]string{"foo=bar"})
	if len(hint.Of(err)) == 0 {
		t.Error("what there is instead is not said")
	}
}

func TestFilterFromConfiguration(t *testing.T) {
	given, err := ParseFilter([]string{"type=regular"})
	if err != nil {
		t.Fatal(err)
	}
	f, unknown, err := given.With([]string{"until=24h", "label=keep", "label!=drop", "nonsense", "mutable=true"})
	if err != nil || f.until != 24*time.Hour || !slices.Equal(unknown, []string{"label", "label!"}) {
		t.Fatalf("%+v, unknown %q, error %v", f, unknown, err)
	}
	// Nothing has a label, so nothing is chosen: as in docker's other commands.
	if matches(t, f.selector(), client.UsageInfo{ID: "a", RecordType: "regular", Mutable: true}) {
		t.Errorf("%s chooses a record without labels", f.selector())
	}
	if len(given.conditions) != 1 || given.until != 0 {
		t.Error("the given filter has changed")
	}
	f, _, err = given.With([]string{"label!=drop"})
	if err != nil || !matches(t, f.selector(), client.UsageInfo{ID: "a", RecordType: "regular"}) {
		t.Errorf("%s, error %v", f.selector(), err)
	}
	if _, _, err := given.With([]string{"type=frontend"}); err == nil {
		t.Error("two types at once were taken")
	}
	if _, _, err := given.With([]string{"until=x"}); err == nil {
		t.Error("a wrong duration was taken")
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1": 1, "128mb": 128 << 20, "2g": 2 << 30, "1.5GiB": 3 << 29, "10 KB": 10 << 10, "1tb": 1 << 40} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, error %v", text, got, err)
		}
	}
	for _, text := range []string{"", "abc", "-1", "1e30gb", "99999999999tb", "1xb", "gb", "0x10", "1,5g", "NaN", "Inf", "1e30", "9223372036854775808", " "} {
		if got, err := ParseSize(text); err == nil || !strings.HasPrefix(err.Error(), "invalid size: '") {
			t.Errorf("%q: %d, error %v", text, got, err)
		}
	}
}

// Whatever is taken, the daemon can read, and it is one filter and not more.
func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		"type=regular", "type!=regular", "description~=a,b", `description="a\"b",mutable`, "id=a", "until=1h", "inuse=true",
		"parents=a;b", "mutable=false,shared", "description=\x00\xff", "description~=/a/", "description=|x|", "a=b", "=", ",", "!~=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := ParseFilter([]string{s})
		if err != nil {
			return
		}
		matches(t, filter.selector(), client.UsageInfo{})
		for _, c := range filter.conditions {
			if c.op != "==" || c.value == "" {
				continue
			}
			r := client.UsageInfo{}
			switch c.key {
			case "description":
				r.Description = c.value
			case "type":
				r.RecordType = client.UsageRecordType(c.value)
			case "parents":
				r.Parents = []string{c.value}
			default:
				continue
			}
			if !matches(t, c.String(), r) {
				t.Errorf("%s does not choose what is just so", c)
			}
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"", "0", "128mb", "1.5GiB", "-1", "1e30gb", "NaN", "10 k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Errorf("%q is %d", s, n)
		}
	})
}
