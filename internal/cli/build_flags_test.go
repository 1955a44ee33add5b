package cli

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/ui"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/spf13/pflag"
)

// world is where a test's command line runs: a folder with a build context in
// it, a home, and an environment.
type world struct {
	t    *testing.T
	dir  string
	home string
	env  map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), home: t.TempDir()}
	w.put(filepath.Join(w.dir, "ctx", "Dockerfile"), "FROM scratch\n")
	w.env = map[string]string{"HOME": w.home, "DOCKER_HOST": "unix:///no/docker.sock", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
	return w
}

func (w *world) put(path, text string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// run runs berth in this process, with more environment ("NAME=VALUE").
func (w *world) run(env []string, args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	var out, errs bytes.Buffer
	code = Run(context.Background(), Invocation{
		Args: append([]string{"berth"}, args...), Dir: w.dir,
		Streams:   &ui.Streams{In: strings.NewReader(""), Out: &out, Err: &errs},
		LookupEnv: w.lookup(env),
	})
	return code, out.String(), errs.String()
}

func (w *world) lookup(env []string) func(string) (string, bool) {
	vars := maps.Clone(w.env)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

// asked is what the daemon was asked for by a build with these flags.
func (w *world) asked(s *buildkittest.Server, env []string, flags ...string) *controlapi.SolveRequest {
	w.t.Helper()
	before := len(s.Requests())
	code, _, stderr := w.run(env, append(append([]string{"build", "--builder", s.Endpoint()}, flags...), "ctx")...)
	all := s.Requests()
	if code != 0 || len(all) != before+1 {
		w.t.Fatalf("build %q: exit %d, %d builds arrived\n%s", flags, code, len(all)-before, stderr)
	}
	return all[before]
}

// asks is what a new daemon would be asked for by a build with these flags, and
// what is said on stderr before. Nothing is contacted.
func (w *world) asks(env []string, flags ...string) (client.SolveOpt, string) {
	w.t.Helper()
	var errs bytes.Buffer
	a := &app{dir: w.dir, lookupEnv: w.lookup(env), io: &ui.Streams{In: strings.NewReader(""), Out: io.Discard, Err: &errs}}
	o := buildOptions{context: "ctx", given: map[string]bool{}}
	f := pflag.NewFlagSet("build", pflag.ContinueOnError)
	for _, add := range []func(*pflag.FlagSet){o.addSourceFlags, o.addResultFlags, o.addCacheFlags, o.addRunFlags, o.addDisplayFlags} {
		add(f)
	}
	if err := f.Parse(flags); err != nil {
		w.t.Fatal(err)
	}
	f.Visit(func(f *pflag.Flag) { o.given[f.Name] = true })
	r, err := a.newRequest(o)
	if err != nil {
		w.t.Fatalf("%q: %v", flags, err)
	}
	opt, err := r.Solve(request.CapabilitiesOf(client.BuildkitVersion{Version: "v0.34.2"}))
	if err != nil {
		w.t.Fatalf("%q: %v", flags, err)
	}
	return opt, errs.String()
}

// cacheText is caches on one line.
func cacheText(list []client.CacheOptionsEntry) string {
	var all []string
	for _, c := range list {
		parts := []string{c.Type}
		for _, k := range slices.Sorted(maps.Keys(c.Attrs)) {
			parts = append(parts, k+"="+c.Attrs[k])
		}
		all = append(all, strings.Join(parts, " "))
	}
	return strings.Join(all, "; ")
}

// What the environment knows of GitHub's cache service and of AWS reaches the
// daemon as it does from buildx.
func TestBuildCachesFromTheEnvironment(t *testing.T) {
	gh := []string{"ACTIONS_CACHE_URL=http://c", "ACTIONS_RESULTS_URL=http://r", "ACTIONS_RUNTIME_TOKEN=tok"}
	aws := []string{"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=sec", "AWS_SESSION_TOKEN=ses", "AWS_REGION=r", "AWS_BUCKET=b"}
	for _, tc := range []struct {
		name string
		env  []string
		flag string
		want string
	}{
		{"no runner", nil, "type=gha", ""},
		{"no token", gh[:2], "type=gha", ""},
		{"no address", gh[2:], "type=gha,mode=max", ""},
		{"a runner", gh, "type=gha,scope=x", "gha scope=x token=tok url=http://c"},
		{"only the new service", gh[1:], "type=gha", "gha token=tok url=http://r"},
		{"the new service", append(gh[:3:3], "ACTIONS_CACHE_SERVICE_V2=1"), "type=gha", "gha token=tok url=http://c url_v2=http://r"},
		{"not the new service", append(gh[:3:3], "ACTIONS_CACHE_SERVICE_V2=false"), "type=gha", "gha token=tok url=http://c"},
		{"own values", append(gh[:3:3], "ACTIONS_CACHE_SERVICE_V2=1"), "type=gha,url=u,url_v2=v,token=t", "gha token=t url=u url_v2=v"},
		{"own address", gh[2:], "type=gha,url_v2=v", "gha token=tok url_v2=v"},
		{"all of their own", nil, "type=gha,url=u,token=t", "gha token=t url=u"},
		{"no AWS", nil, "type=s3,bucket=b,region=x", "s3 bucket=b region=x"},
		{"AWS", aws, "type=s3,bucket=b,region=x", "s3 access_key_id=id bucket=b region=x secret_access_key=sec session_token=ses"},
		{"half an AWS", aws[:1], "type=s3,bucket=b", "s3 bucket=b"},
		{"AWS without session", aws[:2], "type=s3,bucket=b", "s3 access_key_id=id bucket=b secret_access_key=sec"},
		{"AWS by the old names", []string{"AWS_ACCESS_KEY=id", "AWS_SECRET_KEY=sec"}, "type=s3,bucket=b", "s3 access_key_id=id bucket=b secret_access_key=sec"},
		{"own keys", aws, "type=s3,bucket=b,access_key_id=i,secret_access_key=s", "s3 access_key_id=i bucket=b secret_access_key=s"},
		{"no keys on purpose", aws, "type=s3,bucket=b,access_key_id=,secret_access_key=", "s3 access_key_id= bucket=b secret_access_key="},
		{"own session", aws, "type=s3,bucket=b,session_token=s", "s3 access_key_id=id bucket=b secret_access_key=sec session_token=s"},
		{"Azure", []string{"BUILDKIT_AZURE_STORAGE_ACCOUNT_URL=u"}, "type=azblob,name=x,secret_access_key=k", "azblob name=x secret_access_key=k"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			got, _ := w.asks(tc.env, "--cache-from", tc.flag, "--cache-to", tc.flag)
			if in, out := cacheText(got.CacheImports), cacheText(got.CacheExports); in != tc.want || out != tc.want {
				t.Errorf("from %q, to %q; want %q", in, out, tc.want)
			}
		})
	}
}

func TestBuildCachesFromAWSFiles(t *testing.T) {
	w := newWorld(t)
	w.put(filepath.Join(w.home, ".aws", "credentials"), "# hers\n[default]\naws_access_key_id = fid ; old\nAWS_Secret_Access_Key=fsec\n[other]\naws_access_key_id=oid\naws_secret_access_key=osec\naws_session_token=oses\n[half]\naws_access_key_id=h\n")
	w.put(filepath.Join(w.home, ".aws", "config"), "[default]\nregion=x\naws_access_key_id=less\ns3 =\n  max = 1\n[profile  sso]\nsso_session=corp\n[other]\naws_session_token=no\n[profile half]\naws_secret_access_key=hs\n[profile role]\nrole_arn=arn\naws_access_key_id=a\naws_secret_access_key=b\n")
	w.put(filepath.Join(w.dir, "elsewhere"), "[default]\naws_access_key_id=eid\naws_secret_access_key=esec\n")
	for _, tc := range []struct {
		env        []string
		want, warn string
	}{
		{nil, "s3 access_key_id=fid bucket=b secret_access_key=fsec", ""},
		{[]string{"AWS_PROFILE=other"}, "s3 access_key_id=oid bucket=b secret_access_key=osec session_token=oses", ""},
		{[]string{"AWS_DEFAULT_PROFILE=half"}, "s3 access_key_id=h bucket=b secret_access_key=hs", ""},
		{[]string{"AWS_PROFILE=nosuch"}, "s3 bucket=b", ""},
		{[]string{"AWS_PROFILE=sso"}, "s3 bucket=b", `the AWS profile "sso" wants sso_session`},
		{[]string{"AWS_PROFILE=role"}, "s3 bucket=b", "role_arn"},
		{[]string{"AWS_WEB_IDENTITY_TOKEN_FILE=x"}, "s3 bucket=b", "AWS_WEB_IDENTITY_TOKEN_FILE is set"},
		{[]string{"AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(w.dir, "elsewhere")}, "s3 access_key_id=eid bucket=b secret_access_key=esec", ""},
		{[]string{"AWS_SHARED_CREDENTIALS_FILE=" + w.dir}, "s3 bucket=b", "is not a file"},
		{[]string{"AWS_PROFILE=other", "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=sec"}, "s3 access_key_id=id bucket=b secret_access_key=sec", ""},
	} {
		opt, stderr := w.asks(tc.env, "--cache-to", "type=s3,bucket=b")
		if got := cacheText(opt.CacheExports); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.env, got, tc.want)
		}
		if warned := strings.Contains(stderr, "WARNING: type=s3"); warned != (tc.warn != "") || !strings.Contains(stderr, tc.warn) {
			t.Errorf("%q: %s", tc.env, stderr)
		}
		for _, secret := range []string{"fsec", "osec", "oses", "esec", "=sec"} {
			if strings.Contains(stderr, secret) {
				t.Errorf("%q: the output has the key %q:\n%s", tc.env, secret, stderr)
			}
		}
	}
}

func FuzzParseAWS(f *testing.F) {
	for _, s := range []string{"", "[default]\na=b\n", "[ default ]\nA = b ; c\n  x=y\n", "[default", "a=b", "[default]\n=b\n#\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := map[string]string{}
		if err := parseAWS(strings.NewReader(s), "default", got); err != nil {
			return
		}
		if len(got) > 0 && !strings.Contains(s, "[") {
			t.Fatalf("%q without a section has %q", s, got)
		}
		for k, v := range got {
			if strings.ContainsAny(k+v, "\n") || k != strings.ToLower(k) {
				t.Fatalf("%q has %q = %q", s, k, v)
			}
		}
	})
}

// The proxies of docker's configuration come along, unless the user has their
// own, and nothing of them is shown.
func TestBuildProxies(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	w := newWorld(t)
	w.put(filepath.Join(w.home, ".docker", "config.json"), `{"proxies":{
		"default":{"httpProxy":"http://u:hunter2@p:1","httpsProxy":"http://s:1","noProxy":"localhost","ftpProxy":"f","allProxy":"a"},
		"tcp://engine:1":{"httpProxy":"http://own:1"}}}`)
	args := func(env []string, flags ...string) string {
		var all []string
		opt, _ := w.asks(env, flags...)
		for k, v := range opt.FrontendAttrs {
			if name, ok := strings.CutPrefix(k, "build-arg:"); ok {
				all = append(all, name+"="+v)
			}
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	for _, tc := range []struct {
		env   []string
		flags []string
		want  string
	}{
		{nil, nil, "ALL_PROXY=a FTP_PROXY=f HTTPS_PROXY=http://s:1 HTTP_PROXY=http://u:hunter2@p:1 NO_PROXY=localhost"},
		{[]string{"DOCKER_HOST=tcp://engine:1"}, nil, "HTTP_PROXY=http://own:1"},
		{[]string{"DOCKER_HOST=tcp://engine:1"}, []string{"--build-arg", "http_proxy="}, "http_proxy="},
		{[]string{"DOCKER_HOST=tcp://engine:1", "HTTP_PROXY=env"}, []string{"--build-arg", "HTTP_PROXY"}, "HTTP_PROXY=env"},
		{[]string{"DOCKER_HOST=tcp://engine:1"}, []string{"--build-arg", "HTTP_PROXY", "--build-arg", "A=1"}, "A=1 HTTP_PROXY=http://own:1"},
		{[]string{"DOCKER_HOST=tcp://engine:1", "SOURCE_DATE_EPOCH=7"}, []string{"--build-arg", "HTTP_PROXY=mine"}, "HTTP_PROXY=mine SOURCE_DATE_EPOCH=7"},
	} {
		if got := args(tc.env, tc.flags...); got != tc.want {
			t.Errorf("%q %q: %q, want %q", tc.env, tc.flags, got, tc.want)
		}
	}
	for _, where := range []string{"ctx", "nosuch"} {
		if _, stdout, stderr := w.run(nil, "-D", "build", "--builder", s.Endpoint(), where); strings.Contains(stdout+stderr, "hunter2") {
			t.Errorf("the output has the proxy's password:\n%s%s", stdout, stderr)
		}
	}
	if text := tree(t, w.home); strings.Count(text, "hunter2") != 1 { // in config.json itself
		t.Errorf("the proxy's password is kept:\n%s", text)
	}
}

// tree is the content of all files below a folder.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		all.WriteString(path + ": " + string(data) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// Tokens stay out of what is shown and kept, when the build fails, too.
func TestBuildTokensAreNotShown(t *testing.T) {
	failing := buildkittest.New(t, buildkittest.Options{Solve: func(context.Context, *buildkittest.Build) (map[string]string, error) {
		return nil, os.ErrInvalid
	}})
	env := []string{"ACTIONS_CACHE_URL=http://c", "ACTIONS_RUNTIME_TOKEN=hunter2", "AWS_ACCESS_KEY_ID=hunter2", "AWS_SECRET_ACCESS_KEY=hunter2"}
	w := newWorld(t)
	if code, _, stderr := w.run(nil, "create", "--name", "b", failing.Endpoint()); code != 0 {
		t.Fatal(stderr)
	}
	code, stdout, stderr := w.run(env, "-D", "build", "--builder", "b", "--cache-from", "type=gha", "--cache-to", "type=s3,bucket=b", "ctx")
	if got := failing.Requests(); code != 1 || len(got) != 1 || got[0].Cache.Imports[0].Attrs["token"] != "hunter2" {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	if strings.Contains(stdout+stderr+tree(t, w.home), "hunter2") {
		t.Errorf("a token is in the output or in the state:\n%s\n%s%s", tree(t, w.home), stdout, stderr)
	}
}

func TestBuildFlagsReachTheDaemon(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	w := newWorld(t)
	r := w.asked(s, nil, "--add-host", "a=1.2.3.4,b:::1", "--add-host", "c=[::2]", "--network", "host", "--shm-size", "1m",
		"--ulimit", "nofile=1:2", "--cgroup-parent", "/x", "--resource", "memory=1m", "--resource", "cpuset-cpus=0,2", "--allow", "security.insecure",
		"--no-cache-filter", "x,y", "--cache-from", "app:c", "--cache-to", "type=local,dest=sub/cache", "--annotation", "k=v", "-o", "type=image,name=n")
	for key, want := range map[string]string{
		"add-hosts": "a=1.2.3.4,b=::1,c=::2", "force-network-mode": "host", "shm-size": "1048576", "ulimit": "nofile=1:2", "cgroup-parent": "/x",
		"memory": "1048576", "cpusetcpus": "0,2", "no-cache": "x,y",
	} {
		if got := r.FrontendAttrs[key]; got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	if !slices.Equal(r.Entitlements, []string{"security.insecure", "network.host"}) {
		t.Errorf("rights: %q", r.Entitlements)
	}
	if got := r.Exporters[0].Attrs["annotation.k"]; got != "v" {
		t.Errorf("annotation: %q", got)
	}
	if c := r.Cache; c.Imports[0].Attrs["ref"] != "app:c" || c.Exports[0].Attrs["dest"] != filepath.Join(w.dir, "sub", "cache") {
		t.Errorf("caches: %v", c)
	}
	plain, _ := w.asks(nil, "--network", "default")
	for _, key := range []string{"add-hosts", "force-network-mode", "shm-size", "ulimit", "cgroup-parent", "memory", "no-cache"} {
		if got, there := plain.FrontendAttrs[key]; there {
			t.Errorf("without flags %s = %q", key, got)
		}
	}
	if len(plain.AllowedEntitlements) > 0 {
		t.Errorf("without flags, rights: %q", plain.AllowedEntitlements)
	}
	if opt, _ := w.asks(nil, "--build-arg", "BUILDKIT_INLINE_CACHE=1"); cacheText(opt.CacheExports) != "inline" {
		t.Errorf("BUILDKIT_INLINE_CACHE: %q", cacheText(opt.CacheExports))
	}
	opt, stderr := w.asks(nil, "--cache-from", "type=brandnew,x=y", "--annotation", "k=v", "-o", "type=cacheonly")
	for _, want := range []string{"WARNING: --cache-from type=brandnew is not known to berth", "WARNING: --annotation has no effect"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in:\n%s", want, stderr)
		}
	}
	if got := cacheText(opt.CacheImports); got != "brandnew x=y" {
		t.Errorf("an unknown cache: %q", got)
	}
}

// Outside of the working directory, or in it, nothing is deleted unasked,
// whichever way the path leads there.
func TestBuildLocalDelete(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	w := newWorld(t)
	outside := t.TempDir()
	for link, to := range map[string]string{"link": outside, "inner": "ctx", "broken": filepath.Join(outside, "nosuch")} {
		if err := os.Symlink(to, filepath.Join(w.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	flag := func(dest string) string { return "type=local,mode=delete,dest=" + dest }
	for _, dest := range []string{"out", "ctx/deep/er", "./out/../other", "inner/x", "..x"} {
		w.asks(nil, "-o", flag(dest))
	}
	for _, dest := range []string{".", "..", "../other", "ctx/../..", outside, "link", "link/x", "broken", "broken/x", "/"} {
		code, _, stderr := w.run(nil, "build", "--builder", s.Endpoint(), "-o", flag(dest), "ctx")
		if code != 1 || !strings.Contains(stderr, "mode=delete local exports outside the working directory need --allow=buildx.local.delete") {
			t.Errorf("%s: exit %d\n%s", dest, code, stderr)
		}
	}
	if s.Connections() != 0 {
		t.Error("the daemon was contacted")
	}
	if opt, _ := w.asks(nil, "-o", flag(outside), "--allow", "buildx.local.delete"); len(opt.AllowedEntitlements) > 0 {
		t.Errorf("the daemon would be told of it: %q", opt.AllowedEntitlements)
	}
	w.asks(nil, "-o", "type=local,mode=copy,dest="+outside)
}
