package imagetools

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/registry"
)

func serve(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	h := fake.New(fake.WithReferrersSupport(true), fake.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func newTools(t *testing.T) *Tools {
	t.Helper()
	c := registry.New(registry.Options{})
	t.Cleanup(c.Close)
	return New(c, t.TempDir())
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func image(t *testing.T, platform string) v1.Image {
	t.Helper()
	img, err := random.Image(64, 2)
	check(t, err)
	p, err := v1.ParsePlatform(platform)
	check(t, err)
	config, err := img.ConfigFile()
	check(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = p.OS, p.Architecture
	img, err = mutate.ConfigFile(mutate.MediaType(img, types.OCIManifestSchema1), config)
	check(t, err)
	return img
}

func push(t *testing.T, ref string, what remote.Taggable) {
	t.Helper()
	at, err := name.ParseReference(ref)
	check(t, err)
	check(t, remote.Push(at, what))
}

func at(t *testing.T, ref string) Location {
	t.Helper()
	l, err := ParseLocation(ref)
	check(t, err)
	return l
}

func TestLocations(t *testing.T) {
	const d = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for in, want := range map[string][3]string{ // whole, name, identifier
		"alpine":                     {"docker.io/library/alpine:latest", "docker.io/library/alpine", "latest"},
		"ghcr.io/a/b:1":              {"ghcr.io/a/b:1", "ghcr.io/a/b", "1"},
		"localhost:5000/a":           {"localhost:5000/a:latest", "localhost:5000/a", "latest"},
		"localhost:5000/a@" + d:      {"localhost:5000/a@" + d, "localhost:5000/a", d},
		"localhost:5000/a:1@" + d:    {"localhost:5000/a:1@" + d, "localhost:5000/a", d},
		"oci-layout://x":             {"oci-layout://x:latest", "x", "latest"},
		"oci-layout:///x/y:1":        {"oci-layout:///x/y:1", "/x/y", "1"},
		"oci-layout://x@" + d:        {"oci-layout://x@" + d, "x", d},
		"oci-layout://x:1@" + d:      {"oci-layout://x:1@" + d, "x", d},
		`oci-layout://C:\x`:          {`oci-layout://C:\x:latest`, `C:\x`, "latest"},
		"oci-layout:///a:b/c@d/e:v1": {"oci-layout:///a:b/c@d/e:v1", "/a:b/c@d/e", "v1"},
	} {
		l, err := ParseLocation(in)
		if err != nil || l.String() != want[0] || l.Name() != want[1] || l.identifier() != want[2] {
			t.Errorf("%s: %q %q %q, %v", in, l.String(), l.Name(), l.identifier(), err)
		}
		if again, err := ParseLocation(l.String()); err != nil || again.String() != l.String() {
			t.Errorf("%s is %s, and that is %s, %v", in, l, again, err)
		}
	}
	for _, bad := range []string{"", "UPPER", "a b", "oci-layout://", "oci-layout://:1", "x@sha256:short", "oci-layout://x@sha256:short"} {
		if l, err := ParseLocation(bad); err == nil {
			t.Errorf("%q is %s", bad, l)
		}
	}
}

// What is wrong with a call is found before anybody is contacted, and says what helps.
func TestPlanRefuses(t *testing.T) {
	on := func(level buildflag.AnnotationLevel) []buildflag.Annotation {
		return []buildflag.Annotation{{Level: level, Key: "k", Value: "v"}}
	}
	for says, req := range map[string]Request{
		"no sources specified":               {Tags: []string{"a"}},
		"please set --tag or --dry-run":      {Sources: []string{"a"}},
		"no repositories specified":          {Sources: []string{digest.FromString("x").String()}, DryRun: true},
		"cannot infer repository":            {Sources: []string{digest.FromString("x").String()}, Tags: []string{"a", "b"}},
		`"manifest" annotations`:             {Sources: []string{"a"}, DryRun: true, Annotations: on(buildflag.OnManifest)},
		`"index-descriptor" annotations`:     {Sources: []string{"a"}, DryRun: true, Annotations: on(buildflag.OnIndexDescriptor)},
		"--tag: invalid reference":           {Sources: []string{"a"}, Tags: []string{"UPPER"}},
		"digest is required":                 {Files: []string{"{}"}, Tags: []string{"a"}},
		"it is empty":                        {Files: []string{" \n"}, Tags: []string{"a"}},
		"its size is -1":                     {Sources: []string{`{"digest":"` + digest.FromString("x").String() + `","size":-1}`}, Tags: []string{"a"}},
		"cannot unmarshal":                   {Files: []string{`{"digest":7}`}, Tags: []string{"a"}},
		"expected an OCI content descriptor": {Sources: []string{`{"schemaVersion":2}`}, Tags: []string{"a"}},
	} {
		if _, err := NewPlan(req); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, wanted %q", err, says)
		}
	}
	long := Request{Files: []string{`{"digest":"` + strings.Repeat("x", 1<<20) + `"}`}, Tags: []string{"a"}}
	if _, err := NewPlan(long); err == nil || len(err.Error()) > 2<<20 {
		t.Error("a long source is not refused in short words")
	}
}

// A signature and an attestation that are about an image follow it; what claims to be
// about them, in a ring, does not go on for ever.
func TestReferrersInARing(t *testing.T) {
	img := image(t, "linux/amd64")
	d, err := img.Digest()
	check(t, err)
	ring := false
	var signature digest.Digest
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !ring || !strings.Contains(r.URL.Path, "/from/referrers/") {
				next.ServeHTTP(w, r)
				return
			}
			// Everything is about everything.
			w.Header().Set("Content-Type", ocispecs.MediaTypeImageIndex)
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[
				{"mediaType":%[1]q,"digest":%[2]q,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"},
				{"mediaType":%[1]q,"digest":%[3]q,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"}]}`,
				ocispecs.MediaTypeImageManifest, d.String(), signature)
		})
	})
	push(t, host+"/from:1", img)
	raw := []byte(`{"schemaVersion":2,"mediaType":"` + ocispecs.MediaTypeImageManifest + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` +
		digest.FromString("{}").String() + `","size":2},"layers":[],"subject":{"mediaType":"` + ocispecs.MediaTypeImageManifest + `","digest":"` + d.String() + `","size":1}}`)
	signature = digest.FromBytes(raw)
	tools := newTools(t)
	repo := tools.client.Repository(at(t, host+"/from:1").named)
	_, err = repo.PutBlob(t.Context(), Descriptor{Digest: digest.FromString("{}"), Size: 2}, nil, func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("{}")), nil
	})
	check(t, err)
	check(t, repo.PutManifest(t.Context(), signature.String(), Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: signature, Size: int64(len(raw))}, raw))
	ring = true
	plan, err := NewPlan(Request{Sources: []string{host + "/from:1"}, Tags: []string{host + "/to:1"}, PreferIndex: true})
	check(t, err)
	made, err := tools.Make(t.Context(), plan)
	check(t, err)
	check(t, tools.Push(t.Context(), plan, made, func(string) Step { return quiet{} }))
	if _, _, err := tools.client.Repository(at(t, host+"/to:1").named).Get(t.Context(), signature.String()); err != nil {
		t.Errorf("the signature has not followed: %v", err)
	}
}

type quiet struct{}

func (quiet) Log(string)                    {}
func (quiet) Progress(string, int64, int64) {}
func (quiet) Done(error)                    {}

// Nothing is written when one of the parts is missing, and the error says which.
func TestPushOfWhatIsMissing(t *testing.T) {
	var mu sync.Mutex
	hide := ""
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			hidden := hide != "" && strings.HasSuffix(r.URL.Path, hide) && !strings.Contains(r.URL.Path, "/to/") && r.Method == http.MethodGet
			mu.Unlock()
			if hidden {
				http.NotFound(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	other := serve(t, nil)
	img := image(t, "linux/amd64")
	layers, err := img.Layers()
	check(t, err)
	layer, err := layers[1].Digest()
	check(t, err)
	push(t, host+"/from:1", img)
	hide = layer.String()
	for _, to := range []string{other + "/to:1", "oci-layout://to:1"} {
		tools := newTools(t)
		plan, err := NewPlan(Request{Sources: []string{host + "/from:1"}, Tags: []string{to}, PreferIndex: true})
		check(t, err)
		made, err := tools.Make(t.Context(), plan)
		check(t, err)
		err = tools.Push(t.Context(), plan, made, func(string) Step { return quiet{} })
		if !errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), host+"/from@"+layer.String()) {
			t.Errorf("%s: %v", to, err)
		}
		if _, err := tools.Get(t.Context(), at(t, to)); err == nil {
			t.Errorf("%s was written", to)
		}
	}
}

// Hostile indexes: whatever they list, the end is an error or an answer.
func TestHostileIndexes(t *testing.T) {
	tower := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	tower = mutate.AppendManifests(tower, mutate.IndexAddendum{Add: image(t, "linux/amd64")})
	for range 12 {
		tower = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: tower})
	}
	host, other := serve(t, nil), serve(t, nil)
	push(t, host+"/tower:1", tower)
	tools := newTools(t)
	img, err := tools.Get(t.Context(), at(t, host+"/tower:1"))
	check(t, err)
	if _, err := tools.Details(t.Context(), img); err == nil || !strings.Contains(err.Error(), "more indexes in each other") {
		t.Errorf("details of a tower: %v", err)
	}
	plan, err := NewPlan(Request{Sources: []string{host + "/tower:1"}, Tags: []string{other + "/x:1"}})
	check(t, err)
	made, err := tools.Make(t.Context(), plan)
	check(t, err)
	if err := tools.Push(t.Context(), plan, made, func(string) Step { return quiet{} }); err == nil || !strings.Contains(err.Error(), "levels deep") {
		t.Errorf("a copy of a tower: %v", err)
	}

	const d = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for text, says := range map[string]string{
		`{"manifests":[{"digest":"sha256:../../x","size":1}]}`:               "its index lists",
		`{"manifests":[{"digest":"` + d + `","size":-1}]}`:                   "its size is -1",
		`{"manifests":{"a":1}}`:                                              "cannot be read",
		`{"manifests":[` + strings.Repeat(`{},`, maxManifests) + `{}]}`:      "more than 10000 manifests",
		`{"manifests":` + strings.Repeat(`[`, 100_000):                       "cannot be read",
		`{"manifests":[{"digest":"` + d + `","platform":"linux/amd64"}]}`:    "cannot be read",
		`{"manifests":[{"digest":"` + d + `","annotations":{"a":["b"]}}]}`:   "cannot be read",
		`{"manifests":[{"digest":"` + d + `","size":99999999999999999999}]}`: "cannot be read",
	} {
		if _, err := parseIndex([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.100s: %v", text, err)
		}
	}
}

func TestNoneOfThePlatforms(t *testing.T) {
	host := serve(t, nil)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		parsed, err := v1.ParsePlatform(p)
		check(t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image(t, p), Descriptor: v1.Descriptor{Platform: parsed}})
	}
	push(t, host+"/a:1", index)
	plan, err := NewPlan(Request{Sources: []string{host + "/a:1"}, DryRun: true, Platforms: []ocispecs.Platform{{OS: "linux", Architecture: "riscv64"}}})
	check(t, err)
	_, err = newTools(t).Make(t.Context(), plan)
	if hints := hint.Of(err); len(hints) != 1 || hints[0] != "the image has [linux/amd64 linux/arm64]" {
		t.Errorf("%v, hints %q", err, hints)
	}
}

func TestPredicates(t *testing.T) {
	statement := `{"predicateType":"x","predicate":{"a":1}}`
	sealed, err := json.Marshal(map[string]string{"payload": base64.StdEncoding.EncodeToString([]byte(statement))})
	check(t, err)
	for mediaType, raw := range map[string]string{inToto: statement, "application/vnd.in-toto.spdx+dsse": string(sealed), "application/vnd.in-toto.provenance+dsse": string(sealed)} {
		got, err := readPredicate([]byte(raw), mediaType)
		if err != nil || fmt.Sprint(got) != "map[a:1]" {
			t.Errorf("%s: %v, %v", mediaType, got, err)
		}
	}
	for _, bad := range []string{"", "{", `{"payload":"%%"}`, `{"payload":7}`} {
		if got, err := readPredicate([]byte(bad), "application/vnd.in-toto.x+dsse"); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzSource(f *testing.F) {
	for _, s := range []string{
		"", "alpine", "a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "sha256:x", "oci-layout://a:b@c", `oci-layout://C:\a:1`,
		`{"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1,"platform":{"os":"linux"}}`, `{"schemaVersion":2,"config":{}}`, "{", "\n{}\n",
	} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, text string, fromFile bool) {
		s, err := parseSource(text, fromFile)
		if err != nil {
			return
		}
		if !s.isPlace() && s.desc.Digest.Validate() != nil {
			t.Fatalf("%q is the digest %q", text, s.desc.Digest)
		}
		if s.isPlace() {
			if again, err := ParseLocation(s.ref.String()); err != nil || again.String() != s.ref.String() {
				t.Fatalf("%q is %q, and that is %q, %v", text, s.ref, again, err)
			}
		}
	})
}

func FuzzCombine(f *testing.F) {
	const d = `"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`
	for _, s := range []string{
		"", "{}", `{"manifests":[]}`, `{"manifests":[{` + d + `,"platform":{"os":"linux","architecture":"arm64"}}]}`,
		`{"manifests":[{` + d + `,"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}},{` + d + `}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		index, err := parseIndex(raw)
		if err != nil {
			return
		}
		p := piece{raw: raw, desc: Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromBytes(raw)}}
		annotations := []buildflag.Annotation{
			{Level: buildflag.OnIndex, Key: "k", Value: "v"},
			{Level: buildflag.OnManifestDescriptor, Key: "k", Value: "v", Platform: &ocispecs.Platform{OS: "linux", Architecture: "arm64"}},
		}
		one, err := combine([]piece{p}, nil, true)
		if err != nil || !bytes.Equal(one.raw, raw) {
			t.Fatalf("one did not stay as it is: %v", err)
		}
		two, err := combine([]piece{p, p}, annotations, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseIndex(two.raw); err != nil {
			t.Fatalf("what was made is not read: %v\n%s", err, two.raw)
		}
		all := choose(index, nil)
		some := choose(index, []ocispecs.Platform{{OS: "linux", Architecture: "arm64"}})
		if len(all.keep) != len(index.Manifests) || len(some.keep) > len(all.keep) {
			t.Fatalf("%d of %d are kept, and %d for one platform", len(all.keep), len(index.Manifests), len(some.keep))
		}
	})
}

func FuzzPredicate(f *testing.F) {
	for _, s := range []string{"", "{}", `{"predicate":{"a":[1,2]}}`, `{"payload":"eyJwcmVkaWNhdGUiOjF9"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = readPredicate(raw, inToto)
		_, _ = readPredicate(raw, "application/vnd.in-toto.x+dsse")
	})
}
