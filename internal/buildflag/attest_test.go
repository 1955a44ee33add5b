package buildflag

import (
	"reflect"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestParseAttests(t *testing.T) {
	for _, c := range []struct {
		attests          []string
		provenance, sbom string
		want             string // each as it is sent, with blanks between
	}{
		{nil, "", "", ""},
		{nil, "true", "", "type=provenance"},
		{nil, "1", "0", "type=provenance type=sbom,disabled=true"},
		{nil, "false", "True", "type=provenance,disabled=true type=sbom"},
		{nil, "min", "", "type=provenance,mode=min"},
		{nil, "max", "", "type=provenance,mode=max"},
		{nil, "mode=max", "", "type=provenance,mode=max"},
		{nil, "mode=full", "", "type=provenance,mode=full"},
		{nil, "version=v0.2,mode=max,builder-id=https://ci.example/1", "", "type=provenance,builder-id=https://ci.example/1,mode=max,version=v0.2"},
		{nil, `"builder-id=a,b"`, "", `type=provenance,"builder-id=a,b"`},
		{nil, "disabled=true,mode=max", "", "type=provenance,disabled=true,mode=max"},
		{nil, "disabled=false", "", "type=provenance"},
		{nil, "type=provenance,mode=min", "", "type=provenance,mode=min"},
		{nil, "", "generator=localhost:5000/scan:1", "type=sbom,generator=localhost:5000/scan:1"},
		{nil, "", "GENERATOR=a,EXTRA=B,extra=c", "type=sbom,EXTRA=B,extra=c,generator=a"},
		{[]string{"type=SBOM", "TYPE=provenance,MODE=max"}, "", "", "type=sbom type=provenance,mode=max"},
		{[]string{"type=provenance,inline-only=true,reproducible=0"}, "", "", "type=provenance,inline-only=true,reproducible=0"},
		// Said twice, and the same.
		{[]string{"type=provenance,mode=max", "mode=max,type=provenance"}, "max", "", "type=provenance,mode=max"},
		{[]string{"type=sbom,disabled=true"}, "", "false", "type=sbom,disabled=true"},
	} {
		got, err := ParseAttests(c.attests, c.provenance, c.sbom)
		var all []string
		for _, a := range got {
			all = append(all, a.String())
			if a.Attrs == nil {
				t.Errorf("%+v: nil attributes", c)
			}
		}
		if err != nil || strings.Join(all, " ") != c.want {
			t.Errorf("%+v: %q, %v", c, all, err)
		}
	}
}

func TestParseAttestsRefuses(t *testing.T) {
	for _, c := range []struct {
		attests          []string
		provenance, sbom string
		want             []string
	}{
		{[]string{""}, "", "", []string{`--attest ""`, "empty"}},
		{[]string{"provenance"}, "", "", []string{"--attest", `"provenance" is not KEY=VALUE`}},
		{[]string{"mode=max"}, "", "", []string{"--attest", `"type" is missing`}},
		{[]string{"type="}, "", "", []string{`"type" is missing`}},
		{[]string{"type=vex"}, "", "", []string{"--attest", `type "vex" is not known`}},
		{[]string{"type=sbom,type=provenance"}, "", "", []string{`"type" is given twice`}},
		{[]string{"type=provenance,mode=min,mode=max"}, "", "", []string{`"mode" is given twice`}},
		{[]string{"type=provenance,mode"}, "", "", []string{`"mode" is not KEY=VALUE`}},
		{[]string{"type=provenance,mode=much"}, "", "", []string{"--attest", `"mode" must be min or max, not "much"`}},
		{[]string{"type=provenance,disabled=x"}, "", "", []string{`"disabled" must be true or false, not "x"`}},
		{[]string{"type=provenance,disabled="}, "", "", []string{`"disabled" must be`}},
		{[]string{"type=provenance,inline-only=x"}, "", "", []string{`"inline-only" must be true or false`}},
		{[]string{"type=sbom,generator="}, "", "", []string{`"generator" is no name of an image: ""`}},
		{[]string{"type=sbom\ntype=sbom"}, "", "", []string{"more than one line"}},
		{[]string{`type=sbom,"`}, "", "", []string{"--attest"}},
		{[]string{"type=sbom,=x"}, "", "", []string{`"=x" is not KEY=VALUE`}},
		{nil, "much", "", []string{`--provenance "much"`}},
		{nil, "MAX", "", []string{`--provenance "MAX"`}},
		{nil, "mode=", "", []string{"--provenance", `"mode" must be min or max, not ""`}},
		{nil, "type=sbom", "", []string{"--provenance", "cannot be type=sbom"}},
		{nil, "", "yes", []string{`--sbom "yes"`}},
		{nil, "", "generator=UPPER", []string{"--sbom", `"generator" is no name of an image`, "UPPER"}},
		{nil, "", "max", []string{`--sbom "max"`}},
		// Contradictions name both.
		{[]string{"type=provenance,mode=max"}, "false", "", []string{`--attest "type=provenance,mode=max"`, `--provenance "false"`, "contradict"}},
		{[]string{"type=sbom", "type=sbom,generator=x"}, "", "", []string{`--attest "type=sbom"`, `--attest "type=sbom,generator=x"`}},
		{[]string{"type=sbom,disabled=true"}, "", "true", []string{`--sbom "true"`}},
	} {
		got, err := ParseAttests(c.attests, c.provenance, c.sbom)
		if err == nil || got != nil {
			t.Errorf("%+v = %v, %v", c, got, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%+v: %v lacks %q", c, err, part)
			}
		}
		if len(hint.Of(err)) == 0 {
			t.Errorf("%v: no hint", err)
		}
	}
}

func FuzzParseAttests(f *testing.F) {
	for _, s := range []string{"", "type=sbom", "type=provenance,mode=max", `type=sbom,"generator=a,b"`, "type=provenance,disabled=true", "true", "max", "mode=min", "generator=x", `"`, "type=SBOM,=", "\n", "type=sbom,a=\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func() ([]Attest, error){
			func() ([]Attest, error) { return ParseAttests([]string{s}, "", "") },
			func() ([]Attest, error) { return ParseAttests(nil, s, "") },
			func() ([]Attest, error) { return ParseAttests(nil, "", s) },
		} {
			got, err := parse()
			if err != nil || len(got) == 0 {
				continue
			}
			again, err := ParseAttests([]string{got[0].String()}, "", "")
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%q: %#v was written as %q and read back as %#v, %v", s, got, got[0], again, err)
			}
		}
	})
}
