package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/containerd/containerd/v2/core/content"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// made is what a node makes for its architecture: blobs, and the index of them.
type made struct {
	blobs map[digest.Digest][]byte
	top   ocispecs.Descriptor
}

func (m *made) add(mediaType string, v any) ocispecs.Descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	m.blobs[d.Digest] = raw
	return d
}

func makeImage(arch string) *made {
	m := &made{blobs: map[digest.Digest][]byte{}}
	v := specs.Versioned{SchemaVersion: 2}
	platform := ocispecs.Platform{OS: "linux", Architecture: arch}
	config := m.add(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: platform})
	image := m.add(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{
		Versioned: v, MediaType: ocispecs.MediaTypeImageManifest, Config: config,
		Layers: []ocispecs.Descriptor{m.add(ocispecs.MediaTypeImageLayer, "of both"), m.add(ocispecs.MediaTypeImageLayer, arch)},
	})
	image.Platform = &platform
	m.top = m.add(ocispecs.MediaTypeImageIndex, ocispecs.Index{Versioned: v, MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{image}})
	return m
}

// archive is the image as one, named x:1.
func (m *made) archive() []byte {
	top := m.top
	top.Annotations = map[string]string{"io.containerd.image.name": "docker.io/library/x:1"}
	list, err := json.Marshal(ocispecs.Index{Manifests: []ocispecs.Descriptor{top}})
	if err != nil {
		panic(err)
	}
	files := map[string][]byte{"index.json": list}
	for d, raw := range m.blobs {
		files["blobs/sha256/"+d.Encoded()] = raw
	}
	return tarOf(files)
}

func tarOf(files map[string][]byte) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}); err != nil {
			panic(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func untar(t *testing.T, data []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[h.Name] = string(text)
		}
	}
}

// response is what a daemon answers for the image.
func (m *made) response() map[string]string {
	raw, err := json.Marshal(m.top)
	if err != nil {
		panic(err)
	}
	return map[string]string{
		"containerimage.descriptor": base64.StdEncoding.EncodeToString(raw), "containerimage.digest": m.top.Digest.String(),
		"image.name": "docker.io/library/x:1",
	}
}

// twoNodes build with f, each for its architecture.
func twoNodes(t *testing.T, o Options, out buildflag.Output, f func(context.Context, *buildkittest.Build, string) (map[string]string, error)) (*Result, error) {
	t.Helper()
	one := func(arch string) *buildkittest.Server {
		return daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			if b.Request.FrontendAttrs["multi-platform"] != "true" {
				t.Error("not asked for an index, or for a folder of its own")
			}
			return f(ctx, b, arch)
		}, "linux/"+arch)
	}
	r := req(t, out)
	r.Tags, r.Platforms = []string{"docker.io/library/x:1"}, plats("linux/arm64", "linux/amd64") // in this order
	return Run(t.Context(), builderOf(node("n0", one("amd64").Endpoint()), node("n1", one("arm64").Endpoint())), r, o)
}

// Archives of two nodes become one, in a file and on the standard output.
func TestGatherOCI(t *testing.T) {
	dialtest.NoLeaks(t)
	dest := filepath.Join(t.TempDir(), "new", "x.tar")
	var texts []string
	for _, d := range []string{dest, buildflag.Stdout} {
		var out bytes.Buffer
		o := options(t)
		o.Stdout = &out
		res, err := twoNodes(t, o, output("oci", d), func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			m := makeImage(arch)
			return m.response(), b.SendFile(ctx, 0, m.archive())
		})
		if err != nil {
			t.Fatal(err)
		}
		if d == dest {
			out.WriteString(read(t, dest))
			equal(t, "beside it", names(t, filepath.Dir(dest)), []string{"x.tar"})
		}
		files := untar(t, out.Bytes())
		checkIndex(t, res, files["index.json"], func(d digest.Digest) string { return files["blobs/sha256/"+d.Encoded()] })
		texts = append(texts, out.String())
	}
	if texts[0] != texts[1] {
		t.Error("the file is not what goes to the standard output")
	}
}

// checkIndex holds a layout against what two nodes made.
func checkIndex(t *testing.T, res *Result, list string, blob func(digest.Digest) string) {
	t.Helper()
	var top, index ocispecs.Index
	if err := json.Unmarshal([]byte(list), &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("%v in %s", err, list)
	}
	d := top.Manifests[0]
	if res.Index == nil || d.Digest != res.Index.Digest || res.ImageID() != d.Digest.String() || !slices.Equal(res.Names, []string{"docker.io/library/x:1"}) {
		t.Errorf("the result is %v, %q; the layout has %v", res.Index, res.Names, d)
	}
	if err := json.Unmarshal([]byte(blob(d.Digest)), &index); err != nil {
		t.Fatal(err)
	}
	var archs []string
	for _, m := range index.Manifests {
		archs = append(archs, m.Platform.Architecture)
	}
	equal(t, "index", archs, []string{"arm64", "amd64"})
	for _, arch := range archs {
		m := makeImage(arch)
		for d, raw := range m.blobs {
			if d != m.top.Digest && blob(d) != string(raw) {
				t.Errorf("%s: %s is %q", arch, d, blob(d))
			}
		}
	}
}

// A layout folder of two nodes, in which another image lies already.
func TestGatherLayout(t *testing.T) {
	dialtest.NoLeaks(t)
	dest := filepath.Join(t.TempDir(), "layout")
	shared := makeImage("amd64").blobs
	for range 2 { // the second time all is there, and nothing is sent
		sent := 0
		res, err := twoNodes(t, options(t), output("oci", dest, "tar", "false"), func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			m := makeImage(arch)
			caller, err := b.Session(ctx)
			if err != nil {
				return nil, err
			}
			store := sessioncontent.NewCallerStore(caller, "export")
			for d, raw := range m.blobs {
				desc := ocispecs.Descriptor{Digest: d, Size: int64(len(raw))}
				if err := content.WriteBlob(ctx, store, "export-"+d.String(), bytes.NewReader(raw), desc); err != nil {
					return nil, err
				}
			}
			return m.response(), nil
		})
		if err != nil {
			t.Fatal(err, sent)
		}
		at := func(d digest.Digest) string { return filepath.Join(dest, "blobs", "sha256", d.Encoded()) }
		checkIndex(t, res, read(t, filepath.Join(dest, "index.json")), func(d digest.Digest) string { return read(t, at(d)) })
		equal(t, "layout", names(t, dest), []string{"blobs", "index.json", "oci-layout"})
		if got := names(t, filepath.Join(dest, "blobs", "sha256")); len(got) != 2*len(shared)-2 { // less one shared layer, two indexes, and one joined
			t.Errorf("%d blobs", len(got))
		}
	}
}

// A layout that breaks is not touched.
func TestLayoutBreaks(t *testing.T) {
	dialtest.NoLeaks(t)
	dest := filepath.Join(t.TempDir(), "layout")
	put(t, filepath.Join(dest, "index.json"), `{"manifests":[]}`)
	for name, c := range map[string]struct {
		say  map[string]string
		err  error
		want string
	}{
		"fails":       {nil, errors.New("boom"), "boom"},
		"says no":     {map[string]string{}, nil, "node n0 does not say which image it has sent"},
		"bad":         {map[string]string{"containerimage.descriptor": base64.StdEncoding.EncodeToString([]byte("{}"))}, nil, "invalid checksum digest"},
		"no such one": {makeImage("s390x").response(), nil, "writing to " + dest + ": "},
	} {
		s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			caller, err := b.Session(ctx)
			if err != nil {
				return nil, err
			}
			store := sessioncontent.NewCallerStore(caller, "export")
			raw := []byte("blob")
			desc := ocispecs.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
			return c.say, errors.Join(content.WriteBlob(ctx, store, "r", bytes.NewReader(raw), desc), c.err)
		})
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("oci", dest, "tar", "false")), options(t))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		equal(t, name, names(t, dest), []string{"index.json"})
		if read(t, filepath.Join(dest, "index.json")) != `{"manifests":[]}` {
			t.Errorf("%s: the index was changed", name)
		}
	}
}

func TestGatherTar(t *testing.T) {
	dialtest.NoLeaks(t)
	dest := filepath.Join(t.TempDir(), "x.tar")
	res, err := twoNodes(t, options(t), output("tar", dest), func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
		return nil, b.SendFile(ctx, 0, tarOf(map[string][]byte{"linux_" + arch + "/x": []byte(arch)}))
	})
	if err != nil || res.Index != nil {
		t.Fatal(err, res)
	}
	if got := untar(t, []byte(read(t, dest))); !maps.Equal(got, map[string]string{"linux_amd64/x": "amd64", "linux_arm64/x": "arm64"}) {
		t.Errorf("%q", got)
	}
}

// One node must not write into the other's part, and what one of them gets wrong
// costs nothing that was there.
func TestGatherRefused(t *testing.T) {
	dialtest.NoLeaks(t)
	evil := func(arch string) string {
		if arch == "arm64" {
			return "linux_amd64"
		}
		return "linux_" + arch
	}
	for name, c := range map[string]struct {
		out  func(string) buildflag.Output
		f    func(context.Context, *buildkittest.Build, string) (map[string]string, error)
		want string
	}{
		"tar": {func(d string) buildflag.Output { return output("tar", filepath.Join(d, "out")) }, func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			return nil, b.SendFile(ctx, 0, tarOf(map[string][]byte{evil(arch) + "/" + arch: nil}))
		}, "linux_amd64 is also in that of node"},
		"folder": {func(d string) buildflag.Output { return output("local", filepath.Join(d, "out")) }, func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			return nil, b.SendDir(ctx, 0, tree(t, map[string]string{evil(arch) + "/" + arch: ""}))
		}, "linux_amd64 was sent by node n"},
		"one folder": {func(d string) buildflag.Output {
			return output("local", filepath.Join(d, "out"), "platform-split", "false")
		}, func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			return nil, b.SendDir(ctx, 0, tree(t, map[string]string{"bin/app": arch}))
		}, filepath.Join("bin", "app") + " was sent by node n"},
		"archive": {func(d string) buildflag.Output { return output("oci", filepath.Join(d, "out")) }, func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			return nil, b.SendFile(ctx, 0, []byte("no archive"))
		}, "the archive of node n"},
		"one fails": {func(d string) buildflag.Output { return output("local", filepath.Join(d, "out")) }, func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			if arch == "arm64" {
				return nil, theirs(ctx, errors.New("boom"))
			}
			return nil, b.SendDir(ctx, 0, tree(t, map[string]string{"linux_amd64/x": ""}))
		}, "boom"},
		"one sends nothing": {func(d string) buildflag.Output { return output("oci", filepath.Join(d, "out")) }, func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
			if arch == "arm64" {
				return nil, nil
			}
			return nil, b.SendFile(ctx, 0, makeImage(arch).archive())
		}, "the daemon sent nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := twoNodes(t, options(t), c.out(dir), c.f)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			equal(t, "left", names(t, dir), nil)
		})
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), ".berth-*")); err != nil || len(left) > 0 {
		t.Errorf("%q, %v", left, err)
	}
}

// Folders of two nodes without one for each platform, and what is stale goes.
func TestGatherFolder(t *testing.T) {
	dialtest.NoLeaks(t)
	dest := filepath.Join(t.TempDir(), "out")
	put(t, filepath.Join(dest, "bin", "stale"), "")
	_, err := twoNodes(t, options(t), output("local", dest, "platform-split", "false", "mode", "delete"), func(ctx context.Context, b *buildkittest.Build, arch string) (map[string]string, error) {
		return nil, b.SendDir(ctx, 0, tree(t, map[string]string{"bin/" + arch: arch}))
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "folder", names(t, dest), []string{"bin"})
	equal(t, "in it", names(t, filepath.Join(dest, "bin")), []string{"amd64", "arm64"})
}

// gathering is a sink that has what two nodes sent.
func gathering(ctx context.Context, t *testing.T, out buildflag.Output, stdout io.Writer) *gatherSink {
	t.Helper()
	s := &gatherSink{outs: &outputs{ctx: ctx, o: Options{Stdout: stdout}, parts: 2, order: plats("linux/arm64", "linux/amd64")}, wanted: out}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := s.attach(part{member: &member{Member: pool.Member{Node: node(arch, ""), Name: arch}}}, nil); err != nil {
			t.Fatal(err)
		}
		data := makeImage(arch).archive()
		if out.Type == buildflag.OutputTar {
			data = tarOf(map[string][]byte{"linux_" + arch + "/x": []byte(arch)})
		}
		w, err := s.nodes[len(s.nodes)-1].sink.begin()
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Ctrl-C ends the joining of archives, which can take as long as they are large: while
// they are read, and while the one is written.
func TestGatherInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such devices")
	}
	why := errors.New("interrupted")
	for _, kind := range []string{"tar", "oci"} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancelCause(t.Context())
		s := gathering(ctx, t, output(kind, filepath.Join(dir, "x.tar")), nil)
		cancel(why)
		if err := s.settle(nil); !errors.Is(err, why) {
			t.Errorf("%s, reading: %v", kind, err)
		}
		if err := s.finish(why); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		equal(t, kind, names(t, dir), nil)

		ctx, cancel = context.WithCancelCause(t.Context())
		s = gathering(ctx, t, output(kind, filepath.Join(dir, "x.tar")), nil)
		s.wanted.Dest = os.DevNull // which settle leaves to finish
		if err := s.settle(nil); err != nil {
			t.Fatal(err)
		}
		s.to = &streamSink{open: func() (opened, error) {
			return opened{w: writer(func(b []byte) (int, error) { cancel(why); return len(b), nil })}, nil
		}}
		if err := s.write(); !errors.Is(err, why) {
			t.Errorf("%s, writing: %v", kind, err)
		}
		if err := s.finish(why); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		equal(t, kind, names(t, dir), nil)
	}
}

// A standard output that hangs does not hold up Ctrl-C, and gets nothing after it.
func TestGatherStdoutHangs(t *testing.T) {
	dialtest.NoLeaks(t)
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	release, written := make(chan struct{}), make(chan struct{}, 100)
	s := gathering(ctx, t, output("tar", buildflag.Stdout), writer(func(b []byte) (int, error) {
		cancel(why)
		<-release
		written <- struct{}{}
		return len(b), nil
	}))
	if err := s.settle(nil); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(nil); !errors.Is(err, why) {
		t.Error(err)
	}
	close(release)
	<-written
	if len(written) > 0 {
		t.Error("it was written to after the build")
	}
}

// A pipe that nobody opens does not hold up Ctrl-C either. Whoever opens it then finds
// it empty.
func TestGatherPipeHangs(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such pipes")
	}
	dialtest.NoLeaks(t)
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	dest := filepath.Join(t.TempDir(), "pipe")
	mkfifo(t, dest)
	s := gathering(ctx, t, output("tar", dest), nil)
	if err := s.settle(nil); err != nil {
		t.Fatal(err)
	}
	open := s.to.open
	s.to.open = func() (opened, error) {
		cancel(why)
		return open()
	}
	if err := s.finish(nil); !errors.Is(err, why) {
		t.Error(err)
	}
	if text := read(t, dest); text != "" {
		t.Errorf("%q", text)
	}
}
