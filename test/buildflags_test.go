//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/test/lab"
)

// ran builds a Dockerfile whose last stage has a file /out that RUN has written,
// and gives that file.
func ran(t *testing.T, berth *lab.CLI, run string, flags ...string) string {
	t.Helper()
	dir := lab.ShellContext(t, run+"\nFROM scratch\nCOPY --from=0 /out /out\n", nil)
	out := t.TempDir()
	build(t, berth, dir, append(flags, "--no-cache", "-o", out)...)
	return read(t, join(out, "out"))
}

// Each limit and each line is seen from inside of RUN.
func TestBuildContainerFlags(t *testing.T) {
	berth, _ := shared(t)
	for _, c := range []struct {
		name, run string
		flags     []string
		want      []string
	}{
		{"add-host", "RUN cat /etc/hosts > /out", []string{"--add-host", "db=10.1.2.3,six:[2001:db8::5]", "--add-host", "db=10.1.2.4"}, []string{"10.1.2.3\tdb\n", "2001:db8::5\tsix\n", "10.1.2.4\tdb\n"}},
		{"network none", "RUN tail -n +3 /proc/net/dev > /out; wc -l < /out >> /out", []string{"--network", "none"}, []string{"lo:", "\n1\n"}},
		{"shm-size", "RUN df -k /dev/shm | tail -n 1 > /out", []string{"--shm-size", "3m"}, []string{" 3072 "}},
		{"ulimit", "RUN (ulimit -n; ulimit -Hn; ulimit -c) > /out", []string{"--ulimit", "nofile=9", "--ulimit", "nofile=123:456", "--ulimit", "core=0"}, []string{"123\n456\n0\n"}},
		{"resource memory", "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max > /out 2>/dev/null || true", []string{"--resource", "memory=100m"}, []string{"104857600\n"}},
		{"resource cpuset", "RUN grep Cpus_allowed_list /proc/self/status > /out", []string{"--resource", "cpuset-cpus=0", "--resource", "cpuset-mems=0"}, []string{":\t0\n"}},
		{"resource cpu", "RUN cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/cpu.max 2>/dev/null | tr '\\n' ' ' > /out", []string{"--resource", "cpu-quota=50000", "--resource", "cpu-period=200000", "--resource", "cpu-shares=512"}, []string{"50000 200000"}},
		{"resource memory-swap", "RUN echo built > /out", []string{"--resource", "memory=100m", "--resource", "memory-swap=-1"}, []string{"built"}},
		{"device", "RUN echo built > /out", []string{"--allow", "device", "--allow", "device=vendor.com/lab=x,alias=a/b=c"}, []string{"built"}},
	} {
		t.Run(c.name, func(t *testing.T) { has(t, "RUN", ran(t, berth, c.run, c.flags...), c.want...) })
	}
	t.Run("cgroup-parent", func(t *testing.T) {
		parent := "berth-lab-" + filepath.Base(filepath.Dir(berth.Home)) // which no other run of the tests has
		t.Cleanup(func() { removeCgroups(t, parent) })
		if got := cgroups(t, parent); len(got) > 0 {
			t.Fatalf("there is %q already", got)
		}
		ran(t, berth, "RUN echo built > /out", "--cgroup-parent", "/"+parent)
		if len(cgroups(t, parent)) == 0 {
			t.Error("no such cgroup was made")
		}
	})
}

// cgroups are the machine's cgroups of that name, those within them first.
func cgroups(t *testing.T, name string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains(strings.Split(path, "/"), name) {
			all = append(all, path)
		}
		return nil // others come and go
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

func removeCgroups(t *testing.T, name string) {
	t.Helper()
	for _, dir := range cgroups(t, name) {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}
}

// What needs a right is refused by the daemon without it, and done with it.
func TestBuildRights(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{Flags: []string{"--allow-insecure-entitlement", "network.host", "--allow-insecure-entitlement", "security.insecure"}})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "b", "--use", bk.UnixAddr())
	machine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := ran(t, berth, "RUN readlink /proc/self/ns/net > /out", "--network", "host"); got != machine+"\n" {
		t.Errorf("--network host: %q, the machine has %q", got, machine)
	}
	if got := ran(t, berth, "RUN --network=host readlink /proc/self/ns/net > /out", "--network", "none", "--allow", "network.host"); got != machine+"\n" {
		t.Errorf("--allow network.host: %q, the machine has %q", got, machine)
	}
	if got := ran(t, berth, "RUN readlink /proc/self/ns/net > /out", "--network", "none"); got == machine+"\n" {
		t.Errorf("--network none: it is the machine's")
	}
	caps := "RUN --security=insecure grep CapEff /proc/self/status > /out"
	insecure, plain := ran(t, berth, caps, "--allow", "security.insecure"), ran(t, berth, strings.Replace(caps, " --security=insecure", "", 1))
	if insecure == plain {
		t.Errorf("--allow security.insecure: %q either way", plain)
	}
	for what, flags := range map[string][]string{
		"network.host":      {"--network", "none"},
		"security.insecure": nil,
	} {
		dir := lab.ShellContext(t, map[string]string{"network.host": "RUN --network=host true\n", "security.insecure": "RUN --security=insecure true\n"}[what], nil)
		r := berth.Cmd(append(append([]string{"build"}, flags...), ".")...).Dir(dir).Run()
		if r.Code != 1 {
			t.Errorf("%s was not asked for: %s", what, r)
		}
		has(t, "without the right", lastLine(r.Stderr), what+" is not allowed")
	}
	strict, _ := shared(t) // its daemon grants none of them
	r := strict.Cmd("build", "--network", "host", ".").Dir(lab.HelloContext(t)).Run()
	if r.Code != 1 {
		t.Fatal(r)
	}
	has(t, "a daemon that grants nothing", lastLine(r.Stderr), "network.host is not allowed by build daemon configuration")
	r = strict.Cmd("build", "--add-host", "h=host-gateway", ".").Dir(lab.HelloContext(t)).Run()
	if r.Code != 1 {
		t.Fatal(r)
	}
	has(t, "host-gateway", lastLine(r.Stderr), "host-gateway is not supported by the remote driver")
}

// Only the stages that are named run again, and what is built on them.
func TestBuildNoCacheFilter(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.ShellContext(t, `FROM scratch AS one
COPY sh /bin/sh
RUN cat /proc/sys/kernel/random/uuid > /one
FROM one AS two
RUN cat /proc/sys/kernel/random/uuid > /two
`, nil)
	ids := func(flags ...string) (one, two string) {
		t.Helper()
		out := t.TempDir()
		build(t, berth, dir, append(flags, "-o", out)...)
		return read(t, join(out, "one")), read(t, join(out, "two"))
	}
	one, two := ids("--no-cache")
	if a, b := ids(); a != one || b != two {
		t.Error("the cache was not used")
	}
	sameOne, newTwo := ids("--no-cache-filter", "two,nosuch")
	if sameOne != one || newTwo == two {
		t.Errorf("--no-cache-filter two: one changed: %v, two changed: %v", sameOne != one, newTwo != two)
	}
	if a, b := ids("--no-cache-filter", "TWO", "--no-cache-filter", "one"); a == one || b == newTwo {
		t.Error("--no-cache-filter TWO and one: a stage came from the cache")
	}
}

// The proxies of docker's configuration are there for RUN, and neither in the
// image nor in what is shown.
func TestBuildProxyArguments(t *testing.T) {
	berth, _ := shared(t)
	config := `{"proxies":{"default":{"httpProxy":"http://me:hunter2@proxy.lab:3128","noProxy":"localhost"}}}`
	if err := os.WriteFile(join(berth.DockerConfig, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run := `RUN echo "$HTTP_PROXY $NO_PROXY" > /out`
	if got := ran(t, berth, run); got != "http://me:hunter2@proxy.lab:3128 localhost\n" {
		t.Errorf("RUN sees %q", got)
	}
	if got := ran(t, berth, run, "--build-arg", "http_proxy=", "--build-arg", "NO_PROXY=mine"); got != " mine\n" {
		t.Errorf("with arguments of the user's own RUN sees %q", got)
	}
	file, md := join(t.TempDir(), "x.tar"), join(t.TempDir(), "md")
	dir := lab.ShellContext(t, "RUN echo hi > /x\n", nil)
	r := build(t, berth, dir, "-o", "type=oci,dest="+file, "--metadata-file", md)
	hasNot(t, "output", r.Stdout+r.Stderr+read(t, md), "hunter2")
	for name, blob := range tarFiles(t, file) {
		if json.Valid(blob) {
			hasNot(t, name, string(blob), "hunter2")
		}
	}
}

// tarFiles is the content of an archive, by name.
func tarFiles(t *testing.T, path string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader([]byte(read(t, path)))); ; {
		h, err := r.Next()
		if err == io.EOF { //nolint:errorlint // as tar says it
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = data
	}
}

// decoded reads JSON or fails the test.
func decoded[T any](t *testing.T, data []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}

// Annotations are read back from where they were to be written, in an archive
// and in a registry.
func TestBuildAnnotations(t *testing.T) {
	berth, _ := shared(t)
	registry := lab.Registry(t)
	dir := anyPlatform(t)
	flags := []string{
		"--platform", "linux/amd64,linux/arm64",
		"--annotation", "plain=first", "--annotation", "plain=last=one",
		"--annotation", "index:in=dex", "--annotation", "index-descriptor,manifest-descriptor:desc=riptor",
		"--annotation", "manifest[linux/arm64]:only=arm", "--annotation", "manifest-descriptor[linux/amd64]:only=amd",
	}
	check := func(t *testing.T, index ocispecs.Index, blob func(ocispecs.Descriptor) []byte) {
		t.Helper()
		if got := index.Annotations["in"]; got != "dex" {
			t.Errorf("the index has %v", index.Annotations)
		}
		seen := 0
		for _, d := range index.Manifests {
			if d.Platform == nil || d.Platform.OS == "unknown" {
				continue // an attestation
			}
			seen++
			arm := d.Platform.Architecture == "arm64"
			m := decoded[ocispecs.Manifest](t, blob(d))
			want := map[string]string{"plain": "last=one"}
			if arm {
				want["only"] = "arm"
			}
			if !maps.Equal(m.Annotations, want) {
				t.Errorf("the manifest of %v has %v, want %v", d.Platform, m.Annotations, want)
			}
			if d.Annotations["desc"] != "riptor" || (d.Annotations["only"] == "amd") == arm {
				t.Errorf("the descriptor of %v has %v", d.Platform, d.Annotations)
			}
		}
		if seen != 2 {
			t.Errorf("%d images in %+v", seen, index)
		}
	}
	t.Run("archive", func(t *testing.T) {
		file := join(t.TempDir(), "x.tar")
		build(t, berth, dir, append(flags, "-t", "x", "-o", "type=oci,dest="+file)...)
		files := tarFiles(t, file)
		blob := func(d ocispecs.Descriptor) []byte { return files["blobs/sha256/"+d.Digest.Encoded()] }
		outer := decoded[ocispecs.Index](t, files["index.json"])
		if got := outer.Manifests[0].Annotations["desc"]; got != "riptor" {
			t.Errorf("the index's descriptor has %v", outer.Manifests[0].Annotations)
		}
		check(t, decoded[ocispecs.Index](t, blob(outer.Manifests[0])), blob)
	})
	t.Run("registry", func(t *testing.T) {
		build(t, berth, dir, append(flags, "-t", registry.Addr()+"/app:v1", "--push")...)
		_, _, raw := registry.Get(t, "/v2/app/manifests/v1")
		check(t, decoded[ocispecs.Index](t, raw), func(d ocispecs.Descriptor) []byte {
			_, _, raw := registry.Get(t, "/v2/app/manifests/"+d.Digest.String())
			return raw
		})
	})
	t.Run("one platform", func(t *testing.T) {
		plain := berth.With("BUILDX_NO_DEFAULT_ATTESTATIONS=1")
		build(t, plain, dir, "--annotation", "k=v", "-t", registry.Addr()+"/one:v1", "--push")
		_, _, raw := registry.Get(t, "/v2/one/manifests/v1")
		if m := decoded[ocispecs.Manifest](t, raw); m.Annotations["k"] != "v" {
			t.Errorf("the manifest has %v", m.Annotations)
		}
		build(t, berth, dir, "--annotation", "index:k=v", "-t", registry.Addr()+"/one:v2", "--push") // its provenance makes an index of it
		_, _, raw = registry.Get(t, "/v2/one/manifests/v2")
		if m := decoded[ocispecs.Index](t, raw); m.Annotations["k"] != "v" || len(m.Manifests) != 2 {
			t.Errorf("the index is %s", raw)
		}
		r := plain.Cmd("build", "--annotation", "index:k=v", "-t", registry.Addr()+"/one:v3", "--push", ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Fatal(r)
		}
		has(t, "no index", lastLine(r.Stderr), "--annotation index:k: index annotations not supported for single platform export")
		hasNot(t, "no index", r.Stderr, "#1 ")
		r = berth.Cmd("build", "--platform", "linux/amd64", "--annotation", "manifest[linux/arm64]:k=v", "-t", "x", "-o", "type=image", ".").Dir(dir).Run()
		if r.Code != 1 {
			t.Fatal(r)
		}
		has(t, "another platform", lastLine(r.Stderr), "the build is not for linux/arm64 but for linux/amd64")
	})
	t.Run("files", func(t *testing.T) {
		r := build(t, berth, dir, "--annotation", "k=v", "-o", t.TempDir())
		has(t, "files", r.Stderr, "WARNING: --annotation has no effect")
	})
}

// When several nodes build, each writes what is about its own platforms, and
// the index has what is about all of them.
func TestBuildAnnotationsOnSeveralNodes(t *testing.T) {
	a := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/amd64"}})
	b := lab.BuildKit(t, lab.BuildKitOpts{Platforms: []string{"linux/arm64"}})
	registry := lab.Registry(t)
	berth := lab.Berth(t)
	berth.OK("create", "--name", "two", "--use", "--platform", "linux/amd64", a.UnixAddr())
	berth.OK("create", "--name", "two", "--append", "--platform", "linux/arm64", b.UnixAddr())
	build(t, berth, anyPlatform(t), "--platform", "linux/amd64,linux/arm64", "-t", registry.Addr()+"/app:v1", "--push",
		"--annotation", "manifest[linux/arm64]:only=arm", "--annotation", "manifest-descriptor[linux/amd64]:only=amd", "--annotation", "index,manifest:all=1")
	_, _, raw := registry.Get(t, "/v2/app/manifests/v1")
	index := decoded[ocispecs.Index](t, raw)
	if index.Annotations["all"] != "1" {
		t.Errorf("the index has %v", index.Annotations)
	}
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" {
			continue
		}
		_, _, raw := registry.Get(t, "/v2/app/manifests/"+d.Digest.String())
		m, arm := decoded[ocispecs.Manifest](t, raw), d.Platform.Architecture == "arm64"
		if m.Annotations["all"] != "1" || (m.Annotations["only"] == "arm") != arm || (d.Annotations["only"] == "amd") == arm {
			t.Errorf("%v: the manifest has %v, its descriptor %v", d.Platform, m.Annotations, d.Annotations)
		}
	}
}

// Stale files go from below the working directory, and from elsewhere only when
// that was allowed.
func TestBuildLocalDelete(t *testing.T) {
	berth, _ := shared(t)
	dir := lab.HelloContext(t)
	outside := t.TempDir()
	for _, d := range []string{join(dir, "out"), outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(join(d, "stale"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build(t, berth, dir, "-o", "type=local,dest=out,mode=delete")
	if exists(join(dir, "out", "stale")) || !exists(join(dir, "out", "hello")) {
		t.Errorf("in the folder below: %q", names(t, join(dir, "out")))
	}
	flag := "type=local,mode=delete,dest=" + outside
	r := berth.Cmd("build", "-o", flag, ".").Dir(dir).Run()
	if r.Code != 1 || !exists(join(outside, "stale")) {
		t.Errorf("%s\nin the folder outside: %q", r, names(t, outside))
	}
	has(t, "outside", lastLine(r.Stderr), "mode=delete local exports outside the working directory need --allow=buildx.local.delete")
	build(t, berth, dir, "-o", flag, "--allow", "buildx.local.delete")
	if exists(join(outside, "stale")) || !exists(join(outside, "hello")) {
		t.Errorf("in the folder outside, allowed: %q", names(t, outside))
	}
}
