package buildflag

import (
	"reflect"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseContexts(t *testing.T) {
	for in, want := range map[string]NamedContext{
		"x=.":                                 {Name: "x", Value: "."},
		"x=../a=b":                            {Name: "x", Value: "../a=b"},
		"x= ":                                 {Name: "x", Value: " "},
		"x=C:\\src":                           {Name: "x", Value: "C:\\src"},
		"x=input:y":                           {Name: "x", Value: "input:y"},
		"x=docker-image:alpine":               {Name: "x", Value: "docker-image:alpine"},
		"docker.io/library/x:latest=.":        {Name: "x", Value: "."},
		"library/x=.":                         {Name: "x", Value: "."},
		"x:1=.":                               {Name: "x:1", Value: "."},
		"ghcr.io/me/app:latest=.":             {Name: "ghcr.io/me/app", Value: "."},
		"x=docker-image://alpine":             {Name: "x", Kind: ContextImage, Value: "alpine"},
		"x=docker-image://scratch":            {Name: "x", Kind: ContextImage, Value: "scratch"},
		"x=docker-image://a@" + someDigest:    {Name: "x", Kind: ContextImage, Value: "a@" + someDigest},
		"x=oci-layout://lay":                  {Name: "x", Kind: ContextLayout, Value: "lay"},
		"x=oci-layout:///a/lay:v1":            {Name: "x", Kind: ContextLayout, Value: "/a/lay", Tag: "v1"},
		"x=oci-layout://a:b/lay":              {Name: "x", Kind: ContextLayout, Value: "a:b/lay"},
		"x=oci-layout://a@b/lay":              {Name: "x", Kind: ContextLayout, Value: "a@b/lay"},
		"x=oci-layout://me@home":              {Name: "x", Kind: ContextLayout, Value: "me@home"},
		"x=oci-layout://C:\\lay":              {Name: "x", Kind: ContextLayout, Value: "C:\\lay"},
		"x=oci-layout://C:\\lay:v1":           {Name: "x", Kind: ContextLayout, Value: "C:\\lay", Tag: "v1"},
		"x=oci-layout://lay@" + someDigest:    {Name: "x", Kind: ContextLayout, Value: "lay", Digest: someDigest},
		"x=oci-layout://lay:v1@" + someDigest: {Name: "x", Kind: ContextLayout, Value: "lay", Tag: "v1", Digest: someDigest},
		"x=https://example.com/x.tar.gz":      {Name: "x", Kind: ContextHTTP, Value: "https://example.com/x.tar.gz"},
		"x=https://example.com/x.git#a:b":     {Name: "x", Kind: ContextGit, Value: "https://example.com/x.git#a:b"},
		"x=git@example.com:x":                 {Name: "x", Kind: ContextGit, Value: "git@example.com:x"},
		"x=ssh://example.com:22/x":            {Name: "x", Kind: ContextGit, Value: "ssh://example.com:22/x"},
	} {
		got, err := ParseContexts([]string{in})
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q = %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestParseContextsRefuses(t *testing.T) {
	for in, want := range map[string][]string{
		"":                          {"expected key=value"},
		"x":                         {"invalid context value: x, expected key=value"},
		"=x":                        {"the name is empty"},
		"x=":                        {"the source is empty"},
		"X=.":                       {"invalid context name X", "lowercase"},
		"a b=.":                     {"invalid context name a b"},
		"../x=.":                    {"invalid context name ../x"},
		"x=docker-image://":         {"names no image"},
		"x=docker-image://UP":       {"lowercase"},
		"x=docker-image:// ":        {"invalid reference"},
		"x=oci-layout://":           {"names no folder"},
		"x=oci-layout://:v1":        {"names no folder"},
		"x=oci-layout://lay:":       {`"" is no tag`},
		"x=oci-layout://lay:a b":    {`"a b" is no tag`},
		"x=oci-layout://l@sha256:0": {`the digest "sha256:0"`},
		"x=target:base":             {"bake"},
		"x=http://":                 {"names no host"},
		"x=https:///x.tar":          {"names no host"},
		"x=https://h/x.git?what=1":  {`unexpected query "what"`},
		"x=https:///x.git":          {"names no host"},
		"x=git://-oProxy=x/y":       {"could be taken for an option"},
		"x=https://h/x.git#-x":      {"could be taken for an option"},
	} {
		_, err := ParseContexts([]string{"other=.", in})
		wantError(t, err, append(want, "--build-context")...)
		if len(hint.Of(err)) == 0 {
			t.Errorf("%q: no hint", in)
		}
	}
	for _, in := range []string{"x=https://me:hunter2@h/x.git?what=1", "x=https://me:hunter2@h:port/x.tar", "=https://me:hunter2@h/", "X=https://me:hunter2@h/", "https://me:hunter2@h/"} {
		_, err := ParseContexts([]string{in})
		wantError(t, err, "--build-context")
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the password is in %q", in, err)
		}
	}
	_, err := ParseContexts([]string{"x=a", "docker.io/library/x:latest=b"})
	wantError(t, err, `the name "x" is given twice`)
}

func TestRemoteContext(t *testing.T) {
	for in, want := range map[string]ContextKind{
		".": ContextFolder, "./https://x": ContextFolder, "../x.git": ContextFolder, "x.git": ContextFolder, "/x.git": ContextFolder,
		"ftp://h/x": ContextFolder, "file:///x.git": ContextFolder, "github.com": ContextFolder, "gitlab.com/a/b": ContextFolder, "C:\\x": ContextFolder,
		"HTTP://h/x.tar":  ContextFolder, // BuildKit's frontend would look for a folder, too
		"http://h/x":      ContextHTTP,
		"https://h/x.tar": ContextHTTP, "https://h/x.git/y": ContextHTTP, "https://h/x.git:sub": ContextHTTP, "https://h/x#main": ContextHTTP,
		"https://h/x.git": ContextGit, "http://h/x.git#main": ContextGit, "https://h/x.git?branch=main&subdir=a": ContextGit,
		"git://h/x": ContextGit, "ssh://h/x": ContextGit, "ssh://git@h:2222/x.git#main:sub": ContextGit,
		"git@h:x": ContextGit, "me@h:x.git#main": ContextGit, "github.com/a/b": ContextGit, "github.com/a/b.git#main": ContextGit,
	} {
		if got, err := RemoteContext(in); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestGitOverSSH(t *testing.T) {
	for in, want := range map[string]bool{
		"git@h:x": true, "me@h:x": true, "ssh://h/x": true, "https://h/x.git": false, "git://h/x": false, ".": false, "github.com/a/b": false, "https://h/x.git?a=b": false,
	} {
		if got := GitOverSSH(in); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestRedactURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://h/x@y":                 "https://h/x@y",
		"https://token@h/x":             "https://xxxxx@h/x",
		"https://u:p@h":                 "https://xxxxx@h",
		"https://u:p@w@h/x":             "https://xxxxx@h/x",
		"https://u:p@h:99999999/x y%zz": "https://xxxxx@h:99999999/x y%zz",
		"https://u:p/w@h/x":             "https://xxxxx@h/x",
		"ssh://git@h/x":                 "ssh://git@h/x",
		"ssh://git:pw@h/x":              "ssh://git:xxxxx@h/x",
		"git@h:x":                       "git@h:x",
		"folder":                        "folder",
		"":                              "",
	} {
		if got := RedactURL(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func FuzzParseContexts(f *testing.F) {
	for _, s := range []string{"", "x=.", "=", "x=docker-image://a:b@" + someDigest, "x=oci-layout://a:b@" + someDigest, "x=https://u:p@h/x.git?ref=a&subdir=b", "x=git@h:p?tag=v", "a/b:c=ssh://h", "x=oci-layout://C:\\a:b", "\xff=\xff", "x=target:y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseContexts([]string{s})
		if err != nil {
			return
		}
		c := got[0]
		if c.Name == "" || c.Value == "" || strings.ToLower(c.Name) != c.Name && !strings.Contains(c.Name, ":") {
			t.Fatalf("%q = %+v", s, c)
		}
		// The name is the one that BuildKit looks up, so it is its own name.
		again, err := ParseContexts([]string{c.Name + "=" + valueOf(c)})
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%q: %+v read back as %+v, %v", s, got, again, err)
		}
	})
}

// valueOf writes a context's source as it is typed.
func valueOf(c NamedContext) string {
	v := c.Value
	switch c.Kind {
	case ContextImage:
		v = "docker-image://" + v
	case ContextLayout:
		v = "oci-layout://" + v
		if c.Tag != "" {
			v += ":" + c.Tag
		}
		if c.Digest != "" {
			v += "@" + c.Digest
		}
	}
	return v
}

func FuzzRemoteContext(f *testing.F) {
	for _, s := range []string{"", ".", "github.com/", "git@h:p#r:s", "https://h/x.git?checksum=0&submodules", "ssh://[::1]:22/x", "http://%zz", "https://u:p@h/x.git#%41", "a@b:c?d#e", "https://-h/x.git"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		kind, err := RemoteContext(s)
		if err != nil && kind == ContextFolder {
			t.Fatalf("%q: a folder cannot be a bad URL: %v", s, err)
		}
		ref, gitErr := ParseGit(s)
		if (ref != nil) != (kind == ContextGit && err == nil) || err == nil && gitErr != nil {
			t.Fatalf("%q: kind %v, %v, but Git says %v, %v", s, kind, err, ref, gitErr)
		}
		if GitOverSSH(s) && kind != ContextGit {
			t.Fatalf("%q is no repository and wants an agent", s)
		}
	})
}

func TestGitInside(t *testing.T) {
	for _, c := range []struct{ url, folder, want string }{
		{"https://h/x.git", ".", "https://h/x.git"},
		{"https://h/x.git", "a/b", "https://h/x.git#:a/b"},
		{"https://h/x.git#main", "a", "https://h/x.git#main:a"},
		{"https://h/x.git#main", "", "https://h/x.git#main"},
		{"https://h/x.git#main:s", ".", "https://h/x.git#main:s"},
		{"https://h/x.git#main:s", "../a", "https://h/x.git#main:a"},
		{"https://h/x.git#main:s", "../../../etc", "https://h/x.git#main:etc"},
		{"https://h/x.git#:s", "..", "https://h/x.git"},
		{"https://h/x.git#main:s", "/abs", "https://h/x.git#main:s/abs"},
		{"https://h/x.git#main", "a b#c", "https://h/x.git#main:a%20b%23c"},
		{"https://h/x.git?ref=v1", "a", "https://h/x.git?ref=v1#:a"},
		{"https://h/x.git?tag=v1&subdir=s", "a", "https://h/x.git?subdir=s%2Fa&tag=v1"},
		{"https://h/x.git?subdir=s", "..", "https://h/x.git"},
		{"https://h/x.git?checksum=0123456789012345678901234567890123456789#main:s", "a", "https://h/x.git?checksum=0123456789012345678901234567890123456789#main:s/a"},
		{"git@h:x/y.git#main", "a", "git@h:x/y.git#main:a"},
		{"ssh://git@h:22/x.git", "a", "ssh://git@h:22/x.git#:a"},
		{"github.com/x/y", "a", "github.com/x/y#:a"},
	} {
		got, err := GitInside(c.url, c.folder)
		if err != nil || got != c.want {
			t.Errorf("%s in %s: %s, %v, want %s", c.folder, c.url, got, err, c.want)
			continue
		}
		old, _ := ParseGit(c.url)
		now, err := ParseGit(got)
		if err != nil || now == nil || now.Remote != old.Remote || now.Ref != old.Ref || now.Checksum != old.Checksum {
			t.Errorf("%s: %+v, %v", got, now, err)
		}
	}
	if _, err := GitInside("https://h/x", "a"); err == nil {
		t.Error("a download has no folders")
	}
}
