package load

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"sync"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	imageapi "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// fakeEngine keeps what is loaded into it, as far as questions about it go.
type fakeEngine struct {
	store   Store
	version string
	trust   bool                // it does not look whether all layers came, as containerd's store
	break1  func(n int) error   // ends load number n, from 1
	onTag   func(e *fakeEngine) // before a tag is given
	deaf    error               // what every question is answered with

	mu     sync.Mutex
	images map[string]*fakeImage // by ID
	tags   map[string]string     // name → ID
	blobs  map[digest.Digest]bool
	loads  [][]string // the names in each archive
	asked  int
}

type fakeImage struct {
	diffIDs []string
	need    []digest.Digest
	digest  digest.Digest
}

func newFakeEngine(s Store) *fakeEngine {
	return &fakeEngine{store: s, version: "1.51", trust: s == Containerd, images: map[string]*fakeImage{}, tags: map[string]string{}, blobs: map[digest.Digest]bool{}}
}

func (e *fakeEngine) ClientVersion() string { return e.version }

func (e *fakeEngine) Info(context.Context, client.InfoOptions) (client.SystemInfoResult, error) {
	i := system.Info{DriverStatus: [][2]string{{"Backing Filesystem", "extfs"}}}
	if e.store == Containerd {
		i.DriverStatus = append(i.DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"})
	}
	return client.SystemInfoResult{Info: i}, e.deaf
}

func (e *fakeEngine) ImageInspect(_ context.Context, ref string, _ ...client.ImageInspectOption) (res client.ImageInspectResult, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.deaf != nil {
		return res, e.deaf
	}
	id := ref
	if t, ok := e.tags[ref]; ok {
		id = t
	}
	i, ok := e.images[id]
	if !ok {
		return res, fmt.Errorf("no such image %s: %w", ref, errdefs.ErrNotFound)
	}
	res.ID = id
	res.RootFS.Layers = i.diffIDs
	if e.store == Containerd {
		whole := true
		for _, d := range i.need {
			whole = whole && e.blobs[d]
		}
		res.Manifests = []imageapi.ManifestSummary{{ID: i.digest.String(), Available: whole, Kind: imageapi.ManifestKindImage}}
	}
	return res, nil
}

func (e *fakeEngine) ImageList(context.Context, client.ImageListOptions) (res client.ImageListResult, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	for id := range e.images {
		res.Items = append(res.Items, imageapi.Summary{ID: id})
	}
	return res, e.deaf
}

func (e *fakeEngine) ImageTag(_ context.Context, o client.ImageTagOptions) (client.ImageTagResult, error) {
	if e.onTag != nil {
		e.onTag(e)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.images[o.Source] == nil {
		return client.ImageTagResult{}, fmt.Errorf("no such image: %w", errdefs.ErrNotFound)
	}
	e.tags[o.Target] = o.Source
	return client.ImageTagResult{}, nil
}

// remove is another program's docker rmi of everything.
func (e *fakeEngine) remove() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.images)
	clear(e.tags)
	clear(e.blobs)
}

func (e *fakeEngine) ImageLoad(_ context.Context, r io.Reader, _ ...client.ImageLoadOption) (client.ImageLoadResult, error) {
	files, err := untar(r)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	for n := range files {
		names = append(names, n)
	}
	e.loads = append(e.loads, names)
	if e.break1 != nil {
		if err := e.break1(len(e.loads)); err != nil {
			return nil, err
		}
	}
	text := `{"stream":"Loaded image\n"}`
	if err := e.take(files); err != nil {
		text = fmt.Sprintf(`{"errorDetail":{"message":%q}}`, err)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func (e *fakeEngine) take(files map[string][]byte) error {
	var index ocispecs.Index
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		return err
	}
	for name := range files {
		if strings.HasPrefix(name, "blobs/sha256/") {
			e.blobs[digest.NewDigestFromEncoded(digest.SHA256, path.Base(name))] = true
		}
	}
	for _, d := range index.Manifests {
		var m ocispecs.Manifest
		var c ocispecs.Image
		if err := errors.Join(json.Unmarshal(files[blobPath(d.Digest)], &m), json.Unmarshal(files[blobPath(m.Config.Digest)], &c)); err != nil {
			return err
		}
		i := &fakeImage{digest: d.Digest}
		for n, l := range m.Layers {
			i.need = append(i.need, l.Digest)
			i.diffIDs = append(i.diffIDs, c.RootFS.DiffIDs[n].String())
			if _, ok := files[blobPath(l.Digest)]; !ok && !e.trust && !e.chain(i.diffIDs) {
				return fmt.Errorf("open %s: no such file or directory", l.Digest)
			}
		}
		id := d.Digest.String()
		if e.store == Graph {
			id = m.Config.Digest.String()
		}
		e.images[id] = i
		if name := d.Annotations["io.containerd.image.name"]; name != "" {
			e.tags[name] = id
		}
	}
	return nil
}

// chain tells whether an image has these layers at its bottom.
func (e *fakeEngine) chain(ids []string) bool {
	for _, i := range e.images {
		if len(i.diffIDs) >= len(ids) && strings.Join(i.diffIDs[:len(ids)], " ") == strings.Join(ids, " ") {
			return true
		}
	}
	return false
}

func untar(r io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return files, err
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name], err = io.ReadAll(t); err != nil {
			return nil, err
		}
	}
}

// fakeDaemon has blobs.
type fakeDaemon struct {
	contentapi.UnimplementedContentServer
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	reads int
	none  bool // it does not know of such questions
}

func (d *fakeDaemon) get(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.blobs[digest.Digest(name)]
	switch {
	case d.none:
		return nil, status.Error(codes.Unimplemented, "unknown service")
	case !ok:
		return nil, status.Error(codes.NotFound, "content not found")
	}
	return b, nil
}

func (d *fakeDaemon) ListStatuses(context.Context, *contentapi.ListStatusesRequest) (*contentapi.ListStatusesResponse, error) {
	if d.none {
		return nil, status.Error(codes.Unimplemented, "unknown service")
	}
	return &contentapi.ListStatusesResponse{}, nil
}

func (d *fakeDaemon) Read(r *contentapi.ReadContentRequest, s contentapi.Content_ReadServer) error {
	b, err := d.get(r.Digest)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.reads++
	d.mu.Unlock()
	for len(b) > 0 {
		n := min(len(b), 1000)
		if err := s.Send(&contentapi.ReadContentResponse{Data: b[:n]}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (d *fakeDaemon) client(t *testing.T) contentapi.ContentClient {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	contentapi.RegisterContentServer(srv, d)
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		done.Wait()
	})
	return contentapi.NewContentClient(conn)
}

// made is an image as a daemon has it.
type made struct {
	root, config digest.Digest
	docs         []document // in the order in which a daemon writes them
	refs         []string
	layers       []digest.Digest
}

// make1 builds an image of layers with these contents.
func (d *fakeDaemon) make1(layers ...string) made {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.blobs == nil {
		d.blobs = map[digest.Digest][]byte{}
	}
	var c ocispecs.Image
	m := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest}
	var out made
	for _, l := range layers {
		raw := []byte("packed " + l)
		id := digest.FromBytes(raw)
		d.blobs[id] = raw
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromString(l))
		m.Layers = append(m.Layers, ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: id, Size: int64(len(raw))})
		out.layers = append(out.layers, id)
	}
	config, _ := json.Marshal(c)
	out.config = digest.FromBytes(config)
	m.Config = ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: out.config, Size: int64(len(config))}
	raw, _ := json.Marshal(m)
	out.root = digest.FromBytes(raw)
	out.docs = []document{{out.config, config}, {out.root, raw}}
	out.refs = []string{"config-" + out.config.String(), "manifest-" + out.root.String()}
	return out
}

// export writes an image to a content store as a daemon does.
func (m made) export(ctx context.Context, s content.Store) error {
	for _, l := range m.layers {
		_, err := s.Writer(ctx, content.WithRef("layer-"+l.String()), content.WithDescriptor(ocispecs.Descriptor{Digest: l, Size: 1}))
		if !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("a layer is wanted: %w", err)
		}
	}
	for i, d := range m.docs {
		w, err := s.Writer(ctx, content.WithRef(m.refs[i]), content.WithDescriptor(ocispecs.Descriptor{Digest: d.digest, Size: int64(len(d.raw))}))
		if errdefs.IsAlreadyExists(err) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(d.raw); err != nil {
			return err
		}
		if err := w.Commit(ctx, int64(len(d.raw)), d.digest); err != nil {
			return err
		}
	}
	return nil
}

// shown is what a load has shown.
type shown struct {
	mu    sync.Mutex
	texts []string
}

func (s *shown) Engine(Status) {}

func (s *shown) Sent(text string, current, total int64) {
	if current > total {
		s.Said(fmt.Sprint("too much: ", current))
	}
	s.Said(text)
}

func (s *shown) Said(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.texts) == 0 || s.texts[len(s.texts)-1] != text {
		s.texts = append(s.texts, text)
	}
}

func (s *shown) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.texts, " | ")
	s.texts = nil
	return all
}
