package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/gitinfo"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/state"
	"github.com/berthbuild/berth/internal/ui"
)

// testApp works in a folder with a Dockerfile, in an environment of its own.
func testApp(t *testing.T, env ...string) *app {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Dockerfile", "other/Dockerfile"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("FROM scratch\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vars := map[string]string{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	return &app{
		dir: dir, io: &ui.Streams{In: strings.NewReader("FROM scratch\n")},
		lookupEnv: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
	}
}

// asked are the frontend's attributes that begin with a prefix, and the
// attributes of the first export.
func asked(t *testing.T, r request.Request, prefix string) string {
	t.Helper()
	opt, err := r.Solve(request.CapabilitiesOf(client.BuildkitVersion{Version: "v0.34.2"}))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(opt.FrontendAttrs)) {
		if strings.HasPrefix(k, prefix) {
			all = append(all, k+"="+opt.FrontendAttrs[k])
		}
	}
	for _, ex := range opt.Exports {
		if v, ok := ex.Attrs["oci-artifact"]; ok {
			all = append(all, ex.Type+" artifact="+v)
		}
	}
	return strings.Join(all, " ")
}

func TestAttestationsOfFlagsAndEnvironment(t *testing.T) {
	const def = "attest:provenance=mode=min,inline-only=true"
	for _, c := range []struct {
		o    buildOptions
		env  []string
		want string
	}{
		{buildOptions{}, nil, def},
		{buildOptions{}, []string{"BUILDX_NO_DEFAULT_ATTESTATIONS="}, def},
		{buildOptions{}, []string{"BUILDX_NO_DEFAULT_ATTESTATIONS=0"}, def},
		{buildOptions{}, []string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1"}, ""},
		{buildOptions{provenance: "true"}, []string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1"}, "attest:provenance=type=provenance"},
		{buildOptions{provenance: "false"}, nil, ""},
		{buildOptions{sbom: "true"}, nil, def + " attest:sbom=type=sbom"},
		{buildOptions{sbom: "true"}, []string{"BUILDX_NO_DEFAULT_ATTESTATIONS=true"}, "attest:sbom=type=sbom"},
		{buildOptions{attests: []string{"type=provenance,mode=max"}}, nil, "attest:provenance=type=provenance,mode=max"},
		{buildOptions{outputs: []string{"type=oci,dest=x"}}, []string{"BUILDX_NO_DEFAULT_OCI_ARTIFACT=true"}, def + " oci artifact=false"},
		{buildOptions{outputs: []string{"type=oci,dest=x"}}, []string{"BUILDX_NO_DEFAULT_OCI_ARTIFACT=0"}, def},
	} {
		c.o.context, c.o.network = ".", "default"
		r, err := testApp(t, c.env...).newRequest(c.o)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if got := asked(t, r, "attest:"); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	for _, c := range []struct {
		o    buildOptions
		env  string
		want string
	}{
		{buildOptions{provenance: "much"}, "", "--provenance"},
		{buildOptions{sbom: "much"}, "", "--sbom"},
		{buildOptions{attests: []string{"much"}}, "", "--attest"},
		{buildOptions{}, "BUILDX_NO_DEFAULT_ATTESTATIONS=much", "BUILDX_NO_DEFAULT_ATTESTATIONS"},
		{buildOptions{}, "BUILDX_NO_DEFAULT_OCI_ARTIFACT=much", "BUILDX_NO_DEFAULT_OCI_ARTIFACT"},
	} {
		c.o.context, c.o.network = ".", "default"
		if _, err := testApp(t, c.env).newRequest(c.o); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "much") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestMetadataSwitches(t *testing.T) {
	for value, want := range map[string]build.ProvenanceDetail{
		"": build.MinProvenance, "min": build.MinProvenance, "true": build.MinProvenance, "garbage": build.MinProvenance,
		"max": build.MaxProvenance, "disabled": build.NoProvenance, "false": build.NoProvenance, "0": build.NoProvenance,
	} {
		a := testApp(t, "BUILDX_METADATA_PROVENANCE="+value)
		if got := a.metadataProvenance(buildOptions{metadataFile: "x"}); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
		if got := a.metadataProvenance(buildOptions{}); got != build.NoProvenance {
			t.Errorf("%q, without a file: %q", value, got)
		}
	}
	res := &build.Result{Warnings: []client.VertexWarning{{Level: 1, Short: []byte("short")}}}
	if text, err := json.Marshal(res.Metadata()); err != nil || !strings.Contains(string(text), `"buildx.build.warnings":[{`) || !strings.Contains(string(text), `"short":"c2hvcnQ="`) {
		t.Errorf("%s, %v", text, err)
	}
	if all := (&build.Result{}).Metadata(); len(all) > 0 {
		t.Errorf("no warnings: %v", all)
	}
}

// Nothing is asked of Git where nobody wants to know.
func TestGitIsOff(t *testing.T) {
	r, err := testApp(t).newRequest(buildOptions{context: ".", network: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for env, want := range map[string]bool{
		"": true, "BUILDX_GIT_INFO=1": true, "BUILDX_GIT_INFO=garbage": true, "BUILDX_GIT_INFO=0": false, "BUILDX_GIT_INFO=false": false,
		"BUILDX_GIT_INFO=0 BUILDX_GIT_LABELS=0": false, "BUILDX_GIT_INFO=0 BUILDX_GIT_LABELS=garbage": false,
		"BUILDX_GIT_INFO=0 BUILDX_GIT_LABELS=1": true, "BUILDX_GIT_INFO=0 BUILDX_GIT_LABELS=full": true,
	} {
		if got := testApp(t, strings.Fields(env)...).origin(r, gitinfo.Read) != nil; got != want {
			t.Errorf("%q: %v", env, got)
		}
	}
	call := r
	call.Call = buildflag.Call{Method: "check"}
	remote := request.Request{Context: request.Context{URL: "https://example.com/r.git"}}
	for what, r := range map[string]request.Request{"a question": call, "a remote context": remote} {
		if testApp(t).origin(r, gitinfo.Read) != nil {
			t.Errorf("%s: Git is asked", what)
		}
	}
}

func TestDescribe(t *testing.T) {
	a := testApp(t)
	info := gitinfo.Info{Root: a.dir, Revision: "abc", Source: "https://example.com/r"}
	elsewhere := testApp(t).dir
	for _, c := range []struct {
		o                  buildOptions
		info               gitinfo.Info
		provenance, labels bool
		want               string
	}{
		{buildOptions{context: "."}, info, true, false, "vcs:localdir:context=. vcs:localdir:dockerfile=. vcs:revision=abc vcs:source=https://example.com/r"},
		{buildOptions{context: "other"}, info, true, false, "vcs:localdir:context=other vcs:localdir:dockerfile=other vcs:revision=abc vcs:source=https://example.com/r"},
		{buildOptions{context: ".", file: "other/Dockerfile"}, gitinfo.Info{Root: a.dir}, true, true, "label:com.docker.image.source.entrypoint=other/Dockerfile vcs:localdir:context=. vcs:localdir:dockerfile=other"},
		{buildOptions{context: ".", file: filepath.Join(elsewhere, "Dockerfile")}, info, true, true, "label:org.opencontainers.image.revision=abc label:org.opencontainers.image.source=https://example.com/r vcs:localdir:context=. vcs:revision=abc vcs:source=https://example.com/r"},
		{buildOptions{context: ".", file: "-"}, gitinfo.Info{Root: a.dir}, true, true, "vcs:localdir:context=."},
		{buildOptions{context: "."}, info, false, true, "label:com.docker.image.source.entrypoint=Dockerfile label:org.opencontainers.image.revision=abc label:org.opencontainers.image.source=https://example.com/r"},
		{buildOptions{context: ".", labels: []string{"org.opencontainers.image.revision=mine"}}, info, false, true, "label:com.docker.image.source.entrypoint=Dockerfile label:org.opencontainers.image.revision=mine label:org.opencontainers.image.source=https://example.com/r"},
		{buildOptions{context: "."}, gitinfo.Info{}, true, true, ""},
	} {
		a.io.In, c.o.network = strings.NewReader("FROM scratch\n"), "default"
		r, err := a.newRequest(c.o)
		if err != nil {
			t.Fatal(err)
		}
		r = r.WithVCS(describe(r, c.info, c.provenance, c.labels))
		if got := strings.TrimSpace(asked(t, r, "label:") + " " + asked(t, r, "vcs:")); got != c.want {
			t.Errorf("%+v:\n%s, want\n%s", c.o, got, c.want)
		}
	}
}

// The forms that buildx writes.
func TestReference(t *testing.T) {
	a := testApp(t, "SSH_AUTH_SOCK=agent")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(a.dir, link); err != nil {
		t.Fatal(err)
	}
	const url = "https://example.com/r.git#main:sub"
	for _, c := range []struct{ context, file, path, dockerfile string }{
		{".", "", a.dir, ""},
		{"./other/..", "", a.dir, ""},
		{"other", "", filepath.Join(a.dir, "other"), ""},
		{link, "", link, ""},
		{".", "Dockerfile", a.dir, filepath.Join(a.dir, "Dockerfile")},
		{"other", "./other/Dockerfile", filepath.Join(a.dir, "other"), filepath.Join(a.dir, "other", "Dockerfile")},
		{".", filepath.Join(link, "Dockerfile"), a.dir, filepath.Join(link, "Dockerfile")},
		{".", "-", a.dir, "-"},
		{url, "", url, ""},
		{url, "sub/D", url, "sub/D"},
		{url, "-", url, "-"},
		{"https://u:hush@example.com/r.git", "", "https://example.com/r.git", ""},
		{"git@example.com:o/r.git", "", "git@example.com:o/r.git", ""},
	} {
		a.io.In = strings.NewReader("FROM scratch\n")
		o := buildOptions{context: c.context, file: c.file, network: "default"}
		r, err := a.newRequest(o)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := a.reference(r, o), (state.Ref{Target: "default", LocalPath: c.path, DockerfilePath: c.dockerfile}); got != want {
			t.Errorf("%+v: %+v, want %+v", c, got, want)
		}
	}
	// A context on standard input is written as it is typed, too.
	got := a.reference(request.Request{}, buildOptions{context: "-", file: "sub/D"})
	if fmt.Sprint(got) != "{default - sub/D }" {
		t.Errorf("standard input: %v", got)
	}
}
