package filesession

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets"
	"github.com/tonistiigi/fsutil"
)

// daemon is BuildKit's own side of sessions.
type daemon struct {
	*session.Manager
	t *testing.T
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	m, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	return &daemon{m, t}
}

// dial is a connection to it.
func (d *daemon) dial(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _ = d.HandleConn(ctx, far, meta) }()
	return ending{near, cancel}, nil
}

// ending is a connection whose end the daemon knows of at once, as by a stream.
type ending struct {
	net.Conn
	end context.CancelFunc
}

// Close implements net.Conn.
func (e ending) Close() error {
	e.end()
	return e.Conn.Close()
}

// start offers folders, until the test ends.
func (d *daemon) start(o Options) *Session {
	d.t.Helper()
	s, err := Start(d.t.Context(), d.dial, o)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = s.Close() })
	return s
}

// caller finds a session, as a build does.
func (d *daemon) caller(id string) session.Caller {
	d.t.Helper()
	c, err := d.Get(d.t.Context(), id, false)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// fetch is what a build does with a local source.
func (d *daemon) fetch(id string, o filesync.FSSendRequestOpt) (string, error) {
	d.t.Helper()
	o.DestDir = d.t.TempDir()
	o.ProgressCb = func(int, bool) {}
	o.Filter = nil
	return o.DestDir, filesync.FSSync(d.t.Context(), d.caller(id), o)
}

// source is a folder with two files.
func source(t *testing.T) fsutil.FS {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"f": "text", "g": strings.Repeat("long ", 100_000), ".dockerignore": "h\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// A folder arrives as it is, and it is counted what was sent.
func TestSend(t *testing.T) {
	d := newDaemon(t)
	s := d.start(Options{ID: "x", SharedKey: "key", Folders: map[string]fsutil.FS{"context": source(t), "other": source(t)}})
	if got := s.Sent("context"); got != (Sent{}) {
		t.Error(got)
	}
	if _, err := d.fetch("x", filesync.FSSendRequestOpt{Name: "context", FollowPaths: []string{".dockerignore"}}); err != nil {
		t.Fatal(err)
	}
	if got := s.Sent("context"); got != (Sent{}) {
		t.Errorf("the look for a .dockerignore counts: %+v", got)
	}
	dir, err := d.fetch("x", filesync.FSSendRequestOpt{Name: "context", ExcludePatterns: []string{".dockerignore"}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 2 {
		t.Error(list, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "g")); err != nil || len(data) != 500_000 {
		t.Error(len(data), err)
	}
	if got := s.Sent("context"); !got.Asked || got.Files != 2 || got.Bytes != 500_004 {
		t.Errorf("%+v", got)
	}
	if got := s.Sent("other"); got != (Sent{}) {
		t.Error(got)
	}
	if got := s.Sent("nosuch"); got != (Sent{}) {
		t.Error(got)
	}
	if key := d.caller("x").SharedKey(); key != "key" {
		t.Error(key)
	}
	if _, err := d.fetch("x", filesync.FSSendRequestOpt{Name: "nosuch"}); err == nil {
		t.Error("a folder that was not offered was sent")
	}
}

// The session's name is no secret: it gives files, and neither secrets nor
// credentials nor an agent.
func TestOnlyFiles(t *testing.T) {
	d := newDaemon(t)
	d.start(Options{ID: "x", Folders: map[string]fsutil.FS{"context": source(t)}})
	c := d.caller("x")
	if !c.Supports(session.MethodURL(filesync.FileSync_ServiceDesc.ServiceName, "diffcopy")) {
		t.Error("no files")
	}
	for _, svc := range []string{secrets.Secrets_ServiceDesc.ServiceName, auth.Auth_ServiceDesc.ServiceName, filesync.FileSend_ServiceDesc.ServiceName, "moby.sshforward.v1.SSH", "containerd.services.content.v1.Content"} {
		for _, m := range []string{"GetSecret", "Credentials", "FetchToken", "DiffCopy", "ForwardAgent", "CheckAgent", "Read"} {
			if c.Supports(session.MethodURL(svc, m)) {
				t.Errorf("%s of %s is offered", m, svc)
			}
		}
	}
	if _, err := secrets.GetSecret(t.Context(), c, "x"); err == nil {
		t.Error("a secret was given")
	}
}

// stuck is a folder that the sender cannot send to its end.
type stuck struct {
	fsutil.FS
	broken chan struct{}
}

func (s stuck) Open(string) (io.ReadCloser, error) { return s, nil }

func (s stuck) Read([]byte) (int, error) {
	close(s.broken)
	return 0, errors.New("no more")
}

func (stuck) Close() error { return nil }

// What breaks ends the stream, for which BuildKit's sender would wait for ever, and
// the daemon is told why.
func TestBroken(t *testing.T) {
	d := newDaemon(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	folder, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	broken := make(chan struct{})
	d.start(Options{
		ID: "x", Folders: map[string]fsutil.FS{"context": stuck{folder, broken}}, Broken: broken,
		Why: func() error { return errors.New("f has changed") },
	})
	if _, err := d.fetch("x", filesync.FSSendRequestOpt{Name: "context"}); err == nil || !strings.Contains(err.Error(), "f has changed") {
		t.Error(err)
	}
}

// waiting is a folder whose walk ends with its session.
type waiting struct {
	fsutil.FS
	walks chan struct{}
}

func (w waiting) Walk(ctx context.Context, _ string, _ fs.WalkDirFunc) error {
	w.walks <- struct{}{}
	<-ctx.Done()
	return context.Cause(ctx)
}

// Close ends what is being sent, and the daemon knows the session no more.
func TestClose(t *testing.T) {
	d := newDaemon(t)
	folder := waiting{source(t), make(chan struct{}, 1)}
	s := d.start(Options{ID: "x", Folders: map[string]fsutil.FS{"context": folder}})
	ended := make(chan error, 1)
	c := d.caller("x")
	go func() {
		ended <- filesync.FSSync(t.Context(), c, filesync.FSSendRequestOpt{Name: "context", DestDir: t.TempDir()})
	}()
	<-folder.walks
	if got := s.Sent("context"); !got.Asked || !got.Busy {
		t.Errorf("%+v", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the folder was sent")
	}
	<-c.Context(context.Background()).Done()
	if err := s.Close(); err != nil {
		t.Error("twice:", err)
	}
}

// A session that cannot be opened says so, and one whose build ends goes with it.
func TestStartFails(t *testing.T) {
	want := errors.New("refused")
	_, err := Start(t.Context(), func(context.Context, string, map[string][]string) (net.Conn, error) { return nil, want }, Options{ID: "x"})
	if !errors.Is(err, want) {
		t.Error(err)
	}
	d := newDaemon(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, d.dial, Options{ID: "y", Folders: map[string]fsutil.FS{"context": source(t)}})
	if err != nil {
		t.Fatal(err)
	}
	c := d.caller("y")
	cancel()
	<-c.Context(context.Background()).Done()
	_ = s.Close()
}
