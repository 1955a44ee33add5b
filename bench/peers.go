package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// peer is a daemon behind a scheme, as whoever runs us has started it: both
// berth and buildx dial its endpoint.
type peer struct {
	Scheme   string   // "ssh", for titles and folders
	Endpoint string   // of the builder
	Env      []string // KEY=value, that is needed to dial it
	Path     string   // a folder to go before PATH; "" for none
	Context  bool     // measure how fast a context goes through it
}

// readPeers reads the list of peers, a file in JSON; none where it is not
// named.
func readPeers(file string) ([]peer, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var peers []peer
	if err := json.Unmarshal(text, &peers); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return peers, nil
}

// state is the folder of the tools' builders, in which "live" is the peer.
func (p *peer) state() string { return "peer-" + p.Scheme }

// peerEnv is the environment of a call that dials the peer. What comes later
// counts.
func (b *bench) peerEnv(tool string, p *peer) []string {
	env := append(b.env(tool, p.state()), p.Env...)
	if p.Path != "" {
		env = append(env, "PATH="+p.Path+":"+os.Getenv("PATH"))
	}
	return env
}

// preparePeers makes a builder of each.
func (b *bench) preparePeers(ctx context.Context) error {
	for i := range b.peers {
		p := &b.peers[i]
		for _, t := range b.tools() {
			if t.name == "buildctl" {
				continue
			}
			if err := b.command(ctx, t, p, "create", "--name", "live", "--driver", "remote", p.Endpoint); err != nil {
				return err
			}
		}
	}
	return nil
}

// command runs a tool that is not measured.
func (b *bench) command(ctx context.Context, t tool, p *peer, args ...string) error {
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Env = b.peerEnv(t.name, p)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s %v: %w\n%s", p.Scheme, t.name, args, err, out)
	}
	return nil
}

// peerScenarios are: connect to the one daemon of a builder, and list it.
func (b *bench) peerScenarios() []scenario {
	var list []scenario
	for i := range b.peers {
		p := &b.peers[i]
		list = append(list, scenario{
			title: fmt.Sprintf("`inspect` of a builder over `%s://`", p.Scheme),
			says:  "running",
			peer:  p,
			args:  map[string][]string{"berth": {"inspect", "live"}, "buildx": {"inspect", "live"}},
		})
	}
	return list
}

// route is a tool's way to a peer.
type route struct {
	tool tool
	peer *peer
}

// transfers are the calls that sent a large context, by scheme and tool.
type transfers struct {
	routes  []route
	samples [][]sample // as routes
}

// measureContexts sends a large context through each peer that is for it, with
// each tool, interleaved.
func (b *bench) measureContexts(ctx context.Context) (*transfers, error) {
	t := &transfers{}
	for i := range b.peers {
		for _, tool := range b.tools() {
			if b.peers[i].Context && tool.name != "buildctl" {
				t.routes = append(t.routes, route{tool, &b.peers[i]})
			}
		}
	}
	if len(t.routes) == 0 {
		return nil, nil
	}
	t.samples = make([][]sample, len(t.routes))
	large, err := b.noiseContext("large-context", int64(b.contextMiB)<<20)
	if err != nil {
		return nil, err
	}
	for i := -1; i < b.contextRuns; i++ {
		for j, r := range t.routes {
			one, err := b.send(ctx, r, large, fmt.Sprintf("%d-%d", i+1, j))
			if err != nil {
				return nil, err
			}
			if i >= 0 { // once to warm up
				t.samples[j] = append(t.samples[j], one)
			}
		}
		fmt.Fprintf(os.Stderr, "\ra context of %d MiB: %d of %d", b.contextMiB, i+1, b.contextRuns)
	}
	fmt.Fprintln(os.Stderr)
	return t, nil
}

// send builds once with the large context, all of which is sent: its file has
// a new name, and the daemon keeps nothing of the last time.
func (b *bench) send(ctx context.Context, r route, dir, name string) (sample, error) {
	old, err := os.ReadDir(filepath.Join(dir, "large"))
	if err != nil {
		return sample{}, err
	}
	if err := os.Rename(filepath.Join(dir, "large", old[0].Name()), filepath.Join(dir, "large", name)); err != nil {
		return sample{}, err
	}
	s := scenario{args: map[string][]string{r.tool.name: {"build", "--builder", "live", "--progress", "plain", dir}}, says: "transferring context"}
	one, err := measure(ctx, r.tool, s, b.peerEnv(r.tool.name, r.peer))
	if err != nil {
		return one, fmt.Errorf("a context over %s with %s: %w", r.peer.Scheme, r.tool.name, err)
	}
	i := slices.IndexFunc(b.tools(), func(t tool) bool { return t.name == "buildctl" })
	return one, b.command(ctx, b.tools()[i], r.peer, "--addr", r.peer.Endpoint, "prune", "--all")
}

// noise writes a file of random bytes, the same ones each time.
func noise(path string, size int64) error { return noiseOf(path, size, [32]byte{1}) }

func noiseOf(path string, size int64, seed [32]byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, rand.NewChaCha8(seed), size); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
