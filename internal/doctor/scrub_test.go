package doctor

import (
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	s := newScrubber([]string{"hunter2", "abc", "hunter2-longer"})
	for in, want := range map[string]string{
		"plain text":                         "plain text",
		"two\nlines\tand\x1b[31m red":        "two lines and[31m red",
		"the password is hunter2-longer":     "the password is ***",
		"abc is too short":                   "abc is too short",
		"proxy http://me:p@ss/w@host:1":      "proxy http://me:***@host:1",
		"ssh://root@host:22":                 "ssh://root@host:22",
		"tcp://[::1]:1234 to a@b":            "tcp://[::1]:1234 to a@b",
		"Authorization: Bearer abcdefgh.ij=": "Authorization: Bearer ***",
		"x -----BEGIN PRIVATE KEY-----\nMII": "x (a private key)",
	} {
		if got := s.clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("http://user:", "secret", "@host")
	f.Add("", "a b", "")
	f.Add("Bearer ", "xxxxxxxxxxx", "\x00")
	f.Fuzz(func(t *testing.T, before, secret, after string) {
		if len(secret) < minSecret || strings.ContainsAny(secret, "*") {
			return
		}
		s := newScrubber([]string{secret})
		got := s.clean(before + secret + after)
		if strings.ContainsAny(got, "\n\r\x1b\x00") {
			t.Errorf("not one line: %q", got)
		}
		if got == strings.Join(strings.Fields(got), " ") && s.clean(secret) == hidden && strings.Contains(got, secret) && !strings.Contains(hidden, secret) {
			t.Errorf("%q is in %q", secret, got)
		}
	})
}
