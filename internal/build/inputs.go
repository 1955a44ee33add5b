package build

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"sync"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/tonistiigi/fsutil"
)

// inputs are what the daemons may ask this build for, and nothing else. They
// hold no open files; several solves may share them.
type inputs struct {
	mounts    map[string]fsutil.FS
	session   []session.Attachable
	sharedKey string

	once   sync.Once
	broken chan struct{} // closed when a file could not be sent; why is set
	why    error
}

// fail notes the first file that could not be sent.
func (in *inputs) fail(err error) {
	in.once.Do(func() {
		in.why = hint.Wrap(err, "build context", "make it readable, or leave it out with a line in .dockerignore")
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

// openInputs checks that everything that the build will be asked for is there,
// before any daemon is contacted.
func openInputs(req request.Request, o Options) (*inputs, error) {
	in := &inputs{mounts: map[string]fsutil.FS{}, broken: make(chan struct{})}
	if dir := cmp.Or(req.Context.Dir, req.Dockerfile.Dir); dir != "" {
		in.sharedKey = sharedKey(o.Machine, dir)
	}
	if err := in.openContext(req); err != nil {
		return nil, err
	}
	if err := in.openDockerfile(req); err != nil {
		return nil, err
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

func (in *inputs) openContext(req request.Request) error {
	dir := req.Context.Dir
	if dir == "" {
		return nil
	}
	mount, err := openDir(dir, "build context", in.fail)
	if err != nil {
		return err
	}
	in.mounts[request.LocalContext] = mount
	return nil
}

// sharedKey names the folder that a build's files come from. The daemon keeps
// its copy of a folder under this key and compares only size and time, so the
// key must never be one that another folder, or another machine, could have.
func sharedKey(machine, dir string) string {
	sum := sha256.Sum256([]byte(machine + "\x00" + dir))
	return hex.EncodeToString(sum[:])
}

func openDir(dir, what string, failed func(error)) (fsutil.FS, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, hint.Wrap(err, what)
	}
	if !fi.IsDir() {
		return nil, hint.New(fmt.Sprintf("%s: %s is not a directory", what, dir))
	}
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, hint.Wrap(err, what)
	}
	return strictFS{FS: files, failed: failed}, nil
}

// apply puts the inputs into a solve.
func (in *inputs) apply(opt *client.SolveOpt) {
	opt.LocalMounts = in.mounts
	opt.SharedKey = in.sharedKey
	opt.Session = append(opt.Session, in.session...)
}
