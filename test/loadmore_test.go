//go:build e2e && linux

package test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// Indexes go into the containerd store whole, and only what of them is missing.
func TestLoadIndexes(t *testing.T) {
	engine := lab.ModernEngine(t, lab.ModernOpts{Store: lab.StoreContainerd})
	bk := lab.Shared(t)
	attesting := lab.Berth(t).WithDocker(engine)
	attesting.OK("create", "--use", "--name", "own", bk.UnixAddr())
	berth := attesting.With("BUILDX_NO_DEFAULT_ATTESTATIONS=1") // an index with them is a new one each time
	dir := anyPlatform(t)
	both := []string{"--platform", "linux/amd64,linux/arm64", "--load"}
	load := func(berth *lab.CLI, args ...string) (id, progress string) {
		t.Helper()
		iid := join(t.TempDir(), "iid")
		r := build(t, berth, dir, append(args, "--iidfile", iid)...)
		return read(t, iid), r.Stderr
	}

	id, _ := load(berth, append(both, "-t", "multi", "-t", "multi:2")...)
	k := keptImage(t, engine, "multi:2")
	if got := k.parts(t); !slices.Equal(got, []string{"image linux/amd64", "image linux/arm64"}) || k.ID != id {
		t.Errorf("the image is %s, %q; --iidfile has %s", k.ID, got, id)
	}
	if _, progress := load(berth, append(both, "-t", "multi")...); !strings.Contains(progress, "unchanged: the engine has the image, 0 of 2 layers") {
		t.Errorf("not unchanged: %s", progress)
	}
	put(t, dir, map[string]string{"arm64": "new"})
	if _, progress := load(berth, append(both, "-t", "multi")...); !strings.Contains(progress, "loading 1 of 2 layers") {
		t.Errorf("not one layer: %s", progress)
	}
	keptImage(t, engine, "multi").parts(t)

	id, _ = load(berth, "--platform", "linux/arm64", "--load", "-t", "foreign")
	if k := keptImage(t, engine, "foreign"); k.ID != id {
		t.Errorf("the image for another platform is %s, want %s", k.ID, id)
	}
	_, progress := load(attesting, append(both, "-t", "multi")...)
	has(t, "attested", progress, "loading 0 of 2 layers")
	if got := keptImage(t, engine, "multi").parts(t); !slices.Equal(got, []string{"attestation", "attestation", "image linux/amd64", "image linux/arm64"}) {
		t.Errorf("by default the image has %q", got)
	}
	load(berth, append(both, "-t", "multi")...)

	id, _ = load(berth, "--load", "--provenance", "mode=max", "-t", "attested")
	k = keptImage(t, engine, "attested")
	if got := k.parts(t); !slices.Equal(got, []string{"attestation", "image linux/amd64"}) || k.ID != id {
		t.Errorf("the attested image is %s, %q; want %s", k.ID, got, id)
	}
	peer := lab.ModernEngine(t, lab.ModernOpts{Store: lab.StoreContainerd})
	buildx(t, bk, peer, dir, "--platform", "linux/amd64,linux/arm64", "-t", "multi")
	if got, want := keptImage(t, engine, "multi").ID, keptImage(t, peer, "multi").ID; got != want {
		t.Errorf("the index is %s, buildx's %s", got, want)
	}

	// Two nodes, one image.
	amd := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/amd64"}})
	arm := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/arm64"}})
	berth.OK("create", "--use", "--name", "two", amd.UnixAddr())
	berth.OK("create", "--append", "--name", "two", arm.UnixAddr())
	id, _ = load(berth, append(both, "-t", "nodes")...)
	k = keptImage(t, engine, "nodes")
	if got := k.parts(t); !slices.Equal(got, []string{"image linux/amd64", "image linux/arm64"}) || k.ID != id {
		t.Errorf("the image of two nodes is %s, %q; want %s", k.ID, got, id)
	}
}

// A graph driver keeps no indexes; that is said before anything is built.
func TestLoadIndexesIntoAGraphDriver(t *testing.T) {
	berth := lab.Berth(t).WithDocker(lab.Docker(t))
	berth.OK("create", "--use", "--name", "own", lab.Shared(t).UnixAddr())
	dir := anyPlatform(t)
	bake := lab.Context(t, map[string]string{"docker-bake.json": `{"group":{"default":{"targets":["a","b"]}},"target":{
		"a":{"context":"` + dir + `","output":["type=docker"]},"b":{"context":"` + dir + `","output":["type=docker"],"platforms":["linux/amd64","linux/arm64"]}}}`})
	for what, c := range map[string]*lab.Cmd{
		"several platforms": berth.Cmd("build", "--platform", "linux/amd64,linux/arm64", "--load", ".").Dir(dir),
		"provenance":        berth.Cmd("build", "--provenance=true", "--load", ".").Dir(dir),
		"an SBOM":           berth.Cmd("build", "--sbom=true", "--load", ".").Dir(dir),
		"target b":          berth.Cmd("bake", "--allow", "fs.read=*").Dir(bake),
	} {
		r := c.Run()
		if r.Code != 1 {
			t.Errorf("%s: %s", what, r)
		}
		has(t, what, lastLine(r.Stderr), strings.TrimPrefix(what, "several "), "cannot be loaded: the Docker engine at unix://", "graph driver")
		has(t, what, r.Stderr, "hint: ", "containerd-snapshotter")
		hasNot(t, what, r.Stderr, "#1 ")
	}
}

// One solve pushes and loads; what is pushed is what would be without the load.
func TestLoadAndPush(t *testing.T) {
	registry := lab.Registry(t)
	onBothStores(t, func(t *testing.T, s *strikes) {
		dir := layered(t)
		ref := registry.Addr() + "/" + strings.ReplaceAll(t.Name(), "/", "-") + ":1"
		ref = strings.ToLower(ref)
		s.load(dir, "app") // a load first must not leave layers of its own kind
		out := t.TempDir()
		md := join(t.TempDir(), "md")
		r := build(t, s.berth, dir, "--push", "--load", "-t", ref, "-o", out, "-o", "type=oci,dest="+join(out, "x.oci"), "--metadata-file", md)
		s.whole(dir, ref)
		if n := strings.Count(r.Stderr, "load build context"); n != 1 {
			t.Errorf("solved %d times: %s", n, r.Stderr)
		}
		has(t, "progress", r.Stderr, "0 of 6 layers")
		if read(t, join(out, "l1")) != read(t, join(dir, "l1")) || !exists(join(out, "x.oci")) {
			t.Error("the other outputs are not there")
		}
		name := strings.TrimSuffix(strings.TrimPrefix(ref, registry.Addr()+"/"), ":1")
		_, _, body := registry.Get(t, "/v2/"+name+"/manifests/1")
		if strings.Contains(string(body), "manifests") {
			var index struct{ Manifests []struct{ Digest string } }
			if err := json.Unmarshal(body, &index); err != nil {
				t.Fatal(err)
			}
			_, _, body = registry.Get(t, "/v2/"+name+"/manifests/"+index.Manifests[0].Digest)
		}
		if n := strings.Count(string(body), "tar+gzip"); n != layersIn {
			t.Errorf("%d of the pushed layers are gzip: %s", n, body)
		}

		// A layout folder has the solve's one content store.
		r = build(t, s.berth, dir, "--load", "-t", "app:layout", "-o", "type=oci,tar=false,dest="+join(out, "layout"))
		has(t, "progress", r.Stderr, "sending the whole image: one output of a build can be taken apart")
		s.whole(dir, "app:layout")
	})
}

// Every way into a load is the same one.
func TestLoadWays(t *testing.T) {
	engine := lab.Docker(t)
	bk := lab.Shared(t)
	berth := lab.Berth(t).WithDocker(engine)
	berth.OK("create", "--use", "--name", "own", "--driver", "remote", "--driver-opt", "default-load=true", bk.UnixAddr())
	dir := layered(t)
	build(t, berth, dir, "-t", "first")
	same := "the engine has the image"
	has(t, "default-load", build(t, berth, dir, "-t", "app").Stderr, same)
	has(t, "type=docker", build(t, berth, dir, "-t", "app", "-o", "type=docker").Stderr, same)
	has(t, "without a name", build(t, berth, dir, "--load").Stderr, same)
	put(t, dir, map[string]string{"docker-bake.json": `{"target":{"default":{"tags":["app"],"dockerfile":"Dockerfile"}}}`, ".dockerignore": "*.json\n"})
	r := berth.Cmd("bake", "--load").Dir(dir).Run()
	if r.Code != 0 {
		t.Fatal(r)
	}
	has(t, "bake", r.Stderr, same)
	t.Setenv("BUILDX_BUILDER", "own")
	_, errs, code := docker(t, berth, engine, dir, "build", "--load", "--progress", "plain", "-t", "app", ".")
	if code != 0 {
		t.Fatal(errs)
	}
	has(t, "docker build", errs, same)

	change(t, dir, layersIn-1)
	r = build(t, berth, dir, "-t", "app", "--progress", "rawjson")
	var steps, statuses []string
	for line := range strings.Lines(r.Stderr) {
		var s struct {
			Vertexes []struct{ Name string }
			Statuses []struct {
				ID             string
				Current, Total int
			}
		}
		if json.Unmarshal([]byte(line), &s) != nil {
			continue
		}
		for _, v := range s.Vertexes {
			steps = append(steps, v.Name)
		}
		for _, st := range s.Statuses {
			statuses = append(statuses, fmt.Sprint(st.ID, " ", st.Current == st.Total && st.Total > 0))
		}
	}
	all := strings.Join(statuses, "\n")
	if !slices.Contains(steps, "importing to docker") || !strings.Contains(all, "loading 1 of 6 layers, ") || !strings.Contains(all, " MB true") {
		t.Errorf("rawjson has the steps %q and the statuses %q", steps, statuses)
	}
	// A base that the engine knows by another name is not sent again.
	engine.CLI(t, "rmi", "first")
	put(t, dir, map[string]string{"Dockerfile": read(t, join(dir, "Dockerfile")) + "COPY l1 /again\n"})
	r = build(t, berth, dir, "-t", "child")
	has(t, "child", r.Stderr, "loading 1 of 7 layers")
}

// Far engines: TCP with TLS, and ssh.
func TestLoadFar(t *testing.T) {
	engine := lab.Docker(t)
	bk := lab.Shared(t)
	berth := lab.Berth(t)
	berth.OK("create", "--name", "own", bk.UnixAddr())
	dir := layered(t)
	check := func(far *lab.CLI, sent string) {
		t.Helper()
		change(t, dir, layersIn-1)
		has(t, "progress", build(t, far, dir, "--builder", "own", "--load", "-t", "far").Stderr, sent)
		has(t, "progress", build(t, far, dir, "--builder", "own", "--load", "-t", "far").Stderr, "unchanged: ")
		imageID(t, engine, "far")
	}
	certs := lab.NewCerts(t, "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(certs.Server.Cert, certs.Server.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(read(t, certs.CA)))
	w := engine.WatchTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	files := lab.Dir(t)
	put(t, files, map[string]string{"ca.pem": read(t, certs.CA), "cert.pem": read(t, certs.Client.Cert), "key.pem": read(t, certs.Client.Key)})
	check(berth.With("DOCKER_HOST="+w.Host(), "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH="+files), "loading 6 of 6 layers")
	if n := w.Sent(); n < 3_000_000 || n > 4_000_000 {
		t.Errorf("%d bytes were sent for 3.4 MB", n)
	}

	// By ssh, as docker does it: a session that runs docker's helper on the far side.
	lab.Need(t, "docker")
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal(err)
	}
	server := lab.SSH(t, lab.SSHDOpts{Path: filepath.Dir(docker) + ":/usr/bin:/bin", Env: []string{"DOCKER_HOST=" + engine.Host()}})
	near := t.TempDir()
	server.Program(t, near)
	check(berth.With("DOCKER_HOST=ssh://root@127.0.0.1:"+server.Port, "PATH="+near+":"+os.Getenv("PATH")), "loading 1 of 6 layers")
	has(t, "sshd's log", server.Log(), "Accepted publickey for root", "Starting session: command")
}

// Five hundred images in the engine cost no more questions than five.
func TestLoadIntoAFullHouse(t *testing.T) {
	for _, kind := range []string{"20.10", "containerd"} {
		t.Run(kind, func(t *testing.T) {
			engine := loadEngine(t, kind)
			w := engine.Watch(t, nil)
			berth := lab.Berth(t).With("DOCKER_HOST=" + w.Host())
			berth.OK("create", "--use", "--name", "own", lab.Shared(t).UnixAddr())
			crowd(t, engine, 500)
			dir := layered(t)
			for _, c := range []struct {
				sent  string
				bytes int64
			}{{"loading 6 of 6", 4_000_000}, {"unchanged: the engine", 0}, {"loading 1 of 6", 30_000}} {
				if c.sent == "loading 1 of 6" {
					change(t, dir, layersIn-1)
				}
				w.Calls()
				w.Sent()
				r := build(t, berth, dir, "--load", "-t", "app", "-t", "app:2")
				has(t, "progress", r.Stderr, c.sent)
				calls := w.Calls()
				if n, lists := lab.Count(calls, "GET /images/"), lab.Count(calls, "GET /images/json"); n > 48 || lists > 1 || len(calls) > 56 {
					t.Errorf("%s: the engine was asked %d times, %d for images, %d for all: %q", c.sent, len(calls), n, lists, calls)
				}
				if n := w.Sent(); n > c.bytes {
					t.Errorf("%s: %d bytes were sent", c.sent, n)
				}
			}
		})
	}
}

// crowd fills an engine with images.
func crowd(t *testing.T, engine *lab.Dockerd, n int) {
	t.Helper()
	dir := t.TempDir()
	var list []map[string]any
	for i := range n {
		name := fmt.Sprintf("c%d.json", i)
		put(t, dir, map[string]string{name: fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Labels":{"n":"%d"}},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]},"history":[{"created_by":"x"}]}`, i, sum(strings.Repeat("\x00", 1024)))})
		list = append(list, map[string]any{"Config": name, "RepoTags": []string{fmt.Sprintf("crowd:%d", i)}, "Layers": []string{"layer.tar"}})
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, map[string]string{"manifest.json": string(text), "layer.tar": strings.Repeat("\x00", 1024)})
	file := join(t.TempDir(), "crowd.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	engine.CLI(t, "load", "-q", "-i", file)
}
