//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// The types of what is attested.
const (
	slsaV1  = "https://slsa.dev/provenance/v1"
	slsaV02 = "https://slsa.dev/provenance/v0.2"
	spdx    = "https://spdx.dev/Document"
)

// blobs gives an image's manifests and layers by digest.
type blobs func(digest string) []byte

// statement is one attestation of one platform.
type statement struct {
	Platform      string
	PredicateType string
	Artifact      bool // it is an OCI artifact, not an image manifest
	Subject       []struct{ Name string }
	Predicate     map[string]any
}

type manifest struct {
	Digest       string
	MediaType    string
	ArtifactType string
	Platform     struct{ OS, Architecture string }
	Annotations  map[string]string
	Manifests    []manifest
	Layers       []manifest
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}

// statements reads what is attested of an image whose manifest or index is
// given. A plain image has nothing.
func statements(t *testing.T, top []byte, get blobs) []statement {
	t.Helper()
	var index manifest
	decode(t, top, &index)
	platforms := map[string]string{}
	var all []statement
	for _, m := range index.Manifests {
		if m.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			platforms[m.Digest] = m.Platform.OS + "/" + m.Platform.Architecture
		}
	}
	for _, m := range index.Manifests {
		of, ok := platforms[m.Annotations["vnd.docker.reference.digest"]]
		if !ok {
			continue
		}
		var attestations manifest
		decode(t, get(m.Digest), &attestations)
		for _, layer := range attestations.Layers {
			s := statement{Platform: of, Artifact: attestations.ArtifactType != ""}
			decode(t, get(layer.Digest), &s)
			if s.PredicateType != layer.Annotations["in-toto.io/predicate-type"] {
				t.Errorf("%v holds %s", layer, s.PredicateType)
			}
			all = append(all, s)
		}
	}
	return all
}

// pushed reads them back from a registry.
func pushed(t *testing.T, r *lab.RegistryServer, repo, tag string) []statement {
	t.Helper()
	get := func(kind, ref string) []byte {
		status, _, body := r.Get(t, "/v2/"+repo+"/"+kind+"/"+ref)
		if status != 200 {
			t.Fatalf("%s %s: the registry answers %d", kind, ref, status)
		}
		return body
	}
	return statements(t, get("manifests", tag), func(digest string) []byte {
		status, _, body := r.Get(t, "/v2/"+repo+"/manifests/"+digest)
		if status != 200 {
			return get("blobs", digest)
		}
		return body
	})
}

// archived reads them out of an OCI archive.
func archived(t *testing.T, path string) []statement {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader([]byte(read(t, path)))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	get := func(digest string) []byte {
		return files["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
	}
	var index manifest
	decode(t, files["index.json"], &index)
	return statements(t, get(index.Manifests[0].Digest), get)
}

// at finds a value inside of JSON; nil when it is not there.
func at(v any, path ...string) any {
	for _, key := range path {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

// metadata reads a --metadata-file.
func metadata(t *testing.T, path string) map[string]any {
	t.Helper()
	var m map[string]any
	decode(t, []byte(read(t, path)), &m)
	return m
}

// only is the one statement of a type.
func only(t *testing.T, all []statement, kind string) statement {
	t.Helper()
	var found []statement
	for _, s := range all {
		if s.PredicateType == kind {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d statements of %s in %v", len(found), kind, all)
	}
	return found[0]
}

// Provenance on the pushed image is what the flags and the environment say; that
// of the metadata is the daemon's record, and does not depend on them.
func TestProvenance(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG WORD\nCOPY file /\n", "file": "x"})
	ref := registry.Addr() + "/app"
	for _, c := range []struct {
		name      string
		args, env []string
		kind      string // "" is none
		full      bool   // with the steps and the build arguments
	}{
		{"default", nil, nil, slsaV1, false},
		{"min", []string{"--provenance=min"}, nil, slsaV1, false},
		{"max", []string{"--provenance=max"}, nil, slsaV1, true},
		{"true", []string{"--provenance=true"}, nil, slsaV1, true}, // the daemon's own default
		{"mode", []string{"--provenance", "mode=max,version=v0.2"}, nil, slsaV02, true},
		{"attest", []string{"--attest", "type=provenance,mode=max"}, []string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1"}, slsaV1, true},
		{"off", []string{"--provenance=false"}, nil, "", false},
		{"disabled", []string{"--attest", "type=provenance,disabled=true"}, nil, "", false},
		{"environment", nil, []string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1"}, "", false},
	} {
		md := join(t.TempDir(), "md")
		args := append([]string{"-t", ref + ":" + c.name, "--push", "--metadata-file", md, "--build-arg", "WORD=secretive"}, c.args...)
		build(t, berth.With(c.env...), dir, args...)
		all := pushed(t, registry, "app", c.name)
		if c.kind == "" {
			if len(all) > 0 {
				t.Errorf("%s: %v", c.name, all)
			}
		} else {
			s := only(t, all, c.kind)
			steps := at(s.Predicate, "buildConfig")
			if c.kind == slsaV1 {
				steps = at(s.Predicate, "buildDefinition", "internalParameters", "buildConfig")
			}
			text, err := json.Marshal(s.Predicate)
			if err != nil {
				t.Fatal(err)
			}
			if (steps != nil) != c.full || strings.Contains(string(text), "secretive") != c.full {
				t.Errorf("%s: %s", c.name, text)
			}
		}
		told := metadata(t, md)["buildx.build.provenance"]
		if at(told, "buildType") != "https://mobyproject.org/buildkit@v1" || at(told, "invocation", "parameters", "args", "build-arg:WORD") != "secretive" {
			t.Errorf("%s: the metadata has %v", c.name, told)
		}
	}
	s := only(t, pushed(t, registry, "app", "default"), slsaV1)
	if len(s.Subject) != 1 || !strings.Contains(s.Subject[0].Name, "app@default") || s.Platform == "" {
		t.Errorf("%+v", s)
	}
	build(t, berth, dir, "-t", ref+":id", "--push", "--provenance", "builder-id=https://ci.example/run/7")
	if got := at(only(t, pushed(t, registry, "app", "id"), slsaV1).Predicate, "runDetails", "builder", "id"); got != "https://ci.example/run/7" {
		t.Errorf("builder-id: %v", got)
	}
}

// The form of the attestations' manifest can be the one that every registry
// knows.
func TestNoArtifacts(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
	plain := berth.With("BUILDX_NO_DEFAULT_OCI_ARTIFACT=1")
	build(t, berth, dir, "-t", registry.Addr()+"/app:new", "--push")
	build(t, plain, dir, "-t", registry.Addr()+"/app:plain", "--push")
	build(t, plain, dir, "-t", registry.Addr()+"/app:own", "-o", "type=image,push=true,oci-artifact=true")
	for tag, want := range map[string]bool{"new": true, "plain": false, "own": true} {
		if s := only(t, pushed(t, registry, "app", tag), slsaV1); s.Artifact != want {
			t.Errorf("%s: %+v", tag, s)
		}
	}
	file := join(t.TempDir(), "x.tar")
	build(t, plain, dir, "--provenance=min", "-o", "type=oci,dest="+file)
	if only(t, archived(t, file), slsaV1).Artifact {
		t.Error("the archive has an artifact")
	}
}

func TestAttestationsInFiles(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
	for arg, want := range map[string]int{"--provenance=": 0, "--provenance=min": 1, "--provenance=max": 1, "--provenance=false": 0} {
		file := join(t.TempDir(), "x.tar")
		build(t, berth, dir, arg, "-o", "type=oci,dest="+file)
		if all := archived(t, file); len(all) != want {
			t.Errorf("%s: %v", arg, all)
		}
	}
	// So does a folder: both stay as they are unless provenance is asked for.
	out := t.TempDir()
	build(t, berth, dir, "-o", out)
	if got := names(t, out); !slices.Equal(got, []string{"file"}) {
		t.Errorf("by default: %q", got)
	}
	out = t.TempDir()
	build(t, berth, dir, "--provenance=mode=min,filename=how.json", "-o", out)
	if got := names(t, out); !slices.Equal(got, []string{"file", "how.json"}) {
		t.Errorf("asked for: %q", got)
	}
}

// scanner pushes an image that writes SBOMs.
func scanner(t *testing.T, berth *lab.CLI, registry *lab.RegistryServer) string {
	t.Helper()
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY scanner /scanner\nENTRYPOINT [\"/scanner\"]\n"})
	cmd := exec.Command("go", "build", "-trimpath", "-o", join(dir, "scanner"), "./test/testdata/scanner")
	cmd.Dir = lab.ModuleRoot(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ref := registry.Addr() + "/scanner"
	build(t, berth, dir, "-t", ref, "--push", "--provenance=false")
	return ref
}

func TestSBOM(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	generator := scanner(t, berth, registry)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /only-$TARGETARCH\n", "amd64": "x", "arm64": "y"})
	ref := registry.Addr() + "/app"
	build(t, berth, dir, "-t", ref+":one", "--push", "--sbom", "generator="+generator+",NOTE=from the flag")
	all := pushed(t, registry, "app", "one")
	only(t, all, slsaV1) // the default stays
	s := only(t, all, spdx)
	text, err := json.Marshal(s.Predicate)
	if err != nil {
		t.Fatal(err)
	}
	has(t, "SBOM", string(text), `"/only-amd64"`, `"from the flag"`, `"SPDXRef-DOCUMENT"`)

	build(t, berth, dir, "-t", ref+":two", "--push", "--platform", "linux/amd64,linux/arm64", "--attest", "type=sbom,generator="+generator, "--provenance=false")
	found := map[string]bool{}
	for _, s := range pushed(t, registry, "app", "two") {
		text, err := json.Marshal(s.Predicate)
		if err != nil {
			t.Fatal(err)
		}
		arch := strings.TrimPrefix(s.Platform, "linux/")
		found[arch] = s.PredicateType == spdx && strings.Contains(string(text), "/only-"+arch)
	}
	if !maps.Equal(found, map[string]bool{"amd64": true, "arm64": true}) {
		t.Errorf("SBOMs for %v", found)
	}

	file := join(t.TempDir(), "x.tar")
	build(t, berth, dir, "--sbom", "generator="+generator, "--provenance=false", "-o", "type=oci,dest="+file)
	only(t, archived(t, file), spdx)
	out := t.TempDir()
	build(t, berth, dir, "--sbom", "generator="+generator, "-o", out)
	has(t, "SBOM in a folder", read(t, join(out, "sbom.spdx.json")), "/only-amd64")
	build(t, berth, dir, "-t", ref+":none", "--push", "--sbom=false", "--provenance=false")
	if all := pushed(t, registry, "app", "none"); len(all) > 0 {
		t.Errorf("--sbom=false: %v", all)
	}
	r := berth.Cmd("build", "--sbom", "generator="+registry.Addr()+"/nosuch", "-o", "type=cacheonly", ".").Dir(dir).Run()
	if r.Code != 1 || !strings.Contains(lastLine(r.Stderr), "/nosuch") {
		t.Errorf("a generator that is not there: %s", r)
	}
}

// Whatever a build makes, its metadata have the provenance.
func TestMetadataProvenance(t *testing.T) {
	berth, bk := shared(t)
	registry := lab.Registry(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /f\n", "amd64": "x", "arm64": "y"})
	const key = "buildx.build.provenance"
	run := func(args ...string) map[string]any {
		t.Helper()
		md := join(t.TempDir(), "md")
		r := build(t, berth, dir, append(args, "--metadata-file", md)...)
		hasNot(t, "stderr", r.Stderr, "lacks the provenance")
		return metadata(t, md)
	}
	for _, out := range [][]string{nil, {"-o", "type=cacheonly"}, {"-o", t.TempDir()}, {"-o", "type=tar,dest=" + join(t.TempDir(), "x")},
		{"-o", "type=oci,dest=" + join(t.TempDir(), "x"), "--provenance=false"}, {"-t", registry.Addr() + "/x", "--push", "-q"}} {
		m := run(out...)
		if at(m, key, "invocation", "environment", "platform") != "linux/amd64" || at(m, key, "buildConfig") != nil || at(m, key, "metadata") != nil {
			t.Errorf("%q: %v", out, m)
		}
	}
	plain := berth
	berth = plain.With("BUILDX_METADATA_PROVENANCE=max")
	m := run()
	if at(m, key, "buildConfig", "llbDefinition") == nil || at(m, key, "metadata", "buildInvocationID") == nil {
		t.Errorf("max: %v", m)
	}
	berth = plain.With("BUILDX_METADATA_PROVENANCE=disabled")
	if m := run(); at(m, key) != nil || at(m, "buildx.build.ref") == nil {
		t.Errorf("disabled: %v", m)
	}
	berth = plain
	both := []string{"--platform", "linux/amd64,linux/arm64", "-t", registry.Addr() + "/both", "--push"}
	m = run(both...)
	if at(m, key+"/linux/amd64", "buildType") == nil || at(m, key+"/linux/arm64", "buildType") == nil || at(m, key) != nil || at(m, "image.name") != registry.Addr()+"/both" {
		t.Errorf("two platforms: %v", m)
	}
	if n := len(pushed(t, registry, "both", "latest")); n != 2 {
		t.Errorf("%d attestations of two platforms", n)
	}

	// Each node's is kept when several build, in the metadata and on the image.
	arm := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/arm64"}})
	berth.OK("create", "--name", "two", "--platform", "linux/amd64", bk.UnixAddr())
	berth.OK("create", "--name", "two", "--append", "--platform", "linux/arm64", arm.UnixAddr())
	m = run(append(both, "--builder", "two")...)
	if at(m, key+"/linux/amd64", "buildType") == nil || at(m, key+"/linux/arm64", "buildType") == nil || at(m, "containerimage.digest") == nil || at(m, "containerimage.descriptor", "digest") != at(m, "containerimage.digest") {
		t.Errorf("two nodes: %v", m)
	}
	for _, c := range []struct{ key, node string }{{"buildx.build.ref", "two0"}, {"buildx.build.ref/linux/amd64", "two0"}, {"buildx.build.ref/linux/arm64", "two1"}} {
		ref, _ := m[c.key].(string)
		if !strings.HasPrefix(ref, "two/"+c.node+"/") || !exists(join(berth.BuildxConfig, "refs", ref)) {
			t.Errorf("%s is %q", c.key, ref)
		}
	}
	found := map[string]bool{}
	for _, s := range pushed(t, registry, "both", "latest") {
		found[s.Platform] = s.PredicateType == slsaV1
	}
	if !maps.Equal(found, map[string]bool{"linux/amd64": true, "linux/arm64": true}) {
		t.Errorf("on the joined index: %v", found)
	}
}

func TestMetadataWarnings(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.Context(t, map[string]string{"Dockerfile": "from scratch\nCOPY file /\n", "file": ""})
	md := join(t.TempDir(), "md")
	for env, want := range map[string]bool{"BUILDX_METADATA_WARNINGS=": false, "BUILDX_METADATA_WARNINGS=1": true} {
		build(t, berth.With(env), dir, "-o", "type=cacheonly", "--metadata-file", md)
		list, _ := metadata(t, md)["buildx.build.warnings"].([]any)
		if (len(list) == 1 && at(list[0], "url") != nil) != want {
			t.Errorf("%s: %v", env, list)
		}
	}
}

// A Docker engine with a graph driver cannot attach anything, and says so before
// it builds.
func TestEngineAttestsNothing(t *testing.T) {
	engine := lab.Docker(t)
	berth := lab.Berth(t).WithDocker(engine)
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": ""}) // such an engine has no network for RUN
	for _, arg := range []string{"--provenance=true", "--sbom=true"} {
		r := berth.Cmd("build", "--builder", "default", arg, ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("%s: %s", arg, r)
		}
		has(t, arg, r.Stderr, "containerd image store", "hint: leave it out")
	}
	build(t, berth, dir, "--builder", "default", "--provenance=false", "--sbom=false", "-t", "quiet")
}
