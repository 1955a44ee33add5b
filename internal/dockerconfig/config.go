// Package dockerconfig reads what the docker command line has configured: its
// folder, registry credentials, the current context, and how to reach the
// Docker engine.
//
// It is not for writing any of it, and not for builders, whose state is in
// internal/state.
//
// Rules: the environment comes in as a function and is not read otherwise;
// config.json is read once by Load, contexts and certificates only when an
// engine is asked for. What a file holds is never repeated in an error: there
// are credentials in it.
package dockerconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/opts"

	"github.com/berthbuild/berth/internal/hint"
)

// DefaultContext is the name of the context that is not stored: the engine of
// DOCKER_HOST, or this machine's.
const DefaultContext = "default"

const (
	// maxConfig bounds config.json and a context's description in bytes.
	maxConfig = 10 << 20
	// maxPEM bounds a certificate or key in bytes.
	maxPEM = 1 << 20
)

// Input is what the user said. Empty fields were not given.
type Input struct {
	Home      string              // the user's home folder
	ConfigDir string              // --config or DOCKER_CONFIG
	Host      string              // --host
	Context   string              // --context
	Env       func(string) string // the environment; nil is an empty one
}

// Config is docker's configuration. It can be used by several goroutines.
type Config struct {
	in   Input
	dir  string
	file *configfile.ConfigFile

	defaultStore sync.Once
}

// Load reads config.json, which need not exist. The error names the file that
// cannot be read.
func Load(in Input) (*Config, error) {
	if in.Env == nil {
		in.Env = func(string) string { return "" }
	}
	if in.Host != "" && in.Context != "" {
		return nil, hint.New("--host and --context contradict each other", "give only one of them")
	}
	c := &Config{in: in, dir: in.ConfigDir}
	if c.dir == "" {
		c.dir = in.Env(config.EnvOverrideConfigDir)
	}
	if c.dir == "" {
		if in.Home == "" {
			return nil, hint.New("docker's configuration folder is unknown: there is no home folder", "export DOCKER_CONFIG=DIR")
		}
		c.dir = filepath.Join(in.Home, ".docker")
	}
	path := filepath.Join(c.dir, config.ConfigFileName)
	c.file = configfile.New(path)
	data, err := readBounded(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = plain(c.file.LoadFromReader(strings.NewReader(string(data))))
	}
	if err != nil {
		return nil, hint.Wrap(err, "reading docker's configuration "+path, "repair the file, or choose another folder: export DOCKER_CONFIG=DIR")
	}
	return c, nil
}

// plain takes the file's content out of a decoding error: encoding/json
// repeats characters and numbers, which may be part of a password.
func plain(err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("is not valid JSON at byte %d", syntax.Offset)
	case errors.As(err, &typ):
		return fmt.Errorf("has a value of the wrong type at byte %d: want %s", typ.Offset, typ.Type)
	}
	return err
}

// readBounded reads a file whole, unless it is longer than limit bytes. The
// error does not name the path.
func readBounded(path string, limit int64) ([]byte, error) {
	fi, err := os.Stat(path) // before opening, which would block on a pipe
	switch {
	case err != nil:
		return nil, withoutPath(err)
	case fi.IsDir():
		return nil, errors.New("is a directory, not a file")
	case fi.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0:
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("is longer than %d bytes", limit)
	}
	return data, withoutPath(err)
}

func withoutPath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Dir is docker's configuration folder, whether it exists or not.
func (c *Config) Dir() string { return c.dir }

// File is config.json, for registry credentials. Where it names no helper and
// has no credentials, the one that docker would use on this machine is set.
// It must not be changed.
func (c *Config) File() *configfile.ConfigFile {
	c.defaultStore.Do(func() {
		if !c.file.ContainsAuth() {
			c.file.CredentialsStore = credentials.DetectDefaultStore(c.file.CredentialsStore)
		}
	})
	return c.file
}

// ContextName is the docker context in force, by docker's order: --host (the
// default context with that host), --context, DOCKER_HOST, DOCKER_CONTEXT,
// config.json. Whether it exists is not looked up.
func (c *Config) ContextName() string {
	switch {
	case c.in.Host != "":
		return DefaultContext
	case c.in.Context != "":
		return c.in.Context
	case c.in.Env("DOCKER_HOST") != "":
		return DefaultContext
	case c.in.Env("DOCKER_CONTEXT") != "":
		return c.in.Env("DOCKER_CONTEXT")
	case c.file.CurrentContext != "":
		return c.file.CurrentContext
	}
	return DefaultContext
}

// CurrentKey is what the choice of a builder hangs on (state.Store.Current):
// the context's name, or the engine's host when that is the default one.
func (c *Config) CurrentKey() (string, error) {
	if name := c.ContextName(); name != DefaultContext {
		return name, nil
	}
	return c.defaultHost()
}

// defaultHost is the host of the default context, in docker's normal form.
func (c *Config) defaultHost() (string, error) {
	from, raw := "--host", c.in.Host
	if raw == "" {
		from, raw = "DOCKER_HOST", c.in.Env("DOCKER_HOST")
	}
	host, err := opts.ParseHost(c.tlsOn(), raw)
	if err != nil {
		if strings.Contains(raw, "@") {
			err = errors.New("it cannot be parsed") // the cause may repeat a password
		}
		return "", hint.Wrap(err, fmt.Sprintf("%s %q is not a docker host", from, redact(raw)),
			"unix:///var/run/docker.sock", "tcp://HOST:2376", "ssh://USER@HOST")
	}
	return host, nil
}

// tlsOn tells whether the default context speaks TLS over TCP.
func (c *Config) tlsOn() bool {
	return c.in.Env("DOCKER_TLS_VERIFY") != "" || c.in.Env("DOCKER_TLS") != ""
}

// redact hides user and password of a host.
func redact(host string) string {
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		scheme, rest = "", host
	}
	i := strings.LastIndexByte(rest, '@')
	if i < 0 {
		return host
	}
	if ok {
		scheme += "://"
	}
	return scheme + "…" + rest[i:]
}
