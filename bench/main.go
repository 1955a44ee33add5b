// Command bench measures berth beside docker/buildx and buildctl, in one run on
// one machine, and writes the table as Markdown. `make bench` builds all three
// and calls it, as root, from a test (test/bench_test.go) that has started
// daemons behind the schemes that are measured too.
//
// The calls are interleaved (berth, buildx, buildctl, berth, …), so that a
// change of the machine's mood meets all alike; each number is a median. It is
// a module of its own, so that berth does not depend on what only it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

type options struct {
	berth, tools, hello, certs, out string
	peers                           string
	runs, contextRuns, contextMiB   int
	heavyRuns, loadRuns             int
	historyRecords                  int
	skipDead                        bool
	engines, only, plot             string
}

func main() {
	var o options
	flag.StringVar(&o.berth, "berth", "", "berth's binary; without it only the peers are measured")
	flag.StringVar(&o.tools, "tools", "", "folder with buildkitd, buildctl and buildx")
	flag.StringVar(&o.hello, "hello", "../examples/hello/hello", "a static program to build into an image")
	flag.StringVar(&o.certs, "certs", "../examples/tls/create-certs.sh", "the script that makes certificates")
	flag.StringVar(&o.out, "out", "", "Markdown file to write; without it standard output")
	flag.IntVar(&o.runs, "runs", 11, "runs of each, of which the median counts")
	flag.StringVar(&o.peers, "peers", "", "JSON file that lists daemons behind other schemes, to measure too")
	flag.IntVar(&o.contextRuns, "context-runs", 5, "runs of sending a large context to the peers that are for it")
	flag.IntVar(&o.heavyRuns, "heavy-runs", 5, "runs of builds that move many or large files; 0 leaves them out")
	flag.IntVar(&o.contextMiB, "context-mib", 512, "size of the large context in MiB")
	flag.StringVar(&o.engines, "engines", "", "JSON file that lists Docker engines to load images into")
	flag.IntVar(&o.loadRuns, "load-runs", 5, "runs of loading an image into each engine; 0 leaves them out")
	flag.IntVar(&o.historyRecords, "history-records", 1000, "build records to list; 0 leaves that out")
	flag.StringVar(&o.only, "only", "", "measure only the scenarios whose titles match this regular expression")
	flag.StringVar(&o.plot, "plot", "", "SVG file to write, of unchanged contexts of up to 200,000 files; without it they are not measured")
	flag.BoolVar(&o.skipDead, "skip-dead", false, "leave out the dead builders, which take 20 s a call")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, path := range []*string{&o.plot, &o.berth, &o.tools, &o.hello, &o.certs} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return err
			}
		}
	}
	d, err := startDaemon(ctx, o, dir, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	peers, err := readPeers(o.peers)
	if err != nil {
		return err
	}
	engines, err := readEngines(o.engines)
	if err != nil {
		return err
	}
	b := &bench{options: o, dir: dir, daemon: d, peers: peers, engines: engines}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer b.closeBlackholes()
	defer func() { err = errors.Join(err, b.stopOthers()) }()
	tables, err := b.measureAll(ctx)
	if err != nil {
		return err
	}
	var contexts *transfers
	if o.only == "" {
		if contexts, err = b.measureContexts(ctx); err != nil {
			return err
		}
	}
	points, err := b.measurePlot(ctx)
	if err != nil {
		return err
	}
	return b.write(tables, contexts, points)
}
