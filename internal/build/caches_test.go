package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/containerd/v2/core/content"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func caches(t *testing.T, flag string, vals ...string) []buildflag.Cache {
	t.Helper()
	out, err := buildflag.ParseCaches(flag, vals)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cacheFolder makes a local cache of one blob, under the given tags.
func cacheFolder(t *testing.T, blob string, tags ...string) (dir string, dgst digest.Digest) {
	t.Helper()
	dgst = digest.FromString(blob)
	index := ocispecs.Index{}
	for _, tag := range tags {
		index.Manifests = append(index.Manifests, ocispecs.Descriptor{Digest: dgst, Annotations: map[string]string{ocispecs.AnnotationRefName: tag}})
	}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return tree(t, map[string]string{"index.json": string(text), "blobs/sha256/" + dgst.Encoded(): blob}), dgst
}

// A local cache that is not there, or not whole, is left out with a word about
// it; nothing is made for it.
func TestLocalCacheImports(t *testing.T) {
	full, dgst := cacheFolder(t, "blob", "latest", "other")
	lost, gone := cacheFolder(t, "blob", "latest")
	if err := os.Remove(filepath.Join(lost, "blobs", "sha256", gone.Encoded())); err != nil {
		t.Fatal(err)
	}
	empty, absent := t.TempDir(), filepath.Join(t.TempDir(), "not", "there")
	for _, tc := range []struct {
		flag string
		want string // the digest; "" when it is left out
		said string
	}{
		{"type=local,src=" + full, dgst.String(), ""},
		{"type=local,tag=other,src=" + full, dgst.String(), ""},
		{"type=local,digest=" + dgst.String() + ",src=" + full, dgst.String(), ""},
		{"type=local,tag=nosuch,src=" + full, "", `no cache has the tag "nosuch"`},
		{"type=local,digest=sha256:1,src=" + full, "", "skipped: "},
		{"type=local,digest=" + digest.FromString("x").String() + ",src=" + full, "", "there is no cache yet"},
		{"type=local,src=" + lost, "", "there is no cache yet"},
		{"type=local,src=" + empty, "", "there is no cache yet"},
		{"type=local,src=" + absent, "", "there is no cache yet"},
		{"type=local,src=" + tree(t, map[string]string{"index.json": "{"}), "", "its index.json cannot be read"},
		{"type=local,src=" + tree(t, map[string]string{"index.json/x": ""}), "", "skipped: "},
		{"type=local,src=" + tree(t, map[string]string{"index.json": `{"manifests":[{"digest":"../../x","annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`}), "", "skipped: "},
	} {
		s := daemon(t, nil)
		var out buffer
		o := optionsShowing(t, &out)
		r := req(t)
		r.CacheFrom = caches(t, "--cache-from", tc.flag, "registry.example/x")
		if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, o); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Progress.Close(); err != nil {
			t.Fatal(err)
		}
		got := s.Requests()[0].Cache.Imports
		switch {
		case tc.want == "" && (len(got) != 1 || got[0].Type != "registry"):
			t.Errorf("%s: %v", tc.flag, got)
		case tc.want != "" && (len(got) != 2 || got[0].Attrs["digest"] != tc.want):
			t.Errorf("%s: %v, want %s", tc.flag, got, tc.want)
		}
		if !strings.Contains(out.String(), tc.said) || tc.want != "" && strings.Contains(out.String(), "skipped") {
			t.Errorf("%s: it says\n%s\nwant %q", tc.flag, out.String(), tc.said)
		}
		if r.CacheFrom[0].Attrs["digest"] != "" && !strings.Contains(tc.flag, "digest=") {
			t.Errorf("%s: the request was changed: %v", tc.flag, r.CacheFrom)
		}
	}
	if got := names(t, empty); len(got) > 0 {
		t.Errorf("in the empty folder there is %q", got)
	}
	if _, err := os.Stat(filepath.Dir(absent)); err == nil {
		t.Error("a folder was made for a cache that is not there")
	}
}

// export sends a blob into the client's local cache, as a daemon does.
func export(ctx context.Context, b *buildkittest.Build, dest, blob string) (ocispecs.Descriptor, error) {
	desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromString(blob), Size: int64(len(blob))}
	caller, err := b.Session(ctx)
	if err != nil {
		return desc, err
	}
	store := sessioncontent.NewCallerStore(caller, "local:"+dest)
	return desc, content.WriteBlob(ctx, store, "ref", bytes.NewReader([]byte(blob)), desc)
}

// A build that fails leaves the cache that was there, and no folder where none
// was.
func TestLocalCacheExports(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "new", "cache")
	boom := errors.New("boom")
	fail, send := true, false
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		response := map[string]string{}
		if send || !fail {
			desc, err := export(ctx, b, dest, strings.Repeat("x", len(b.Request.Ref)+int(b.Request.Ref[0])))
			if err != nil {
				return nil, err
			}
			text, err := json.Marshal(desc)
			if err != nil {
				return nil, err
			}
			response["cache.manifest"] = string(text)
		}
		if fail {
			return nil, boom
		}
		return response, nil
	})
	run := func() error {
		t.Helper()
		r := req(t)
		r.CacheTo = caches(t, "--cache-to", "type=local,dest="+dest)
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t))
		return err
	}
	if err := run(); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(dest)); err == nil {
		t.Errorf("the failed build has made %q", names(t, filepath.Dir(dest)))
	}
	fail = false
	if err := run(); err != nil {
		t.Fatal(err)
	}
	before := read(t, filepath.Join(dest, "index.json"))
	if !strings.Contains(before, "sha256:") {
		t.Errorf("index: %s", before)
	}
	fail, send = true, true
	if err := run(); err == nil {
		t.Fatal("it did not fail")
	}
	if got := read(t, filepath.Join(dest, "index.json")); got != before {
		t.Errorf("the failed build has changed the cache's index:\n%s\nwas\n%s", got, before)
	}
	attrs := map[string]string{"src": dest}
	if err := findCache(attrs); err != nil || !strings.Contains(before, attrs["digest"]) {
		t.Errorf("the cache is not whole: %v, %v", attrs, err)
	}
}

func TestLocalCacheExportRefuses(t *testing.T) {
	s := daemon(t, nil)
	dir := tree(t, map[string]string{"file": "keep"})
	for dest, want := range map[string]string{"file": "it is a file", "file/below": "not a directory"} {
		r := req(t)
		r.CacheTo = caches(t, "--cache-to", "type=local,dest="+filepath.Join(dir, dest))
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t))
		if err == nil || !strings.Contains(err.Error(), "--cache-to type=local,dest="+filepath.Join(dir, dest)) || !strings.Contains(err.Error(), want) || len(hint.Of(err)) == 0 {
			t.Errorf("%s: %v", dest, err)
		}
	}
	if got := names(t, dir); len(s.Requests()) > 0 || !slices.Equal(got, []string{"file"}) || read(t, filepath.Join(dir, "file")) != "keep" {
		t.Errorf("%d builds were sent; the folder has %q", len(s.Requests()), got)
	}
}

// A host-gateway that no driver can have is refused before a node is dialled.
func TestHostGatewayNeedsAnEngine(t *testing.T) {
	s := daemon(t, nil)
	r := req(t)
	r.Hosts = []buildflag.Host{{Name: "h", IP: buildflag.HostGateway}}
	_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t))
	if err == nil || !strings.Contains(err.Error(), "host-gateway is not supported by the remote driver") || s.Connections() > 0 {
		t.Errorf("%v, %d connections", err, s.Connections())
	}
}
