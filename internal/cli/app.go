package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/state"
	"github.com/berthbuild/berth/internal/telemetry"
	"github.com/berthbuild/berth/internal/ui"
)

// app is what every command shares: streams, environment, global flags, and
// the state and configuration behind them, opened when first needed.
type app struct {
	io        *ui.Streams
	lookupEnv func(string) (string, bool)
	environ   func() []string // all of the environment, as NAME=VALUE; may be nil
	dir       string          // the working directory
	args      []string        // as we were called, the program's name first; may be nil
	asPlugin  bool            // docker called us
	notices   notices

	traces *telemetry.Tracing // of the command that runs; nil where nothing is traced

	builderFlag string
	debug       bool
	docker      dockerFlags

	configOnce sync.Once
	config     *dockerconfig.Config
	configErr  error

	registryOnce sync.Once
	registry     dial.Registry
}

// dockerFlags are docker's own global flags, which it passes to its plugins.
type dockerFlags struct {
	config, context, host, logLevel string
	tls, tlsVerify                  bool
	tlsCACert, tlsCert, tlsKey      string
}

func (a *app) env(name string) string {
	v, _ := a.lookupEnv(name)
	return v
}

// home is the user's folder; HOME first, since tests and CI set it.
func (a *app) home() string {
	if h := a.env("HOME"); h != "" {
		return h
	}
	h, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return h
}

// dockerDir is where docker keeps its configuration.
func (a *app) dockerDir() string {
	switch {
	case a.docker.config != "":
		return a.docker.config
	case a.env("DOCKER_CONFIG") != "":
		return a.env("DOCKER_CONFIG")
	}
	return filepath.Join(a.home(), ".docker")
}

// stateDir is where builders are kept, shared with buildx.
func (a *app) stateDir() string {
	if d := a.env("BUILDX_CONFIG"); d != "" {
		return d
	}
	return filepath.Join(a.dockerDir(), "buildx")
}

// cacheDir is for files that may be lost: they cost time only.
func (a *app) cacheDir() string {
	base := a.env("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) {
		base = filepath.Join(a.home(), ".cache")
		if local := a.env("LOCALAPPDATA"); runtime.GOOS == "windows" && local != "" {
			base = local
		} else if runtime.GOOS == "darwin" {
			base = filepath.Join(a.home(), "Library", "Caches")
		}
	}
	return filepath.Join(base, "berth")
}

// dockerConfig reads docker's configuration once.
func (a *app) dockerConfig() (*dockerconfig.Config, error) {
	a.configOnce.Do(func() {
		a.config, a.configErr = dockerconfig.Load(dockerconfig.Input{
			Home: a.home(), ConfigDir: a.dockerDir(),
			Host: a.docker.host, Context: a.docker.context,
			Env: a.dockerEnv,
		})
	})
	return a.config, a.configErr
}

// dialEnv is what the schemes may know of the world.
func (a *app) dialEnv() dial.Env {
	return dial.Env{
		Home: a.home(), Dir: a.dir, LookupEnv: a.lookupEnv, Docker: a.dockerConfig,
		Ask: a.asker(), Warn: func(text string) { a.warn("%s", text) },
	}
}

// dockerEnv is the environment as docker's own flags change it.
func (a *app) dockerEnv(name string) string {
	if name == "DOCKER_TLS_VERIFY" && (a.docker.tls || a.docker.tlsVerify) {
		return "1"
	}
	return a.env(name)
}

func (a *app) store() *state.Store { return state.Open(a.stateDir()) }

func (a *app) service() *builder.Service {
	return a.withChoices(&builder.Service{
		Store: a.store(), Schemes: a.schemes(),
		Key: func() (string, error) {
			c, err := a.dockerConfig()
			if err != nil {
				return "", err
			}
			return c.CurrentKey()
		},
		Docker: a.dockerConfig,
	})
}

// builderName is the builder that the user named, or the URL of an endpoint: an
// argument, --builder, or BUILDX_BUILDER; empty means the chosen one.
func (a *app) builderName(args []string) string {
	switch {
	case len(args) > 0:
		return args[0]
	case a.builderFlag != "":
		return a.builderFlag
	}
	return a.env(envBuilder)
}

// waiting shows on stderr why a command has not gone on yet: one line that is
// rewritten on a terminal, a line for each new cause elsewhere.
type waiting struct {
	a     *app
	mu    sync.Mutex
	paces map[string]*remote.Pace // by node
	open  bool                    // a line on the terminal wants clearing
}

func (a *app) newWaiting() *waiting { return &waiting{a: a, paces: map[string]*remote.Pace{}} }

func (w *waiting) show(now remote.Waiting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.a.io.ErrTTY {
		fmt.Fprintf(w.a.io.Err, "\r\x1b[K%s", now)
		w.open = true
		return
	}
	pace := w.paces[now.Target.Node]
	if pace == nil {
		pace = &remote.Pace{}
		w.paces[now.Target.Node] = pace
	}
	if pace.Due(now) {
		fmt.Fprintln(w.a.io.Err, now)
	}
}

// close leaves the terminal clean.
func (w *waiting) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		fmt.Fprint(w.a.io.Err, "\r\x1b[K")
		w.open = false
	}
}

// bootstrap waits until every node of b answers. The statuses are in the order
// of the nodes; err is the first node's failure.
func (a *app) bootstrap(ctx context.Context, s *builder.Service, b *builder.Builder, budget time.Duration) ([]builder.Status, error) {
	if b.Err != nil {
		return nil, b.Err
	}
	w := a.newWaiting()
	defer w.close()
	all := make([]builder.Status, len(b.Nodes))
	s.ProbeAll(ctx, []*builder.Builder{b}, builder.ProbeOptions{Budget: budget, OnWait: w.show},
		func(_, n int, st builder.Status) { all[n] = st })
	for _, st := range all {
		if st.Err != nil {
			return all, st.Err
		}
	}
	return all, nil
}
