package history

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/state"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// statusLog is a log as daemons keep it.
func statusLog(t testing.TB, all ...*controlapi.StatusResponse) []byte {
	t.Helper()
	var out []byte
	for _, s := range all {
		data, err := s.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(data))) //nolint:gosec // some bytes
		out = append(out, data...)
	}
	return out
}

const oneSpan = `{"Name":"s","SpanContext":{"TraceID":"0123","SpanID":"45"},"Parent":{"TraceID":"0123","SpanID":"0000000000000000"},"SpanKind":2,` +
	`"StartTime":"2026-01-02T03:04:05Z","EndTime":"2026-01-02T03:04:06Z","Attributes":[{"Key":"a","Value":{"Type":"INT64","Value":7}},` +
	`{"Key":"l","Value":{"Type":"STRINGSLICE","Value":["x"]}}],"Status":{"Code":"Error","Description":"bad"},"Resource":[{"Key":"service.name","Value":{"Type":"STRING","Value":"buildkitd"}}],` +
	`"InstrumentationScope":{"Name":"lib"}}`

// served is a daemon with one record that has all that one can point to.
func served(t *testing.T) *History {
	t.Helper()
	h, _ := servedBy(t)
	return h
}

// servedBy is served, with the daemon.
func servedBy(t *testing.T) (*History, *buildkittest.Server) {
	t.Helper()
	var s *buildkittest.Server
	s = buildkittest.New(t, buildkittest.Options{Records: func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
		typed := func(d *controlapi.Descriptor, mediaType string) *controlapi.Descriptor {
			d.MediaType = mediaType
			return d
		}
		all := []*controlapi.BuildHistoryRecord{rec("plain", 1), rec("full", 2, failing, func(r *controlapi.BuildHistoryRecord) {
			r.Logs = typed(s.Keep(statusLog(t, &controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{{Digest: "sha256:a", Name: "step"}}})), statusType)
			r.Trace = typed(s.Keep([]byte(oneSpan)), traceType)
			r.ExternalError = typed(s.Keep(nil), errorType)
			r.Results = map[string]*controlapi.BuildResultInfo{"linux/amd64": {Attestations: []*controlapi.Descriptor{typed(s.Keep([]byte("{}")), "t")}}}
		})}
		return all, nil
	}})
	store := state.Open(t.TempDir())
	if err := store.SaveRef(t.Context(), "b", "b0", "full", state.Ref{Target: "t", LocalPath: "/src/app", GroupRef: "g"}); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveGroupRef(t.Context(), "g", state.GroupRef{Targets: []string{"t"}, Refs: []string{"full"}}); err != nil {
		t.Fatal(err)
	}
	return open(t, store, s.Endpoint()), s
}

// bundleOf writes a bundle of records.
func bundleOf(t *testing.T, h *History, all ...*Record) []byte {
	t.Helper()
	b, err := NewBundle()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // a temporary folder
	for _, r := range all {
		if err := h.Add(t.Context(), b, r); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What a daemon has is the same once it has gone through a bundle.
func TestBundleThereAndBack(t *testing.T) {
	h := served(t)
	all, err := h.Records(t.Context(), Filter{})
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	data := bundleOf(t, h, all...)
	if !bytes.Equal(data, bundleOf(t, h, all...)) {
		t.Error("the same records make other bytes")
	}
	store := state.Open(t.TempDir())
	got, err := Import(t.Context(), store, bytes.NewReader(data))
	if err != nil || refs(got) != ".imported/_/full .imported/_/plain" {
		t.Fatalf("%s, %v", refs(got), err)
	}
	if _, err := Import(t.Context(), store, bytes.NewReader(data)); err != nil { // again
		t.Fatal(err)
	}
	imported := OpenImported(store)
	list, err := imported.Records(t.Context(), Filter{})
	if err != nil || refs(list) != refs(got) || len(imported.Failed()) != 0 {
		t.Fatalf("%s, %v, %v", refs(list), err, imported.Failed())
	}
	full := list[0]
	if full.Name() != "app" || full.Group == nil || full.Status() != Failed {
		t.Errorf("%+v", full)
	}
	steps := 0
	if err := full.Progress(t.Context(), func(s *client.SolveStatus) { steps += len(s.Vertexes) }); err != nil || steps != 1 {
		t.Errorf("%d steps, %v", steps, err)
	}
	if data, err := full.Attachment(t.Context(), Wanted{Type: "t", Platform: "linux/amd64"}); err != nil || string(data) != "{}" {
		t.Errorf("%q, %v", data, err)
	}
	if again := bundleOf(t, imported, list...); !bytes.Equal(again, data) {
		t.Error("written again, it has other bytes")
	}
	// What is removed is gone, and nothing is left lying about.
	for _, r := range list {
		if err := r.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := full.Remove(t.Context()); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	if err := full.Progress(t.Context(), func(*client.SolveStatus) {}); !errors.Is(err, errNotInBundle) {
		t.Error(err)
	}
	if left, err := os.ReadDir(store.ImportedDir()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTraceAsOTLP(t *testing.T) {
	h := served(t)
	r, err := h.Find(t.Context(), parse(t, "full"))
	if err != nil {
		t.Fatal(err)
	}
	trace, err := r.ReadTrace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteOTLP(&out, trace, trace); err != nil {
		t.Fatal(err)
	}
	one := `{"traceId":"0123","spanId":"45","name":"s","kind":2,"startTimeUnixNano":"1767323045000000000","endTimeUnixNano":"1767323046000000000",` +
		`"attributes":[{"key":"a","value":{"intValue":"7"}},{"key":"l","value":{"arrayValue":{"values":[{"stringValue":"x"}]}}}],"status":{"message":"bad","code":2}}`
	want := `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"buildkitd"}}]},"scopeSpans":[{"scope":{"name":"lib"},"spans":[` + one + "," + one + `]}]}]}` + "\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
	if _, err := parseTrace([]byte(oneSpan + "{")); err == nil {
		t.Error("a trace that is cut off")
	}
}

// archive makes a bundle by hand.
type archive struct {
	t     testing.TB
	files [][2]string // name, content
	kind  byte
}

func (a *archive) blob(content string) ocispecs.Descriptor {
	d := digest.FromString(content)
	a.files = append(a.files, [2]string{"blobs/sha256/" + d.Encoded(), content})
	return ocispecs.Descriptor{Digest: d, Size: int64(len(content))}
}

func (a *archive) json(mediaType string, v any) ocispecs.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		a.t.Fatal(err)
	}
	d := a.blob(string(data))
	d.MediaType = mediaType
	return d
}

func (a *archive) bytes(zipped bool) []byte {
	var out bytes.Buffer
	var to io.WriteCloser = nopCloser{&out}
	if zipped {
		to = gzip.NewWriter(&out)
	}
	tw := tar.NewWriter(to)
	for _, f := range a.files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f[0], Size: int64(len(f[1])), Mode: 0o644}
		if a.kind != 0 && !strings.HasPrefix(f[0], "blobs") && f[0] != "index.json" {
			h.Typeflag, h.Linkname, h.Size, f[1] = a.kind, "/etc/passwd", 0, ""
		}
		if err := tw.WriteHeader(h); err != nil {
			a.t.Fatal(err)
		}
		if _, err := io.WriteString(tw, f[1]); err != nil {
			a.t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), to.Close()); err != nil {
		a.t.Fatal(err)
	}
	return out.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

const goodRecord = `{"Ref":"good","CreatedAt":{"seconds":1796036811}}`

// handmade is a bundle with one record; change makes it bad.
func handmade(t testing.TB, record string, change func(a *archive, m *ocispecs.Manifest, index *ocispecs.Index)) *archive {
	a := &archive{t: t}
	config := a.blob(record)
	config.MediaType = recordType
	m := ocispecs.Manifest{Config: config}
	m.SchemaVersion = 2
	i := index()
	if change != nil {
		change(a, &m, &i)
	}
	i.Manifests = append(i.Manifests, a.json(ocispecs.MediaTypeImageManifest, m))
	data, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	a.files = append(a.files, [2]string{"index.json", string(data)})
	return a
}

type change = func(*archive, *ocispecs.Manifest, *ocispecs.Index)

func TestHostileBundles(t *testing.T) {
	file := func(name string) change {
		return func(a *archive, _ *ocispecs.Manifest, _ *ocispecs.Index) {
			a.files = append(a.files, [2]string{name, "x"})
		}
	}
	good := handmade(t, goodRecord, nil).bytes(true)
	link := handmade(t, goodRecord, file("link"))
	link.kind = tar.TypeSymlink
	bomb := handmade(t, goodRecord, func(a *archive, _ *ocispecs.Manifest, _ *ocispecs.Index) { a.blob(strings.Repeat("\x00", 3<<20)) })
	bombs := handmade(t, goodRecord, func(a *archive, _ *ocispecs.Manifest, _ *ocispecs.Index) {
		for i := range 8 {
			a.blob(strings.Repeat(string(rune('a'+i)), 900<<10))
		}
	})
	many := handmade(t, goodRecord, func(a *archive, _ *ocispecs.Manifest, _ *ocispecs.Index) {
		for i := range 200 {
			a.files = append(a.files, [2]string{fmt.Sprint("f", i), ""})
		}
	})
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":           {nil, "it is empty"},
		"text":            {[]byte("this is no archive at all, just a text that somebody has typed"), "no bundle of build records"},
		"gzip of nothing": {[]byte{0x1f, 0x8b}, "no bundle of build records"},
		"cut off":         {good[:len(good)-40], "unexpected EOF"},
		"no index":        {(&archive{t: t, files: [][2]string{{"oci-layout", "{}"}}}).bytes(true), "no index.json"},
		"bad index":       {(&archive{t: t, files: [][2]string{{"index.json", "{"}}}).bytes(false), "index.json"},
		"empty index":     {(&archive{t: t, files: [][2]string{{"index.json", "{}"}}}).bytes(false), "it has none"},
		"outside":         {handmade(t, goodRecord, file("../evil")).bytes(true), "outside"},
		"absolute":        {handmade(t, goodRecord, file("/etc/evil")).bytes(true), "outside"},
		"deep outside":    {handmade(t, goodRecord, file("blobs/sha256/../../../evil")).bytes(true), "outside"},
		"backslash":       {handmade(t, goodRecord, file(`..\evil`)).bytes(true), "outside"},
		"odd blob":        {handmade(t, goodRecord, file("blobs/sha256/zz")).bytes(true), `blob called "zz"`},
		"wrong content":   {handmade(t, goodRecord, file("blobs/sha256/"+strings.Repeat("0", 64))).bytes(true), "other content than its digest says"},
		"link":            {link.bytes(true), "no regular file"},
		"bomb":            {bomb.bytes(true), "at most 1048576 are read"},
		"bombs":           {bombs.bytes(true), "more than 4194304 bytes when unpacked"},
		"many files":      {many.bytes(true), "more than 100 files"},
		"missing layer": {handmade(t, goodRecord, func(_ *archive, m *ocispecs.Manifest, _ *ocispecs.Index) {
			m.Layers = []ocispecs.Descriptor{{Digest: digest.FromString("x"), Size: 1}}
		}).bytes(true), "lacks the blob"},
		"wrong size": {handmade(t, goodRecord, func(a *archive, m *ocispecs.Manifest, _ *ocispecs.Index) {
			d := a.blob("x")
			d.Size = 9
			m.Layers = []ocispecs.Descriptor{d}
		}).bytes(true), "has 1 bytes; the bundle says 9"},
		"a digest that is a path": {handmade(t, goodRecord, func(_ *archive, m *ocispecs.Manifest, _ *ocispecs.Index) {
			m.Layers = []ocispecs.Descriptor{{Digest: "sha256:../../x", Size: 1}}
		}).bytes(true), "lacks the blob"},
		"an image": {handmade(t, goodRecord, func(_ *archive, m *ocispecs.Manifest, _ *ocispecs.Index) {
			m.Config.MediaType = ocispecs.MediaTypeImageConfig
		}).bytes(true), "no bundle of build records"},
		"odd entry": {handmade(t, goodRecord, func(a *archive, _ *ocispecs.Manifest, i *ocispecs.Index) {
			i.Manifests = append(i.Manifests, a.json("text/html", 1))
		}).bytes(true), `of the type "text/html"`},
		"index of indexes": {handmade(t, goodRecord, func(a *archive, _ *ocispecs.Manifest, i *ocispecs.Index) {
			inner := a.json(ocispecs.MediaTypeImageIndex, index())
			i.Manifests = append(i.Manifests, a.json(ocispecs.MediaTypeImageIndex, index(inner)))
		}).bytes(true), "is of the type"},
		"many records, before all is read": {handmade(t, goodRecord, func(a *archive, _ *ocispecs.Manifest, i *ocispecs.Index) {
			var all []ocispecs.Descriptor
			for n := range 11 {
				all = append(all, a.json(ocispecs.MediaTypeImageManifest, n))
			}
			lost := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromString("lost"), Size: 1}
			i.Manifests = append(i.Manifests, a.json(ocispecs.MediaTypeImageIndex, index(all...)), lost)
		}).bytes(true), "more than 10 records"},
		"one index many times, which lists one manifest many times": {handmade(t, goodRecord, func(a *archive, _ *ocispecs.Manifest, i *ocispecs.Index) {
			odd := a.json(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{})
			inner := a.json(ocispecs.MediaTypeImageIndex, index(slices.Repeat([]ocispecs.Descriptor{odd}, 50)...))
			i.Manifests = append(i.Manifests, slices.Repeat([]ocispecs.Descriptor{inner}, 50)...)
		}).bytes(true), "is of the type"},
		"no record":       {handmade(t, `[]`, nil).bytes(true), "blob sha256:"},
		"null":            {handmade(t, `null`, nil).bytes(true), "lacks its time"},
		"no time":         {handmade(t, `{"Ref":"x"}`, nil).bytes(true), "lacks its time"},
		"no such time":    {handmade(t, `{"Ref":"x","CreatedAt":{"seconds":99999999999999}}`, nil).bytes(true), "a time that is none"},
		"a ref of a path": {handmade(t, `{"Ref":"../../x","CreatedAt":{"seconds":1}}`, nil).bytes(true), "must begin with a letter"},
		"hidden ref":      {handmade(t, `{"Ref":".x","CreatedAt":{"seconds":1}}`, nil).bytes(true), "must begin with a letter"},
	} {
		t.Run(name, func(t *testing.T) {
			store := state.Open(t.TempDir())
			all, err := importWithin(t.Context(), store, bytes.NewReader(c.data), bounds{total: 4 << 20, blob: 1 << 20, entries: 100, records: 10})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v; want %q", refs(all), err, c.want)
			}
			if left, _ := os.ReadDir(store.ImportedDir()); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// What a bundle lists many times is read once, and an interrupt ends the reading.
func TestListedManyTimes(t *testing.T) {
	data := handmade(t, goodRecord, func(a *archive, m *ocispecs.Manifest, i *ocispecs.Index) {
		record := a.json(ocispecs.MediaTypeImageManifest, m)
		inner := a.json(ocispecs.MediaTypeImageIndex, index(slices.Repeat([]ocispecs.Descriptor{record}, 100)...))
		i.Manifests = slices.Repeat([]ocispecs.Descriptor{inner, record}, 100)
	}).bytes(true)
	limit := bounds{total: 4 << 20, blob: 1 << 20, entries: 100, records: 1}
	all, err := importWithin(t.Context(), state.Open(t.TempDir()), bytes.NewReader(data), limit)
	if err != nil || refs(all) != ".imported/_/good" {
		t.Errorf("%s, %v", refs(all), err)
	}
	u, err := unpack(bytes.NewReader(data), t.TempDir(), limit)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if _, err := u.records(ctx, limit); !errors.Is(err, stopped) {
		t.Error(err)
	}
}

// An interrupt ends the reading of a pipe that gives nothing, and nothing is left.
func TestImportFromASilentPipe(t *testing.T) {
	in, out := io.Pipe()
	t.Cleanup(func() { _ = out.Close() })
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	go func() {
		_, _ = out.Write([]byte{0x1f}) // it is read
		cancel(stopped)
	}()
	store := state.Open(t.TempDir())
	if _, err := Import(ctx, store, in); !errors.Is(err, stopped) {
		t.Error(err)
	}
	if left, err := os.ReadDir(store.ImportedDir()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Records that are no more than valid do no harm when they are looked at.
func TestOddRecords(t *testing.T) {
	odd := `{"Ref":"odd","CreatedAt":{"seconds":1},"CompletedAt":{"seconds":1},"error":{"code":-5},"externalError":{"digest":"sha256:../x"},"logs":{"digest":"x"},"trace":{"digest":"y"},` +
		`"Result":{"Attestations":[null],"Results":{"0":null}},"Results":{"a":null,"b":{"ResultDeprecated":{"digest":"q"}}},"Exporters":[null],"FrontendAttrs":null}`
	store := state.Open(t.TempDir())
	if _, err := Import(t.Context(), store, bytes.NewReader(handmade(t, odd, nil).bytes(false))); err != nil {
		t.Fatal(err)
	}
	h := OpenImported(store)
	r, err := h.Find(t.Context(), parse(t, "odd"))
	if err != nil {
		t.Fatal(err)
	}
	if d := h.Detail(t.Context(), r, "/"); len(d.Errors) == 0 {
		t.Errorf("%+v", d)
	}
	if _, err := r.ReadTrace(t.Context()); err == nil {
		t.Error("a trace out of nothing")
	}
	// A record that was damaged later is told of, and hides no other.
	if _, err := Import(t.Context(), store, bytes.NewReader(handmade(t, goodRecord, nil).bytes(true))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store.ImportedDir(), "odd", recordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := h.Records(t.Context(), Filter{})
	if err != nil || refs(all) != ".imported/_/good" || len(h.Failed()) != 1 || !strings.Contains(h.Failed()[0].Error(), "imported record odd") {
		t.Errorf("%s %v %v", refs(all), err, h.Failed())
	}
}

func TestReadStatus(t *testing.T) {
	good := statusLog(t, &controlapi.StatusResponse{}, &controlapi.StatusResponse{Logs: []*controlapi.VertexLog{{Msg: bytes.Repeat([]byte("x"), 5<<20)}}})
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"good": {good, ""}, "empty": {nil, ""}, "cut": {good[:len(good)-1], "cut off"}, "half a length": {good[:2], "cut off"},
		"absurd": {[]byte{0xff, 0xff, 0xff, 0xff}, "at most 67108864 are read"}, "rubbish": {[]byte{2, 0, 0, 0, 0xff, 0xff}, "damaged"},
	} {
		n := 0
		err := readStatus(t.Context(), bytes.NewReader(c.data), func(*client.SolveStatus) { n++ })
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if err := readStatus(ctx, bytes.NewReader(good), nil); !errors.Is(err, stopped) {
		t.Error(err)
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(handmade(f, goodRecord, nil).bytes(false))
	f.Add(handmade(f, goodRecord, func(a *archive, m *ocispecs.Manifest, _ *ocispecs.Index) {
		m.Layers = []ocispecs.Descriptor{a.blob("layer")}
	}).bytes(true))
	f.Add([]byte{0x1f, 0x8b})
	f.Add([]byte("text"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "raw")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		limit := bounds{total: 1 << 20, blob: 1 << 18, entries: 50, records: 10}
		u, err := unpack(bytes.NewReader(data), dir, limit)
		if err == nil {
			_, _ = u.records(t.Context(), limit)
		}
		if outside, _ := os.ReadDir(parent); len(outside) != 1 {
			t.Fatalf("%v lies outside", outside)
		}
		written, _ := os.ReadDir(dir)
		for _, e := range written {
			if digest.NewDigestFromEncoded(digest.SHA256, e.Name()).Validate() != nil {
				t.Fatalf("a file called %q", e.Name())
			}
		}
	})
}
