package build

import (
	"context"
	"slices"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/filesession"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/snapshot"
	"github.com/moby/buildkit/identity"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// sessionPrefix begins the names of sessions that are named by what they send.
const sessionPrefix = "berth-"

// folderSessions send the local folders of builds, each over a session of its own:
// the daemon knows a folder by the session that sends it. One whose session is named
// by its content is not asked for again while the daemon has it, whoever builds; one
// that several targets want as it is is asked for once.
//
// Each build's own session offers the same folders. A daemon whose frontend does not
// know of the others (before v0.16) asks that, as does one that does not find them:
// of two processes with the same name, the one that ends takes the name with it.
//
// Where a cache is exported no session is named by what it sends: what the daemon
// finds by such a name has a key that it leaves out of caches, with all that follows
// from it. With a random name it finds its results by the content of files, which it
// exports. Nor is one for a target that others are built upon: their builds fetch its
// folders too, and when another process has taken the name away, their own sessions
// would be asked, which have other folders under the same names.
type folderSessions struct {
	list []*filesession.Session
}

// folderUse is one folder under its name in one part.
type folderUse struct {
	job  *job
	part *part
	name string
}

// folderKind tells folders apart that need sessions of their own.
type folderKind struct {
	on    *member
	named string // by its content, and by what the build calls it; or else
	taken *snapshot.Snapshot
	live  string // its path
}

// shareFolders starts the sessions; the caller closes them.
func shareFolders(ctx context.Context, jobs []*job, o Options) (*folderSessions, error) {
	uses := map[folderKind][]folderUse{}
	exporting := slices.ContainsFunc(jobs, func(j *job) bool { return j.req.ExportsCache() })
	for _, j := range jobs {
		for i := range j.parts {
			p := &j.parts[i]
			p.sessions = map[string]folderSession{}
			if p.Node.Driver == builder.DriverDocker {
				continue // an engine has its own way of starting sessions
			}
			for name, folder := range j.in.mounts {
				kind := folderKind{on: p.member}
				switch f := folder.(type) {
				case strictFS:
					kind.live = f.dir.Name()
				case taken:
					if kind.named = f.Name().ID; exporting || p.ties.given() {
						kind.named, kind.taken = "", f.Snapshot
					}
				default:
					if name == request.LocalDockerfile {
						kind.named = j.in.dockerfile
					}
				}
				if kind.named != "" {
					// Of two sessions with one name the daemon asks the later, for what
					// only the other may have.
					kind.named = folderKey("", o.Contexts.Salt, name, kind.named)
				}
				if kind.live != "" || kind.named != "" || kind.taken != nil {
					uses[kind] = append(uses[kind], folderUse{job: j, part: p, name: name})
				}
			}
		}
	}
	shared := &folderSessions{}
	for kind, list := range uses {
		if kind.live != "" && len(list) < 2 {
			continue
		}
		if err := shared.start(ctx, kind, o.Machine, list); err != nil {
			shared.close()
			return nil, err
		}
	}
	return shared, nil
}

// start serves one folder, under every name that it has in the builds.
func (f *folderSessions) start(ctx context.Context, kind folderKind, machine string, uses []folderUse) error {
	o := filesession.Options{Folders: map[string]fsutil.FS{}, ID: identity.NewID(), SharedKey: identity.NewID()}
	if kind.named != "" {
		o.ID = sessionPrefix + kind.named
	}
	for _, u := range uses {
		if _, ok := o.Folders[u.name]; ok {
			continue
		}
		folder := u.job.in.mounts[u.name]
		switch f := folder.(type) {
		case strictFS:
			f.failed = func(err error) { // whichever build asked: all of them want it
				for _, u := range uses {
					u.job.in.fail(err)
				}
			}
			folder = f
		case taken:
			o.Broken, o.Why = f.Broken(), f.Moved
			o.SharedKey = folderKey(machine, f.Path(), f.Announce(ctx)) // the daemon adds the name itself
		}
		var err error
		if o.Folders[u.name], err = offered(folder); err != nil {
			return err
		}
	}
	on := uses[0].part
	dial := on.conn.SessionDialer()
	if zips(on.Node, on.conn.Version().Version) {
		dial = on.conn.SessionOver(filesession.Compressing(on.conn.Client().ControlClient()))
	}
	s, err := filesession.Start(ctx, dial, o)
	if err != nil {
		return nil //nolint:nilerr // the build's own session offers it too, and its solve finds out what is wrong
	}
	f.list = append(f.list, s)
	for _, u := range uses {
		one := folderSession{Session: s, id: o.ID, name: u.name}
		if f, ok := u.job.in.mounts[u.name].(taken); ok {
			one.snapshot = f.Snapshot
		}
		u.part.sessions[u.name] = one
	}
	return nil
}

// folderSession is what sends a folder of a part.
type folderSession struct {
	*filesession.Session
	id       string
	name     string             // of the folder
	snapshot *snapshot.Snapshot // nil where the folder is sent as it is
}

// nobodys takes the owner out of a file's description, as BuildKit's client does.
func nobodys(_ string, st *fstypes.Stat) fsutil.MapResult {
	st.Uid, st.Gid = 0, 0
	return fsutil.MapResultKeep
}

func (f *folderSessions) close() {
	for _, s := range f.list {
		_ = s.Close() // the builds are over
	}
}
