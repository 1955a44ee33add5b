//go:build e2e && linux

package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Store is how a Docker engine keeps its images.
type Store string

// The stores that a modern engine can be started with.
const (
	StoreContainerd Store = "containerd" // content and snapshots of containerd: the default
	StoreGraph      Store = "overlay2"   // a graph driver, as all engines had once
)

// Stores are all of them.
func Stores() []Store { return []Store{StoreContainerd, StoreGraph} }

// ModernOpts says what kind of modern engine to start.
type ModernOpts struct {
	Store Store // "": StoreContainerd

	// Network gives it its default network, which every RUN of its own BuildKit
	// wants that does not say --network=none. It then lives in a network
	// namespace of its own, and reaches no registry here.
	Network bool

	// Space is how much room its images have ("60m"); "": what the disk has.
	Space string
}

// ModernEngine starts a Docker engine that is years newer than Debian's, with a
// containerd and runc of its age (hack/tools.sh engine), and ends it, and its
// containers, with the test. It is as apart from the machine's engine as Docker.
func ModernEngine(t testing.TB, opts ModernOpts) *Dockerd {
	t.Helper()
	Need(t, "root")
	if opts.Network {
		Need(t, "unshare")
	}
	bin := filepath.Join(cacheDir(t), "engine", "bin")
	for _, name := range []string{"dockerd", "containerd", "containerd-shim-runc-v2", "runc"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("lab: %v: run `make tools`", err)
		}
	}
	config := map[string]any{"ip6tables": false}
	if opts.Store == StoreGraph {
		config["storage-driver"] = graphDriver()
		config["features"] = map[string]bool{"containerd-snapshotter": false}
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal("lab: ", err)
	}
	bridge := "--bridge=none"
	if opts.Network {
		bridge = ""
	}
	e := upDocker(t, engineParts{
		dockerd: filepath.Join(bin, "dockerd"), containerd: filepath.Join(bin, "containerd"),
		args: bridgeArgs(bridge), config: string(text),
		env:   []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, // the shim and runc are found by it
		space: opts.Space,
	}, opts.Network)
	e.modern = true
	return e
}

// graphDriver is the one that the lab's folder can hold.
func graphDriver() string {
	if theRun.overlay() {
		return string(StoreGraph)
	}
	return "vfs"
}
