package imageindex

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/registry"
)

// serve starts a registry and gives its host.
func serve(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	h := fake.New(fake.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes a small image for a platform; "" leaves the platform out.
func image(t *testing.T, platform string, format types.MediaType) v1.Image {
	t.Helper()
	img, err := random.Image(64, 1)
	check(t, err)
	config, err := img.ConfigFile()
	check(t, err)
	config.OS, config.Architecture = "", ""
	if platform != "" {
		p := platforms.MustParse(platform)
		config.OS, config.Architecture, config.Variant, config.OSVersion = p.OS, p.Architecture, p.Variant, p.OSVersion
	}
	img, err = mutate.ConfigFile(img, config)
	check(t, err)
	return mutate.MediaType(img, format)
}

// put pushes by digest and gives the reference.
func put(t *testing.T, repo string, what remote.Taggable) string {
	t.Helper()
	d, err := what.(interface{ Digest() (v1.Hash, error) }).Digest()
	check(t, err)
	ref, err := name.NewDigest(repo + "@" + d.String())
	check(t, err)
	check(t, remote.Push(ref, what))
	return ref.String()
}

// attested is an index as BuildKit pushes it: an image and its attestation.
func attested(t *testing.T, platform string, annotations map[string]string) v1.ImageIndex {
	t.Helper()
	img, att := image(t, platform, types.OCIManifestSchema1), image(t, "", types.OCIManifestSchema1)
	d, err := img.Digest()
	check(t, err)
	p, err := v1.ParsePlatform(platform)
	check(t, err)
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}},
		mutate.IndexAddendum{Add: att, Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{referenceType: attestationManifest, "vnd.docker.reference.digest": d.String()},
		}})
	return mutate.Annotations(index, annotations).(v1.ImageIndex)
}

// pulled reads an index back.
func pulled(t *testing.T, tag string) (*remote.Descriptor, ocispecs.Index) {
	t.Helper()
	ref, err := name.ParseReference(tag)
	check(t, err)
	got, err := remote.Get(ref)
	check(t, err)
	var index ocispecs.Index
	check(t, json.Unmarshal(got.Manifest, &index))
	return got, index
}

// shape is what an index lists, in few words.
func shape(index ocispecs.Index) []string {
	var out []string
	for _, m := range index.Manifests {
		word := platforms.FormatAll(*m.Platform)
		if isAttestation(m) {
			word = "attestation"
		}
		out = append(out, word)
	}
	return out
}

func TestPushJoinsIndexesWithAttestations(t *testing.T) {
	repo := serve(t, nil) + "/app"
	amd := put(t, repo, attested(t, "linux/amd64", map[string]string{"same": "1", "differs": "a", "one": "x"}))
	arm := put(t, repo, attested(t, "linux/arm64", map[string]string{"same": "1", "differs": "b"}))
	in := Input{
		Images: []Image{{Ref: amd, Node: "n0"}, {Ref: arm, Node: "n1"}},
		Tags:   []string{repo + ":1", repo + ":latest"},
	}
	desc, err := Push(t.Context(), in)
	check(t, err)
	for _, tag := range in.Tags {
		got, index := pulled(t, tag)
		if got.Digest.String() != desc.Digest.String() || got.Size != desc.Size || string(got.MediaType) != ocispecs.MediaTypeImageIndex || desc.MediaType != ocispecs.MediaTypeImageIndex {
			t.Errorf("%s is %v, Push said %v", tag, got.Descriptor, desc)
		}
		if want := []string{"linux/amd64", "linux/arm64", "attestation", "attestation"}; !reflect.DeepEqual(shape(index), want) {
			t.Errorf("%s lists %q, want %q", tag, shape(index), want)
		}
		if want := map[string]string{"same": "1"}; !reflect.DeepEqual(index.Annotations, want) {
			t.Errorf("annotations = %v, want %v", index.Annotations, want)
		}
		if index.Manifests[2].Annotations["vnd.docker.reference.digest"] != index.Manifests[0].Digest.String() {
			t.Error("the attestation has lost its image")
		}
	}
	again, err := Push(t.Context(), in)
	if err != nil || again.Digest != desc.Digest {
		t.Errorf("the second time: %v, %v", again, err)
	}
}

func TestPushJoinsPlainImages(t *testing.T) {
	repo := serve(t, nil) + "/app"
	for _, tc := range []struct {
		name string
		b    types.MediaType
		want string
	}{
		{"docker", types.DockerManifestSchema2, string(types.DockerManifestList)},
		{"mixed", types.OCIManifestSchema1, ocispecs.MediaTypeImageIndex},
	} {
		t.Run(tc.name, func(t *testing.T) {
			desc, err := Push(t.Context(), Input{
				Images: []Image{
					{Ref: put(t, repo, image(t, "linux/arm/v7", types.DockerManifestSchema2))},
					{Ref: put(t, repo, image(t, "windows(10.0.17763)/amd64", tc.b))},
				},
				Tags: []string{repo + ":" + tc.name},
			})
			check(t, err)
			_, index := pulled(t, repo+":"+tc.name)
			if desc.MediaType != tc.want || index.MediaType != tc.want {
				t.Errorf("media type %s and %s, want %s", desc.MediaType, index.MediaType, tc.want)
			}
			if want := []string{"linux/arm/v7", "windows(10.0.17763)/amd64"}; !reflect.DeepEqual(shape(index), want) {
				t.Errorf("lists %q, want %q", shape(index), want)
			}
		})
	}
}

func TestPushReadsAMissingPlatformFromTheConfiguration(t *testing.T) {
	repo := serve(t, nil) + "/app"
	bare := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(t, "linux/s390x", types.OCIManifestSchema1)})
	_, err := Push(t.Context(), Input{
		Images: []Image{{Ref: put(t, repo, bare)}, {Ref: put(t, repo, attested(t, "linux/amd64", nil))}},
		Tags:   []string{repo + ":x"},
	})
	check(t, err)
	if _, index := pulled(t, repo+":x"); !reflect.DeepEqual(shape(index), []string{"linux/s390x", "linux/amd64", "attestation"}) {
		t.Errorf("lists %q", shape(index))
	}
}

func TestPushKeepsASingleIndexAsItIs(t *testing.T) {
	repo := serve(t, nil) + "/app"
	ref := put(t, repo, attested(t, "linux/amd64", map[string]string{"a": "b"}))
	desc, err := Push(t.Context(), Input{Images: []Image{{Ref: ref}}, Tags: []string{repo + ":x"}})
	check(t, err)
	if !strings.HasSuffix(ref, desc.Digest.String()) {
		t.Errorf("%s was pushed as %s", ref, desc.Digest)
	}
}

func TestPushCopiesIntoOtherRepositories(t *testing.T) {
	a, b := serve(t, nil), serve(t, nil)
	amd, arm := put(t, a+"/app", attested(t, "linux/amd64", nil)), put(t, a+"/app", attested(t, "linux/arm64", nil))
	tags := []string{a + "/app:1", a + "/copy:1", b + "/far/away:1", b + "/far/away:2"}
	_, err := Push(t.Context(), Input{Images: []Image{{Ref: amd}, {Ref: arm}}, Tags: tags})
	check(t, err)
	for _, tag := range tags {
		_, index := pulled(t, tag)
		repo := tag[:strings.LastIndex(tag, ":")]
		for _, m := range index.Manifests {
			ref, err := name.NewDigest(repo + "@" + m.Digest.String())
			check(t, err)
			img, err := remote.Image(ref)
			check(t, err)
			layers, err := img.Layers()
			check(t, err)
			rc, err := layers[0].Compressed()
			check(t, err)
			if _, err := io.Copy(io.Discard, rc); err != nil {
				t.Errorf("%s: %v", ref, err)
			}
			_ = rc.Close()
		}
	}
}

// What is about the images of a build is not asked for: a registry that refuses to tell
// fails no build.
func TestPushAsksForNoReferrers(t *testing.T) {
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	amd, arm := put(t, host+"/app", attested(t, "linux/amd64", nil)), put(t, host+"/app", attested(t, "linux/arm64", nil))
	_, err := Push(t.Context(), Input{Images: []Image{{Ref: amd}, {Ref: arm}}, Tags: []string{host + "/copy:1"}})
	check(t, err)
	if _, index := pulled(t, host+"/copy:1"); len(index.Manifests) != 4 {
		t.Errorf("lists %q", shape(index))
	}
}

func TestPushRefuses(t *testing.T) {
	repo := serve(t, nil) + "/app"
	good := put(t, repo, attested(t, "linux/amd64", nil))
	twin := put(t, repo, image(t, "linux/amd64", types.OCIManifestSchema1))
	nowhere := put(t, repo, image(t, "", types.OCIManifestSchema1))
	hollow := put(t, repo, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	nested := put(t, repo, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: attested(t, "linux/arm64", nil)}))
	missing := repo + "@sha256:" + strings.Repeat("0", 64)
	tags := []string{repo + ":x"}
	for _, tc := range []struct {
		name string
		in   Input
		want []string
	}{
		{"no image", Input{Tags: tags}, []string{"no images"}},
		{"no tag", Input{Images: []Image{{Ref: good}}}, []string{"no tag"}},
		{"bad tag", Input{Images: []Image{{Ref: good}}, Tags: []string{"a b"}}, []string{`"a b"`}},
		{"bad reference", Input{Images: []Image{{Ref: repo + ":tag", Node: "n7"}}, Tags: tags}, []string{"n7"}},
		{"twice", Input{Images: []Image{{Ref: good, Node: "n0"}, {Ref: twin, Node: "n1"}}, Tags: tags}, []string{"linux/amd64", "twice", "n0", "n1"}},
		{"missing", Input{Images: []Image{{Ref: missing, Node: "n7"}}, Tags: tags}, []string{missing, "n7"}},
		{"no platform", Input{Images: []Image{{Ref: nowhere, Node: "n7"}}, Tags: tags}, []string{"n7", "which platform"}},
		{"empty index", Input{Images: []Image{{Ref: hollow, Node: "n7"}}, Tags: tags}, []string{"n7", "empty"}},
		{"index in an index", Input{Images: []Image{{Ref: nested, Node: "n7"}}, Tags: tags}, []string{"n7", "not an image"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Push(t.Context(), tc.in)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// locked asks for a name and a password.
func locked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, ok := r.BasicAuth(); !ok || user != "me" || pass != "open sesame" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestPushLogsIn(t *testing.T) {
	host := serve(t, locked)
	login := registry.Keychain(func(h string) (string, string, string, string, error) {
		if h != host {
			t.Errorf("asked for %q", h)
		}
		return "me", "open sesame", "", "", nil
	})
	img := image(t, "linux/amd64", types.OCIManifestSchema1)
	d, err := img.Digest()
	check(t, err)
	ref, err := name.NewDigest(host + "/app@" + d.String())
	check(t, err)
	check(t, remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "me", Password: "open sesame"})))
	in := Input{Images: []Image{{Ref: ref.String(), Node: "n0"}}, Tags: []string{host + "/app:x"}, Keychain: login}
	if _, err := Push(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	wrong := registry.Keychain(func(string) (string, string, string, string, error) { return "me", "hunter2", "", "", nil })
	for _, k := range []authn.Keychain{nil, wrong} {
		in.Keychain = k
		_, err := Push(t.Context(), in)
		if hints := hint.Of(err); err == nil || len(hints) != 1 || hints[0] != "docker login "+host {
			t.Errorf("error = %v, hints %q", err, hints)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error has the password: %v", err)
		}
	}
	broken := errors.New("helper not found")
	in.Keychain = registry.Keychain(func(string) (string, string, string, string, error) { return "", "", "", "", broken })
	if _, err := Push(t.Context(), in); !errors.Is(err, broken) || !strings.Contains(err.Error(), host) {
		t.Errorf("error = %v", err)
	}
}

func TestPushNamesTheTagThatFails(t *testing.T) {
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/frozen") {
				http.Error(w, `{"errors":[{"code":"DENIED","message":"the tag is frozen"}]}`, http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	ref := put(t, host+"/app", image(t, "linux/amd64", types.OCIManifestSchema1))
	_, err := Push(t.Context(), Input{Images: []Image{{Ref: ref}}, Tags: []string{host + "/app:ok", host + "/app:frozen"}})
	if err == nil || !strings.Contains(err.Error(), host+"/app:frozen") || !strings.Contains(err.Error(), "the tag is frozen") {
		t.Errorf("error = %v", err)
	}
	pulled(t, host+"/app:ok")
}

func TestPushInsecure(t *testing.T) {
	srv := httptest.NewTLSServer(fake.New(fake.Logger(log.New(io.Discard, "", 0))))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(srv.Close)
	repo := strings.TrimPrefix(srv.URL, "https://") + "/app"
	ref, err := name.ParseReference(repo + ":seed")
	check(t, err)
	img := image(t, "linux/amd64", types.OCIManifestSchema1)
	check(t, remote.Write(ref, img, remote.WithTransport(srv.Client().Transport)))
	d, err := img.Digest()
	check(t, err)
	in := Input{Images: []Image{{Ref: repo + "@" + d.String()}}, Tags: []string{repo + ":x"}}
	if _, err := Push(t.Context(), in); err == nil {
		t.Error("a certificate that nobody knows was taken")
	}
	in.Insecure = true
	if _, err := Push(t.Context(), in); err != nil {
		t.Error(err)
	}
}

func TestPushCancelled(t *testing.T) {
	asked, release := make(chan struct{}, 16), make(chan struct{})
	host := serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			asked <- struct{}{}
			<-release
		})
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err := Push(ctx, Input{Images: []Image{{Ref: host + "/app@sha256:" + strings.Repeat("0", 64)}}, Tags: []string{host + "/app:x"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}
