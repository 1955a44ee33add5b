package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/beneath"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/snapshot"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
)

// ContextSync is how local folders get to the daemons.
type ContextSync struct {
	// Full sends them as they are, whole, and believes nothing that is known of
	// them from earlier times.
	Full bool
	// Salt keeps apart the names of folders of different projects; see
	// snapshot.Options.
	Salt string
	// Store remembers what files held; nil remembers nothing.
	Store *snapshot.Store
}

// How much is read to give a folder a name by its content. Reading a gigabyte takes
// about a second; sending it to a daemon far away takes many.
const (
	hashLimitNear = 256 << 20
	hashLimitFar  = 2 << 30
)

// maxIgnoreFile bounds a .dockerignore, as BuildKit does.
const maxIgnoreFile = 16 << 20

const ignoreName = ".dockerignore"

// snapshots are those that a run has taken, each once, whoever wants it.
type snapshots struct {
	o    snapshot.Options // without what differs from folder to folder
	ctx  context.Context  //nolint:containedctx // it lives as long as the run
	full bool

	cancel context.CancelFunc

	mu    sync.Mutex
	taken map[string]func() (*snapshot.Snapshot, error)
	ended []func()
}

// newSnapshots is for one run; it is closed with it.
func newSnapshots(ctx context.Context, b *builder.Builder, o Options) *snapshots {
	limit := int64(hashLimitNear)
	if slices.ContainsFunc(b.Nodes, func(n builder.Node) bool { return far(n) }) {
		limit = hashLimitFar
	}
	ctx, cancel := context.WithCancel(ctx)
	return &snapshots{
		o:   snapshot.Options{HashLimit: limit, Store: o.Contexts.Store, Salt: o.Contexts.Salt, Machine: o.Machine},
		ctx: ctx, cancel: cancel, full: o.Contexts.Full, taken: map[string]func() (*snapshot.Snapshot, error){},
	}
}

// far tells whether a node is not on this machine.
func far(n builder.Node) bool {
	e, err := endpoint.Parse(n.Endpoint)
	return err == nil && !e.Local()
}

// zips tells whether a session with a node may be compressed. Since BuildKit v0.11
// daemons say their version, and a daemon that sends traces knows gzip, which is older
// still; one that does not know it would refuse the session.
func zips(n builder.Node, version string) bool { return far(n) && version != "" }

// begin takes a snapshot of dir in the background, if it has not begun. The
// function waits for it.
func (s *snapshots) begin(dir string, excludes, always []string) func() (*snapshot.Snapshot, error) {
	o := s.o
	o.Excludes, o.Always = excludes, always
	key := strings.Join(append(append([]string{dir, fmt.Sprint(len(excludes))}, excludes...), always...), "\x00")
	s.mu.Lock()
	defer s.mu.Unlock()
	if wait, ok := s.taken[key]; ok {
		return wait
	}
	wait := sync.OnceValues(func() (*snapshot.Snapshot, error) { return snapshot.Take(s.ctx, dir, o) })
	s.taken[key] = wait
	go wait() //nolint:errcheck // whoever wants it asks again
	s.ended = append(s.ended, func() {
		if snap, err := wait(); err == nil {
			_ = snap.Close() // it was only read
		}
	})
	return wait
}

func (s *snapshots) close() {
	s.cancel() // a build that ends early does not wait for a large folder
	for _, end := range s.ended {
		end()
	}
}

// beginSnapshots has the folders of a build looked at, beside the connecting to the
// nodes.
func (in *inputs) beginSnapshots(s *snapshots) {
	if s.full {
		return
	}
	for name, folder := range in.mounts {
		live, ok := folder.(strictFS)
		if !ok {
			continue
		}
		excludes, always, err := in.ignored(name, live.dir)
		if err != nil {
			continue // the frontend will say so
		}
		if in.taking == nil {
			in.taking = map[string]func() (*snapshot.Snapshot, error){}
		}
		in.taking[name] = s.begin(live.dir.Name(), excludes, always)
	}
}

// ignored are the patterns by which the frontend will leave out files of a folder,
// and the files that it reads to know them.
func (in *inputs) ignored(name string, dir *beneath.Dir) (excludes, always []string, err error) {
	always = []string{ignoreName}
	data := in.ignoreFile
	if name != request.LocalContext || data == nil {
		data, err = readIgnoreFile(dir)
	}
	if err != nil || len(data) == 0 {
		return nil, always, err
	}
	excludes, err = ignorefile.ReadAll(bytes.NewReader(data))
	return excludes, always, err
}

func readIgnoreFile(dir *beneath.Dir) ([]byte, error) {
	f, err := dir.Open(ignoreName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxIgnoreFile+1))
	if err == nil && len(data) > maxIgnoreFile {
		err = fmt.Errorf("%s is larger than %d MiB", ignoreName, maxIgnoreFile>>20)
	}
	return data, err
}

// takeSnapshots puts the snapshots in the place of the folders. Where there is one
// that has trouble, the folder is sent as it is, under a key that no copy of a
// daemon has, unless sizes and times are all that can be compared.
func (in *inputs) takeSnapshots(ctx context.Context, o Options) error {
	var key []string
	for _, name := range slices.Sorted(maps.Keys(in.mounts)) {
		live, ok := in.mounts[name].(strictFS)
		if !ok {
			continue
		}
		snap, err := in.snapshotOf(name, live.what, o.Progress)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if o.Debug {
			explainSnapshot(o.Progress, live.what, snap, err)
		}
		switch {
		case errors.Is(err, snapshot.ErrBlind):
			key = append(key, name, live.dir.Name())
			continue
		case err != nil:
			key = append(key, name, live.dir.Name(), identity.NewID())
			continue
		}
		snap.OnMoved(func(err error) { in.fail(&Moved{What: live.what, Cause: err}) })
		in.mounts[name] = taken{snap, live}
		key = append(key, name, snap.Path(), snap.Announce(ctx))
	}
	if len(key) > 0 {
		in.sharedKey = folderKey(o.Machine, key...)
	}
	return nil
}

// explainSnapshot says how a folder is going to be sent, and why.
func explainSnapshot(p *progress.Printer, what string, snap *snapshot.Snapshot, err error) {
	step := p.Step("[internal] look at " + what)
	switch {
	case errors.Is(err, errNotTaken):
		step.Log("it is sent as it is: " + err.Error())
	case err != nil:
		step.Log(fmt.Sprintf("it is sent as it is, since it has no name: %v", err))
	default:
		by := "its content"
		if !snap.Name().Content {
			by = "the times and inodes of its files"
		}
		step.Log(fmt.Sprintf("%s checked in %s, of which %s were read; named by %s: %s", counted(snap.Files()), seconds(snap.Took()), grouped(snap.Read()), by, snap.Name().ID))
	}
	step.Done(nil)
}

// errNotTaken is why there is no snapshot of a folder.
var errNotTaken = errors.New("so it was asked for (--context-sync=full), an input can be read once only, or the .dockerignore cannot be read")

// taken is a folder as it was when it was looked at.
type taken struct {
	*snapshot.Snapshot
	live strictFS
}

// Walk implements fsutil.FS. A daemon names the target when it asks what links
// lead to.
func (f taken) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	if err := f.live.within(target); err != nil {
		return err
	}
	return f.Snapshot.Walk(ctx, target, fn)
}

// lookPatience is how long a folder may be looked at before that is said.
const lookPatience = time.Second

// snapshotOf waits for the snapshot of a folder, which ends with the run at the
// latest.
func (in *inputs) snapshotOf(name, what string, p *progress.Printer) (*snapshot.Snapshot, error) {
	take, ok := in.taking[name]
	if !ok {
		return nil, errNotTaken
	}
	told := time.AfterFunc(lookPatience, func() {
		step := p.Step("[internal] look at " + what)
		_, _ = take() // whoever waits says what went wrong
		step.Done(nil)
	})
	snap, err := take()
	told.Stop()
	if err != nil {
		return nil, err
	}
	return snap, snap.Trouble()
}

// Moved is a folder that changed while it was sent, so that what was sent is not
// what it was taken for.
type Moved struct {
	What  string // as "build context"
	Cause error  // a *snapshot.Moved
}

// Error says which file changed.
func (m *Moved) Error() string {
	return fmt.Sprintf("%s changed while it was sent: %v", m.What, m.Cause)
}

// Unwrap gives the cause.
func (m *Moved) Unwrap() error { return m.Cause }

// Hints implements hint.Hinter.
func (m *Moved) Hints() []string {
	return []string{"build again when nothing writes there, leave the file out with a line in .dockerignore, or send the folder as it is: --context-sync=full"}
}

// Elsewhere is a folder that the daemon could not fetch, and not by our doing: it
// asked another process, which builds the same content and has ended, or has seen
// its folder change.
type Elsewhere struct{ Cause error }

// Error is that of the daemon.
func (e *Elsewhere) Error() string { return e.Cause.Error() }

// Unwrap gives the cause.
func (e *Elsewhere) Unwrap() error { return e.Cause }

// unsent are steps that load a folder and have failed. When a build fails for
// another reason, those that were under way do, too.
type unsent struct {
	mu    sync.Mutex
	steps map[digest.Digest]bool
}

func (u *unsent) note(step digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.steps == nil {
		u.steps = map[digest.Digest]bool{}
	}
	u.steps[step] = true
}

// failed tells whether a build's failure is that of such a step.
func (u *unsent) failed(err error) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	var v *errdefs.VertexError
	if len(u.steps) == 0 || !errors.As(err, &v) {
		return len(u.steps) > 0
	}
	return u.steps[digest.Digest(v.Digest)]
}

// snapped tells whether a folder is offered under a name that others may have too.
func (in *inputs) snapped() bool {
	for _, folder := range in.mounts {
		if _, ok := folder.(taken); ok {
			return true
		}
	}
	return false
}

// repeatable tells whether a request's inputs can be read twice.
func repeatable(r request.Request) bool {
	once := func(path string) bool {
		fi, err := os.Stat(path)
		return err == nil && !fi.Mode().IsRegular() && !fi.IsDir()
	}
	if r.Context.Upload != "" || r.Dockerfile.Dir != "" && once(filepath.Join(r.Dockerfile.Dir, r.DockerfileName())) {
		return false
	}
	return !slices.ContainsFunc(r.Secrets, func(s buildflag.Secret) bool { return s.File != "" && once(s.File) })
}

// distrust has the next builds of the folders not use what a daemon, which was lost,
// may have of them.
func (in *inputs) distrust(ctx context.Context) {
	for _, folder := range in.mounts {
		if f, ok := folder.(taken); ok {
			f.Distrust(ctx)
		}
	}
}

// again runs f, and once more without snapshots when a folder has changed under
// the first, or was to be sent by somebody who did not: such a build has nothing of
// that folder in it, so that it is the same as if it had begun later. Each run of f
// opens and closes all that it needs. What can be done only once has no snapshots.
func again[T any](ctx context.Context, o Options, repeatable bool, f func(Options) (T, error)) (T, error) {
	if !repeatable {
		o.Contexts.Full = true
	}
	res, err := f(o)
	var moved *Moved
	var elsewhere *Elsewhere
	if !errors.As(err, &moved) && !errors.As(err, &elsewhere) || ctx.Err() != nil || !repeatable {
		return res, err
	}
	step := o.Progress.Step("[internal] sending the context as it is")
	if moved != nil {
		step.Log(moved.Error())
		step.Log("hint: leave out what is written all the time with a line in .dockerignore")
	} else {
		step.Log("another build of the same content did not send it")
	}
	step.Done(nil)
	o.Contexts.Full = true
	return f(o)
}
