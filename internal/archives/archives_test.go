package archives

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archive makes one of "name=text", "name/" for a folder, and "name@target" for a
// symbolic link, in this order.
func archive(t *testing.T, things ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, s := range things {
		name, text, _ := strings.Cut(s, "=")
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if link, target, ok := strings.Cut(name, "@"); ok {
			h.Name, h.Linkname, h.Typeflag = link, target, tar.TypeSymlink
		}
		check(t, w.WriteHeader(h))
		_, err := w.Write([]byte(text))
		check(t, err)
	}
	check(t, w.Close())
	return buf.Bytes()
}

func part(node string, data []byte) Part {
	return Part{Node: node, Data: bytes.NewReader(data), Size: int64(len(data))}
}

// listed gives the files of an archive, and their names in its order.
func listed(t *testing.T, data []byte) (map[string]string, []string) {
	t.Helper()
	files, names := map[string]string{}, []string{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, names
		}
		check(t, err)
		text, err := io.ReadAll(r)
		check(t, err)
		files[h.Name] = string(text) + h.Linkname
		names = append(names, h.Name)
	}
}

func TestTar(t *testing.T) {
	a := part("a", archive(t, "linux_amd64/", "linux_amd64/x=1", "linux_s390x/", "linux_s390x/l@/etc"))
	b := part("b", archive(t, "linux_arm64/", "linux_arm64/x=2"))
	joined, err := OpenTar([]Part{a, b})
	check(t, err)
	var out bytes.Buffer
	check(t, joined.Write(&out))
	// As one daemon writes them: sorted, byte for byte.
	want := archive(t, "linux_amd64/", "linux_amd64/x=1", "linux_arm64/", "linux_arm64/x=2", "linux_s390x/", "linux_s390x/l@/etc")
	if !bytes.Equal(out.Bytes(), want) {
		_, names := listed(t, out.Bytes())
		t.Errorf("%q", names)
	}
	for _, c := range []struct {
		bad  []byte
		want string
	}{
		{archive(t, "linux_amd64/x=evil"), "the archive of node b: linux_amd64 is also in that of node a"},
		{archive(t, "../x=evil"), `"../x" is no path`},
		{archive(t, "/etc/x=evil"), `"/etc/x" is no path`},
		{archive(t, "./linux_amd64/x=evil"), "is no path"},
		{archive(t, "arm/../linux_amd64/x=evil"), "is no path"},
		{[]byte(strings.Repeat("no archive", 100)), "the archive of node b: "},
		{archive(t, "linux_arm64/x="+strings.Repeat("x", 2000))[:1024], "unexpected EOF"},
	} {
		if _, err := OpenTar([]Part{a, part("b", c.bad)}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// sparse is a small archive with one file of 1 TiB, which has no data.
func sparse(t *testing.T, format tar.Format) []byte {
	t.Helper()
	if format == tar.FormatGNU { // Go writes none: the fields of the header are set by hand
		data := archive(t, "linux_arm64/x=")
		h := data[:512]
		h[156] = tar.TypeGNUSparse
		copy(h[257:265], "ustar  \x00")
		copy(h[386:], "00000000000\x0000000000000\x00")                      // a piece without bytes
		copy(h[483:495], "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00") // 1 TiB, in base 256
		copy(h[148:156], "        ")
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return data
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	// The writer refuses GNU's own records, but not ones of the same length.
	check(t, w.WriteHeader(&tar.Header{Name: "linux_arm64/x", Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"XXX.sparse.major": "0", "XXX.sparse.minor": "1", "XXX.sparse.numblocks": "1", "XXX.sparse.map": "0,0", "XXX.sparse.size": "1099511627776",
	}}))
	check(t, w.Close())
	return bytes.ReplaceAll(buf.Bytes(), []byte("XXX.sparse"), []byte("GNU.sparse"))
}

// A file that is nearly all holes is refused: written out, it would fill the disk.
func TestTarSparse(t *testing.T) {
	for _, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU} {
		data := sparse(t, format)
		h, err := tar.NewReader(bytes.NewReader(data)).Next()
		if err != nil || h.Size != 1<<40 {
			t.Fatalf("%v: the test's archive is wrong: %+v, %v", format, h, err)
		}
		_, err = OpenTar([]Part{part("a", archive(t, "linux_amd64/x=1")), part("b", data)})
		if err == nil || err.Error() != `the archive of node b: "linux_arm64/x" is no plain file` {
			t.Errorf("%v: %v", format, err)
		}
	}
}

// counted counts what is read.
type counted struct {
	io.ReaderAt
	bytes int64
}

func (c *counted) ReadAt(b []byte, at int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, at)
	c.bytes += int64(n)
	return n, err
}

// However many names there are, each part is read about twice.
func TestTarIsLinear(t *testing.T) {
	var things []string
	for i := range 500 {
		things = append(things, fmt.Sprintf("d%03d/", i), fmt.Sprintf("d%03d/x=%d", i, i))
	}
	data := archive(t, things...)
	c := &counted{ReaderAt: bytes.NewReader(data)}
	joined, err := OpenTar([]Part{{Node: "a", Data: c, Size: int64(len(data))}})
	check(t, err)
	var out bytes.Buffer
	check(t, joined.Write(&out))
	if !bytes.Equal(out.Bytes(), data) {
		t.Error("the archive is another")
	}
	if c.bytes > 4*int64(len(data)) {
		t.Errorf("%d bytes were read of %d", c.bytes, len(data))
	}
}

// Folders that alternate, long names, records for all that follows, and links are
// found again where they are.
func TestTarRows(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	long := strings.Repeat("long/", 60) + "x"
	for _, h := range []*tar.Header{
		{Name: "b/x", Size: 3, Typeflag: tar.TypeReg},
		{Name: "a/" + long, Size: 600, Typeflag: tar.TypeReg, Format: tar.FormatGNU},
		{Name: "b/" + long, Size: 512, Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
		{Name: "g", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"BERTH.x": "y"}},
		{Name: "a/link", Typeflag: tar.TypeSymlink, Linkname: "x"},
		{Name: "a/hard", Typeflag: tar.TypeLink, Linkname: "a/link"},
		{Name: "b/", Typeflag: tar.TypeDir},
		{Name: "a/last", Size: 1, Typeflag: tar.TypeReg},
	} {
		check(t, w.WriteHeader(h))
		_, err := w.Write(bytes.Repeat([]byte{h.Name[0]}, int(h.Size)))
		check(t, err)
	}
	check(t, w.Close())
	joined, err := OpenTar([]Part{part("n", buf.Bytes())})
	check(t, err)
	var out bytes.Buffer
	check(t, joined.Write(&out))
	before, _ := listed(t, buf.Bytes())
	after, names := listed(t, out.Bytes())
	if !maps.Equal(before, after) {
		t.Errorf("%v, want %v", after, before)
	}
	if want := []string{"a/" + long, "a/link", "a/hard", "a/last", "b/x", "b/" + long, "b/", "g"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

// image is what a node makes for a platform, as BuildKit writes it: an index with
// the image and its attestation.
type image struct {
	blobs map[string]string // name in the archive → text
	top   ocispecs.Descriptor
	names []string
	extra map[string]string // annotations
}

func (m *image) add(mediaType string, v any) ocispecs.Descriptor {
	raw, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		raw = string(b)
	}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromString(raw), Size: int64(len(raw))}
	m.blobs[blobName(d.Digest)] = raw
	return d
}

func built(arch string, names ...string) *image {
	m := &image{blobs: map[string]string{}, names: names, extra: map[string]string{ocispecs.AnnotationCreated: "2026-01-01T00:00:0" + fmt.Sprint(len(arch)) + "Z"}}
	platform := ocispecs.Platform{OS: "linux", Architecture: arch}
	version := specs.Versioned{SchemaVersion: 2}
	config := m.add(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: platform})
	layer := m.add(ocispecs.MediaTypeImageLayerGzip, "layer of both")
	own := m.add(ocispecs.MediaTypeImageLayerGzip, "layer of "+arch)
	manifest := m.add(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{Versioned: version, MediaType: ocispecs.MediaTypeImageManifest, Config: config, Layers: []ocispecs.Descriptor{layer, own}})
	manifest.Platform = &platform
	att := m.add(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{Versioned: version, Config: config})
	att.Platform = &ocispecs.Platform{OS: "unknown", Architecture: "unknown"}
	att.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": manifest.Digest.String()}
	m.top = m.add(ocispecs.MediaTypeImageIndex, ocispecs.Index{Versioned: version, MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{manifest, att}, Annotations: map[string]string{"of": "all", "arch": arch}})
	return m
}

func (m *image) list() string {
	list := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	for i := range max(1, len(m.names)) {
		d := m.top
		d.Annotations = maps.Clone(m.extra)
		if len(m.names) > 0 {
			d.Annotations[imageName] = m.names[i]
			_, d.Annotations[ocispecs.AnnotationRefName], _ = strings.Cut(m.names[i], ":")
		}
		list.Manifests = append(list.Manifests, d)
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// archive is m as BuildKit writes it.
func (m *image) archive(t *testing.T) []byte {
	things := map[string]string{ocispecs.ImageLayoutFile: `{"imageLayoutVersion":"1.0.0"}`, ocispecs.ImageIndexFile: m.list(), "blobs/": "", "blobs/sha256/": ""}
	maps.Copy(things, m.blobs)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(things)) {
		all = append(all, name+"="+things[name])
	}
	return archive(t, all...)
}

func wanted(archs ...string) []ocispecs.Platform {
	var all []ocispecs.Platform
	for _, a := range archs {
		all = append(all, ocispecs.Platform{OS: "linux", Architecture: a})
	}
	return all
}

func TestOCI(t *testing.T) {
	amd, arm := built("amd64", "docker.io/library/x:1", "docker.io/library/x:2"), built("arm64", "docker.io/library/x:1", "docker.io/library/x:2")
	arm.extra[ocispecs.AnnotationCreated] = "2027-01-01T00:00:00Z"
	arm.extra["only"] = "arm"
	open := func() (*OCI, []byte) {
		joined, err := OpenOCI([]Part{part("b", arm.archive(t)), part("a", amd.archive(t))}, wanted("amd64", "arm64"))
		check(t, err)
		var out bytes.Buffer
		check(t, joined.Write(&out))
		return joined, out.Bytes()
	}
	joined, data := open()
	if _, again := open(); !bytes.Equal(data, again) {
		t.Error("the same archives made other bytes")
	}
	files, names := listed(t, data)
	if !slices.IsSorted(names) || len(names) != len(files) {
		t.Errorf("%q", names)
	}
	for name, text := range files {
		if dir, hex := path.Split(name); dir == "blobs/sha256/" && hex != "" && digest.FromString(text).Encoded() != hex {
			t.Errorf("%s is %q", name, text)
		}
	}
	for _, m := range []*image{amd, arm} {
		for name := range m.blobs {
			if _, there := files[name]; there == (name == blobName(m.top.Digest)) {
				t.Errorf("%s: %v", name, there) // all but the index of one node
			}
		}
	}
	var list, index ocispecs.Index
	check(t, json.Unmarshal([]byte(files["index.json"]), &list))
	if !slices.Equal(joined.Names, amd.names) || len(list.Manifests) != 2 || list.Manifests[0].Digest != joined.Index.Digest || list.MediaType != ocispecs.MediaTypeImageIndex {
		t.Errorf("%+v, %q", list, joined.Names)
	}
	if got := list.Manifests[1].Annotations; !maps.Equal(got, map[string]string{imageName: "docker.io/library/x:2", ocispecs.AnnotationRefName: "2", ocispecs.AnnotationCreated: "2027-01-01T00:00:00Z"}) {
		t.Errorf("%v", got)
	}
	if got := joined.Index.Annotations; !maps.Equal(got, map[string]string{ocispecs.AnnotationCreated: "2027-01-01T00:00:00Z"}) {
		t.Errorf("%v", got)
	}
	raw := files[blobName(joined.Index.Digest)]
	check(t, json.Unmarshal([]byte(raw), &index))
	var got []string
	for _, m := range index.Manifests {
		got = append(got, m.Platform.Architecture)
	}
	if !slices.Equal(got, []string{"amd64", "arm64", "unknown", "unknown"}) || !maps.Equal(index.Annotations, map[string]string{"of": "all"}) {
		t.Errorf("%q, %v", got, index.Annotations)
	}
	if index.Manifests[2].Annotations["vnd.docker.reference.digest"] != index.Manifests[0].Digest.String() {
		t.Error("the attestations are in another order")
	}
}

// Without a name there is still the image, and one without an index is listed.
func TestOCIPlain(t *testing.T) {
	amd, arm := built("amd64"), built("arm64")
	for name, text := range arm.blobs {
		if strings.Contains(text, `"config"`) && strings.Contains(text, `"mediaType":"`+ocispecs.MediaTypeImageManifest) && !strings.Contains(text, "manifests") {
			arm.top = ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.NewDigestFromEncoded(digest.SHA256, path.Base(name)), Size: int64(len(text))}
		}
	}
	joined, err := OpenOCI([]Part{part("a", amd.archive(t)), part("b", arm.archive(t))}, nil)
	check(t, err)
	var out bytes.Buffer
	check(t, joined.Write(&out))
	files, _ := listed(t, out.Bytes())
	var index ocispecs.Index
	check(t, json.Unmarshal([]byte(files[blobName(joined.Index.Digest)]), &index))
	if len(joined.Names) > 0 || len(index.Manifests) != 3 || index.Manifests[1].Platform.Architecture != "arm64" {
		t.Errorf("%q, %+v", joined.Names, index)
	}
	if _, ok := files[blobName(arm.top.Digest)]; !ok {
		t.Error("the manifest is missing")
	}
}

func TestOCIRefused(t *testing.T) {
	good := part("a", built("amd64", "x:1").archive(t))
	m := built("arm64", "x:1")
	other := func(change func(*image)) []byte {
		m := built("arm64", "x:1")
		change(m)
		return m.archive(t)
	}
	sparse := func() []byte {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		check(t, w.WriteHeader(&tar.Header{Name: "blobs/sha256/" + digest.FromString("").Encoded(), Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}))
		check(t, w.Close())
		return buf.Bytes()
	}
	for name, c := range map[string]struct {
		bad  []byte
		want string
	}{
		"no archive":       {[]byte(strings.Repeat("x", 1024)), "invalid tar header"},
		"empty":            {archive(t), "no index.json"},
		"cut":              {m.archive(t)[:1400], "unexpected EOF"},
		"stray":            {archive(t, "etc/passwd=evil"), `"etc/passwd" is no part of an OCI layout`},
		"up":               {archive(t, "blobs/../../x=evil"), "is no part"},
		"bad digest":       {archive(t, "blobs/sha256/abc=evil"), "is no part"},
		"other algorithm":  {archive(t, "blobs/md5/abc=evil"), "is no part"},
		"link":             {sparse(), "is no plain file"},
		"twice":            {archive(t, "index.json={}", "index.json={}"), `"index.json" twice`},
		"another's blob":   {other(func(m *image) { m.blobs[blobName(digest.FromString("layer of both"))] = "evil" }), "is not what its name says"},
		"no JSON":          {archive(t, "index.json=?"), "cannot be read"},
		"no image":         {archive(t, `index.json={"manifests":[]}`), "has no image"},
		"bad image":        {archive(t, `index.json={"manifests":[{"digest":"x"}]}`), "invalid checksum digest"},
		"two images":       {archive(t, `index.json={"manifests":[{"digest":"x"},{"digest":"y"}]}`), "several images"},
		"missing":          {other(func(m *image) { delete(m.blobs, blobName(m.top.Digest)) }), "is missing"},
		"odd":              {other(func(m *image) { m.top.MediaType = "text/plain" }), "neither an image nor an index"},
		"the same machine": {built("amd64", "x:1").archive(t), "platform linux/amd64 was built twice, by node a and by node b"},
		"huge JSON":        {archive(t, "index.json="+strings.Repeat(" ", maxJSON+1)), "a document of at most"},
	} {
		_, err := OpenOCI([]Part{good, part("b", c.bad)}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "node b") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
