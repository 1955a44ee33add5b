package endpoint

import (
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestContainersExecAndPipes(t *testing.T) {
	long := strings.Repeat("a", maxContainer)
	for _, tc := range []struct {
		raw  string
		want Endpoint
		text string // "" when the same as raw
	}{
		{"docker-container://buildkitd", Endpoint{Scheme: "docker-container", Host: "buildkitd"}, ""},
		{"Docker-Container://Build_Kit.d-1", Endpoint{Scheme: "docker-container", Host: "Build_Kit.d-1"}, "docker-container://Build_Kit.d-1"},
		{"docker-container://" + long, Endpoint{Scheme: "docker-container", Host: long}, ""},
		{"docker-container://b?context=my+remote", Endpoint{}, "-"},
		{"docker-container://b?context=my%2Bremote", Endpoint{Scheme: "docker-container", Host: "b", Query: "context=my%2Bremote"}, ""},
		{"docker-container://b?", Endpoint{Scheme: "docker-container", Host: "b"}, "docker-container://b"},
		{"podman-container://b", Endpoint{Scheme: "podman-container", Host: "b"}, ""},
		{"nerdctl-container://0a", Endpoint{Scheme: "nerdctl-container", Host: "0a"}, ""},
		{"exec://?cmd=buildctl --addr unix:///run/b.sock dial-stdio", Endpoint{Scheme: "exec", Query: "cmd=buildctl+--addr+unix:///run/b.sock+dial-stdio"},
			"exec://?cmd=buildctl+--addr+unix:///run/b.sock+dial-stdio"},
		{"exec://?cmd=%2Fbin%2Fsh+-c+'a%26b%3Bc%25'", Endpoint{Scheme: "exec", Query: "cmd=/bin/sh+-c+'a%26b%3Bc%25'"}, "exec://?cmd=/bin/sh+-c+'a%26b%3Bc%25'"},
		{`exec://?cmd=C:/x.exe`, Endpoint{Scheme: "exec", Query: "cmd=C:/x.exe"}, ""},
		{"npipe:////./pipe/buildkitd", Endpoint{Scheme: "npipe", Path: "//./pipe/buildkitd"}, ""},
		{`npipe://\\.\pipe\Build.Kit-1_d`, Endpoint{Scheme: "npipe", Path: "//./pipe/Build.Kit-1_d"}, "npipe:////./pipe/Build.Kit-1_d"},
	} {
		got, err := Parse(tc.raw)
		if tc.text == "-" {
			if err == nil {
				t.Errorf("Parse(%q) = %+v", tc.raw, got)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("Parse(%q) = %+v, %v", tc.raw, got, err)
			continue
		}
		if tc.text == "" {
			tc.text = tc.raw
		}
		if got.String() != tc.text {
			t.Errorf("Parse(%q).String() = %q, want %q", tc.raw, got, tc.text)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%q does not survive a round trip: %+v, %v", tc.raw, again, err)
		}
	}
	if e := mustParse(t, "docker-container://b?context=c.d"); e.Param(ContainerContext) != "c.d" {
		t.Errorf("context = %q", e.Param(ContainerContext))
	}
	if e := mustParse(t, "npipe:////./pipe/b"); e.Address() != "//./pipe/b" || e.Hostname() != "" {
		t.Errorf("npipe: Address %q, Hostname %q", e.Address(), e.Hostname())
	}
}

func TestContainersExecAndPipesRefuse(t *testing.T) {
	for _, tc := range []struct{ raw, says, tip string }{
		{"docker-container://", "name of the container is missing", "docker-container://NAME"},
		{"docker-container://?context=c", "name of the container is missing", ""},
		{"docker-container://b/", "contains '/'", "docker-container://b"},
		{"docker-container:///b", "begins with '/'", "docker-container://b"},
		{"docker-container://../b", "begins with '.'", ""},
		{"docker-container://-b", "begins with '-'", ""},
		{"docker-container://a..b/../c", "contains '/'", ""},
		{"docker-container://b;id", "contains ';'", ""},
		{"docker-container://$(id)", "begins with '$'", ""},
		{"docker-container://a`id`", "contains '`'", ""},
		{"docker-container://a b", "contains ' '", ""},
		{"docker-container://a%20b", "contains '%'", ""},
		{"docker-container://a%00", "contains '%'", ""},
		{"docker-container://a:1", "contains ':'", ""},
		{"docker-container://ä", "begins with 'ä'", ""},
		{"docker-container://a\x00", "NUL", ""},
		{"docker-container://" + strings.Repeat("a", maxContainer+1), "256 bytes", ""},
		{"docker-container://me@b", "user name or password", ""},
		{"docker-container://b#x", "contains '#'", ""},
		{"docker-container://b?context=c#x", "cannot be read", ""},
		{"docker-container://b?context=%zz", "cannot be read", "docker-container://b"},
		{"docker-container://b?context=a;b=c", "cannot be read", ""},
		{"docker-container://b?namespace=x", `"namespace" is unknown; docker-container:// has context`, "docker-container://b"},
		{"docker-container://b?context=", "context is empty", ""},
		{"docker-container://b?context=a&context=a", "given twice", ""},
		{"docker-container://b?context=a%2F..%2Fb", "docker context contains '/'", "docker context ls"},
		{"docker-container://b?context=%00", "docker context begins with '\\x00'", ""},
		{"podman-container://b?context=c", `"context", and podman-container:// has none`, "podman-container://b"},
		{"nerdctl-container://b?namespace=c", `"namespace", and nerdctl-container:// has none`, ""},
		{"exec://", "has no command", "exec://?cmd=ssh+HOST+buildctl+dial-stdio"},
		{"exec://ssh host buildctl dial-stdio", "is a parameter", "exec://?cmd="},
		{"exec:ssh host buildctl dial-stdio", "is a parameter", "exec://?cmd=ssh+host+buildctl+dial-stdio"},
		{"exec://?cmd=", "cmd is empty", ""},
		{"exec://?cmd=+", "command is empty", ""},
		{"exec://?cmd=''", "command is empty", ""},
		{"exec://?cmd=a&arg=b", `"arg" is unknown`, ""},
		{"exec://?cmd=a+'b", "is not closed", ""},
		{`exec://?cmd=a+"b`, "is not closed", ""},
		{`exec://?cmd=a+\`, "last \\", ""},
		{"exec://?cmd=a%00b", "U+0000", ""},
		{"exec://?cmd=a%0Ab", "U+000A", ""},
		{"exec://?cmd=a%ffb", "U+FFFD", ""},
		{"exec://?cmd=a+%23b+c", "begins with #", "quotes"},
		{"exec://?cmd=a+|+b", "|, which only a shell", "sh+-c+'FIRST+%7C+SECOND'"},
		{"exec://?cmd=a+%26%26+b", "&&, which only a shell", ""},
		{"exec://?cmd=./a", "relative path", "absolute"},
		{"exec://?cmd=../a+b", "relative path", ""},
		{"exec://?cmd=" + strings.Repeat("|", 2000), "6012 bytes", ""},
		{"npipe://", "//./pipe/NAME", "npipe:////./pipe/buildkitd"},
		{"npipe://./pipe/bk", "//./pipe/NAME", "npipe:////./pipe/bk"},
		{"npipe:////server/pipe/bk", "//./pipe/NAME", ""},
		{"npipe:////./pipe/", "name of the pipe is missing", ""},
		{"npipe:////./pipe/../x", "begins with '.'", ""},
		{"npipe:////./pipe/a/b", "contains '/'", ""},
		{"npipe:////./pipe/a?b=c", "contains '?'", ""},
		{"npipe:////./pipe/a%20b", "contains '%'", ""},
		{"npipe:////./pipe/" + strings.Repeat("a", 300), "300 bytes", ""},
		{`\\.\pipe\buildkitd`, "scheme is missing", "npipe:////./pipe/buildkitd"},
		{`\\.\pipe\`, "scheme is missing", "npipe:////./pipe/buildkitd"},
	} {
		_, err := Parse(tc.raw)
		if err == nil {
			t.Errorf("Parse(%q) accepted", tc.raw)
			continue
		}
		if !strings.Contains(err.Error(), tc.says) || len(err.Error()) > 600 {
			t.Errorf("Parse(%.100q) says %q, want %q in it", tc.raw, err, tc.says)
		}
		if tips := strings.Join(hint.Of(err), "\n"); !strings.Contains(tips, tc.tip) {
			t.Errorf("Parse(%.100q) hints %q, want %q in it", tc.raw, tips, tc.tip)
		}
	}
}

func TestContainerPasswordIsNotRepeated(t *testing.T) {
	for _, raw := range []string{
		"docker-container://user:hunter2@b", "docker-container://b?user:hunter2@=x", "docker-container://b?context=hunter2;",
		"podman-container://hunter2@", "npipe:////./pipe/user:hunter2@", "npipe://user:hunter2@", "exec://user:hunter2@x",
		"exec:hunter2@x", "exec://?cmd='hunter2", "exec://?hunter2@=x",
	} {
		_, err := Parse(raw)
		if err == nil {
			t.Errorf("Parse(%q) accepted", raw)
			continue
		}
		if all := err.Error() + strings.Join(hint.Of(err), "\n"); strings.Contains(all, "hunter2") {
			t.Errorf("Parse(%q) repeats the secret: %s", raw, all)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, tc := range []struct {
		line string
		want []string
	}{
		{"a b  c", []string{"a", "b", "c"}},
		{`sh -c 'a | b; $(c) #d'`, []string{"sh", "-c", "a | b; $(c) #d"}},
		{`a "b 'c' \" d" e\ f`, []string{"a", `b 'c' " d`, "e f"}},
		{"a $HOME ~ * `b` c#d", []string{"a", "$HOME", "~", "*", "`b`", "c#d"}},
		{"a '' b", []string{"a", "", "b"}},
		{"/a:b/c=d,e@f+g", []string{"/a:b/c=d,e@f+g"}},
	} {
		e, err := Parse(ExecEndpoint(tc.line).String())
		if got := e.Command(); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, %v; want %q", tc.line, got, err, tc.want)
		}
	}
	if got := mustParse(t, "unix:///a").Command(); got != nil {
		t.Errorf("unix:// has the command %q", got)
	}
}

func FuzzCommand(f *testing.F) {
	for _, seed := range []string{"a b", "sh -c 'a|b'", `a\ b "c"`, "a #b", "a|b", "'", "\\", "%41", "a\x00b", "x &", "ä", "./a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, err := Parse(ExecEndpoint(line).String())
		if err != nil {
			if e != (Endpoint{}) {
				t.Fatalf("%q: a refusal with a value: %+v", line, e)
			}
			return
		}
		if e.Param(ExecCommand) != line {
			t.Fatalf("%q became %q", line, e.Param(ExecCommand))
		}
		args := e.Command()
		if len(args) == 0 || args[0] == "" {
			t.Fatalf("%q: %q", line, args)
		}
		for _, a := range args {
			if strings.ContainsRune(a, 0) {
				t.Fatalf("%q: %q", line, args)
			}
		}
	})
}
