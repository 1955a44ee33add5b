package build

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestImageID(t *testing.T) {
	part := func(kv ...string) Part {
		p := Part{Response: map[string]string{}}
		for i := 0; i < len(kv); i += 2 {
			p.Response[kv[i]] = kv[i+1]
		}
		return p
	}
	for _, c := range []struct {
		res  Result
		want string
	}{
		{Result{}, ""},
		{Result{Parts: []Part{part()}}, ""},
		{Result{Parts: []Part{part("containerimage.digest", "sha256:m")}}, "sha256:m"},
		{Result{Parts: []Part{part("containerimage.digest", "sha256:m", "containerimage.config.digest", "sha256:c")}}, "sha256:c"},
		{Result{Parts: []Part{part("containerimage.digest", "sha256:1"), part("containerimage.digest", "sha256:2")}}, ""},
		{Result{Parts: []Part{part("containerimage.config.digest", "sha256:1"), part()}, Index: &ocispecs.Descriptor{Digest: "sha256:i"}}, "sha256:i"},
	} {
		if got := c.res.ImageID(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.res, got, c.want)
		}
	}
}

func TestMetadata(t *testing.T) {
	desc := base64.StdEncoding.EncodeToString([]byte(`{"size":7}`))
	one := Result{Builder: "b", Parts: []Part{{Node: "n0", Ref: "r0", Response: map[string]string{
		"containerimage.descriptor": desc, "plain": `{"a":[1]}`, "image.name": "x:1", "list": "[1]", "empty": "{}", "text": "YQ==", "number": "1",
	}}}}
	check := func(r Result, want string) {
		t.Helper()
		got, err := json.Marshal(r.Metadata())
		if err != nil || string(got) != want {
			t.Errorf("%s, %v\nwant %s", got, err, want)
		}
	}
	check(Result{}, `{}`)
	check(one, `{"buildx.build.ref":"b/n0/r0","containerimage.descriptor":{"size":7},"empty":"{}","image.name":"x:1","list":"[1]","number":"1","plain":{"a":[1]},"text":"YQ=="}`)

	two := Result{Builder: "b", Parts: []Part{
		{Node: "n0", Ref: "r0", Response: map[string]string{"containerimage.digest": "sha256:1", "containerimage.config.digest": "sha256:2", "image.name": "x", "mine": "1"}},
		{Node: "n1", Ref: "r1", Response: map[string]string{"containerimage.digest": "sha256:3", "containerimage.config.digest": "sha256:4", "image.name": "x"}},
	}}
	check(two, `{"buildx.build.ref":"b/n0/r0","image.name":"x"}`) // no digest is that of the build
	two.Index, two.Names = &ocispecs.Descriptor{Digest: "sha256:i", Size: 9, MediaType: "m"}, []string{"x:1", "x:2"}
	check(two, `{"buildx.build.ref":"b/n0/r0","containerimage.descriptor":{"mediaType":"m","digest":"sha256:i","size":9},"containerimage.digest":"sha256:i","image.name":"x:1,x:2"}`)
	if two.Parts[0].Response["mine"] != "1" {
		t.Error("the result was changed")
	}
}

// serveRegistry starts one and gives its host.
func serveRegistry(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(fake.New(fake.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// pusher pushes an image for its platform by digest, as a daemon does.
func pusher(t *testing.T, repo string, platform ocispecs.Platform) solveFunc {
	return func(_ context.Context, b *buildkittest.Build) (map[string]string, error) {
		attrs := b.Request.Exporters[0].Attrs
		if attrs["name"] != repo || attrs["push"] != "true" || attrs["push-by-digest"] != "true" {
			t.Errorf("asked to push %v", attrs)
		}
		img, err := random.Image(64, 1)
		if err != nil {
			return nil, err
		}
		config, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		config.OS, config.Architecture = platform.OS, platform.Architecture
		if img, err = mutate.ConfigFile(img, config); err != nil {
			return nil, err
		}
		d, err := img.Digest()
		if err != nil {
			return nil, err
		}
		ref, err := name.NewDigest(repo + "@" + d.String())
		if err != nil {
			return nil, err
		}
		return map[string]string{"containerimage.digest": d.String()}, remote.Write(ref, img)
	}
}

// Two nodes push by digest; the index of both is pushed under every tag.
func TestJoinedPush(t *testing.T) {
	repo := serveRegistry(t) + "/app"
	want := plats("linux/amd64", "linux/arm64")
	amd, arm := daemon(t, pusher(t, repo, want[0]), "linux/amd64"), daemon(t, pusher(t, repo, want[1]), "linux/arm64")
	r := req(t, output("registry", ""))
	r.Tags, r.Platforms = []string{repo + ":v1", repo + ":v2"}, want
	var out buffer
	o := optionsShowing(t, &out)
	res, err := Run(t.Context(), builderOf(node("n0", amd.Endpoint()), node("n1", arm.Endpoint())), r, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []*buildkittest.Server{amd, arm} {
		if got := s.Requests()[0].FrontendAttrs["platform"]; got != formatAll(want)[i] {
			t.Errorf("node %d builds %q", i, got)
		}
	}
	equal(t, "names", res.Names, r.Tags)
	for _, tag := range r.Tags {
		ref, err := name.ParseReference(tag)
		if err != nil {
			t.Fatal(err)
		}
		index, err := remote.Index(ref)
		if err != nil {
			t.Fatal(err)
		}
		m, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, d := range m.Manifests {
			got = append(got, d.Platform.String())
			if d.Digest.String() != res.Parts[i].Response["containerimage.digest"] {
				t.Errorf("%v is not what node %d pushed", d, i)
			}
		}
		equal(t, tag, got, []string{"linux/amd64", "linux/arm64"})
		if d, err := index.Digest(); err != nil || d.String() != res.ImageID() || res.Metadata()["containerimage.digest"] != d.String() {
			t.Errorf("%v, %v, %v", d, res.ImageID(), err)
		}
	}
	if _, err := o.Progress.Close(); err != nil || !strings.Contains(out.String(), "pushing one index for all platforms") {
		t.Errorf("%s, %v", out.String(), err)
	}
}

// What a daemon says that it pushed is not believed.
func TestJoinedPushFails(t *testing.T) {
	dialtest.NoLeaks(t)
	repo := serveRegistry(t) + "/app"
	want := plats("linux/amd64", "linux/arm64")
	good := daemon(t, pusher(t, repo, want[0]), "linux/amd64")
	for _, said := range []map[string]string{nil, {"containerimage.digest": "latest"}, {"containerimage.digest": digest.FromString("nothing").String()}} {
		bad := daemon(t, func(context.Context, *buildkittest.Build) (map[string]string, error) { return said, nil }, "linux/arm64")
		r := req(t, output("registry", ""))
		r.Tags, r.Platforms = []string{repo + ":v1"}, want
		_, err := Run(t.Context(), builderOf(node("n0", good.Endpoint()), node("n1", bad.Endpoint())), r, options(t))
		if err == nil || !strings.Contains(err.Error(), "n1") {
			t.Errorf("%v: %v", said, err)
		}
	}
	ref, err := name.ParseReference(repo + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Index(ref); err == nil {
		t.Error("an index was pushed")
	}
}

// Ctrl-C between the builds and the joined push.
func TestJoinedPushCancelled(t *testing.T) {
	dialtest.NoLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	cancel(why)
	err := joinPushed(ctx, req(t, output("registry", "", "name", serveRegistry(t)+"/x")), &Result{Parts: []Part{{Node: "n0", Response: map[string]string{"containerimage.digest": digest.FromString("x").String()}}}}, options(t))
	if err == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// Without a push there is no index; each platform has a folder of its own.
func TestSplitFolders(t *testing.T) {
	dialtest.NoLeaks(t)
	dest := t.TempDir()
	send := func(arch string) solveFunc {
		src := tree(t, map[string]string{"linux_" + arch + "/file": arch})
		return func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			return nil, b.SendDir(ctx, 0, src)
		}
	}
	amd, arm := daemon(t, send("amd64"), "linux/amd64"), daemon(t, send("arm64"), "linux/arm64")
	r := req(t, output("local", dest))
	r.Platforms = plats("linux/amd64", "linux/arm64")
	b := builderOf(node("n0", amd.Endpoint()), node("n1", arm.Endpoint()))
	res, err := Run(t.Context(), b, r, options(t))
	if err != nil || res.Index != nil || res.ImageID() != "" {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if got := read(t, filepath.Join(dest, "linux_"+arch, "file")); got != arch {
			t.Errorf("%s: %q", arch, got)
		}
	}
}
