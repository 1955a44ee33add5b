package buildflag

import (
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestParseCall(t *testing.T) {
	for in, want := range map[string]Call{
		"":                                      {},
		"build":                                 {},
		"build,format=json":                     {},
		"check":                                 {Method: "check"},
		"lint":                                  {Method: "lint"},
		"outline":                               {Method: "outline"},
		"subrequests.describe":                  {Method: "subrequests.describe"},
		"targets,format=json":                   {Method: "targets", JSON: true},
		"format=json,targets":                   {Method: "targets", JSON: true},
		"check,format=text":                     {Method: "check"},
		"check,FORMAT=json":                     {Method: "check", JSON: true},
		"check,ignorestatus=true":               {Method: "check", IgnoreStatus: true},
		"check,ignorestatus=0,format=json":      {Method: "check", JSON: true},
		`"check","ignorestatus=1"`:              {Method: "check", IgnoreStatus: true},
		"CHECK":                                 {Method: "CHECK"},
		"some/other-method_2,ignorestatus=true": {Method: "some/other-method_2", IgnoreStatus: true},
	} {
		if got, err := ParseCall(in); err != nil || got != want {
			t.Errorf("%q = %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestParseCallRefuses(t *testing.T) {
	for in, want := range map[string]string{
		",":                             "a method is empty",
		"format=json":                   "it names no method",
		"check,":                        "two methods",
		"check,outline":                 `two methods, "check" and "outline"`,
		"check,ignorestatus":            "two methods",
		"check,ignorestatus=maybe":      `ignorestatus must be true or false, not "maybe"`,
		"check,ignorestatus=":           "ignorestatus must be true or false",
		"check,format=xml":              `format must be text or json, not "xml"`,
		"check,format=":                 "format must be text or json",
		"check,format=json,format=json": `"format" is given twice`,
		"check,foo=bar":                 `"foo" is not known`,
		"che=ck":                        `"che" is not known`,
		" check":                        `" check" is not the name of a method`,
		"check , format=json":           "not the name",
		`"check,x"`:                     "not the name",
		"che\x1b[2Jck":                  "not the name",
		"check\noutline":                "more than one line",
		`"check`:                        "column",
	} {
		_, err := ParseCall(in)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "--call ") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
		if err != nil && (len(hint.Of(err)) == 0 || strings.ContainsRune(err.Error(), '\x1b')) {
			t.Errorf("%q: %q, hints %q", in, err, hint.Of(err))
		}
	}
}
