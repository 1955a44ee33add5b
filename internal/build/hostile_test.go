package build

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/request"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/auth/authprovider"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/ssh"
)

// misused is a build of r on a daemon that does f, which is not what builds do.
// It gives the error that the user sees.
func misused(t *testing.T, r request.Request, f func(ctx context.Context, b *buildkittest.Build) error) error {
	t.Helper()
	s := buildkittest.New(t, buildkittest.Options{Solve: func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, f(ctx, b)
	}})
	_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t))
	return err
}

// surroundings is a folder with a build in it, and things beside it that are no
// business of a daemon's.
func surroundings(t *testing.T) (outside string, r request.Request) {
	t.Helper()
	outside = tree(t, map[string]string{
		"secret": "private", "secrets/key": "private", "ctx/Dockerfile": "FROM scratch\n", "ctx/a": "1", "ctx/sub/b": "2",
		"other/x": "3", "other/.dockerignore": "y\n",
	})
	dir := filepath.Join(outside, "ctx")
	for name, to := range map[string]string{"out": "../secret", "outdir": "../secrets", "abs": filepath.Join(outside, "secret"), "in": "sub"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	return outside, request.Request{
		Context: request.Context{Dir: dir}, Dockerfile: request.Dockerfile{Dir: dir, Name: "Dockerfile"},
		Contexts: []buildflag.NamedContext{{Name: "other", Value: filepath.Join(outside, "other")}},
	}
}

// Folders that were not given are not there, whatever they are called.
func TestFoldersNotGiven(t *testing.T) {
	dialtest.NoLeaks(t)
	outside, r := surroundings(t)
	for _, name := range []string{"", "/", "..", "../secrets", "context/../secrets", "context/sub", "Context", "oth", "other/", "named/context", outside, filepath.Join(outside, "secrets")} {
		dest := t.TempDir()
		err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error { return b.FetchDir(ctx, name, dest) })
		// The refusal and the end of what asked race on the fake daemon's side.
		if err == nil || !strings.Contains(err.Error(), "no access allowed to dir") && !strings.Contains(err.Error(), "context canceled") {
			t.Errorf("%q: %v", name, err)
		}
		if got := names(t, dest); len(got) > 0 {
			t.Errorf("%q: %q was sent", name, got)
		}
	}
}

// A daemon says what it wants of a folder by paths; those that lead out of it
// end the build.
func TestPathsAbove(t *testing.T) {
	dialtest.NoLeaks(t)
	outside, r := surroundings(t)
	for _, follow := range []string{"..", "../secret", "../*", "../../*", "../secrets/key", "a/../../secret", "../ctx/a", "sub/../../secrets/*"} {
		dest := t.TempDir()
		err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error {
			return b.FetchPaths(ctx, request.LocalContext, dest, []string{follow}, nil)
		})
		want := "build context: the daemon asked for .., which is outside of " + r.Context.Dir
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", follow, err, want)
		}
		if got := names(t, dest); len(got) > 0 {
			t.Errorf("%s: %q was sent", follow, got)
		}
	}
	// The name of the other folder is told.
	err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error {
		return b.FetchPaths(ctx, "other", t.TempDir(), []string{"../secret"}, nil)
	})
	if want := `build context "other": the daemon asked for .., which is outside of ` + filepath.Join(outside, "other"); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// What leads out of the folder by links is sent as the links that there are,
// and what is asked for by odd patterns is looked for in the folder only.
func TestLinksAreNotFollowedOut(t *testing.T) {
	dialtest.NoLeaks(t)
	_, r := surroundings(t)
	for _, c := range []struct {
		follow, include []string
		want            []string
	}{
		{follow: nil, want: []string{"Dockerfile", "a", "abs", "in", "out", "outdir", "sub"}},
		{follow: []string{"out"}, want: []string{"out"}},
		{follow: []string{"outdir/key"}, want: []string{"outdir"}},
		{follow: []string{"abs"}, want: []string{"abs"}},
		{follow: []string{"in/b"}, want: []string{"in", "sub"}},
		{follow: []string{"/etc/passwd"}},
		{include: []string{"../**", "../secret", "/etc/*"}},
		{follow: []string{"a/b/c"}},
	} {
		dest := t.TempDir()
		err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error {
			return b.FetchPaths(ctx, request.LocalContext, dest, c.follow, c.include)
		})
		if err != nil {
			t.Errorf("%q %q: %v", c.follow, c.include, err)
		}
		got := names(t, dest)
		slices.Sort(got)
		equal(t, strings.Join(append(c.follow, c.include...), " "), got, c.want)
		for _, name := range got {
			if fi, err := os.Lstat(filepath.Join(dest, name)); err == nil && strings.HasPrefix(name, "out") && fi.Mode()&os.ModeSymlink == 0 {
				t.Errorf("%s arrived as %v", name, fi.Mode())
			}
		}
	}
}

// The Dockerfile's folder is not there, only the Dockerfile.
func TestOnlyTheDockerfile(t *testing.T) {
	_, r := surroundings(t)
	for _, follow := range [][]string{nil, {"a"}, {"*"}, {"sub"}, {"Dockerfile", "../secret"}} {
		dest := t.TempDir()
		err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error {
			return b.FetchPaths(ctx, request.LocalDockerfile, dest, follow, nil)
		})
		if (err != nil) != slices.Contains(follow, "../secret") {
			t.Errorf("%q: %v", follow, err)
		}
		for _, name := range names(t, dest) {
			if name != "Dockerfile" {
				t.Errorf("%q: %s was sent", follow, name)
			}
		}
	}
}

// A build without --ssh and --secret forwards nothing; one with them no more
// than was named.
func TestAgentsAndSecretsNotGiven(t *testing.T) {
	r := req(t)
	if err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error { return b.SSH(ctx, "default") }); err == nil {
		t.Error("an agent, without --ssh")
	}
	agent := filepath.Join(tree(t, map[string]string{"key": privateKey(t)}), "key")
	r.SSH = []buildflag.SSH{{ID: "one", Paths: []string{agent}}}
	if err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error { return b.SSH(ctx, "one") }); err != nil {
		t.Errorf("the agent that was given: %v", err)
	}
	for _, id := range []string{"default", "", "two", agent} {
		if err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error { return b.SSH(ctx, id) }); err == nil || !strings.Contains(err.Error(), "unset ssh forward key") {
			t.Errorf("agent %q: %v", id, err)
		}
	}
	err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error { _, err := b.Secret(ctx, "token"); return err })
	if err == nil {
		t.Error("a secret, without --secret")
	}
}

func privateKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

// Known and by design: a daemon may ask for the credentials of any registry by
// its name, since only it knows which ones a build needs. It cannot ask which
// there are. Who builds on a daemon trusts it with what docker's configuration
// holds.
func TestCredentialsAreAskedByHost(t *testing.T) {
	var asked []string
	o := options(t)
	o.Auth = func(_ context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck) (types.AuthConfig, error) {
		asked = append(asked, host)
		if host != "known.example" {
			return types.AuthConfig{}, nil
		}
		return types.AuthConfig{Username: "me", Password: "pw"}, nil
	}
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		caller, err := b.Session(ctx)
		if err != nil {
			return nil, err
		}
		for _, host := range []string{"known.example", "other.example", "*", ""} {
			got, err := auth.NewAuthClient(caller.Conn()).Credentials(ctx, &auth.CredentialsRequest{Host: host})
			if want := map[bool]string{true: "pw"}[host == "known.example"]; err != nil || got.Secret != want {
				t.Errorf("%q: %v, %v", host, got, err)
			}
		}
		return nil, nil
	})
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t), o); err != nil {
		t.Fatal(err)
	}
	equal(t, "asked for", asked, []string{"known.example", "other.example", "*", ""})
}

// Content stores: the one image that was named, for reading.
func TestStoresNotGiven(t *testing.T) {
	dialtest.NoLeaks(t)
	l := newLayout(t)
	image, other := l.image("layer"), l.image("other")
	l.index(named(image, refName, "v1"), named(other, refName, "v2"))
	r := req(t)
	attempt := func(id string, f func(context.Context, content.Store) error) error {
		return misused(t, r, func(ctx context.Context, b *buildkittest.Build) error {
			s, err := b.Store(ctx, id)
			if err != nil {
				return err
			}
			return f(ctx, s)
		})
	}
	info := func(d digest.Digest) func(context.Context, content.Store) error {
		return func(ctx context.Context, s content.Store) error { _, err := s.Info(ctx, d); return err }
	}
	if err := attempt("oci:x", info(image.Digest)); err == nil {
		t.Error("a build without a layout has a store")
	}
	r.Contexts = []buildflag.NamedContext{{Name: "lay", Kind: buildflag.ContextLayout, Value: l.dir, Tag: "v1"}}
	id := "oci:" + request.LayoutStore(image.Digest.String())
	if err := attempt(id, info(image.Digest)); err != nil {
		t.Errorf("the image that was given: %v", err)
	}
	for _, wrong := range []string{"", "oci:", "export", "local:" + l.dir, "oci:" + l.dir, strings.TrimPrefix(id, "oci:"), "oci:" + request.LayoutStore(other.Digest.String())} {
		if err := attempt(wrong, info(image.Digest)); err == nil || !strings.Contains(err.Error(), "store") {
			t.Errorf("store %q: %v", wrong, err)
		}
	}
	for _, d := range []digest.Digest{other.Digest, digest.FromString("other"), "sha256:../../index.json"} {
		if err := attempt(id, info(d)); err == nil {
			t.Errorf("%s is told of", d)
		}
		if err := attempt(id, func(ctx context.Context, s content.Store) error {
			ra, err := s.ReaderAt(ctx, ocispecs.Descriptor{Digest: d, Size: 5})
			if err != nil {
				return err
			}
			_, err = ra.ReadAt(make([]byte, 5), 0)
			return err
		}); err == nil {
			t.Errorf("%s is given", d)
		}
	}
	before := names(t, filepath.Dir(l.path(image.Digest)))
	for what, f := range map[string]func(context.Context, content.Store) error{
		"delete": func(ctx context.Context, s content.Store) error { return s.Delete(ctx, image.Digest) },
		"update": func(ctx context.Context, s content.Store) error {
			_, err := s.Update(ctx, content.Info{Digest: image.Digest, Labels: map[string]string{"a": "b"}})
			return err
		},
		"walk": func(ctx context.Context, s content.Store) error {
			return s.Walk(ctx, func(content.Info) error { return nil })
		},
		"statuses": func(ctx context.Context, s content.Store) error { _, err := s.ListStatuses(ctx); return err },
		"status":   func(ctx context.Context, s content.Store) error { _, err := s.Status(ctx, "x"); return err },
		"abort":    func(ctx context.Context, s content.Store) error { return s.Abort(ctx, "x") },
		"write": func(ctx context.Context, s content.Store) error {
			return content.WriteBlob(ctx, s, "x", strings.NewReader("evil"), ocispecs.Descriptor{Digest: digest.FromString("evil"), Size: 4})
		},
	} {
		if err := attempt(id, f); err == nil {
			t.Errorf("%s: allowed", what)
		}
	}
	equal(t, "the layout's content", names(t, filepath.Dir(l.path(image.Digest))), before)
}

// The archive is given for its id, and once.
func TestUploadsNotGiven(t *testing.T) {
	dialtest.NoLeaks(t)
	r := request.Request{Context: request.Context{Upload: "the-id"}, Dockerfile: request.Dockerfile{Name: "Dockerfile"}}
	o := options(t)
	o.Stdin = strings.NewReader("archive")
	s := buildkittest.New(t, buildkittest.Options{Solve: func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		for _, url := range []string{"http://buildkit-session/", "http://buildkit-session/other", "http://buildkit-session/x/the-id", "http://buildkit-session/the-id/", "http://buildkit-session"} {
			if data, err := b.Upload(ctx, url); err == nil || len(data) > 0 || !strings.Contains(err.Error(), "this build has no upload") {
				t.Errorf("%s: %q, %v", url, data, err)
			}
		}
		if data, err := b.Upload(ctx, b.Request.FrontendAttrs["context"]); err != nil || string(data) != "archive" {
			t.Errorf("the right one: %q, %v", data, err)
		}
		_, err := b.Upload(ctx, b.Request.FrontendAttrs["context"])
		return nil, err
	}})
	_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, o)
	if err == nil || !strings.Contains(err.Error(), "was sent already") {
		t.Errorf("once more: %v", err)
	}
	if err := misused(t, req(t), func(ctx context.Context, b *buildkittest.Build) error {
		_, err := b.Upload(ctx, "http://buildkit-session/the-id")
		return err
	}); err == nil {
		t.Error("a build of a folder has uploads")
	}
}

// A refusal is the daemon's to report; what it makes of it does not matter.
func TestHostileDaemonThatSwallowsRefusals(t *testing.T) {
	_, r := surroundings(t)
	err := misused(t, r, func(ctx context.Context, b *buildkittest.Build) error {
		_ = b.FetchPaths(ctx, request.LocalContext, t.TempDir(), []string{"../secret"}, nil)
		return nil // as if all were well
	})
	if err == nil || !strings.Contains(err.Error(), "which is outside of") {
		t.Errorf("the build succeeded: %v", err)
	}
	if errors.Is(err, context.Canceled) {
		t.Errorf("it reads as if the user had cancelled: %v", err)
	}
}
