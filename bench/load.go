package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The image that is loaded: bytes of each of its layers, the lowest first. None
// of it compresses.
const (
	loadLayers   = 9
	loadBase     = 64 << 20
	loadRest     = 64 << 20
	loadLast     = 100
	farDelay     = 10 * time.Millisecond // one way
	farRate      = 100_000_000 / 8       // bytes a second
	farShare     = 3                     // the far image is so much smaller
	loadedPrefix = "berth-bench-"
)

// engine is a Docker engine that images are loaded into, as whoever runs us has
// started it.
type engine struct {
	Name string // for titles
	Host string // unix://…
}

// readEngines reads the list of engines, a file in JSON; none where it is not named.
func readEngines(file string) ([]engine, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []engine
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}

// loadScenarios are loads into each engine: local ones, and with the daemon or the
// engine behind a slow link.
func (b *bench) loadScenarios(ctx context.Context) ([]scenario, error) {
	if b.loadRuns == 0 || len(b.engines) == 0 {
		return nil, nil
	}
	near, err := b.layered("load", 1)
	if err != nil {
		return nil, err
	}
	small, err := b.layered("load-far", farShare)
	if err != nil {
		return nil, err
	}
	daemon, err := newLink(outside(), b.daemon.endpoint, farDelay, farRate)
	if err != nil {
		return nil, err
	}
	b.links = append(b.links, daemon)
	if err := b.createBuilder(ctx, "far", daemon.endpoint()); err != nil {
		return nil, err
	}
	var list []scenario
	for _, e := range b.engines {
		far, err := newLink("127.0.0.1", e.Host, farDelay, farRate)
		if err != nil {
			return nil, err
		}
		b.links = append(b.links, far)
		local := func(title string, before func(context.Context, string) error) scenario {
			return b.loadOf(fmt.Sprintf("`--load` of %s into %s: %s", sizeText(near), e.Name, title), near, "live", e.Host, before)
		}
		slow := func(title, builder, host string, before func(context.Context, string) error) scenario {
			s := b.loadOf(fmt.Sprintf("`--load` of %s into %s over 100 Mbit/s with 20 ms, %s", sizeText(small), e.Name, title), small, builder, host, before)
			if s.link = daemon; builder != "far" {
				s.link = far
			}
			return s
		}
		list = append(list,
			local("unchanged", nil),
			local("the last layer changed", changes(near, loadLayers-1, loadLast)),
			local("the base changed", changes(near, 0, loadBase)),
			local("the engine empty", e.empty),
			local("cold, nothing built", func(ctx context.Context, tool string) error {
				if err := b.forget(ctx, tool); err != nil {
					return err
				}
				return e.empty(ctx, tool)
			}),
			slow("the daemon far: unchanged", "far", e.Host, nil),
			slow("the daemon far: the last layer changed", "far", e.Host, changes(small, loadLayers-1, loadLast)),
			slow("the engine far: unchanged", "live", far.endpoint(), nil),
			slow("the engine far: the last layer changed", "live", far.endpoint(), changes(small, loadLayers-1, loadLast)),
		)
	}
	return list, nil
}

// loadOf is one build and load.
func (b *bench) loadOf(title, dir, builder, host string, before func(context.Context, string) error) scenario {
	s := scenario{title: title, state: "one", runs: b.loadRuns, before: before, env: []string{"DOCKER_HOST=" + host}, args: map[string][]string{}}
	for _, tool := range []string{"berth", "buildx"} {
		s.args[tool] = []string{"build", "--builder", builder, "--progress", "plain", "--load", "-t", loadedPrefix + tool, dir}
	}
	return s
}

// createBuilder makes a builder of the daemon behind a link.
func (b *bench) createBuilder(ctx context.Context, name, endpoint string) error {
	opt := fmt.Sprintf("cacert=%[1]s/ca.pem,cert=%[1]s/cert.pem,key=%[1]s/key.pem,servername=localhost", b.daemon.certs)
	for _, t := range b.tools() {
		if t.name == "buildctl" {
			continue
		}
		cmd := exec.CommandContext(ctx, t.path, "create", "--name", name, "--driver", "remote", "--driver-opt", opt, endpoint)
		cmd.Env = b.env(t.name, "one")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s create: %w\n%s", t.name, err, out)
		}
	}
	return nil
}

func (b *bench) closeLinks() {
	for _, k := range b.links {
		k.close()
	}
}

// layered makes a context whose image has loadLayers layers; share makes them
// smaller.
func (b *bench) layered(name string, share int64) (string, error) {
	var text strings.Builder
	text.WriteString("FROM scratch\n")
	for i := range loadLayers {
		fmt.Fprintf(&text, "COPY layer-%d /layer-%d\n", i, i)
	}
	dir, err := b.contextOf(name, text.String())
	if err != nil {
		return "", err
	}
	for i := range loadLayers {
		size := int64(loadRest) / share
		switch i {
		case 0:
			size = loadBase / share
		case loadLayers - 1:
			size = loadLast
		}
		if err := fresh(filepath.Join(dir, fmt.Sprintf("layer-%d", i)), size); err != nil {
			return "", err
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("hello\n"), 0o644)
}

func sizeText(dir string) string {
	var sum int64
	for i := range loadLayers {
		if fi, err := os.Stat(filepath.Join(dir, fmt.Sprintf("layer-%d", i))); err == nil {
			sum += fi.Size()
		}
	}
	return fmt.Sprintf("%d layers, %d MB", loadLayers, sum/1_000_000)
}

// changes gives a layer new content before each call. A file keeps its size.
func changes(dir string, layer int, size int64) func(context.Context, string) error {
	path := filepath.Join(dir, fmt.Sprintf("layer-%d", layer))
	return func(context.Context, string) error {
		if fi, err := os.Stat(path); err == nil {
			size = fi.Size()
		}
		return fresh(path, size)
	}
}

// fresh writes bytes that no file had before.
func fresh(path string, size int64) error {
	var seed [32]byte
	_, _ = rand.Read(seed[:])
	return noiseOf(path, size, seed)
}

// empty removes the engine's images.
func (e engine) empty(ctx context.Context, _ string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(e.Host, "unix://"))
	}, DisableKeepAlives: true}}
	ask := func(method, path string, into any) error {
		req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotFound {
			return fmt.Errorf("%s %s: %s", method, path, resp.Status)
		}
		return json.NewDecoder(resp.Body).Decode(into)
	}
	var images []struct {
		ID string `json:"Id"`
	}
	if err := ask(http.MethodGet, "/images/json", &images); err != nil {
		return err
	}
	for _, i := range images {
		var gone any
		if err := ask(http.MethodDelete, "/images/"+i.ID+"?force=1", &gone); err != nil {
			return err
		}
	}
	return nil
}
