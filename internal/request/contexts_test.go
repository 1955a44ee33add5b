package request

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

const (
	oneDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	checksum  = "0123456789012345678901234567890123456789"
)

func daemonVersion(v string) Capabilities {
	return CapabilitiesOf(client.BuildkitVersion{Version: v})
}

// source is the one source of an input.
func source(t *testing.T, st llb.State) *pb.Op {
	t.Helper()
	def, err := st.Marshal(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range def.ToPB().Def {
		var op pb.Op
		if err := op.UnmarshalVT(d); err != nil {
			t.Fatal(err)
		}
		if op.GetSource() != nil {
			return &op
		}
	}
	t.Fatal("no source")
	return nil
}

// What the frontend is told of the main context and of the Dockerfile.
func TestMainContext(t *testing.T) {
	file := Dockerfile{Name: "Dockerfile"}
	here := Dockerfile{Dir: "/d", Name: "D"}
	inline := Dockerfile{Inline: []byte("FROM x")}
	remoteFile := Dockerfile{URL: "https://u:p@h/D"}
	type attrs = map[string]string
	for _, c := range []struct {
		name    string
		ctx     Context
		file    Dockerfile
		asInput bool
		version string
		want    attrs    // besides filename
		inputs  []string // the ready-made ones
	}{
		{name: "folder", ctx: Context{Dir: "/c"}, file: here},
		{name: "nothing", ctx: Context{Empty: true}, file: inline},
		{name: "archive", ctx: Context{Upload: "id"}, file: file, want: attrs{"context": "http://buildkit-session/id"}},
		{name: "archive, own Dockerfile", ctx: Context{Upload: "id"}, file: here, want: attrs{"context": "http://buildkit-session/id", "dockerfilekey": "dockerfile"}},
		{name: "download", ctx: Context{URL: "https://h/x.tar"}, file: file, want: attrs{"context": "https://h/x.tar"}},
		{name: "download with query", ctx: Context{URL: "https://h/x.tar?a=b"}, file: file, asInput: true, want: attrs{"context": "https://h/x.tar?a=b"}},
		{name: "git", ctx: Context{URL: "https://h/x.git#v1:sub"}, file: file, want: attrs{"context": "https://h/x.git#v1:sub"}},
		{name: "git, inline", ctx: Context{URL: "git@h:x"}, file: inline, want: attrs{"context": "git@h:x", "dockerfilekey": "dockerfile"}},
		{name: "git, no query", ctx: Context{URL: "https://h/x.git#v1"}, file: file, asInput: true, want: attrs{"context": "https://h/x.git#v1"}},
		{name: "git by query", ctx: Context{URL: "https://h/x.git?branch=main&subdir=a/b"}, file: file, want: attrs{"context": "https://h/x.git#refs/heads/main:a/b"}},
		{name: "git by query, old", version: "v0.12.0", ctx: Context{URL: "https://h/x.git?tag=v1"}, file: file, want: attrs{"context": "https://h/x.git#refs/tags/v1"}},
		{name: "git with checksum", ctx: Context{URL: "https://h/x.git?tag=v1&checksum=" + checksum}, file: file,
			want: attrs{"context": "https://h/x.git?tag=v1&checksum=" + checksum, "frontend.caps": "moby.buildkit.frontend.gitquerystring"}},
		{name: "git as input", asInput: true, version: "v0.20.0", ctx: Context{URL: "https://h/x.git?checksum=" + checksum}, file: file, inputs: []string{"context", "dockerfile"}},
		{name: "git as input, own Dockerfile", asInput: true, ctx: Context{URL: "https://h/x.git?ref=a"}, file: here, inputs: []string{"context"}, want: attrs{"dockerfilekey": "dockerfile"}},
		{name: "folder, download", ctx: Context{Dir: "/c"}, file: remoteFile, inputs: []string{"dockerfile"}},
		{name: "git, download", ctx: Context{URL: "https://h/x.git#v1"}, file: remoteFile, inputs: []string{"context", "dockerfile"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.version == "" {
				c.version = "v0.34.2"
			}
			opt, err := Request{Context: c.ctx, Dockerfile: c.file, GitAsInput: c.asInput, NoProvenance: true}.Solve(daemonVersion(c.version))
			if err != nil {
				t.Fatal(err)
			}
			delete(opt.FrontendAttrs, "filename")
			if c.want == nil {
				c.want = attrs{}
			}
			if !maps.Equal(opt.FrontendAttrs, c.want) {
				t.Errorf("%v, want %v", opt.FrontendAttrs, c.want)
			}
			if got := slices.Sorted(maps.Keys(opt.FrontendInputs)); !slices.Equal(got, c.inputs) {
				t.Errorf("inputs %q, want %q", got, c.inputs)
			}
		})
	}
}

func TestContextsRefused(t *testing.T) {
	file := Dockerfile{Name: "Dockerfile"}
	old := daemonVersion("v0.23.2")
	for want, r := range map[string]Request{
		"needs BuildKit v0.24 or newer, and the daemon is BuildKit v0.23.2": {Context: Context{URL: "https://u:hunter2@h/x.git?checksum=" + checksum}, Dockerfile: file},
		"build context \"n\": https://xxxxx@h/y.git?submodules=false: more than a ref": {Context: Context{Dir: "/c"}, Dockerfile: Dockerfile{Inline: []byte("x")},
			Contexts: []buildflag.NamedContext{{Name: "n", Kind: buildflag.ContextGit, Value: "https://u:hunter2@h/y.git?submodules=false"}}},
		"unexpected query":                       {Context: Context{URL: "https://u:hunter2@h/x.git?x=y"}, Dockerfile: file},
		"goes with a folder or a Git repository": {Context: Context{Upload: "x"}, Dockerfile: Dockerfile{URL: "https://h/D"}},
		"has two contexts, nothing":              {Context: Context{Empty: true}, Dockerfile: file},
		"the build has no Dockerfile":            {Context: Context{Empty: true}},
		"comes from https://xxxxx@h/D and":       {Context: Context{Dir: "/c"}, Dockerfile: Dockerfile{URL: "https://u:hunter2@h/D", Dir: "/c", Name: "D"}},
	} {
		if strings.HasPrefix(want, "has two") {
			r.Context.Upload, want = "x", "has two contexts, an archive and nothing"
		}
		_, err := r.Solve(old)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
			continue
		}
		if text := err.Error() + strings.Join(hint.Of(err), ""); strings.Contains(text, "hunter2") {
			t.Errorf("a password in %q", text)
		}
	}
}

func TestNamedContexts(t *testing.T) {
	r := local()
	r.NoProvenance = true
	r.Contexts = []buildflag.NamedContext{
		{Name: "a", Value: "/a"},
		{Name: "context", Value: "/b"},
		{Name: "dockerfile", Value: "/c"},
		{Name: "img", Kind: buildflag.ContextImage, Value: "alpine:3"},
		{Name: "lay", Kind: buildflag.ContextLayout, Value: "/lay", Tag: "v1", Digest: oneDigest},
		{Name: "dl", Kind: buildflag.ContextHTTP, Value: "https://h/x"},
		{Name: "g1", Kind: buildflag.ContextGit, Value: "https://h/x.git?ref=a&subdir=b"},
		{Name: "g2", Kind: buildflag.ContextGit, Value: "git@h:x#a"},
		{Name: "g3", Kind: buildflag.ContextGit, Value: "ssh://git@h:2222/x.git#a:b"},
		{Name: "g4", Kind: buildflag.ContextGit, Value: "me@h:x"},
		{Name: "g5", Kind: buildflag.ContextGit, Value: "github.com/a/b#c"},
		{Name: "g6", Kind: buildflag.ContextGit, Value: "https://h/x.git?checksum=" + checksum},
	}
	opt, err := r.Solve(daemonVersion("v0.34.2"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"filename": "Dockerfile", "frontend.caps": capContexts + "," + capGitQuery,
		"context:a": "local:a", "context:context": "local:named/context", "context:dockerfile": "local:named/dockerfile",
		"context:img": "docker-image://alpine:3", "context:lay": "oci-layout://layout-0123456789abcdef0123456789abcdef@" + oneDigest,
		"context:dl": "https://h/x", "context:g1": "https://h/x.git#a:b", "context:g2": "git@h:x#a",
		"context:g3": "input:g3", "context:g4": "input:g4", "context:g5": "input:g5", "context:g6": "https://h/x.git?checksum=" + checksum,
	}
	if !reflect.DeepEqual(opt.FrontendAttrs, want) {
		t.Errorf("got  %v\nwant %v", opt.FrontendAttrs, want)
	}
	for name, id := range map[string]string{"g3": "git://h:2222/x.git#a:b", "g4": "git://h/x", "g5": "git://github.com/a/b#c"} {
		st, ok := opt.FrontendInputs[name]
		if !ok {
			t.Errorf("%s is no input", name)
			continue
		}
		op := source(t, st).GetSource()
		if op.Identifier != id {
			t.Errorf("%s: %s, want %s", name, op.Identifier, id)
		}
		if _, ssh := op.Attrs[pb.AttrMountSSHSock]; ssh != (name != "g5") {
			t.Errorf("%s: %v", name, op.Attrs)
		}
	}
}

// A source that is made here says all that the URL says, and that a daemon must
// know what is asked of it. For https it is what BuildKit's own library makes.
func TestGitInput(t *testing.T) {
	u := "https://h/x.git?tag=v1&subdir=a&checksum=" + checksum + "&submodules=false&keep-git-dir=true&mtime=commit&fetch-by-commit"
	ref, err := buildflag.ParseGit(u)
	if err != nil {
		t.Fatal(err)
	}
	got := source(t, gitInput(ref, "name"))
	want := source(t, llb.Git("https://h/x.git", "refs/tags/v1:a", llb.GitChecksum(checksum), llb.GitSkipSubmodules(), llb.KeepGitDir(), llb.GitMTime("commit"), llb.GitFetchByCommit()))
	if !reflect.DeepEqual(got.GetSource().Attrs, want.GetSource().Attrs) || got.GetSource().Identifier != want.GetSource().Identifier {
		t.Errorf("got  %v\nwant %v", got.GetSource(), want.GetSource())
	}
	def, err := gitInput(ref, "name").Marshal(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	needs := false
	for _, md := range def.ToPB().Metadata {
		if md.Caps[string(pb.CapSourceGitChecksum)] && md.Caps[string(pb.CapSourceGitMTime)] {
			needs = true
			if md.Description["llb.customname"] != "name" {
				t.Errorf("it is called %v", md.Description)
			}
		}
	}
	if !needs {
		t.Error("a daemon without checksums would not notice that one is asked for")
	}
}

func TestGitFragment(t *testing.T) {
	for in, want := range map[string]string{
		"https://h/x.git?ref=a":                "https://h/x.git#a",
		"https://h/x.git?branch=a/b":           "https://h/x.git#refs/heads/a/b",
		"https://h/x.git?subdir=a%20b/c":       "https://h/x.git#:a%20b/c",
		"https://h/x.git?subdir=a%2525":        "https://h/x.git#:a%2525",
		"https://u:p@h/x.git?tag=v1#:s":        "https://u:p@h/x.git#refs/tags/v1:s",
		"https://h/x.git?tag=v1&subdir=../x":   "https://h/x.git#refs/tags/v1:x",
		"git@h:x?ref=a&subdir=b":               "git@h:x#a:b",
		"https://h/x.git?checksum=" + checksum: "",
		"https://h/x.git?keep-git-dir=1":       "",
		"https://h/x.git?submodules=false":     "",
	} {
		ref, err := buildflag.ParseGit(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got, ok := gitFragment(in, ref); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v, want %q", in, got, ok, want)
		}
	}
}

// A Git URL in the other form means the same.
func FuzzGitFragment(f *testing.F) {
	for _, s := range []string{"https://h/x.git?ref=a&subdir=b%2fc", "git@h:p?branch=x#:y", "https://h/x.git?tag=%23%3a", "ssh://h/p?ref=a%25b", "github.com/a/b?ref=x", "https://h/x.git?subdir=%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := buildflag.ParseGit(s)
		if err != nil || ref == nil {
			return
		}
		plain, ok := gitFragment(s, ref)
		if !ok {
			return
		}
		again, err := buildflag.ParseGit(plain)
		if err != nil || again == nil || again.Ref != ref.Ref || again.Remote != ref.Remote || cleanSub(again.SubDir) != cleanSub(ref.SubDir) || again.Checksum != ref.Checksum {
			t.Fatalf("%q became %q: %+v, %v, was %+v", s, plain, again, err, ref)
		}
		if hasQuery(plain) {
			t.Fatalf("%q has a query still: %q", s, plain)
		}
	})
}

func TestWithDigests(t *testing.T) {
	r := Request{Contexts: []buildflag.NamedContext{{Name: "a"}, {Name: "b"}}}
	n := r.WithDigests(map[string]string{"b": oneDigest})
	if r.Contexts[1].Digest != "" || n.Contexts[1].Digest != oneDigest || n.Contexts[0].Digest != "" {
		t.Errorf("%+v became %+v", r.Contexts, n.Contexts)
	}
}

func TestGitQueryCapability(t *testing.T) {
	for v, want := range map[string]bool{"": false, "v0.23.9": false, "v0.24.0": true, "v0.34.2": true, "v0.0.0+unknown": true} {
		if daemonVersion(v).GitQuery != want {
			t.Errorf("%q: %v", v, !want)
		}
	}
}
