package gitinfo

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestWithoutCredentials(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"https://example.com/o/r.git":           "https://example.com/o/r.git",
		"https://u:p@example.com/o/r.git":       "https://example.com/o/r.git",
		"https://token@example.com/o/r":         "https://example.com/o/r",
		"http://u:p@example.com:8080/o/r?x=y#z": "http://example.com:8080/o/r?x=y#z",
		"https://u:p@q@example.com/o/r":         "https://example.com/o/r",
		"https://u:p/q@example.com/o/r":         "https://example.com/o/r",
		"https://u:p?q@example.com/o/r":         "https://example.com/o/r",
		"https://example.com/@scope/r":          "https://example.com/@scope/r",
		"https://example.com:8080/@scope/r":     "https://example.com:8080/@scope/r",
		"https://@example.com/r":                "https://example.com/r",
		"HTTPS://u:p@example.com/r":             "HTTPS://example.com/r",
		"ssh://git@example.com/o/r":             "ssh://git@example.com/o/r",
		"ssh://git:pw@example.com:22/o/r":       "ssh://git@example.com:22/o/r",
		"git+ssh://git:pw@example.com/o/r":      "git+ssh://git@example.com/o/r",
		"git@example.com:o/r.git":               "git@example.com:o/r.git",
		"git:pw@example.com:o/r.git":            "git@example.com:o/r.git",
		"/srv/git/a@b:c":                        "/srv/git/a@b:c",
		`C:\git\a@b`:                            `C:\git\a@b`,
		"C:/git/a@b":                            "C:/git/a@b",
		"file:///srv/git/r":                     "file:///srv/git/r",
		"../r":                                  "../r",
	} {
		if got := WithoutCredentials(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzWithoutCredentials(f *testing.F) {
	for _, s := range []string{"", "https://u:p@h/x", "ssh://g:p@h", "g:p@h:x", "://@", "a://b:@c@d/e@f", "https://h:1/@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := WithoutCredentials(s)
		if len(once) > len(s) {
			t.Errorf("%q grew to %q", s, once)
		}
		if user, pass := "user-in-here", "pass-in-here"; !strings.ContainsAny(s, "/@:?#\\") && s != "" {
			for _, scheme := range []string{"https", "http", "ssh"} {
				if got := WithoutCredentials(scheme + "://" + user + ":" + pass + "@" + s + "/x"); strings.Contains(got, pass) || scheme != "ssh" && strings.Contains(got, user) {
					t.Errorf("%s: %q", scheme, got)
				}
			}
		}
	})
}

func FuzzParseHead(f *testing.F) {
	commit := strings.Repeat("a1", 20)
	for _, s := range []string{"", "\n", "/r\n", "/r\n" + commit + "\nrefs/heads/main\n", "/a\nb\n" + commit + "\nHEAD\n", commit + "\n" + commit + "\nx"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, branch := parseHead(s)
		if i.Root != "" && !filepath.IsAbs(i.Root) || i.Root == "" && i != (Info{}) || i.Revision != "" && !isCommit(i.Revision) {
			t.Errorf("%q: %+v, %q", s, i, branch)
		}
	})
}

func FuzzParseFilters(f *testing.F) {
	for _, s := range []string{"", "local\x00filter.x.clean\x00", "global\x00filter.lfs.clean\x00local\x00filter.lfs.required\x00", "local\x00filter.a=b.clean\x00", "local"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseFilters(s)
		if err != nil {
			return
		}
		for _, c := range got {
			if strings.Count(c, "=") != 1 || !strings.HasSuffix(c, "=") && !strings.HasSuffix(c, ".required=false") {
				t.Errorf("%q: %q", s, c)
			}
		}
	})
}
