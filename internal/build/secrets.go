package build

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
)

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
		if err := readable(s.File); err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("--secret id=%s", s.ID))
		}
		store[s.ID] = func() ([]byte, error) { return readSecret(s.ID, s.File) }
	}
	return store, nil
}

// readSecret reads the file as it is when the daemon asks; it may have grown.
func readSecret(id, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, secretsprovider.MaxSecretSize+1))
	if err == nil && len(data) > secretsprovider.MaxSecretSize {
		return nil, tooBig(id)
	}
	return data, err
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

// readable opens a regular file to see whether that will work later. Anything
// else is left alone: opening a pipe takes what is in it.
func readable(path string) error {
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}
