//go:build e2e && linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Images are made without a daemon: always the same, so that their digests are.
// Below a prefix of repositories in a registry there are
//
//	multi:1    an OCI index with linux/amd64, arm64, arm/v7, s390x, and their attestations
//	plain:1    an OCI index with linux/amd64, arm64 and an annotation, without attestations
//	amd64:1    an OCI image, and so arm64:1
//	damd64:1   a Docker image, and so darm64:1, darmv7:1
//	dmulti:1   a Docker manifest list of damd64 and darm64
//	windows:1  an OCI index with OS versions, OS features and annotations
//	urls:1     the same, with URLs, which some clients go to
//	nested:1   an OCI index of plain:1's index and s390x
//	signed:1   an image that is the subject of a signature and of an attestation
type Images struct {
	prefix string
	opts   []remote.Option
	// Digest is by name and tag, and of the parts of multi:1 by platform
	// ("multi/linux/arm64").
	Digest map[string]string
}

// PushImages makes them in a registry, below a prefix such as HOST:PORT/src.
func PushImages(t testing.TB, prefix string, opts ...remote.Option) *Images {
	t.Helper()
	im, err := pushImages(t.Context(), prefix, opts...)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return im
}

// WithLogin is the user of a registry with login, for PushImages.
func WithLogin(user, password string) remote.Option {
	return remote.WithAuth(&authn.Basic{Username: user, Password: password})
}

func pushImages(ctx context.Context, prefix string, opts ...remote.Option) (*Images, error) {
	im := &Images{prefix: prefix, opts: append(opts, remote.WithContext(ctx)), Digest: map[string]string{}}
	var err error
	do := func(repo string, what remote.Taggable) {
		if err == nil {
			err = im.put(repo, what)
		}
	}
	amd, arm := Image("linux/amd64", types.OCIManifestSchema1, 1), Image("linux/arm64", types.OCIManifestSchema1, 2)
	damd, darm := Image("linux/amd64", types.DockerManifestSchema2, 3), Image("linux/arm64", types.DockerManifestSchema2, 4)
	plain := mutate.Annotations(indexOf(types.OCIImageIndex, amd, arm), map[string]string{"org.example.index": "plain"}).(v1.ImageIndex)
	do("amd64", amd)
	do("arm64", arm)
	do("damd64", damd)
	do("darm64", darm)
	do("darmv7", Image("linux/arm/v7", types.DockerManifestSchema2, 5))
	do("dmulti", indexOf(types.DockerManifestList, damd, darm))
	do("plain", plain)
	do("nested", mutate.AppendManifests(plain, mutate.IndexAddendum{Add: plain}, mutate.IndexAddendum{Add: Image("linux/s390x", types.OCIManifestSchema1, 6)}))
	do("windows", windows())
	do("urls", windows("https://example.invalid/manifest"))
	do("multi", im.attested())
	do("signed", amd)
	if err == nil {
		err = im.sign(amd)
	}
	return im, err
}

// put pushes what there is under NAME:1.
func (im *Images) put(repo string, what remote.Taggable) error {
	ref, err := name.ParseReference(im.prefix + "/" + repo + ":1")
	if err != nil {
		return err
	}
	if err := remote.Push(ref, what, im.opts...); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	im.Digest[repo+":1"] = digestOf(what).String()
	return nil
}

func digestOf(what any) v1.Hash {
	h, err := what.(interface{ Digest() (v1.Hash, error) }).Digest()
	if err != nil {
		panic(err) // it is made in memory
	}
	return h
}

// Image is an image with two layers, one of which all images have in common.
func Image(platform string, format types.MediaType, seed int) v1.Image {
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		panic(err)
	}
	layerType, configType := types.OCILayer, types.OCIConfigJSON
	if format == types.DockerManifestSchema2 {
		layerType, configType = types.DockerLayer, types.DockerConfigJSON
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, format), configType)
	img, err = mutate.AppendLayers(img, static.NewLayer([]byte("shared by all"), layerType),
		static.NewLayer(bytes.Repeat([]byte{byte(seed)}, 1000+seed), layerType))
	if err != nil {
		panic(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		panic(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Config.Cmd, config.Config.Env = []string{"/app", "<&>"}, []string{fmt.Sprintf("SEED=%d", seed)}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		panic(err)
	}
	return img
}

// indexOf lists images with the platforms of their configurations.
func indexOf(format types.MediaType, images ...v1.Image) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, format)
	for _, img := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: platformOf(img)}})
	}
	return index
}

func platformOf(img v1.Image) *v1.Platform {
	config, err := img.ConfigFile()
	if err != nil {
		panic(err)
	}
	return &v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
}

// attested is an index with attestations, as BuildKit makes it.
func (im *Images) attested() v1.ImageIndex {
	var images []v1.Image
	for i, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"} {
		images = append(images, Image(p, types.OCIManifestSchema1, 10+i))
		im.Digest["multi/"+p] = digestOf(images[i]).String()
	}
	index := indexOf(types.OCIImageIndex, images...)
	for _, img := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: attestation(img), Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digestOf(img).String()},
		}})
	}
	return index
}

// attestation is a manifest with an SBOM and a provenance.
func attestation(of v1.Image) v1.Image {
	platform := platformOf(of).String()
	statement := func(kind string, predicate any) mutate.Addendum {
		text, err := json.Marshal(map[string]any{
			"_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind, "predicate": predicate,
			"subject": []any{map[string]any{"name": "x", "digest": map[string]string{"sha256": digestOf(of).Hex}}},
		})
		if err != nil {
			panic(err)
		}
		return mutate.Addendum{
			Layer:       static.NewLayer(text, "application/vnd.in-toto+json"),
			Annotations: map[string]string{"in-toto.io/predicate-type": kind},
		}
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(img,
		statement("https://spdx.dev/Document", map[string]any{"spdxVersion": "SPDX-2.3", "name": platform}),
		statement("https://slsa.dev/provenance/v1", map[string]any{"buildDefinition": map[string]any{"buildType": "x", "platform": platform}}))
	if err != nil {
		panic(err)
	}
	return img
}

// windows is an index whose descriptors have all that a descriptor can have.
func windows(urls ...string) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, version := range []string{"10.0.17763.1", "10.0.20348.2"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: Image("windows/amd64", types.OCIManifestSchema1, 20+i), Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "windows", Architecture: "amd64", OSVersion: version, OSFeatures: []string{"win32k", "other"}},
			URLs:        urls,
			Annotations: map[string]string{"org.example.note": "n" + version},
		}})
	}
	return index
}

// Artifact is a manifest about another: a signature, or an attestation.
func Artifact(kind, text string, subject v1.Image) v1.Image {
	d, err := subject.Manifest()
	if err != nil {
		panic(err)
	}
	raw, err := subject.RawManifest()
	if err != nil {
		panic(err)
	}
	of := v1.Descriptor{MediaType: d.MediaType, Digest: digestOf(subject), Size: int64(len(raw))}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
	img, err = mutate.AppendLayers(img, static.NewLayer([]byte(text), types.MediaType(kind)))
	if err != nil {
		panic(err)
	}
	return typed{mutate.Subject(img, of).(v1.Image), kind}
}

// typed is an image with an artifact type, which mutate cannot set.
type typed struct {
	v1.Image
	kind string
}

// RawManifest implements v1.Image.
func (a typed) RawManifest() ([]byte, error) {
	m, err := a.Manifest()
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// Manifest implements v1.Image.
func (a typed) Manifest() (*v1.Manifest, error) {
	m, err := a.Image.Manifest()
	if err != nil {
		return nil, err
	}
	m = m.DeepCopy()
	m.ArtifactType = a.kind
	return m, nil
}

// Digest implements v1.Image.
func (a typed) Digest() (v1.Hash, error) {
	raw, err := a.RawManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	h, _, err := v1.SHA256(bytes.NewReader(raw))
	return h, err
}

// Size implements v1.Image.
func (a typed) Size() (int64, error) {
	raw, err := a.RawManifest()
	return int64(len(raw)), err
}

// sign makes a signature and an attestation of signed:1, which refer to it.
func (im *Images) sign(subject v1.Image) error {
	for kind, word := range map[string]string{
		"application/vnd.dev.sigstore.bundle.v0.3+json":          "signature",
		"application/vnd.docker.attestation.manifest.v1+json":    "attestation",
		"application/vnd.example.nobody.knows.this.type.v1+json": "unknown",
	} {
		a := Artifact(kind, word, subject)
		im.Digest["signed/"+word] = digestOf(a).String()
		ref, err := name.ParseReference(im.prefix + "/signed@" + digestOf(a).String())
		if err != nil {
			return err
		}
		if err := remote.Push(ref, a, im.opts...); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
	}
	return nil
}

// Ref is the image's reference, as in Ref("multi:1").
func (im *Images) Ref(image string) string { return im.prefix + "/" + image }
