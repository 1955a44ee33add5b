package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ui"
)

// bakeApp is an app in dir, with an environment of its own.
func bakeApp(dir string, env map[string]string) *app {
	return &app{
		io: &ui.Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, dir: dir,
		lookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
}

// elsewhere is where a definition may come from.
var elsewhere = bakeOrigin{url: "https://example.com/acme/images.git"}

// granting gives the targets of a definition their rights: what is built, or the
// rights that are missing.
func granting(t *testing.T, a *app, from bakeOrigin, definition string, set, allow []string) (targets []build.Target, missing []string) {
	t.Helper()
	rights, err := parseBakeAllow(allow)
	if err != nil {
		t.Fatal(err)
	}
	def, err := bake.Evaluate(context.Background(), bake.Source{Input: eval.Input{Files: []eval.File{{Name: "docker-bake.hcl", Data: []byte(definition)}}}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := bake.Resolve(def, bake.Selection{Names: []string{"*"}, Set: set, Within: from.within()})
	if err != nil {
		t.Fatal(err)
	}
	targets, sources, err := a.bakeTargets(plan, from, bakeOptions{}, bakeFlags{rights: rights})
	if err != nil {
		t.Fatal(err)
	}
	err = a.grant(context.Background(), plan, targets, sources, from, rights, &bakeDisplay{a: a})
	if err == nil {
		return targets, nil
	}
	for _, h := range hint.Of(err) {
		if flags, ok := strings.CutPrefix(h, "berth bake --allow "); ok {
			missing = strings.Split(flags, " --allow ")
		}
	}
	if missing == nil {
		t.Fatal(err)
	}
	return nil, missing
}

func wantMissing(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: needs %q, wanted %q", what, got, want)
	}
}

// A Dockerfile that is a link leads nowhere without a grant, and neither does the
// list of what it ignores.
func TestBakeGrantDockerfileLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	work, secret := filepath.Join(dir, "work"), filepath.Join(dir, "secret")
	for _, name := range []string{"Dockerfile", "dockerfile", "Dockerfile.dockerignore", "Own", "Own.dockerignore", "fine"} {
		ctx := filepath.Join(work, name)
		if err := os.MkdirAll(ctx, 0o755); err != nil {
			t.Fatal(err)
		}
		to := secret
		if name == "fine" {
			name, to = "Dockerfile", "Other"
			err = os.WriteFile(filepath.Join(ctx, to), nil, 0o644)
		}
		if err == nil {
			err = os.Symlink(to, filepath.Join(ctx, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(secret, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	a := bakeApp(work, nil)
	for body, want := range map[string]string{
		`context = "Dockerfile"`:                                           "fs.read=" + secret,
		`context = "dockerfile"`:                                           "fs.read=" + secret,
		`context = "Dockerfile.dockerignore"`:                              "fs.read=" + secret,
		"context = \"Own\"\ndockerfile = \"Own\"":                          "fs.read=" + secret,
		"context = \"Own.dockerignore\"\ndockerfile = \"Own\"":             "fs.read=" + secret,
		"context = \"fine\"\ndockerfile = \"../Dockerfile/Dockerfile\"":    "fs.read=" + secret,
		"context = \"fine\"\ndockerfile = \"cwd://Dockerfile/Dockerfile\"": "fs.read=" + secret,
		`context = "fine"`:                                                 "",
	} {
		definition := "target \"default\" {\n" + body + "\n}"
		_, missing := granting(t, a, bakeOrigin{}, definition, nil, nil)
		if want == "" {
			wantMissing(t, body, missing)
			continue
		}
		wantMissing(t, body, missing, want)
		_, missing = granting(t, a, bakeOrigin{}, definition, nil, []string{want})
		wantMissing(t, body+", granted", missing)
	}
}

func TestBakeGrantOfDanglingLink(t *testing.T) {
	a := bakeApp(t.TempDir(), nil)
	if err := os.Symlink("nowhere", filepath.Join(a.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if a.granted("/etc/passwd", []string{"link"}) {
		t.Error("a link that leads nowhere grants everything")
	}
	if !a.granted("/etc/passwd", []string{"/"}) {
		t.Error("/ does not grant everything")
	}
}

func TestBakeGrantNetworkHost(t *testing.T) {
	a := bakeApp(t.TempDir(), nil)
	const definition = `target "default" {
  dockerfile-inline = "FROM scratch"
  network = "host"
}`
	_, missing := granting(t, a, bakeOrigin{}, definition, nil, nil)
	wantMissing(t, "network", missing, "network.host")
}

// What the environment knows of a cache service, a definition from elsewhere gets
// by a grant, and never for an address of its own.
func TestBakeGrantCacheCredentials(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, ".aws", "credentials")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runner := map[string]string{envGHAToken: "hunter2", "ACTIONS_CACHE_URL": "https://cache.test/", "HOME": t.TempDir()}
	inEnv := map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "HOME": home}
	inFile := map[string]string{"HOME": home}
	for _, c := range []struct {
		cache string
		env   map[string]string
		want  string
	}{
		{"type=gha", runner, "env=" + envGHAToken},
		{"type=gha,url=https://evil.test/", runner, ""}, // gets none at all
		{"type=gha,url_v2=https://evil.test/", runner, ""},
		{"type=gha,url=https://own.test/,token=own", runner, ""},
		{"type=gha,URL=https://evil.test/", runner, ""},
		{"type=gha,scope=a", runner, "env=" + envGHAToken},
		{"type=s3,bucket=b,region=r", inEnv, "env=AWS_SECRET_ACCESS_KEY"},
		{"type=s3,bucket=b,region=r", inFile, "fs.read=" + file},
		{"type=s3,bucket=b,region=r,access_key_id=x,secret_access_key=y", inEnv, ""},
		{"type=s3,bucket=b,region=r", runner, ""},
	} {
		for _, key := range []string{"cache-from", "cache-to"} {
			a := bakeApp(t.TempDir(), c.env)
			definition := "target \"default\" {\n  dockerfile-inline = \"FROM scratch\"\n  " + key + " = [\"" + c.cache + "\"]\n}"
			targets, missing := granting(t, a, elsewhere, definition, nil, nil)
			if c.want == "" {
				wantMissing(t, c.cache, missing)
				for _, cache := range slices.Concat(targets[0].Request.CacheFrom, targets[0].Request.CacheTo) {
					if cache.Attrs["token"] == "hunter2" {
						t.Errorf("%s has the token: %v", c.cache, cache.Attrs)
					}
				}
				continue
			}
			wantMissing(t, c.cache, missing, c.want)
			targets, missing = granting(t, a, elsewhere, definition, nil, []string{c.want})
			wantMissing(t, c.cache+", granted", missing)
			if got := slices.Concat(targets[0].Request.CacheFrom, targets[0].Request.CacheTo); len(got) != 1 || got[0].Attrs["token"]+got[0].Attrs["secret_access_key"] == "" {
				t.Errorf("%s, granted, has no credentials: %v", c.cache, got)
			}
			_, missing = granting(t, a, elsewhere, "target \"default\" {\n  dockerfile-inline = \"FROM scratch\"\n}", []string{"default." + key + "=" + c.cache}, nil)
			wantMissing(t, c.cache+", of --set", missing)
			_, missing = granting(t, a, bakeOrigin{}, definition, nil, nil)
			wantMissing(t, c.cache+", of this machine", missing)
		}
	}
}

// The token for the definition's repository is for fetching that, and no secret
// for the definition to declare.
func TestBakeGrantGitToken(t *testing.T) {
	a := bakeApp(t.TempDir(), map[string]string{envBakeGitToken: "hunter2", envBakeGitHeader: "hunter3"})
	target := func(body string) string {
		return "target \"default\" {\n  dockerfile-inline = \"FROM scratch\"\n" + body + "\n}"
	}
	const other = "context = \"https://evil.test/x.git\"\n"
	for body, want := range map[string][]string{
		"":    nil,
		other: nil,
		`secret = ["id=GIT_AUTH_TOKEN,env=BUILDX_BAKE_GIT_AUTH_TOKEN"]`:           {"env=" + envBakeGitToken},
		other + `secret = ["id=GIT_AUTH_TOKEN,env=BUILDX_BAKE_GIT_AUTH_TOKEN"]`:   {"env=" + envBakeGitToken},
		other + `secret = ["id=GIT_AUTH_HEADER,env=BUILDX_BAKE_GIT_AUTH_HEADER"]`: {"env=" + envBakeGitHeader},
		`secret = ["id=x,env=BUILDX_BAKE_GIT_AUTH_TOKEN"]`:                        {"env=" + envBakeGitToken},
		`secret = ["id=BUILDX_BAKE_GIT_AUTH_TOKEN"]`:                              {"env=" + envBakeGitToken},
	} {
		targets, missing := granting(t, a, elsewhere, target(body), nil, nil)
		wantMissing(t, body, missing, want...)
		if body == "" && len(targets[0].Request.Secrets) != 2 || body == other && len(targets[0].Request.Secrets) != 0 {
			t.Errorf("%q has the secrets %v", body, targets[0].Request.Secrets)
		}
	}
}

// A key of ssh is a file, and an agent is a right of its own.
func TestBakeGrantSSH(t *testing.T) {
	work := filepath.Join(t.TempDir(), "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	outer, inner := "fs.read="+filepath.Join(work, "..", "out", "k"), "fs.read="+filepath.Join(work, "k")
	off := map[string]string{envBakeFS: "F"}
	for _, c := range []struct {
		ssh    string
		env    map[string]string
		from   bakeOrigin
		allow  []string
		wanted []string
	}{
		{"default=../out/k", nil, bakeOrigin{}, nil, []string{outer}},
		{"default=../out/k", nil, bakeOrigin{}, []string{"ssh"}, []string{outer}},
		{"default=../out/k", nil, bakeOrigin{}, []string{outer}, nil},
		{"default=k", nil, bakeOrigin{}, nil, nil},
		{"default", nil, bakeOrigin{}, nil, []string{"ssh"}},
		{"default", nil, bakeOrigin{}, []string{"ssh"}, nil},
		{"default", off, bakeOrigin{}, nil, nil},
		{"default=../out/k", off, bakeOrigin{}, nil, nil},
		{"default=../out/k", nil, elsewhere, nil, []string{outer, "ssh"}},
		{"default=k", nil, elsewhere, []string{"ssh"}, []string{inner}},
		{"default=k", off, elsewhere, nil, []string{"ssh"}},
		{"default", off, elsewhere, nil, []string{"ssh"}},
	} {
		definition := "target \"default\" {\n  dockerfile-inline = \"FROM scratch\"\n  ssh = [\"" + c.ssh + "\"]\n}"
		_, missing := granting(t, bakeApp(work, c.env), c.from, definition, nil, c.allow)
		wantMissing(t, c.ssh, missing, c.wanted...)
	}
	// The key for the definition's repository was named by the user.
	from := bakeOrigin{url: "ssh://git@example.com/x.git"}
	a := bakeApp(work, map[string]string{envBakeGitSSH: "../out/k"})
	const plain = `target "default" {}`
	_, missing := granting(t, a, from, plain, nil, nil)
	wantMissing(t, "the repository's key", missing, "ssh")
	_, missing = granting(t, a, from, `target "default" { ssh = ["default=../out/k"] }`, nil, []string{"ssh"})
	wantMissing(t, "a key of the same name", missing, outer)
	if _, err := bakeApp(work, map[string]string{envBakeFS: "maybe"}).guardsFS(); err == nil {
		t.Error("maybe is taken")
	}
}

// A target gets the rights of the daemon that it asks for, once they are granted,
// and no others.
func TestBakeGrantEntitlements(t *testing.T) {
	const definition = `
target "asks" {
  dockerfile-inline = "FROM scratch"
  entitlements = ["security.insecure"]
}
target "plain" {
  dockerfile-inline = "FROM scratch"
}`
	check := func(what string, targets []build.Target, wanted map[string][]string) {
		t.Helper()
		for _, target := range targets {
			if got := target.Request.Entitlements; !slices.Equal(got, wanted[target.Name]) {
				t.Errorf("%s: %s has %q, wanted %q", what, target.Name, got, wanted[target.Name])
			}
		}
	}
	a := bakeApp(t.TempDir(), nil)
	_, missing := granting(t, a, bakeOrigin{}, definition, nil, nil)
	wantMissing(t, "nothing allowed", missing, "security.insecure")
	targets, missing := granting(t, a, bakeOrigin{}, definition, nil, []string{"security.insecure", "network.host"})
	wantMissing(t, "allowed", missing)
	check("allowed", targets, map[string][]string{"asks": {"security.insecure"}})

	a.io.InTTY, a.io.ErrTTY, a.io.In = true, true, strings.NewReader("y\n")
	targets, missing = granting(t, a, bakeOrigin{}, definition, nil, nil)
	wantMissing(t, "at the prompt", missing)
	check("at the prompt", targets, map[string][]string{"asks": {"security.insecure"}})

	a = bakeApp(t.TempDir(), nil)
	targets, missing = granting(t, a, bakeOrigin{}, definition, []string{"plain.entitlements=network.host"}, []string{"security.insecure"})
	wantMissing(t, "--set", missing)
	check("--set", targets, map[string][]string{"asks": {"security.insecure"}, "plain": {"network.host"}})
}

// Only the user allows files outside of the build to be removed.
func TestBakeGrantLocalDelete(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	definition := "target \"default\" {\n  dockerfile-inline = \"FROM scratch\"\n  output = [\"type=local,mode=delete,dest=" + out + "\"]\n}"
	a := bakeApp(t.TempDir(), nil)
	_, missing := granting(t, a, bakeOrigin{}, definition, nil, []string{"buildx.local.delete"})
	wantMissing(t, "delete", missing, "fs.write="+out)
	_, missing = granting(t, a, bakeOrigin{}, definition, []string{"default.entitlements=buildx.local.delete"}, []string{"fs.write=" + out})
	wantMissing(t, "delete of --set", missing)
}
