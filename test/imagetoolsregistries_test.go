//go:build e2e && linux

package test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// With a login, by docker's own file and by a credential helper; without, the error says
// what to do. No password is ever shown.
func TestImagetoolsLogin(t *testing.T) {
	const password = "registry-password"
	closed, open := lab.Registry(t, lab.RegistryOpts{User: "u", Password: password}), lab.Registry(t)
	images := lab.PushImages(t, closed.Addr()+"/src", lab.WithLogin("u", password))
	stranger := lab.Berth(t)
	for _, args := range [][]string{
		{"inspect", images.Ref("multi:1")},
		{"create", "--dry-run", images.Ref("multi:1")},
		{"create", "-t", open.Addr() + "/x:1", images.Ref("multi:1")},
	} {
		r := stranger.Fail(append([]string{"imagetools"}, args...)...)
		has(t, "an error", r.Stderr, "hint: docker login "+closed.Addr()+"\n", "the registry "+closed.Addr()+" wants a login")
	}
	wrong := lab.Berth(t)
	login(t, wrong, closed.Addr(), "u", "another-password")
	r := wrong.Fail("imagetools", "inspect", images.Ref("multi:1"))
	has(t, "a wrong login", r.Stderr, "hint: docker login "+closed.Addr()+"\n")
	hasNot(t, "a wrong login", r.Stderr, "another-password", base64.StdEncoding.EncodeToString([]byte("u:another-password")))

	helper, file := lab.Berth(t), lab.Berth(t)
	login(t, helper, closed.Addr(), "u", password)
	config, err := json.Marshal(map[string]any{"auths": map[string]any{closed.Addr(): map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("u:" + password))}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(join(file.DockerConfig, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, berth := range map[string]*lab.CLI{"helper": helper, "file": file} {
		has(t, "inspect", berth.OK("imagetools", "inspect", images.Ref("multi:1")).Stdout, images.Digest["multi:1"])
		// Out of it, into it, and back within it.
		berth.OK("imagetools", "create", "-t", open.Addr()+"/"+name+":1", images.Ref("multi:1"))
		r := berth.OK("--debug", "imagetools", "create", "-t", closed.Addr()+"/"+name+":1", open.Addr()+"/"+name+":1")
		berth.OK("imagetools", "create", "-t", closed.Addr()+"/within/"+name+":1", images.Ref("multi:1"))
		hasNot(t, "output", r.Stdout+r.Stderr, password)
		for _, repo := range []string{name, "within/" + name} {
			if status, header, _ := closed.Get(t, "/v2/"+repo+"/manifests/1"); status != 200 || header.Get("Docker-Content-Digest") != images.Digest["multi:1"] {
				t.Errorf("%s: %d %v", repo, status, header)
			}
		}
	}
}

// Between repositories of one registry blobs are mounted; to another they are sent, once
// each.
func TestImagetoolsMountsAndSends(t *testing.T) {
	one, two := lab.Registry(t), lab.Registry(t)
	images := lab.PushImages(t, one.Addr()+"/src")
	berth := lab.Berth(t)
	uploads := func(r *lab.RegistryServer, repo string) (sent, mounted int) {
		for line := range strings.Lines(r.Log()) {
			switch {
			case strings.Contains(line, `"PUT /v2/`+repo+"/blobs/uploads/"):
				sent++
			case regexp.MustCompile(`"POST /v2/` + repo + `/blobs/uploads/\?from=src%2Fmulti&mount=[^"]*" 201`).MatchString(line):
				mounted++
			}
		}
		return sent, mounted
	}
	berth.OK("imagetools", "create", "-t", one.Addr()+"/near:1", images.Ref("multi:1"))
	if sent, mounted := uploads(one, "near"); sent != 0 || mounted == 0 {
		t.Errorf("within the registry: %d blobs were sent, %d mounted", sent, mounted)
	}
	berth.OK("imagetools", "create", "-t", two.Addr()+"/far:1", images.Ref("multi:1"))
	sent, _ := uploads(two, "far")
	if want := 1 + 4*2 + 4*3; sent != want { // one layer in common; a layer and a configuration each; attestations: two statements and a configuration
		t.Errorf("to another registry: %d blobs were sent, wanted %d", sent, want)
	}
	berth.OK("imagetools", "create", "-t", two.Addr()+"/far:2", images.Ref("multi:1"))
	if again, _ := uploads(two, "far"); again != sent {
		t.Errorf("the second time %d blobs were sent", again-sent)
	}
}

// Signatures and attestations go with their image, and with its platform; in a registry
// without a list of referrers they can be found as the specification says.
func TestImagetoolsSignatures(t *testing.T) {
	one, two := lab.Registry(t), lab.Registry(t)
	images := lab.PushImages(t, one.Addr()+"/src")
	berth := lab.Berth(t)
	subject := images.Digest["signed:1"]
	listed := func(repo string) string {
		_, _, body := two.Get(t, "/v2/"+repo+"/manifests/"+strings.Replace(subject, ":", "-", 1))
		return string(body)
	}
	berth.OK("imagetools", "create", "-t", two.Addr()+"/whole:1", images.Ref("signed:1"), images.Ref("darm64:1"))
	berth.OK("imagetools", "create", "-t", two.Addr()+"/platform:1", "--platform", "linux/amd64", images.Ref("signed:1"), images.Ref("darm64:1"))
	berth.OK("imagetools", "create", "-t", two.Addr()+"/other:1", "--platform", "linux/arm64", images.Ref("signed:1"), images.Ref("darm64:1"))
	for _, repo := range []string{"whole", "platform"} {
		for _, what := range []string{"signature", "attestation"} {
			if status, _, _ := two.Get(t, "/v2/"+repo+"/manifests/"+images.Digest["signed/"+what]); status != 200 {
				t.Errorf("%s: the %s has not come: %d", repo, what, status)
			}
			has(t, "the list of referrers", listed(repo), images.Digest["signed/"+what])
		}
		if status, _, _ := two.Get(t, "/v2/"+repo+"/manifests/"+images.Digest["signed/unknown"]); status != 404 {
			t.Errorf("%s: what nobody knows has come: %d", repo, status)
		}
	}
	if status, _, _ := two.Get(t, "/v2/other/manifests/"+images.Digest["signed/signature"]); status != 404 {
		t.Errorf("the signature of another platform has come: %d", status)
	}
	// Once more, from there into a folder and back: the list is enough.
	berth.OK("imagetools", "create", "-t", "oci-layout://l:1", two.Addr()+"/whole:1")
	berth.OK("imagetools", "create", "-t", two.Addr()+"/back:1", "oci-layout://l:1")
	if status, _, _ := two.Get(t, "/v2/back/manifests/"+images.Digest["signed/signature"]); status != 200 {
		t.Errorf("the signature was lost in a folder: %d", status)
	}
	has(t, "the list of referrers", listed("back"), images.Digest["signed/signature"])
}

// What a builder's buildkitd.toml says of registries holds. buildx makes no use of what it
// says of certificates.
func TestImagetoolsRegistries(t *testing.T) {
	certs := lab.NewCerts(t, "127.0.0.1", "localhost")
	secure, plain := lab.Registry(t, lab.RegistryOpts{TLS: certs}), lab.Registry(t)
	berth := lab.Berth(t)
	buildx := *berth
	buildx.Bin = lab.Tool(t, "buildx")
	images := lab.PushImages(t, plain.Addr()+"/src")
	engine := lab.Docker(t) // buildx makes no such builder without one; nothing is run in it
	config := func(name, text string) {
		t.Helper()
		file := join(berth.Work, name+".toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		buildx.WithDocker(engine).OK("create", "--name", name, "--driver", "docker-container", "--buildkitd-config", file)
	}
	config("ca", "[registry.\""+secure.Addr()+"\"]\nhttp = false\nca = [\""+certs.CA+"\"]\n")
	config("insecure", "[registry.\""+secure.Addr()+"\"]\nhttp = false\ninsecure = true\n")
	config("mirror", "[registry.\"docker.io\"]\nmirrors = [\""+plain.Addr()+"\"]\n[registry.\""+plain.Addr()+"\"]\nhttp = true\n")
	config("strict", "[registry.\""+plain.Addr()+"\"]\nhttp = false\n")
	for _, c := range []struct {
		builder string
		ok      bool
		args    []string
	}{
		{"ca", true, []string{"create", "-t", secure.Addr() + "/TOOL/a:1", images.Ref("multi:1")}},
		{"ca", true, []string{"inspect", secure.Addr() + "/TOOL/a:1"}},
		{"insecure", true, []string{"inspect", secure.Addr() + "/TOOL/a:1"}},
		{"insecure", true, []string{"create", "-t", secure.Addr() + "/TOOL/b:1", secure.Addr() + "/TOOL/a:1"}},
		{"mirror", false, []string{"inspect", secure.Addr() + "/TOOL/a:1"}},
		{"mirror", true, []string{"inspect", "src/multi:1"}},
		{"strict", false, []string{"inspect", images.Ref("multi:1")}},
	} {
		tools := map[string]*lab.CLI{"be": berth, "bx": &buildx}
		if c.builder == "ca" || c.builder == "insecure" {
			delete(tools, "bx")
		}
		for tool, cli := range tools {
			args := []string{"--builder", c.builder, "imagetools"}
			for _, a := range c.args {
				args = append(args, strings.ReplaceAll(a, "TOOL", tool))
			}
			if r := cli.Run(args...); (r.Code == 0) != c.ok {
				t.Errorf("%s %q: %s", tool, args, r)
			}
		}
	}
	r := berth.Fail("imagetools", "inspect", secure.Addr()+"/be/a:1")
	has(t, "a certificate that nobody knows", r.Stderr, `hint: name the certificate's CA in a builder's buildkitd.toml: [registry."`+secure.Addr()+`"] ca = ["FILE"]`)
	// The chosen builder counts, and so does the variable; a URL has no such file.
	berth.OK("use", "ca")
	berth.OK("imagetools", "inspect", secure.Addr()+"/be/a:1")
	berth.Fail("--builder", "tcp://127.0.0.1:1", "imagetools", "inspect", secure.Addr()+"/be/a:1")
	berth.OK("--builder", "tcp://127.0.0.1:1", "imagetools", "inspect", images.Ref("multi:1"))
	berth.With("BUILDX_BUILDER=insecure").OK("imagetools", "inspect", secure.Addr()+"/be/a:1")
}

// A build of a real daemon's: for two platforms, with attestations.
func TestImagetoolsOfABuild(t *testing.T) {
	berth, _ := shared(t)
	buildx := *berth
	buildx.Bin = lab.Tool(t, "buildx")
	one, two := lab.Registry(t), lab.Registry(t)
	ref := one.Addr() + "/app:1"
	build(t, berth, lab.HelloContext(t), "--builder", "b", "--platform", "linux/amd64,linux/arm64", "--provenance", "mode=max", "-t", ref, "--push")
	for _, format := range []string{"{{json .}}", "{{json .Provenance}}", "{{json .SBOM}}", "{{json .Manifest}}", `{{json (index .Image "linux/arm64")}}`} {
		ours, theirs := berth.OK("imagetools", "inspect", "--format", format, ref), buildx.OK("imagetools", "inspect", "--format", format, ref)
		if ours.Stdout != theirs.Stdout {
			t.Errorf("%s: berth\n%s\nbuildx\n%s", format, ours.Stdout, theirs.Stdout)
		}
	}
	has(t, "provenance", berth.OK("imagetools", "inspect", "--format", `{{json (index .Provenance "linux/arm64").SLSA}}`, ref).Stdout, "buildDefinition")
	berth.OK("imagetools", "create", "--platform", "linux/arm64", "-t", two.Addr()+"/be:1", ref)
	buildx.OK("imagetools", "create", "--platform", "linux/arm64", "-t", two.Addr()+"/bx:1", ref)
	_, _, ours := two.Get(t, "/v2/be/manifests/1")
	if _, _, theirs := two.Get(t, "/v2/bx/manifests/1"); string(ours) != string(theirs) {
		t.Errorf("berth\n%s\nbuildx\n%s", ours, theirs)
	}
	has(t, "the copy's provenance", berth.OK("imagetools", "inspect", "--format", "{{json .Provenance}}", two.Addr()+"/be:1").Stdout, "buildDefinition")
	// As docker's plugin, the same.
	plugin := berth.As("docker-buildx")
	if r := plugin.OK("buildx", "imagetools", "inspect", "--raw", two.Addr()+"/be:1"); r.Stdout != string(ours) {
		t.Error(r)
	}
	has(t, "help", plugin.OK("buildx", "imagetools", "create", "--help").Stdout, "docker buildx imagetools create [OPTIONS] [SOURCE...]", "--prefer-index")
}

// Progress goes to stderr in every mode; rawjson can be read.
func TestImagetoolsProgress(t *testing.T) {
	registry := lab.Registry(t)
	images := lab.PushImages(t, registry.Addr()+"/src")
	berth := lab.Berth(t)
	args := func(mode string) []string {
		return []string{"imagetools", "create", "--progress", mode, "-t", registry.Addr() + "/" + mode + ":1", images.Ref("multi:1")}
	}
	for mode, says := range map[string]string{"plain": "#1 [internal] pushing " + registry.Addr() + "/plain\n", "auto": "#1 [internal] pushing ", "quiet": "", "none": "", "rawjson": `{"vertexes":[{"digest":`} {
		r := berth.OK(args(mode)...)
		if r.Stdout != "" || !strings.HasPrefix(r.Stderr, says) || says == "" && r.Stderr != "" {
			t.Errorf("%s: %s", mode, r)
		}
		if mode == "plain" {
			has(t, mode, r.Stderr, " copying "+images.Digest["multi/linux/arm64"]+" from "+images.Ref("multi:1")+" to "+registry.Addr()+"/plain\n",
				" pushing "+images.Digest["multi:1"]+" to "+registry.Addr()+"/plain:1\n", "#1 DONE ")
		}
		if mode == "rawjson" {
			for line := range strings.Lines(r.Stderr) {
				if !json.Valid([]byte(line)) {
					t.Errorf("%q", line)
				}
			}
		}
	}
	r := berth.Cmd(args("tty")...).TTY().Run()
	if r.Code != 0 {
		t.Error(r)
	}
	has(t, "on a terminal", r.Stderr+r.Stdout, "[+] Pushing")
	has(t, "tty elsewhere", berth.Fail(args("tty")...).Stderr, "ERROR: ")
}

// proxied is a registry with something between.
func proxied(t *testing.T, to string, between func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: to}
	proxy := httputil.NewSingleHostReverseProxy(target)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !between(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// A registry that throttles is waited for, and says why; an interrupt ends the wait at
// once, and one that asks for too much is not waited for.
func TestImagetoolsThrottled(t *testing.T) {
	registry := lab.Registry(t)
	images := lab.PushImages(t, registry.Addr()+"/src")
	berth := lab.Berth(t)
	var limited atomic.Int32
	var after atomic.Value // a string
	after.Store("1")
	front := proxied(t, registry.Addr(), func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" || limited.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Retry-After", after.Load().(string))
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	limited.Store(1)
	r := berth.OK("imagetools", "inspect", front+"/src/multi:1")
	has(t, "the wait", r.Stderr, "waiting 1s for "+front+": 429 Too Many Requests")
	has(t, "the answer", r.Stdout, images.Digest["multi:1"])

	limited.Store(1000)
	after.Store("100")
	p := berth.Start("imagetools", "inspect", front+"/src/multi:1")
	p.WaitFor("waiting 1m40s for " + front)
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 || r.Stdout != "" {
		t.Errorf("interrupted: %s", r)
	}
	after.Store("86400")
	r = berth.Fail("imagetools", "create", "--dry-run", front+"/src/multi:1")
	has(t, "too long", r.Stderr, "hint: try again in 24h0m0s", "wants 24h0m0s of rest")
}

// What breaks on the way is begun anew, and what is lied about is found out, with the
// real registry behind it. Nothing is written then.
func TestImagetoolsBrokenRegistry(t *testing.T) {
	registry, other := lab.Registry(t), lab.Registry(t)
	images := lab.PushImages(t, registry.Addr()+"/src")
	berth := lab.Berth(t)
	var broken atomic.Int32
	var lies atomic.Bool
	front := proxied(t, registry.Addr(), func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet {
			return false
		}
		if lies.Load() {
			_, _ = io.WriteString(w, "something else")
			return true
		}
		if broken.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "the beginning")
		panic(http.ErrAbortHandler)
	})
	broken.Store(2)
	berth.OK("imagetools", "create", "-t", other.Addr()+"/a:1", front+"/src/dmulti:1")
	if status, header, _ := other.Get(t, "/v2/a/manifests/1"); status != 200 || header.Get("Docker-Content-Digest") != images.Digest["dmulti:1"] {
		t.Errorf("%d %v", status, header)
	}
	lies.Store(true)
	for _, to := range []string{other.Addr() + "/b:1", "oci-layout://b:1"} {
		r := berth.Fail("imagetools", "create", "-t", to, front+"/src/multi:1")
		has(t, "a lie", lastLine(r.Stderr), front+"/src/multi@sha256:")
	}
	if status, _, _ := other.Get(t, "/v2/b/manifests/1"); status != 404 {
		t.Errorf("something was written: %d", status)
	}
	if exists(join(berth.Work, "b", "index.json")) {
		t.Error("something was written")
	}
}
