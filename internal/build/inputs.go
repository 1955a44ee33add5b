package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// inputs are what the daemons may ask this build for, and nothing else. They
// hold no open files; several solves may share them.
type inputs struct {
	mounts    map[string]fsutil.FS
	session   []session.Attachable
	sharedKey string
}

// openInputs checks that everything that the build will be asked for is there,
// before any daemon is contacted.
func openInputs(req request.Request, o Options) (*inputs, error) {
	in := &inputs{mounts: map[string]fsutil.FS{}}
	if err := in.openContext(req, o); err != nil {
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

func (in *inputs) openContext(req request.Request, o Options) error {
	dir := req.Context.Dir
	if dir == "" {
		return nil
	}
	mount, err := openDir(dir, "build context")
	if err != nil {
		return err
	}
	in.mounts[request.LocalContext] = mount
	// The daemon keeps its copy of a folder under this key and compares only
	// size and time, so the key must never be one that another folder, or
	// another machine, could have.
	sum := sha256.Sum256([]byte(o.Machine + "\x00" + dir))
	in.sharedKey = hex.EncodeToString(sum[:])
	return nil
}

func (in *inputs) openDockerfile(req request.Request) error {
	d := req.Dockerfile
	switch {
	case d.Inline != nil:
		files := staticfs.NewFS()
		files.Add(req.DockerfileName(), &fstypes.Stat{Mode: 0o600}, d.Inline)
		in.mounts[request.LocalDockerfile] = files
		return nil
	case d.Dir == "":
		return nil // inside a remote context
	}
	mount, err := openDir(d.Dir, "folder of the Dockerfile")
	if err != nil {
		return err
	}
	path := filepath.Join(d.Dir, req.DockerfileName())
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && d.Name == request.DefaultDockerfile {
		// The frontend takes this spelling too.
		fi, err = os.Stat(filepath.Join(d.Dir, strings.ToLower(d.Name)))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hint.Wrap(fmt.Errorf("no such file: %s%w", path, quiet{err}), "failed to read dockerfile",
			"name another Dockerfile: berth build -f FILE …")
	case err != nil:
		return hint.Wrap(err, "failed to read dockerfile")
	case fi.IsDir():
		return hint.New(fmt.Sprintf("failed to read dockerfile: %s is a directory", path), "name the file in it: -f "+filepath.Join(path, "Dockerfile"))
	}
	in.mounts[request.LocalDockerfile] = mount
	return nil
}

// quiet keeps an error in the chain without its text.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

func openDir(dir, what string) (fsutil.FS, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, hint.Wrap(err, what)
	}
	if !fi.IsDir() {
		return nil, hint.New(fmt.Sprintf("%s: %s is not a directory", what, dir))
	}
	return fsutil.NewFS(dir)
}

// apply puts the inputs into a solve.
func (in *inputs) apply(opt *client.SolveOpt) {
	opt.LocalMounts = in.mounts
	opt.SharedKey = in.sharedKey
	opt.Session = append(opt.Session, in.session...)
}

// secretStore answers for the secrets that were granted on the command line.
// Files are read when asked for, so that nothing secret is kept.
type secretStore map[string]func() ([]byte, error)

// GetSecret implements secrets.SecretStore.
func (s secretStore) GetSecret(_ context.Context, id string) ([]byte, error) {
	read, ok := s[id]
	if !ok {
		return nil, secrets.ErrNotFound
	}
	return read()
}

func openSecrets(list []buildflag.Secret, lookup func(string) (string, bool)) (secretStore, error) {
	store := secretStore{}
	for _, s := range list {
		if s.Env == "" && s.File == "" {
			// The short form "id=NAME": a variable if there is one, else a file.
			if _, ok := lookup(s.ID); ok {
				s.Env = s.ID
			} else {
				s.File = s.ID
			}
		}
		if s.Env != "" {
			value, _ := lookup(s.Env)
			if len(value) > secretsprovider.MaxSecretSize {
				return nil, tooBig(s.ID)
			}
			store[s.ID] = func() ([]byte, error) { return []byte(value), nil }
			continue
		}
		fi, err := os.Stat(s.File)
		switch {
		case err != nil:
			return nil, hint.Wrap(err, fmt.Sprintf("--secret id=%s", s.ID), fmt.Sprintf("name its file: --secret id=%s,src=FILE", s.ID))
		case fi.IsDir():
			return nil, hint.New(fmt.Sprintf("--secret id=%s: %s is a directory", s.ID, s.File))
		case fi.Size() > secretsprovider.MaxSecretSize:
			return nil, tooBig(s.ID)
		}
		store[s.ID] = func() ([]byte, error) { return os.ReadFile(s.File) }
	}
	return store, nil
}

func tooBig(id string) error {
	return hint.New(fmt.Sprintf("--secret id=%s is larger than BuildKit allows (%d KiB)", id, secretsprovider.MaxSecretSize>>10))
}

func openSSH(list []buildflag.SSH, lookup func(string) (string, bool)) (session.Attachable, error) {
	var configs []sshprovider.AgentConfig
	for _, s := range list {
		paths := s.Paths
		if len(paths) == 0 {
			agent, _ := lookup("SSH_AUTH_SOCK")
			if agent == "" {
				return nil, hint.New(fmt.Sprintf("--ssh %s: no ssh agent is running (SSH_AUTH_SOCK is not set)", s.ID),
					"start one: eval $(ssh-agent) && ssh-add", fmt.Sprintf("or give a key: --ssh %s=FILE", s.ID))
			}
			paths = []string{agent}
		}
		configs = append(configs, sshprovider.AgentConfig{ID: s.ID, Paths: paths})
	}
	provider, err := sshprovider.NewSSHAgentProvider(configs)
	return provider, hint.Wrap(err, "--ssh")
}
