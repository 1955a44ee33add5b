package imageindex

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzJoin feeds what a registry could say, twice, to what makes the index.
func FuzzJoin(f *testing.F) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, s := range []string{
		"", "null", "{}", "[]", `{"manifests":[]}`, `{"manifests":[{}]}`,
		`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digest + `","platform":{"os":"linux","architecture":"amd64"}}],"annotations":{"a":"b"}}`,
		`{"manifests":[{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","digest":"` + digest + `","annotations":{"vnd.docker.reference.type":"attestation-manifest"}}]}`,
		`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:short"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		index, err := readIndex(raw)
		if err != nil {
			return
		}
		p := part{raw: raw, desc: Descriptor{MediaType: string(types.OCIImageIndex)}, annotations: index.Annotations}
		for _, child := range index.Manifests {
			if child.Platform == nil {
				child.Platform = &ocispecs.Platform{OS: "linux", Architecture: "amd64"}
			}
			p.children = append(p.children, child)
		}
		alone, err := join([]part{p}, nil)
		if err != nil || !bytes.Equal(alone.raw, raw) {
			t.Fatalf("one index did not stay as it is: %v", err)
		}
		plain := part{desc: Descriptor{MediaType: string(types.OCIManifestSchema1)}}
		plain.children = []Descriptor{{MediaType: string(types.OCIManifestSchema1), Digest: "sha256:x", Platform: &ocispecs.Platform{OS: "plan9", Architecture: "mips"}}}
		if both, err := join([]part{p, plain}, nil); err == nil {
			if _, err := readIndex(both.raw); err == nil {
				t.Fatal("a bad digest was not seen") // plain's
			}
		}
	})
}
