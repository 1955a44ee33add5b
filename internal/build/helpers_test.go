package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/session/filesync"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// solveFunc is short for what a test's daemon does.
type solveFunc = func(context.Context, *buildkittest.Build) (map[string]string, error)

// daemon starts a server whose builds read the Dockerfile, as all do, and then
// do f.
func daemon(t *testing.T, f solveFunc, platforms ...string) *buildkittest.Server {
	t.Helper()
	o := buildkittest.Options{}
	dir := t.TempDir()
	o.Solve = func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		dest, err := os.MkdirTemp(dir, "")
		if err != nil {
			return nil, err
		}
		if err := b.FetchDir(ctx, request.LocalDockerfile, dest); err != nil || f == nil {
			return nil, err
		}
		return f(ctx, b)
	}
	if len(platforms) > 0 {
		o.Workers = []buildkittest.Worker{{ID: "w", Platforms: platforms}}
	}
	return buildkittest.New(t, o)
}

// node is one at an endpoint, with the platforms that its owner fixed.
func node(name, endpoint string, fixed ...string) builder.Node {
	return builder.Node{Builder: "b", Name: name, Driver: builder.DriverRemote, Endpoint: endpoint, Platforms: plats(fixed...)}
}

func builderOf(nodes ...builder.Node) *builder.Builder {
	return &builder.Builder{Name: "b", Driver: builder.DriverRemote, Nodes: nodes}
}

func plats(names ...string) []ocispecs.Platform {
	var all []ocispecs.Platform
	for _, n := range names {
		all = append(all, platforms.Normalize(platforms.MustParse(n)))
	}
	return all
}

// options are the least that a build needs.
func options(t *testing.T) Options {
	t.Helper()
	return optionsShowing(t, io.Discard)
}

// optionsShowing has its progress in out, once the test has closed the printer.
func optionsShowing(t *testing.T, out io.Writer) Options {
	t.Helper()
	p, err := progress.New(out, progress.Plain, progress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return Options{
		Schemes: schemes.All(dial.Env{}), Progress: p, Machine: "machine", Stdout: io.Discard, Budget: time.Minute,
		LookupEnv: func(string) (string, bool) { return "", false },
	}
}

// tree makes a folder with files and gives its real path.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		put(t, filepath.Join(dir, name), content)
	}
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// req builds a folder with a Dockerfile in it.
func req(t *testing.T, outputs ...buildflag.Output) request.Request {
	t.Helper()
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	return request.Request{
		Context: request.Context{Dir: dir}, Dockerfile: request.Dockerfile{Dir: dir, Name: request.DefaultDockerfile},
		Outputs: outputs,
	}
}

func output(kind, dest string, attrs ...string) buildflag.Output {
	o := buildflag.Output{Type: kind, Dest: dest, Attrs: map[string]string{}}
	for i := 0; i < len(attrs); i += 2 {
		o.Attrs[attrs[i]] = attrs[i+1]
	}
	return o
}

// names is what is in a folder, hidden files too.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// sending opens the stream of the client's export number id and sends data,
// as a daemon does that does not ask what the client supports. The stream
// stays open.
func sending(ctx context.Context, b *buildkittest.Build, id int, data []byte) (filesync.FileSend_DiffCopyClient, error) {
	stream, err := b.Stream(ctx, id)
	if err != nil {
		return nil, err
	}
	err = stream.SendMsg(&filesync.BytesMessage{Data: data})
	if errors.Is(err, io.EOF) { // the other side has ended it; RecvMsg says why
		err = stream.RecvMsg(&filesync.BytesMessage{})
	}
	return stream, err
}

// ended waits for the client's verdict on a stream.
func ended(stream filesync.FileSend_DiffCopyClient) error {
	_ = stream.CloseSend()
	return stream.RecvMsg(&filesync.BytesMessage{})
}

// buffer may be written by one goroutine and read by another.
type buffer struct {
	mu sync.Mutex
	b  []byte
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b = append(b.b, p...)
	return len(p), nil
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.b)
}

// writer is a function as an io.Writer.
type writer func([]byte) (int, error)

func (f writer) Write(b []byte) (int, error) { return f(b) }
