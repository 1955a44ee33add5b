package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/request"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	imageapi "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// askedEngine is an engine that can be asked. Whatever was sent to it, it has the
// image then.
type askedEngine struct {
	engine
	containerd bool
	version    string
	image      digest.Digest // the ID
	silent     error         // why it does not say how it keeps images

	asking sync.Mutex
	sent   []string // the first bytes of each image
}

func (e *askedEngine) Info(context.Context, client.InfoOptions) (client.SystemInfoResult, error) {
	var i system.Info
	if e.containerd {
		i.DriverStatus = [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}
	}
	return client.SystemInfoResult{Info: i}, e.silent
}

func (e *askedEngine) ClientVersion() string { return e.version }

func (e *askedEngine) ImageInspect(context.Context, string, ...client.ImageInspectOption) (res client.ImageInspectResult, err error) {
	e.asking.Lock()
	defer e.asking.Unlock()
	if len(e.sent) == 0 {
		return res, errdefs.ErrNotFound
	}
	res.ID = e.image.String()
	res.Manifests = []imageapi.ManifestSummary{{ID: res.ID, Available: true}}
	return res, nil
}

func (e *askedEngine) ImageList(context.Context, client.ImageListOptions) (client.ImageListResult, error) {
	return client.ImageListResult{}, nil
}

func (e *askedEngine) ImageTag(context.Context, client.ImageTagOptions) (client.ImageTagResult, error) {
	return client.ImageTagResult{}, errors.New("nothing is to be tagged")
}

func (e *askedEngine) ImageLoad(_ context.Context, r io.Reader, _ ...client.ImageLoadOption) (client.ImageLoadResult, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	e.asking.Lock()
	defer e.asking.Unlock()
	e.sent = append(e.sent, string(data[:min(len(data), 10)]))
	return io.NopCloser(strings.NewReader("")), nil
}

// builtImage is an image of one layer, as a daemon has it.
type builtImage struct {
	layer, config, manifest []byte
}

func newBuiltImage(t *testing.T) builtImage {
	t.Helper()
	b := builtImage{layer: []byte("the layer")}
	var c ocispecs.Image
	c.RootFS.DiffIDs = []digest.Digest{digest.FromString("its files")}
	var err error
	if b.config, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	m := ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest, Config: describes(b.config), Layers: []ocispecs.Descriptor{describes(b.layer)}}
	if b.manifest, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return b
}

func describes(data []byte) ocispecs.Descriptor {
	return ocispecs.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// export is what a daemon does with it: it writes to the client's store, or sends
// an archive.
func (i builtImage) export(ctx context.Context, b *buildkittest.Build) error {
	if b.Request.Exporters[0].Attrs["tar"] != "false" {
		return b.SendFile(ctx, 0, bytes.Repeat([]byte("archive "), 1000))
	}
	store, err := b.Store(ctx, "export")
	if err != nil {
		return err
	}
	layer := describes(i.layer)
	if _, err := store.Writer(ctx, content.WithRef("layer-"+layer.Digest.String()), content.WithDescriptor(layer)); !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("the layer is wanted: %w", err)
	}
	err = content.WriteBlob(ctx, store, "config-x", bytes.NewReader(i.config), describes(i.config))
	return errors.Join(err, content.WriteBlob(ctx, store, "manifest-x", bytes.NewReader(i.manifest), describes(i.manifest)))
}

func TestLoadInParts(t *testing.T) {
	dialtest.NoLeaks(t)
	img := newBuiltImage(t)
	id := map[bool]digest.Digest{true: digest.FromBytes(img.manifest), false: digest.FromBytes(img.config)}
	for _, c := range []struct {
		name   string
		engine *askedEngine
		gone   bool // the daemon has the layer no more
		crowd  bool // a layout beside it
		asked  string
		says   string
	}{
		{"graph driver", &askedEngine{version: "1.41"}, false, false, "docker tar=false", "loading 1 of 1 layer, 9 B of 9 B"},
		{"containerd store", &askedEngine{version: "1.48", containerd: true}, false, false, "oci tar=false", "loading 1 of 1 layer, 9 B of 9 B"},
		{"old containerd store", &askedEngine{version: "1.47", containerd: true}, false, false, "oci tar=", "API 1.47 does not tell whether an image is complete"},
		{"an engine behind a proxy", &askedEngine{version: "1.48", containerd: true, silent: errors.New("403")}, false, false, "docker tar=", "does not tell how it keeps images"},
		{"a layer is gone", &askedEngine{version: "1.41"}, true, false, "docker tar=false, docker tar=", "sending the whole image: the build daemon does not give layer"},
		{"a layout beside it", &askedEngine{version: "1.41"}, false, true, "docker tar=", "one output of a build can be taken apart"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.engine.containerd = c.engine.containerd && c.engine.silent == nil // as far as anybody knows
			c.engine.image = id[c.engine.containerd]
			s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
				if c.crowd {
					return nil, errors.Join(img.export(ctx, b), errors.New("enough"))
				}
				return map[string]string{"containerimage.config.digest": "c", "containerimage.digest": "d"}, img.export(ctx, b)
			})
			if !c.gone {
				s.Keep(img.layer)
			}
			var out buffer
			o := optionsShowing(t, &out)
			o.Engine = func(context.Context, string) (Engine, error) { return c.engine, nil }
			r := req(t, output("docker", ""))
			r.Tags = []string{"docker.io/library/app:1"}
			if c.crowd {
				r.Outputs = append(r.Outputs, output("oci", t.TempDir(), "tar", "false"))
			}
			res, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, o)
			if (err != nil) != c.crowd {
				t.Fatal(err)
			}
			var asked []string
			for _, q := range s.Requests() {
				asked = append(asked, q.Exporters[0].Type+" tar="+q.Exporters[0].Attrs["tar"])
			}
			if got := strings.Join(asked, ", "); got != c.asked {
				t.Errorf("asked for %q, want %q", got, c.asked)
			}
			if _, err := o.Progress.Close(); err != nil || !strings.Contains(out.String(), c.says) {
				t.Errorf("%v, %s", err, out.String())
			}
			if c.engine.closed != 1 || len(c.engine.sent) != 1 && !c.crowd {
				t.Errorf("closed %d times, sent %q", c.engine.closed, c.engine.sent)
			}
			if want := map[bool]string{true: "d", false: "c"}[c.engine.containerd]; !c.crowd && res.ImageID() != want {
				t.Errorf("the image is %s, want %s", res.ImageID(), want)
			}
		})
	}
}

// What a graph driver cannot keep is refused before any target is built, and so
// is an engine that does not answer.
func TestLoadRefused(t *testing.T) {
	dialtest.NoLeaks(t)
	s := daemon(t, nil, "linux/amd64", "linux/arm64")
	load := func(platforms ...string) request.Request {
		return req(t, output("docker", "")).WithPlatforms(plats(platforms...))
	}
	attested := load()
	attested.Attests = []buildflag.Attest{{Type: buildflag.AttestSBOM}}
	for want, c := range map[string]struct {
		silent  error
		targets []Target
	}{
		"target b: an image for several platforms (linux/amd64,linux/arm64) cannot be loaded": {nil, []Target{{Name: "a", Request: load()}, {Name: "b", Request: load("linux/amd64", "linux/arm64")}}},
		"target b: an image with an SBOM (--sbom) cannot be loaded":                           {nil, []Target{{Name: "b", Request: attested}}},
		"target b: asking the Docker engine what it has: unexpected EOF":                      {io.ErrUnexpectedEOF, []Target{{Name: "b", Request: load()}}},
	} {
		e := &askedEngine{version: "1.41", silent: c.silent}
		o := options(t)
		o.Engine = func(context.Context, string) (Engine, error) { return e, nil }
		_, err := RunAll(t.Context(), builderOf(node("n0", s.Endpoint())), c.targets, o)
		if err == nil || !strings.HasPrefix(err.Error(), want) || len(s.Requests()) > 0 || e.closed != 1 {
			t.Errorf("%v after %d builds, closed %d times; want %q", err, len(s.Requests()), e.closed, want)
		}
	}
}
