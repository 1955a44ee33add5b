//go:build e2e && linux

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// beside is berth and the real buildx in one world, with images to work on.
type beside struct {
	t             *testing.T
	berth, buildx *lab.CLI
	registry      *lab.RegistryServer
	images        *lab.Images
}

func newBeside(t *testing.T) *beside {
	t.Helper()
	b := &beside{t: t, berth: lab.Berth(t), registry: lab.Registry(t)}
	buildx := *b.berth
	buildx.Bin = lab.Tool(t, "buildx")
	b.buildx = &buildx
	b.images = lab.PushImages(t, b.registry.Addr()+"/src")
	return b
}

// fill puts what is known by now in the places of words: SRC/ is where the images are,
// OUT/ and TOOL are the tool's own, {NAME} is a digest.
func (b *beside) fill(tool, text string) string {
	text = strings.NewReplacer("SRC/", b.registry.Addr()+"/src/", "OUT/", b.registry.Addr()+"/"+tool+"/", "TOOL", tool, "DIR/", b.berth.Work+"/").Replace(text)
	return regexp.MustCompile(`\{[a-z0-9]+[:/][a-z0-9/]+\}`).ReplaceAllStringFunc(text, func(name string) string {
		d, ok := b.images.Digest[strings.Trim(name, "{}")]
		if !ok {
			b.t.Fatalf("there is no digest of %s", name)
		}
		return d
	})
}

func (b *beside) args(tool string, words ...string) []string {
	out := []string{"imagetools"}
	for _, w := range words {
		out = append(out, b.fill(tool, w))
	}
	return out
}

// file writes a file that both read.
func (b *beside) file(name, content string) {
	b.t.Helper()
	if err := os.WriteFile(join(b.berth.Work, name), []byte(b.fill("", content)), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// manifest is what a registry has under NAME:TAG or NAME@DIGEST.
func (b *beside) manifest(repo, id string) (status int, mediaType, body string) {
	b.t.Helper()
	status, header, raw := b.registry.Get(b.t, "/v2/"+repo+"/manifests/"+id)
	return status, header.Get("Content-Type"), string(raw)
}

// createCases are calls of create, each with a single target OUT/NAME:1 unless it says
// otherwise.
func createCases() map[string][]string {
	return map[string][]string{
		"copy of an index":                     {"SRC/multi:1"},
		"copy of an index by digest":           {"SRC/multi@{multi:1}"},
		"copy of an index by tag and digest":   {"SRC/multi:1@{multi:1}"},
		"copy of a Docker list":                {"SRC/dmulti:1"},
		"copy of a nested index":               {"SRC/nested:1"},
		"copy of an index with all fields":     {"SRC/windows:1"},
		"one image":                            {"SRC/amd64:1"},
		"one Docker image":                     {"SRC/damd64:1"},
		"one image, as it is":                  {"--prefer-index=false", "SRC/amd64:1"},
		"one Docker image, as it is":           {"--prefer-index=false", "SRC/damd64:1"},
		"one index, no index preferred":        {"--prefer-index=false", "SRC/multi:1"},
		"one image with a variant":             {"SRC/darmv7:1"},
		"two images":                           {"SRC/amd64:1", "SRC/arm64:1"},
		"two images, the other way":            {"SRC/arm64:1", "SRC/amd64:1"},
		"two Docker images":                    {"SRC/damd64:1", "SRC/darm64:1"},
		"three Docker images":                  {"SRC/damd64:1", "SRC/darm64:1", "SRC/darmv7:1"},
		"both formats":                         {"SRC/amd64:1", "SRC/darm64:1"},
		"an index and an image":                {"SRC/plain:1", "SRC/darmv7:1"},
		"two indexes":                          {"SRC/multi:1", "SRC/plain:1"},
		"an index and a Docker list":           {"SRC/multi:1", "SRC/dmulti:1"},
		"two Docker lists":                     {"SRC/dmulti:1", "SRC/dmulti:1"},
		"the same image twice":                 {"SRC/amd64:1", "SRC/amd64:1"},
		"an image that the index has":          {"SRC/plain:1", "SRC/amd64:1"},
		"one platform":                         {"--platform", "linux/arm64", "SRC/multi:1"},
		"two platforms":                        {"--platform", "linux/amd64,linux/s390x", "SRC/multi:1"},
		"two platforms, two flags":             {"-p", "linux/arm/v7", "-p", "linux/amd64", "SRC/multi:1"},
		"an ARM platform without a variant":    {"--platform", "linux/arm", "SRC/multi:1"},
		"all platforms by name":                {"--platform", "linux/amd64,linux/arm64,linux/arm/v7,linux/s390x", "SRC/multi:1"},
		"one platform of a Docker list":        {"--platform", "linux/amd64", "SRC/dmulti:1"},
		"one platform of an annotated index":   {"--platform", "linux/amd64", "SRC/plain:1"},
		"one platform of several sources":      {"--platform", "linux/arm64", "SRC/multi:1", "SRC/dmulti:1"},
		"one platform of a nested index":       {"--platform", "linux/amd64", "SRC/nested:1"},
		"one platform of an image as it is":    {"--prefer-index=false", "--platform", "linux/amd64", "SRC/amd64:1"},
		"an annotation of the index":           {"--annotation", "index:org.example.a=b=c <&>", "SRC/amd64:1"},
		"an annotation of an index alone":      {"--annotation", "index:org.example.a=1", "SRC/multi:1"},
		"annotations of the entries":           {"--annotation", "manifest-descriptor:org.example.a=1", "SRC/multi:1"},
		"annotations of one entry":             {"--annotation", "manifest-descriptor[linux/arm64]:org.example.a=1", "SRC/multi:1", "SRC/plain:1"},
		"annotations of both levels":           {"--annotation", "index,manifest-descriptor:org.example.a=1", "SRC/amd64:1", "SRC/arm64:1"},
		"annotations of a Docker list":         {"--annotation", "index:org.example.a=1", "SRC/damd64:1"},
		"an annotation and a platform":         {"--annotation", "index:a=1", "--platform", "linux/arm64", "SRC/multi:1"},
		"signed and attested from outside":     {"SRC/signed:1"},
		"signed, as it is":                     {"--prefer-index=false", "SRC/signed:1"},
		"signed, with another":                 {"SRC/signed:1", "SRC/arm64:1"},
		"a file with a name":                   {"--file", "DIR/name"},
		"a file and a source":                  {"--file", "DIR/name", "SRC/arm64:1"},
		"a layout of buildx's":                 {"oci-layout://DIR/bxlayout:multi"},
		"a layout of berth's":                  {"oci-layout://DIR/belayout:multi"},
		"a layout by digest":                   {"oci-layout://DIR/bxlayout@{multi:1}"},
		"a layout and a registry":              {"oci-layout://DIR/bxlayout:amd64", "SRC/arm64:1"},
		"a platform of a layout":               {"--platform", "linux/arm64", "oci-layout://DIR/belayout:multi"},
		"a signed image of a layout":           {"oci-layout://DIR/bxlayout:signed"},
		"a signed image of a layout of ours":   {"oci-layout://DIR/belayout:signed"},
		"within a repository: a digest":        {"-t", "SRC/amd64:TOOL1", "{amd64:1}"},
		"within a repository: a file":          {"-t", "SRC/amd64:TOOL2", "-f", "DIR/digest"},
		"within a repository: a descriptor":    {"-t", "SRC/amd64:TOOL3", "-f", "DIR/descriptor"},
		"within a repository: a short one":     {"-t", "SRC/amd64:TOOL4", "-f", "DIR/short"},
		"within a repository: on the command":  {"-t", "SRC/amd64:TOOL5", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{amd64:1}","size":555}`},
		"within a repository: two digests":     {"-t", "SRC/multi:TOOL6", "{multi/linux/arm64}", "{multi/linux/s390x}"},
		"within a repository: a tag":           {"-t", "SRC/multi:TOOL7", "--platform", "linux/s390x", "SRC/multi:1"},
		"within a repository: digest and name": {"-t", "SRC/multi:TOOL8", "{multi/linux/arm64}", "SRC/multi@{multi/linux/amd64}"},
	}
}

// The images that berth makes are those that buildx makes, to the byte.
func TestImagetoolsCreateBesideBuildx(t *testing.T) {
	b := newBeside(t)
	b.file("name", "SRC/amd64:1")
	b.file("digest", "{amd64:1}")
	b.file("descriptor", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{amd64:1}","size":555,
		"platform":{"os":"linux","architecture":"amd64","os.version":"9","os.features":["x"],"variant":"v2"},"annotations":{"a":"b"},"artifactType":"x/y"}`)
	b.file("short", `{"digest":"{amd64:1}","annotations":{"a":"b"}}`)
	for tool, cli := range map[string]*lab.CLI{"bx": b.buildx, "be": b.berth} { // the layouts are sources, too
		for _, image := range []string{"multi", "signed", "amd64"} {
			args := b.args(tool, "create", "--progress", "quiet", "-t", "oci-layout://DIR/"+tool+"layout:"+image, "SRC/"+image+":1")
			if image == "amd64" {
				args = append(args, "--prefer-index=false")
			}
			cli.OK(args...)
		}
	}
	cases := createCases()
	if len(cases) < 30 {
		t.Fatalf("%d cases", len(cases))
	}
	n := 0
	for name, words := range cases {
		n++
		repo := fmt.Sprintf("c%d", n)
		t.Run(name, func(t *testing.T) {
			one := *b
			one.t = t
			one.compareCreate(repo, words)
		})
	}
}

// compareCreate runs both with and without writing.
func (b *beside) compareCreate(repo string, words []string) {
	b.t.Helper()
	if !slices.Contains(words, "-t") {
		words = append([]string{"-t", "OUT/" + repo + ":1"}, words...)
	}
	written, meta := map[string]string{}, map[string]string{}
	for tool, cli := range map[string]*lab.CLI{"bx": b.buildx, "be": b.berth} {
		file := join(b.t.TempDir(), "metadata")
		r := cli.Run(b.args(tool, append([]string{"create", "--progress", "plain", "--metadata-file", file}, words...)...)...)
		if r.Code != 0 || r.Stdout != "" {
			b.t.Fatalf("%s: %s", tool, r)
		}
		meta[tool] = strings.ReplaceAll(strings.ReplaceAll(read(b.t, file), "/"+tool+"/", "/TOOL/"), tool+"layout", "LAYOUT")
		target := b.fill(tool, words[slices.Index(words, "-t")+1])
		path, tag, _ := strings.Cut(strings.TrimPrefix(target, b.registry.Addr()+"/"), ":")
		status, mediaType, body := b.manifest(path, tag)
		if status != 200 {
			b.t.Fatalf("%s has not written %s: %d", tool, target, status)
		}
		written[tool] = mediaType + "\n" + body
		if tool == "be" {
			b.whole(path, tag, map[string]bool{})
			if r := cli.Run(b.args(tool, append([]string{"create", "--dry-run"}, words...)...)...); r.Code != 0 || r.Stdout != body+"\n" {
				b.t.Errorf("--dry-run shows\n%s\nand written is\n%s", r, body)
			}
		}
	}
	if written["bx"] != written["be"] {
		b.t.Errorf("buildx writes\n%s\nberth\n%s", written["bx"], written["be"])
	}
	if meta["bx"] != meta["be"] {
		b.t.Errorf("metadata: buildx\n%s\nberth\n%s", meta["bx"], meta["be"])
	}
}

// whole sees that all that a manifest names is in its repository.
func (b *beside) whole(repo, id string, seen map[string]bool) {
	b.t.Helper()
	if seen[id] {
		return
	}
	seen[id] = true
	status, _, body := b.manifest(repo, id)
	if status != 200 {
		b.t.Errorf("%s@%s is missing: %d", repo, id, status)
		return
	}
	var m struct {
		Manifests, Layers []struct{ Digest string }
		Config            *struct{ Digest string }
	}
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		b.t.Fatal(err)
	}
	for _, child := range m.Manifests {
		b.whole(repo, child.Digest, seen)
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, blob := range m.Layers {
		if status, _, _ := b.registry.Get(b.t, "/v2/"+repo+"/blobs/"+blob.Digest); status != 200 {
			b.t.Errorf("%s lacks the blob %s: %d", repo, blob.Digest, status)
		}
	}
}

// What is refused by one is refused by the other.
func TestImagetoolsRefusalsBesideBuildx(t *testing.T) {
	b := newBeside(t)
	b.file("empty", "")
	b.file("size", `{"digest":"{amd64:1}","size":444}`)
	b.file("wrongsize", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{amd64:1}","size":444}`)
	for _, c := range []struct{ args, says string }{
		{"create", "no sources specified"},
		{"create SRC/amd64:1", "can't push with no tags specified, please set --tag or --dry-run"},
		{"create --dry-run --platform linux/riscv64 SRC/multi:1", "none of the manifests match the provided platforms"},
		{"create --dry-run --platform linux/riscv64 --prefer-index=false SRC/amd64:1", "input platform linux/amd64 does not match any of the provided platforms"},
		{"create --dry-run --platform a/b/c/d/e SRC/multi:1", `"d/e" is an invalid component`},
		{"create --dry-run --annotation a=b SRC/amd64:1", "annotations are not supported"},
		{"create --dry-run --annotation index-descriptor:a=b SRC/amd64:1", `"index-descriptor" annotations are invalid while creating an image`},
		{"create --dry-run --annotation nosuch:a=b SRC/amd64:1", ""},
		{"create --dry-run --annotation a SRC/amd64:1", ""},
		{"create --append -t SRC/multi SRC/amd64:1", "/src/multi:latest: not found"},
		{"create --dry-run SRC/nosuch:1", "/src/nosuch:1: not found"},
		{"create --dry-run SRC/multi:nosuch", "/src/multi:nosuch: not found"},
		{"create --dry-run {amd64:1}", "no repositories specified, please set a reference in tag or source"},
		{"create --dry-run -t OUT/a:1 -t OUT/b:1 {amd64:1}", "multiple repositories specified, cannot infer repository for"},
		{"create --dry-run sha256:abc", "invalid checksum digest length"},
		{"create --dry-run {bad", "invalid character 'b'"},
		{"create --dry-run -t SRC/amd64:9 {}", "digest is required"},
		{"create --dry-run -f DIR/nosuch", "no such file or directory"},
		{"create --dry-run -f DIR/empty", ""},
		{"create --dry-run -t SRC/amd64:9 -f DIR/size", ", 444 != 555"},
		{"create --dry-run -t SRC/amd64:9 -f DIR/wrongsize", ""},
		{"create --dry-run -t UPPER SRC/amd64:1", "must be lowercase"},
		{"create --dry-run UPPER", "must be lowercase"},
		{"create --progress nosuch -t OUT/a:1 SRC/amd64:1", ""},
		{"create --dry-run oci-layout://DIR/nosuch:1", "nosuch"},
		{"create --dry-run --builder nosuch SRC/amd64:1", `no builder "nosuch" found`},
		{"create --nosuch", "unknown flag: --nosuch"},
		{"create -t oci-layout://DIR/t@{arm64:1} SRC/multi:1", " requested digest "},
		{"inspect", "requires 1 argument"},
		{"inspect SRC/a:1 SRC/b:1", "requires 1 argument"},
		{"inspect --raw --format x SRC/multi:1", "format and raw cannot be used together"},
		{"inspect SRC/nosuch:1", "/src/nosuch:1: not found"},
		{"inspect SRC/multi@{arm64:1}", ": not found"},
		{"inspect --format {{ SRC/multi:1", "unclosed action"},
		{"inspect --format {{.Nope}} SRC/multi:1", "can't evaluate field Nope"},
		{"inspect --builder nosuch SRC/multi:1", `no builder "nosuch" found`},
		{"inspect 127.0.0.1:1/x:1", "connect: connection refused"},
	} {
		ours, theirs := b.berth.Run(b.args("be", strings.Fields(c.args)...)...), b.buildx.Run(b.args("bx", strings.Fields(c.args)...)...)
		if ours.Code != 1 || theirs.Code != 1 || ours.Stdout != "" {
			t.Errorf("%s: berth\n%s\nbuildx\n%s", c.args, ours, theirs)
		}
		has(t, c.args, lastLine(ours.Stderr), "ERROR: ", c.says)
		has(t, c.args+" of buildx", theirs.Stderr, strings.Replace(c.says, "are not supported", "are not supported yet", 1))
	}
	// Here a name with a digest is a promise.
	r := b.berth.Fail(b.args("be", "create", "-t", "OUT/a@{arm64:1}", "SRC/multi:1")...)
	has(t, "another digest", lastLine(r.Stderr), " requested digest ", " but produced ")
	if status, _, _ := b.registry.Get(t, "/v2/be/a/tags/list"); status != 404 {
		t.Errorf("something was written: %d", status)
	}
}

// sortedAnnotations makes the order of annotations in a list the same, which buildx
// leaves to chance.
func sortedAnnotations(text string) string {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		from := i
		for i < len(lines) && strings.HasPrefix(lines[i], "    ") && strings.Contains(lines[i], ": ") {
			i++
		}
		slices.Sort(lines[from:i])
	}
	return strings.Join(lines, "\n")
}

func TestImagetoolsInspectBesideBuildx(t *testing.T) {
	b := newBeside(t)
	b.berth.OK(b.args("be", "create", "--progress", "quiet", "-t", "oci-layout://DIR/layout:1", "SRC/multi:1")...)
	n := 0
	for _, image := range []string{"SRC/multi:1", "SRC/plain:1", "SRC/amd64:1", "SRC/damd64:1", "SRC/dmulti:1", "SRC/windows:1", "SRC/urls:1", "SRC/nested:1", "SRC/signed:1",
		"SRC/multi@{multi:1}", "SRC/multi:1@{multi:1}", "SRC/multi@{multi/linux/arm64}", "oci-layout://DIR/layout:1", "oci-layout://DIR/layout@{multi:1}"} {
		formats := []string{"", "RAW", "{{.Manifest}}", "{{.Name}}|{{json .Manifest}} x\n", "{{json .Image}}"}
		switch image {
		case "SRC/urls:1", "SRC/windows:1": // with a template, buildx goes to the URLs, and takes one of two images for a platform by chance
			formats = formats[:2]
		case "SRC/multi:1", "oci-layout://DIR/layout:1":
			formats = append(formats, "{{json .}}", "{{json .Provenance}}{{json .SBOM}}", `{{json (index .Image "linux/amd64")}}`, `{{range .Manifest.Manifests}}{{.Digest}} {{end}}`,
				`{{json (index .Provenance "linux/arm64").SLSA}}`, `{{range $k, $v := .SBOM}}{{$k}}={{json $v.SPDX}}{{end}}`, `{{len .Image}}`, `{{with .Manifest}}{{.MediaType}}{{end}}`)
		case "SRC/amd64:1", "SRC/multi@{multi/linux/arm64}":
			formats = append(formats, " {{ .Manifest }}", "{{json .}}", "{{.Image.OS}}/{{.Image.Architecture}}", "{{.Manifest.Digest}} {{.Manifest.Size}}", "{{.Provenance.SLSA}} {{.SBOM.SPDX}}", "{{json .SBOM}}", "{{if .Image}}yes{{end}}")
		}
		for _, format := range formats {
			args := []string{"inspect", image}
			switch format {
			case "":
			case "RAW":
				args = append(args, "--raw")
			default:
				args = append(args, "--format", format)
			}
			ours, theirs := b.berth.Run(b.args("", args...)...), b.buildx.Run(b.args("", args...)...)
			if ours.Code != theirs.Code || sortedAnnotations(ours.Stdout) != sortedAnnotations(theirs.Stdout) {
				t.Errorf("%q: berth\n%s\nbuildx\n%s", args, ours, theirs)
			}
			if ours.Code != 0 {
				t.Errorf("%q: %s", args, ours)
			}
			n++
		}
	}
	t.Logf("%d calls", n)
	// --raw is the registry's bytes.
	_, _, body := b.manifest("src/multi", "1")
	if raw := b.berth.OK(b.args("", "inspect", "--raw", "SRC/multi:1")...).Stdout; raw != body {
		t.Errorf("%q, and the registry has %q", raw, body)
	}
}

// --append adds to what the first tag stands for, which changes with each call.
func TestImagetoolsAppend(t *testing.T) {
	b := newBeside(t)
	for tool, cli := range map[string]*lab.CLI{"bx": b.buildx, "be": b.berth} {
		cli.OK(b.args(tool, "create", "-t", "OUT/a:1", "SRC/multi:1")...)
		cli.OK(b.args(tool, "create", "--append", "-t", "OUT/a:1", "-t", "OUT/a:2", "-t", "OUT/b:3", "SRC/darmv7:1")...)
		cli.OK(b.args(tool, "create", "--append", "-t", "OUT/a:1", "--annotation", "index:x=y", "SRC/windows:1")...)
	}
	for _, at := range [][2]string{{"a", "1"}, {"a", "2"}, {"b", "3"}} {
		_, _, theirs := b.manifest("bx/"+at[0], at[1])
		status, _, ours := b.manifest("be/"+at[0], at[1])
		if status != 200 || ours != theirs {
			t.Errorf("%v: berth %d\n%s\nbuildx\n%s", at, status, ours, theirs)
		}
		b.whole("be/"+at[0], at[1], map[string]bool{})
	}
}

// What only berth takes: standard input, a manifest, lines that end, and a descriptor
// beside images.
func TestImagetoolsFile(t *testing.T) {
	b := newBeside(t)
	raw := b.berth.OK(b.args("", "inspect", "--raw", "SRC/amd64:1")...).Stdout
	want := b.berth.OK(b.args("", "create", "--dry-run", "SRC/amd64:1")...).Stdout
	for what, text := range map[string]string{
		"a manifest":             raw,
		"a digest with its line": b.images.Digest["amd64:1"] + "\n",
		"a name with its line":   b.fill("", "SRC/amd64:1\n"),
		"an indented descriptor": "\n  " + b.fill("", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{amd64:1}"}`),
	} {
		r := b.berth.Cmd(b.args("", "create", "--dry-run", "-t", "SRC/amd64:9", "-f", "-")...).Stdin(strings.NewReader(text)).Run()
		if r.Code != 0 || r.Stdout != want {
			t.Errorf("%s: %s", what, r)
		}
	}
	b.file("d", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{multi/linux/arm64}","size":555,"annotations":{"a":"b"}}`)
	r := b.berth.OK(b.args("", "create", "--dry-run", "-t", "SRC/multi:9", "-f", "DIR/d", "SRC/multi@{multi/linux/amd64}")...)
	has(t, "index", r.Stdout, b.images.Digest["multi/linux/arm64"], b.images.Digest["multi/linux/amd64"], `"a": "b"`)
	has(t, "a manifest on the command line", b.berth.Fail(b.args("", "create", "--dry-run", "SRC/amd64:1", raw)...).Stderr, "expected an OCI content descriptor", "--file FILE")
}

// A layout that berth writes is one that buildx reads, and the other way round; what is
// in it already stays.
func TestImagetoolsLayouts(t *testing.T) {
	b := newBeside(t)
	digests := map[string]string{}
	for _, step := range []struct {
		cli        *lab.CLI
		tag, image string
	}{{b.berth, "one", "multi"}, {b.buildx, "two", "signed"}, {b.berth, "three", "dmulti"}, {b.berth, "one", "plain"}, {b.buildx, "four", "signed"}, {b.berth, "five", "signed"}} {
		step.cli.OK(b.args("", "create", "-t", "oci-layout://DIR/l:"+step.tag, "SRC/"+step.image+":1")...)
		digests[step.tag] = step.image
	}
	for tag, image := range digests {
		for tool, cli := range map[string]*lab.CLI{"bx": b.buildx, "be": b.berth} {
			r := cli.OK(b.args(tool, "create", "--dry-run", "oci-layout://DIR/l:"+tag)...)
			if want := cli.OK(b.args(tool, "create", "--dry-run", "SRC/"+image+":1")...).Stdout; r.Stdout != want {
				t.Errorf("%s of %s: %s, wanted %s", tool, tag, r, want)
			}
			cli.OK(b.args(tool, "create", "--progress", "quiet", "-t", "OUT/"+tag+":1", "oci-layout://DIR/l:"+tag)...)
		}
		_, _, ours := b.manifest("be/"+tag, "1")
		if _, _, theirs := b.manifest("bx/"+tag, "1"); ours != theirs {
			t.Errorf("%s: %s, buildx %s", tag, ours, theirs)
		}
		b.whole("be/"+tag, "1", map[string]bool{})
	}
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal([]byte(read(t, join(b.berth.Work, "l", "index.json"))), &index); err != nil {
		t.Fatal(err)
	}
	signatures := 0
	for _, m := range index.Manifests {
		if m.Annotations["io.containerd.manifest.subject"] != "" {
			signatures++
		}
	}
	if signatures == 0 || len(index.Manifests) > len(digests)+2 { // buildx adds the signature each time, berth once
		t.Errorf("the index has %d entries, %d for signatures", len(index.Manifests), signatures)
	}
	// To a layout and a registry at once, and from a layout to a layout.
	b.berth.OK(b.args("be", "create", "-t", "oci-layout://DIR/m:x", "-t", "OUT/m:x", "oci-layout://DIR/l:five")...)
	b.whole("be/m", "x", map[string]bool{})
	if entries, err := filepath.Glob(join(b.berth.Work, "m", ".berth-*")); err != nil || len(entries) > 0 {
		t.Errorf("left: %q, %v", entries, err)
	}
	has(t, "folders", strings.Join(names(t, join(b.berth.Work, "m")), " "), "blobs index.json oci-layout")
}
