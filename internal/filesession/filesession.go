// Package filesession offers folders to a daemon over a session that has nothing
// else: no credentials, no secrets, no outputs. Its name may be known to other
// builds, and to other clients.
//
// The session is served by gRPC's own server with large buffers. BuildKit's serves
// by net/http, which sends every small message by itself.
//
// It is not for the session of a build, which BuildKit's client makes.
package filesession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The headers by which a daemon knows a session.
const (
	headerID        = "X-Docker-Expose-Session-Uuid"
	headerSharedKey = "X-Docker-Expose-Session-Sharedkey"
	headerMethod    = "X-Docker-Expose-Session-Grpc-Method"
)

// buffer is how much is written to the daemon at a time, in bytes.
const buffer = 256 << 10

// Options are what is offered.
type Options struct {
	// ID is the session's name. It is ASCII, and has no colon.
	ID string
	// SharedKey names the copies that the daemon keeps. It is ASCII.
	SharedKey string
	// Folders by the names that the build has for them.
	Folders map[string]fsutil.FS
	// Broken ends what is being sent, when it is closed: a file could not be sent
	// as it should. It may be nil.
	Broken <-chan struct{}
	// Why is what the daemon is told then.
	Why func() error
}

// Session is a running session. Whoever started it closes it.
type Session struct {
	stop    context.CancelFunc
	running sync.WaitGroup
	counts  map[string]*counter
}

// Sent is what a daemon has been sent of a folder. That it looked for a .dockerignore
// does not count.
type Sent struct {
	Asked bool  // it wanted to know what is in the folder
	Busy  bool  // and does not have all of it yet
	Files int64 // whose content it wanted
	Bytes int64 // of that content
}

// Start opens a session through dial and serves it, until Close or the end of ctx.
func Start(ctx context.Context, dial session.Dialer, o Options) (*Session, error) {
	ctx, stop := context.WithCancel(ctx)
	s := &Session{stop: stop, counts: map[string]*counter{}}
	counted := filesync.StaticDirSource{}
	for name, folder := range o.Folders {
		c := &counter{FS: folder}
		s.counts[name], counted[name] = c, c
	}
	all, ok := filesync.NewFSSyncProvider(counted).(filesync.FileSyncServer)
	some, ok2 := filesync.NewFSSyncProvider(filesync.StaticDirSource(o.Folders)).(filesync.FileSyncServer)
	if !ok || !ok2 {
		stop()
		return nil, errors.New("BuildKit's library serves no files") // it cannot be
	}
	server := grpc.NewServer(
		grpc.WriteBufferSize(buffer), grpc.ReadBufferSize(buffer),
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
	)
	filesync.RegisterFileSyncServer(server, &service{FileSyncServer: all, counts: s.counts, ignore: some, broken: o.Broken, why: o.Why})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	meta := map[string][]string{headerID: {o.ID}, headerSharedKey: {o.SharedKey}}
	for name, svc := range server.GetServiceInfo() {
		for _, m := range svc.Methods {
			meta[headerMethod] = append(meta[headerMethod], session.MethodURL(name, m.Name))
		}
	}
	conn, err := dial(ctx, "h2c", meta)
	if err != nil {
		stop()
		return nil, fmt.Errorf("opening a session for files: %w", err)
	}
	s.running.Go(func() {
		_ = server.Serve(newListener(ctx, conn)) // it ends when the connection does, and the build says what that did to it
	})
	s.running.Go(func() {
		<-ctx.Done()
		_ = conn.Close() // there is nobody to tell
		server.Stop()
	})
	return s, nil
}

// Sent is what the daemon was sent of the folder with that name.
func (s *Session) Sent(name string) Sent {
	c := s.counts[name]
	if c == nil {
		return Sent{}
	}
	return Sent{Asked: c.asked.Load() > 0, Busy: c.asked.Load() > c.done.Load(), Files: c.files.Load(), Bytes: c.bytes.Load()}
}

// Close ends the session and what is being sent.
func (s *Session) Close() error {
	s.stop()
	s.running.Wait()
	return nil
}

// service sends the folders. The library's sender waits for ever after a file that
// it cannot read to its end: the stream is ended for it.
type service struct {
	filesync.FileSyncServer
	counts map[string]*counter
	ignore filesync.FileSyncServer // for what is not counted
	broken <-chan struct{}
	why    func() error
}

// DiffCopy implements filesync.FileSyncServer.
func (s *service) DiffCopy(stream filesync.FileSync_DiffCopyServer) error {
	send := s.FileSyncServer
	md, _ := metadata.FromIncomingContext(stream.Context())
	if only := md.Get("followpaths"); len(only) == 1 && only[0] == ".dockerignore" {
		send = s.ignore
	} else if name := md.Get("dir-name"); len(name) == 1 && s.counts[name[0]] != nil {
		c := s.counts[name[0]]
		c.asked.Add(1)
		defer c.done.Add(1)
	}
	done := make(chan error, 1)
	go func() { done <- send.DiffCopy(stream) }()
	select {
	case err := <-done:
		select {
		case <-s.broken: // what went wrong, and not what came of that
		default:
			return err
		}
	case <-s.broken:
	}
	return status.Error(codes.Aborted, s.why().Error())
}

// counter is a folder that knows what was sent of it.
type counter struct {
	fsutil.FS
	asked, done, files, bytes atomic.Int64
}

// Open implements fsutil.FS.
func (c *counter) Open(path string) (io.ReadCloser, error) {
	c.files.Add(1)
	f, err := c.FS.Open(path)
	if err != nil {
		return nil, err
	}
	return &countedFile{f, c}, nil
}

type countedFile struct {
	io.ReadCloser
	c *counter
}

// Read implements io.Reader.
func (f *countedFile) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	f.c.bytes.Add(int64(n))
	return n, err
}
