package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	builders = 20
	dead     = 5 // of them
)

// bench is what the scenarios share.
type bench struct {
	options
	dir     string
	daemon  *daemon
	others  []*daemon // that scenarios have started
	holes   []*blackhole
	context string // of the cached build
	peers   []peer
	engines []engine
	links   []*link
}

// scenario is one thing to do with each tool. A tool without a way to do it has
// no arguments.
type scenario struct {
	title    string
	state    string              // "one" builder or "many"
	peer     *peer               // whose builder it is, in the place of a state
	args     map[string][]string // by tool
	says     string              // must be in the output, or something else was measured
	terminal string              // on a terminal, when this text appears is measured too
	atOnce   int                 // how many calls are made at once; 0 is one
	runs     int                 // 0: as many as of the others
	env      []string            // KEY=value, besides the state's
	daemon   bool                // the daemon's CPU is measured too
	link     *link               // whose bytes are counted; may be nil
	step     string              // the end of the name of a step that is measured too, by the progress in JSON

	// before is called ahead of each call, with the tool's name, and not measured.
	before func(ctx context.Context, tool string) error
}

func (b *bench) tools() []tool {
	all := []tool{{"berth", b.berth}, {"buildx", filepath.Join(b.options.tools, "buildx")}, {"buildctl", filepath.Join(b.options.tools, "buildctl")}}
	return slices.DeleteFunc(all, func(t tool) bool { return t.path == "" })
}

// prepare makes the builders and fills the daemon's cache.
func (b *bench) prepare(ctx context.Context) error {
	for range dead {
		h, err := newBlackhole()
		if err != nil {
			return err
		}
		b.holes = append(b.holes, h)
	}
	for _, t := range b.tools() {
		if t.name == "buildctl" {
			continue
		}
		if err := b.createBuilders(ctx, t); err != nil {
			return err
		}
	}
	if err := b.preparePeers(ctx); err != nil {
		return err
	}
	return b.makeContext()
}

func (b *bench) closeBlackholes() {
	for _, h := range b.holes {
		h.close()
	}
}

// createBuilders makes the tool's two state folders: one builder, and twenty.
func (b *bench) createBuilders(ctx context.Context, t tool) error {
	opt := fmt.Sprintf("cacert=%[1]s/ca.pem,cert=%[1]s/cert.pem,key=%[1]s/key.pem", b.daemon.certs)
	create := func(state, name, endpoint string) error {
		cmd := exec.CommandContext(ctx, t.path, "create", "--name", name, "--driver", "remote", "--driver-opt", opt, endpoint)
		cmd.Env = b.env(t.name, state)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s create: %w\n%s", t.name, err, out)
		}
		return nil
	}
	if err := create("one", "live", b.daemon.endpoint); err != nil {
		return err
	}
	for i := range builders {
		name, endpoint := fmt.Sprintf("b%02d-live", i), b.daemon.endpoint
		if i%(builders/dead) == 0 {
			name, endpoint = fmt.Sprintf("b%02d-dead", i), b.holes[i/(builders/dead)].endpoint
		}
		if err := create("many", name, endpoint); err != nil {
			return err
		}
	}
	return nil
}

// env is the whole environment of a call. No Docker engine is found with it.
func (b *bench) env(tool, state string) []string {
	home := filepath.Join(b.dir, "home-"+tool)
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8", "TERM=xterm",
		"DOCKER_CONFIG=" + filepath.Join(home, "docker"), "BUILDX_CONFIG=" + filepath.Join(home, state),
		"DOCKER_HOST=unix://" + filepath.Join(b.dir, "no-docker.sock")}
}

// makeContext writes a Dockerfile of a dozen steps.
func (b *bench) makeContext() (err error) {
	var text strings.Builder
	text.WriteString("FROM scratch AS build\nCOPY hello /hello\n")
	for i := range 10 {
		fmt.Fprintf(&text, "RUN [\"/hello\", \"note\", \"/note-%d.txt\"]\n", i)
	}
	text.WriteString("FROM scratch\nCOPY --from=build / /\n")
	b.context, err = b.contextOf("context", text.String())
	return err
}

func (b *bench) scenarios() []scenario {
	ctl := []string{"--addr", b.daemon.endpoint, "--tlsdir", b.daemon.certs}
	build := func(tool ...string) []string { return append(tool, b.context) }
	list := []scenario{
		{
			title: "`version`",
			args:  map[string][]string{"berth": {"version"}, "buildx": {"version"}, "buildctl": {"--version"}},
		},
		{
			title: "`ls`, one live builder (buildctl: `debug workers`)",
			state: "one",
			args:  map[string][]string{"berth": {"ls"}, "buildx": {"ls"}, "buildctl": append(slices.Clone(ctl), "debug", "workers")},
		},
		{
			title: "a build of 12 steps, all cached, no output",
			says:  "CACHED",
			state: "one",
			args: map[string][]string{
				"berth":  build("build", "--builder", "live", "--progress", "plain"),
				"buildx": build("build", "--builder", "live", "--progress", "plain"),
				"buildctl": append(slices.Clone(ctl), "build", "--progress", "plain", "--frontend", "dockerfile.v0",
					"--local", "context="+b.context, "--local", "dockerfile="+b.context),
			},
		},
	}
	if !b.skipDead {
		list = append(list, scenario{
			title:    fmt.Sprintf("`ls`, %d builders of which %d are blackholed, on a terminal", builders, dead),
			state:    "many",
			args:     map[string][]string{"berth": {"ls"}, "buildx": {"ls"}},
			terminal: "running",
		})
	}
	return append(list, b.peerScenarios()...)
}

// scenarioEnv is the environment of a tool's call in a scenario.
func (b *bench) scenarioEnv(tool string, s scenario) []string {
	if s.peer != nil {
		return b.peerEnv(tool, s.peer)
	}
	return append(b.env(tool, s.state), s.env...)
}

// measureOne is one call, and what it cost elsewhere.
func (b *bench) measureOne(ctx context.Context, tool tool, s scenario) (sample, error) {
	var moved int64
	if s.link != nil {
		moved = s.link.moved.Load()
	}
	cpu := b.daemon.cpu()
	one, err := measure(ctx, tool, s, b.scenarioEnv(tool.name, s))
	if err != nil {
		return one, fmt.Errorf("%s with %s: %w", s.title, tool.name, err)
	}
	one.daemon = b.daemon.cpu() - cpu
	if s.link != nil {
		one.moved = s.link.moved.Load() - moved
	}
	return one, nil
}

// measureAll runs all scenarios, each tool once to warm up, then interleaved.
func (b *bench) measureAll(ctx context.Context) ([]table, error) {
	list := b.scenarios()
	heavy, err := b.buildScenarios()
	if err != nil {
		return nil, err
	}
	bakes, err := b.bakeScenarios()
	if err != nil {
		return nil, err
	}
	defer b.closeLinks()
	contexts, err := b.contextScenarios(ctx)
	if err != nil {
		return nil, err
	}
	images, stopRegistry, err := b.imageScenarios(ctx)
	if err != nil {
		return nil, err
	}
	defer stopRegistry()
	loads, err := b.loadScenarios(ctx)
	if err != nil {
		return nil, err
	}
	only, err := regexp.Compile(b.only)
	if err != nil {
		return nil, err
	}
	records, err := b.historyScenarios(ctx, only)
	if err != nil {
		return nil, err
	}
	pools, err := b.poolScenarios(ctx, only)
	if err != nil {
		return nil, err
	}
	var tables []table
	for _, s := range slices.Concat(list, images, records, heavy, contexts, bakes, loads, pools) {
		if !only.MatchString(s.title) {
			continue
		}
		t := table{scenario: s, samples: map[string][]sample{}}
		runs := cmp.Or(s.runs, b.runs)
		for i := -1; i < runs; i++ {
			for _, tool := range b.tools() {
				if s.args[tool.name] == nil || i < 0 && s.terminal != "" {
					continue
				}
				if s.says = t.scenario.says; i < 0 {
					s.says = "" // the first build fills the cache
				}
				if s.before != nil {
					if err := s.before(ctx, tool.name); err != nil {
						return nil, fmt.Errorf("%s with %s: %w", s.title, tool.name, err)
					}
				}
				one, err := b.measureOne(ctx, tool, s)
				if err != nil {
					return nil, err
				}
				if i >= 0 {
					t.samples[tool.name] = append(t.samples[tool.name], one)
				}
			}
			fmt.Fprintf(os.Stderr, "\r%s: %d of %d", s.title, i+1, runs)
		}
		for _, tool := range b.tools() { // the page comes at the very end
			if list := t.samples[tool.name]; len(list) > 0 {
				fmt.Fprintf(os.Stderr, "; %s %s", tool.name, median(list, func(s sample) time.Duration { return s.wall }).Round(time.Millisecond))
			}
		}
		fmt.Fprintln(os.Stderr)
		tables = append(tables, t)
	}
	return tables, nil
}
