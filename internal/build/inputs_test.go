package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// asked runs a build whose daemon does f with the client's session.
func asked(t *testing.T, r request.Request, o Options, f func(ctx context.Context, b *buildkittest.Build) error) {
	t.Helper()
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) { return nil, f(ctx, b) })
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, o); err != nil {
		t.Error(err)
	}
}

func TestFoldersArrive(t *testing.T) {
	dialtest.NoLeaks(t)
	const text = "FROM scratch\n"
	for _, c := range []struct {
		name       string
		context    map[string]string // files
		outside    map[string]string // files of another folder
		dockerfile request.Dockerfile
		want       map[string]string // of the folder "dockerfile"
	}{
		{name: "inside", context: map[string]string{"Dockerfile": text, "a": "1"}, dockerfile: request.Dockerfile{Name: "Dockerfile"},
			want: map[string]string{"Dockerfile": text}},
		{name: "lower case", context: map[string]string{"dockerfile": text}, dockerfile: request.Dockerfile{Name: "Dockerfile"},
			want: map[string]string{"dockerfile": text}},
		{name: "below", context: map[string]string{"sub/x.Dockerfile": text, "sub/x.Dockerfile.dockerignore": "b"},
			dockerfile: request.Dockerfile{Dir: "sub", Name: "x.Dockerfile"}, want: map[string]string{"x.Dockerfile": text, "x.Dockerfile.dockerignore": "b"}},
		{name: "inline", context: map[string]string{"a": "1"}, dockerfile: request.Dockerfile{Name: "Dockerfile", Inline: []byte(text)},
			want: map[string]string{"Dockerfile": text}},
		{name: "outside", context: map[string]string{"a": "1"}, outside: map[string]string{"x": text, "x.dockerignore": "c", "id_rsa": "private"},
			dockerfile: request.Dockerfile{Name: "x"}, want: map[string]string{"x": text, "x.dockerignore": "c"}},
		{name: "outside, lower case", context: map[string]string{"a": "1"}, outside: map[string]string{"dockerfile": text, "id_rsa": "private"},
			dockerfile: request.Dockerfile{Name: "Dockerfile"}, want: map[string]string{"dockerfile": text}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t, c.context)
			r := request.Request{Context: request.Context{Dir: dir}, Dockerfile: c.dockerfile}
			switch {
			case c.outside != nil:
				r.Dockerfile.Dir = tree(t, c.outside)
			case c.dockerfile.Inline == nil:
				r.Dockerfile.Dir = filepath.Join(dir, c.dockerfile.Dir)
			}
			asked(t, r, options(t), func(ctx context.Context, b *buildkittest.Build) error {
				for local, files := range map[string]map[string]string{request.LocalContext: c.context, request.LocalDockerfile: c.want} {
					got := t.TempDir()
					if err := b.FetchDir(ctx, local, got); err != nil {
						return err
					}
					for name, want := range files {
						if data, err := os.ReadFile(filepath.Join(got, name)); err != nil || string(data) != want {
							t.Errorf("%s: %s is %q, %v", local, name, data, err)
						}
					}
					if c.outside != nil && local == request.LocalDockerfile && len(names(t, got)) != len(c.want) {
						t.Errorf("more than the Dockerfile was given: %q", names(t, got))
					}
				}
				return nil
			})
		})
	}
}

// A process substitution has no size, and can be read once.
func TestDockerfileOfPipe(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no pipes with names")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		_, _ = w.WriteString("FROM scratch\n")
		_ = w.Close()
	}()
	dir := tree(t, nil)
	path := filepath.Join("/dev/fd", fdName(r))
	if _, err := os.Stat(path); err != nil {
		t.Skip(err)
	}
	q := request.Request{Context: request.Context{Dir: dir}, Dockerfile: request.Dockerfile{Dir: filepath.Dir(path), Name: filepath.Base(path)}}
	asked(t, q, options(t), func(ctx context.Context, b *buildkittest.Build) error {
		got := t.TempDir()
		if err := b.FetchDir(ctx, request.LocalDockerfile, got); err != nil {
			return err
		}
		if text := read(t, filepath.Join(got, filepath.Base(path))); text != "FROM scratch\n" {
			t.Errorf("%q", text)
		}
		return nil
	})
}

// What is missing is said before any daemon is asked.
func TestInputsRefused(t *testing.T) {
	dir := tree(t, map[string]string{"file": "", "sub/Dockerfile": "x", "big": strings.Repeat("x", secretsprovider.MaxSecretSize+1), "huge": strings.Repeat("x", maxDockerfile+1)})
	other := tree(t, nil)
	good := func() request.Request {
		return request.Request{Context: request.Context{Dir: dir}, Dockerfile: request.Dockerfile{Dir: dir, Name: "file"}}
	}
	for want, spoil := range map[string]func(*request.Request){
		"build context: ":                           func(r *request.Request) { r.Context.Dir = filepath.Join(dir, "nosuch") },
		"is not a directory":                        func(r *request.Request) { r.Context.Dir = filepath.Join(dir, "file") },
		"failed to read dockerfile: no such file: ": func(r *request.Request) { r.Dockerfile.Name = "Dockerfile" },
		"sub is a directory":                        func(r *request.Request) { r.Dockerfile.Name = "sub" },
		"huge is larger than 16 MiB":                func(r *request.Request) { r.Context.Dir, r.Dockerfile.Name = other, "huge" },
		"--secret id=s: stat ": func(r *request.Request) {
			r.Secrets = []buildflag.Secret{{ID: "s", File: filepath.Join(dir, "nosuch")}}
		},
		"--secret id=s: " + filepath.Join(dir, "sub"):  func(r *request.Request) { r.Secrets = []buildflag.Secret{{ID: "s", File: filepath.Join(dir, "sub")}} },
		"--secret id=s is larger than BuildKit allows": func(r *request.Request) { r.Secrets = []buildflag.Secret{{ID: "s", File: filepath.Join(dir, "big")}} },
		"--secret id=e is larger than BuildKit allows": func(r *request.Request) { r.Secrets = []buildflag.Secret{{ID: "e", Env: "BIG"}} },
		"--ssh default: no ssh agent is running":       func(r *request.Request) { r.SSH = []buildflag.SSH{{ID: "default"}} },
		"the build has no context":                     func(r *request.Request) { r.Context.Dir = "" },
		"build context \"n\": stat ": func(r *request.Request) {
			r.Contexts = []buildflag.NamedContext{{Name: "n", Value: filepath.Join(dir, "nosuch")}}
		},
		"build context \"f\": " + filepath.Join(dir, "file") + " is not a directory": func(r *request.Request) {
			r.Contexts = []buildflag.NamedContext{{Name: "f", Value: filepath.Join(dir, "file")}}
		},
		"build context \"l\": OCI layout: no such folder": func(r *request.Request) {
			r.Contexts = []buildflag.NamedContext{{Name: "l", Kind: buildflag.ContextLayout, Value: filepath.Join(dir, "nosuch")}}
		},
		"--ssh: ": func(r *request.Request) {
			r.SSH = []buildflag.SSH{{ID: "k", Paths: []string{filepath.Join(dir, "file")}}}
		},
	} {
		r := good()
		spoil(&r)
		s := daemon(t, nil)
		o := options(t)
		o.LookupEnv = func(name string) (string, bool) {
			if name != "BIG" {
				return "", false
			}
			return strings.Repeat("x", secretsprovider.MaxSecretSize+1), true
		}
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("%q: an error of %d bytes", want, len(err.Error()))
		}
		if s.Connections() != 0 {
			t.Errorf("%q: the daemon was contacted", want)
		}
	}
}

// What cannot be opened is said before any daemon is contacted. (Links in a
// circle cannot be opened by root either; permissions are tested in test/.)
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"Dockerfile", "secret"} {
		if err := os.Symlink(name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := request.Request{Context: request.Context{Dir: dir}, Dockerfile: request.Dockerfile{Dir: dir, Name: "Dockerfile"}}
	if _, err := openInputs(r, options(t)); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Dockerfile: %v", err)
	}
	r.Dockerfile = request.Dockerfile{Inline: []byte("x")}
	r.Secrets = []buildflag.Secret{{ID: "s", File: filepath.Join(dir, "secret")}}
	if _, err := openInputs(r, options(t)); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("secret: %v", err)
	}
}

// A file that cannot be opened while it is sent fails the build; the library
// alone would send it as an empty one.
func TestNoEmptyFiles(t *testing.T) {
	r := req(t)
	in, err := openInputs(r, options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	if in.failure() != nil {
		t.Errorf("before anything: %v", in.failure())
	}
	if err := os.Remove(filepath.Join(r.Context.Dir, "Dockerfile")); err != nil {
		t.Fatal(err)
	}
	if _, err := in.mounts[request.LocalContext].Open("Dockerfile"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	if err := in.failure(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), r.Context.Dir) {
		t.Errorf("the build goes on: %v", err)
	}
	in.fail(io.ErrUnexpectedEOF) // the first one counts
	if err := in.failure(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after another: %v", err)
	}
}

// A daemon that waits for a file that cannot be sent does not hold the build.
func TestFailedInputEndsTheSolve(t *testing.T) {
	r := req(t)
	s := buildkittest.New(t, buildkittest.Options{Solve: func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		<-ctx.Done() // as a daemon does that waits for the rest
		return nil, ctx.Err()
	}})
	in, err := openInputs(r, options(t))
	if err != nil {
		t.Fatal(err)
	}
	o := options(t)
	placed, err := place(t.Context(), builderOf(node("n0", s.Endpoint())), r, o)
	if err != nil {
		t.Fatal(err)
	}
	defer placed.close()
	parts, err := placed.split(r)
	if err != nil {
		t.Fatal(err)
	}
	in.fail(os.ErrPermission)
	if _, err := solve(t.Context(), parts[0], in, o); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

// Named folders arrive under names that are never those of the main ones, and
// nothing of the build is sent that does not exist.
func TestNamedFoldersArrive(t *testing.T) {
	dialtest.NoLeaks(t)
	r := req(t)
	r.Contexts = nil
	for _, name := range []string{"plain", "context", "dockerfile", "a/b:c"} {
		r.Contexts = append(r.Contexts, buildflag.NamedContext{Name: name, Value: tree(t, map[string]string{"named": name})})
	}
	asked(t, r, options(t), func(ctx context.Context, b *buildkittest.Build) error {
		for _, c := range r.Contexts {
			local, ok := strings.CutPrefix(b.Request.FrontendAttrs["context:"+c.Name], "local:")
			dest := t.TempDir()
			if err := b.FetchDir(ctx, local, dest); !ok || err != nil {
				return err
			}
			if got := read(t, filepath.Join(dest, "named")); got != c.Name {
				t.Errorf("%s is %q", c.Name, got)
			}
		}
		dest := t.TempDir()
		if err := b.FetchDir(ctx, request.LocalContext, dest); err != nil {
			return err
		}
		equal(t, "main context", names(t, dest), []string{"Dockerfile"})
		return nil
	})
}

// A Dockerfile alone comes with an empty folder, so that COPY says what is not
// there.
func TestEmptyContextArrives(t *testing.T) {
	r := request.Request{Context: request.Context{Empty: true}, Dockerfile: request.Dockerfile{Name: "Dockerfile", Inline: []byte("FROM x")}}
	asked(t, r, options(t), func(ctx context.Context, b *buildkittest.Build) error {
		dest := t.TempDir()
		err := b.FetchDir(ctx, request.LocalContext, dest)
		equal(t, "context", names(t, dest), nil)
		return err
	})
}

// The daemon gets what was granted, whatever it asks for.
func TestGrants(t *testing.T) {
	dialtest.NoLeaks(t)
	r := req(t)
	file := filepath.Join(tree(t, map[string]string{"s": "from file"}), "s")
	short := filepath.Join(tree(t, map[string]string{"t": "short"}), "t")
	r.Secrets = []buildflag.Secret{{ID: "file", File: file}, {ID: "env", Env: "TOKEN"}, {ID: "HOME"}, {ID: short}, {ID: "unset", Env: "UNSET"}}
	o := options(t)
	o.LookupEnv = func(name string) (string, bool) {
		v, ok := map[string]string{"TOKEN": "from env", "HOME": "/root", "OTHER": "private"}[name]
		return v, ok
	}
	asked(t, r, o, func(ctx context.Context, b *buildkittest.Build) error {
		for id, want := range map[string]string{"file": "from file", "env": "from env", "HOME": "/root", short: "short", "unset": ""} {
			if got, err := b.Secret(ctx, id); err != nil || string(got) != want {
				t.Errorf("secret %s: %q, %v", id, got, err)
			}
		}
		for _, id := range []string{"OTHER", "TOKEN", "", "../s", "/etc/passwd"} {
			if got, err := b.Secret(ctx, id); !errors.Is(err, secrets.ErrNotFound) || len(got) > 0 {
				t.Errorf("secret %q, not granted: %q, %v", id, got, err)
			}
		}
		for _, name := range []string{"", "/", "/etc", "..", "src", "context/..", "Context"} {
			if err := b.FetchDir(ctx, name, t.TempDir()); err == nil {
				t.Errorf("folder %q, not granted, was given", name)
			}
		}
		return nil
	})
	// A file may grow after it was looked at.
	put(t, file, "now")
	store, err := openSecrets(r.Secrets[:1], o.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	put(t, file, strings.Repeat("x", secretsprovider.MaxSecretSize+1))
	if data, err := store.GetSecret(t.Context(), "file"); err == nil || len(data) > 0 || strings.Contains(err.Error(), "xxx") {
		t.Errorf("a secret that has grown: %d bytes, %v", len(data), err)
	}
}

// Without --secret and --ssh there is nothing to ask.
func TestNothingGranted(t *testing.T) {
	asked(t, req(t), options(t), func(ctx context.Context, b *buildkittest.Build) error {
		caller, err := b.Session(ctx)
		if err != nil {
			return err
		}
		for _, method := range []string{"/moby.buildkit.secrets.v1.Secrets/GetSecret", "/moby.sshforward.v1.SSH/ForwardAgent", "/moby.filesync.v1.FileSend/DiffCopy", "/containerd.services.content.v1.Content/Info"} {
			if caller.Supports(method) {
				t.Errorf("%s is offered", method)
			}
		}
		_, err = secrets.NewSecretsClient(caller.Conn()).GetSecret(ctx, &secrets.GetSecretRequest{ID: "x"})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("a secret: %v", err)
		}
		return nil
	})
}

// Two inline Dockerfiles of one length are two files.
func TestInlineChanges(t *testing.T) {
	stamp := func(text string) int64 {
		in, err := openInputs(request.Request{Context: request.Context{URL: "https://x"}, Dockerfile: request.Dockerfile{Inline: []byte(text)}}, options(t))
		if err != nil {
			t.Fatal(err)
		}
		var at int64
		err = in.mounts[request.LocalDockerfile].Walk(t.Context(), "", func(_ string, d os.DirEntry, _ error) error {
			fi, err := d.Info()
			at = fi.ModTime().UnixNano()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	if a, b := stamp("FROM a"), stamp("FROM b"); a == 0 || a >= b {
		t.Errorf("times %d and %d", a, b)
	}
}

func TestInputHints(t *testing.T) {
	r := req(t)
	r.Dockerfile.Name = "nosuch"
	_, err := openInputs(r, options(t))
	if len(hint.Of(err)) == 0 || !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), "no such file") != 1 {
		t.Errorf("%v, %q", err, hint.Of(err))
	}
}

func fdName(f *os.File) string { return strconv.Itoa(int(f.Fd())) }
