package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/snapshot"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
)

// inputs are what the daemons may ask this build for, and nothing else. Several
// solves may share them. Whoever opened them closes them.
type inputs struct {
	mounts    map[string]fsutil.FS
	layouts   map[string]content.Store
	archive   *archive // nil unless the context is one
	session   []session.Attachable
	sharedKey string // of the copies that daemons keep; one that no daemon has, until takeSnapshots

	taking     map[string]func() (*snapshot.Snapshot, error) // by the name in mounts
	ignoreFile []byte                                        // that belongs to the Dockerfile; nil where there is none
	dockerfile string                                        // names what is in the Dockerfile's folder, by its content
	opened     []io.Closer

	once   sync.Once
	broken chan struct{} // closed when something could not be sent; why is set
	unsent unsent        // what a daemon could not fetch, whoever was to send it
	direct sync.Map      // names of folders that the build's own session was asked for
	why    error
}

// fail notes the first thing that could not be sent, or that the daemon should
// not have asked for.
func (in *inputs) fail(err error) {
	in.once.Do(func() {
		in.why = err
		close(in.broken)
	})
}

// failure is what fail was told; nil when all is well.
func (in *inputs) failure() error {
	select {
	case <-in.broken:
		return in.why
	default:
		return nil
	}
}

func (in *inputs) close() {
	for _, c := range in.opened {
		_ = c.Close() // all were only read
	}
	if in.archive != nil {
		in.archive.close()
	}
}

// openInputs checks that everything that the build will be asked for is there,
// before any daemon is contacted.
func openInputs(req request.Request, o Options) (_ *inputs, err error) {
	in := &inputs{mounts: map[string]fsutil.FS{}, layouts: map[string]content.Store{}, broken: make(chan struct{}), sharedKey: identity.NewID()}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	if err := in.openContexts(req, o); err != nil {
		return nil, err
	}
	if err := in.openDockerfile(req); err != nil {
		return nil, err
	}
	if o.Contexts.Full && in.dockerfile != "" {
		in.dockerfile = identity.NewID() // nobody else is to be asked for it
	}
	in.session = append(in.session, authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: o.Auth,
	}))
	if len(req.Secrets) > 0 {
		store, err := openSecrets(req.Secrets, o.LookupEnv)
		if err != nil {
			return nil, err
		}
		in.session = append(in.session, secretsprovider.NewSecretProvider(store))
	}
	if len(req.SSH) > 0 {
		provider, err := openSSH(req.SSH, o.LookupEnv)
		if err != nil {
			return nil, err
		}
		in.session = append(in.session, provider)
	}
	return in, nil
}

// openContexts opens what is sent from here; the rest is fetched by the daemon.
func (in *inputs) openContexts(req request.Request, o Options) error {
	switch c := req.Context; {
	case c.Dir != "":
		if err := in.openFolder(request.LocalContext, c.Dir, "build context"); err != nil {
			return err
		}
	case c.Empty:
		in.mounts[request.LocalContext] = staticfs.NewFS()
	case c.Upload != "":
		in.archive = &archive{id: c.Upload, from: o.Stdin, failed: in.fail}
		in.session = append(in.session, in.archive)
	}
	for _, c := range req.Contexts {
		what := fmt.Sprintf("build context %q", c.Name)
		switch c.Kind {
		case buildflag.ContextFolder:
			if err := in.openFolder(request.NamedLocal(c.Name), c.Value, what); err != nil {
				return err
			}
		case buildflag.ContextLayout:
			store, err := openLayout(c)
			if err != nil {
				return hint.Wrap(err, what)
			}
			in.opened = append(in.opened, store)
			in.layouts[request.LayoutStore(c.Digest)] = store
		}
	}
	return nil
}

func (in *inputs) openFolder(name, dir, what string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return hint.Wrap(err, what)
	}
	if !fi.IsDir() {
		return hint.New(fmt.Sprintf("%s: %s is not a directory", what, dir))
	}
	folder, err := newStrictFS(dir, what, in.fail)
	if err != nil {
		return hint.Wrap(err, what)
	}
	in.opened = append(in.opened, folder)
	in.mounts[name] = folder
	return nil
}

// folderKey names the copy that a daemon keeps of folders. The daemon compares only
// sizes and times with it, so that no other folders, and no other machine, may have
// the same key.
func folderKey(machine string, parts ...string) string {
	h := sha256.New()
	for _, p := range append([]string{machine}, parts...) {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}

// apply puts the inputs into a solve. The folders are not its LocalMounts: BuildKit's
// client would ask for a description of all that is in them, before it leaves out
// what the daemon does not want.
func (in *inputs) apply(opt *client.SolveOpt) error {
	folders := filesync.StaticDirSource{}
	for name, folder := range in.mounts {
		offered, err := offered(folder)
		if err != nil {
			return err
		}
		folders[name] = noted{offered, func() { in.direct.Store(name, true) }}
	}
	if len(folders) > 0 {
		opt.Session = append(opt.Session, filesync.NewFSSyncProvider(folders))
	}
	opt.OCIStores = in.layouts
	opt.SharedKey = in.sharedKey
	opt.Session = append(opt.Session, in.session...)
	return nil
}

// noted is a folder that tells when it is asked for.
type noted struct {
	fsutil.FS
	asked func()
}

// Walk implements fsutil.FS.
func (n noted) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	n.asked()
	return n.FS.Walk(ctx, target, fn)
}

// offered is a folder as daemons see it: without owners, and without what is staged
// in it. A snapshot has neither, and is not asked for what it leaves out.
func offered(folder fsutil.FS) (fsutil.FS, error) {
	if _, ok := folder.(taken); ok {
		return folder, nil
	}
	return fsutil.NewFilterFS(unstaged{folder}, &fsutil.FilterOpt{Map: nobodys})
}
