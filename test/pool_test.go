//go:build e2e && linux

package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	records "github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/test/lab"
)

// poolOf is the builder "pool" on daemons that offer the same.
func poolOf(t *testing.T, n int, driverOpts string) (*lab.CLI, []*lab.BuildKitd) {
	t.Helper()
	berth := lab.Berth(t)
	var all []*lab.BuildKitd
	for i := range n {
		bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true, Unix: true})
		args := []string{"create", "--name", "pool", "--node", fmt.Sprint("n", i)}
		if i > 0 {
			args = append(args, "--append")
		}
		if driverOpts != "" {
			args = append(args, "--driver-opt", driverOpts)
		}
		berth.OK(append(args, bk.TCPAddr())...)
		all = append(all, bk)
	}
	berth.OK("use", "pool")
	return berth, all
}

var usingNode = regexp.MustCompile(`using node (\S+) \(([^)]*)\)`)

// used are the nodes that a build was given to, one after the other.
func used(t *testing.T, progress string) (nodes []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, m := range usingNode.FindAllStringSubmatch(progress, -1) {
		if !seen[m[1]] {
			nodes = append(nodes, m[1])
		}
		seen[m[1]] = true
	}
	if len(nodes) == 0 {
		t.Fatalf("no node was chosen:\n%s", progress)
	}
	return nodes
}

// numberOf is the daemon of a node's name.
func numberOf(t *testing.T, node string) int {
	t.Helper()
	var i int
	if _, err := fmt.Sscanf(node, "n%d", &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// The same work goes to the same daemon, other work to others; what a daemon had
// moves when it is lost, and comes back with it. Nobody else's work moves.
func TestPoolAffinity(t *testing.T) {
	t.Parallel()
	berth, daemons := poolOf(t, 3, "")
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nARG N\nCOPY Dockerfile /$N\n"})
	where := func() map[string]string {
		at := map[string]string{}
		for i := range 8 {
			key := fmt.Sprint("work-", i)
			r := build(t, berth, dir, "--affinity", key, "--build-arg", "N="+key)
			at[key] = used(t, r.Stderr)[0]
		}
		return at
	}
	first := where()
	count := map[string]int{}
	for _, n := range first {
		count[n]++
	}
	if len(count) != 3 {
		t.Fatalf("8 pieces of work on %v", count)
	}
	lost := first["work-0"]
	daemons[numberOf(t, lost)].Kill()
	for key, n := range where() {
		switch {
		case first[key] == lost && n == lost:
			t.Errorf("%s is built on %s, which was killed", key, n)
		case first[key] != lost && n != first[key]:
			t.Errorf("%s moved from %s to %s when %s was lost", key, first[key], n, lost)
		}
	}
	has(t, "what is remembered", read(t, join(berth.BuildxConfig, "lapses.json")), daemons[numberOf(t, lost)].TCPAddr())
	daemons[numberOf(t, lost)].Start(t)
	// It was passed over for a while; once another has forgotten that, it is back.
	if err := os.Remove(join(berth.BuildxConfig, "lapses.json")); err != nil {
		t.Fatal(err)
	}
	for key, n := range where() {
		if first[key] != n {
			t.Errorf("%s was on %s before, and is on %s when all are back", key, first[key], n)
		}
	}
	r := berth.Cmd("--debug", "build", "--progress", "plain", "--affinity", "work-0", ".").Dir(dir).Run()
	has(t, "--debug", r.Stderr, `policy affinity, affinity key "work-0"`, "  n0: ", "  n1: ", "  n2: ", "3 of 3 healthy, 0 active builds")
}

// A member that is not there, and one that swallows what is sent to it, hold up
// nothing for longer than a moment.
func TestPoolPassesOver(t *testing.T) {
	t.Parallel()
	berth, daemons := poolOf(t, 2, "pool=first")
	mute := lab.NewRelay(t, "127.0.0.1", daemons[0].TCPAddr())
	berth.OK("create", "--name", "odd", "--node", "n0", "--driver-opt", "pool=first", mute.Addr())
	berth.OK("create", "--name", "odd", "--append", "--node", "n1", "tcp://127.0.0.1:1")
	berth.OK("create", "--name", "odd", "--append", "--node", "n2", daemons[1].TCPAddr())
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	has(t, "progress", build(t, berth, dir, "--builder", "odd").Stderr, "using node n0 (first, ") // which tells its platform
	mute.Cut()
	mute.Silence(true)
	for _, more := range [][]string{nil, {"--platform", "linux/amd64"}} {
		r := build(t, berth, dir, append([]string{"--builder", "odd"}, more...)...)
		has(t, "progress", r.Stderr, "using node n2 (first, ")
	}
	// With the same platform wanted of nobody else, the reasons of all are told.
	r := berth.Fail("build", "--builder", "odd", "--timeout", "1s", "--platform", "linux/s390x", dir)
	has(t, "stderr", r.Stderr, "node n1 of builder odd at tcp://127.0.0.1:1", "connection refused")
}

// A daemon that is killed, frozen, or whose connection is cut in the middle of a
// build: the build is done again, elsewhere or there, and its result is right. A
// build that fails by itself is not.
func TestPoolFailover(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*lab.BuildKitd){
		"killed": (*lab.BuildKitd).Kill,
		"frozen": (*lab.BuildKitd).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			berth, daemons := poolOf(t, 3, "")
			out := t.TempDir()
			dir := sleeper(t, name, 4, "RUN echo done > /result\n")
			p := berth.Cmd("build", "--progress", "plain", "--no-cache", "-o", "type=tar,dest="+join(out, "result.tar"), ".").Dir(dir).Start()
			p.WaitFor("started " + name)
			at := used(t, p.Stderr())[0]
			fault(daemons[numberOf(t, at)])
			defer daemons[numberOf(t, at)].Resume()
			r := within(t, name, p, time.Now().Add(noHang+20*time.Second))
			if r.Code != 0 {
				t.Fatalf("exit %d: %s", r.Code, r.Stderr)
			}
			has(t, "progress", r.Stderr, "building again: connection to node "+at+" of builder pool", "on another node first")
			if nodes := used(t, r.Stderr); len(nodes) != 2 || nodes[1] == at {
				t.Errorf("built on %q", nodes)
			}
			if got := names(t, out); !slices.Equal(got, []string{"result.tar"}) {
				t.Errorf("at the destination: %q", got)
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		berth, daemons := poolOf(t, 2, "pool=first")
		relay := lab.NewRelay(t, "127.0.0.1", daemons[0].TCPAddr())
		berth.OK("create", "--name", "cut", "--node", "n0", "--driver-opt", "pool=first", relay.Addr())
		berth.OK("create", "--name", "cut", "--append", "--node", "n1", daemons[1].TCPAddr())
		p := berth.Cmd("build", "--builder", "cut", "--progress", "plain", "--no-cache", ".").Dir(sleeper(t, "cut", 3, "")).Start()
		p.WaitFor("started cut")
		relay.Cut()
		r := within(t, "cut", p, time.Now().Add(noHang))
		if r.Code != 0 {
			t.Fatalf("exit %d: %s", r.Code, r.Stderr)
		}
		has(t, "progress", r.Stderr, "building again: ", "on the same node first")
		if nodes := used(t, r.Stderr); !slices.Equal(nodes, []string{"n0"}) {
			t.Errorf("built on %q, although the daemon was there all the time", nodes)
		}
	})
	t.Run("cut-alone", func(t *testing.T) {
		t.Parallel()
		berth, relay := alone(t)
		p := berth.Cmd("build", "--progress", "plain", ".").Dir(sleeper(t, "alone", 3, "")).Start()
		p.WaitFor("started alone")
		relay.Cut()
		r := within(t, "cut", p, time.Now().Add(noHang))
		if r.Code != 0 {
			t.Fatalf("exit %d: %s", r.Code, r.Stderr)
		}
		has(t, "progress", r.Stderr, "building again: connection to node one0 of builder one", "on the same node first")
	})
	// The daemon does not know that its client is away, and the step goes on: it is
	// joined, and runs once.
	t.Run("forgotten", func(t *testing.T) {
		t.Parallel()
		berth, relay := alone(t)
		out := join(t.TempDir(), "out")
		const step = "RUN --mount=type=cache,target=/runs echo once >> /runs/n; echo sta''rted forgotten; sleep 50; cp /runs/n /result\n"
		p := berth.Cmd("build", "--progress", "plain", "-o", "type=tar,dest="+out, ".").Dir(lab.ShellContext(t, step, nil)).Start()
		p.WaitFor("started forgotten")
		relay.Forget()
		r := within(t, "forgotten", p, time.Now().Add(noHang+50*time.Second))
		if r.Code != 0 {
			t.Fatalf("exit %d: %s", r.Code, r.Stderr)
		}
		has(t, "progress", r.Stderr, "but the daemon answers on a new connection", "on the same node first")
		tar, err := os.ReadFile(out)
		if err != nil || bytes.Count(tar, []byte("once\n")) != 1 {
			t.Errorf("the step did not run once: %v", err)
		}
	})
	t.Run("fails", func(t *testing.T) {
		t.Parallel()
		berth, _ := poolOf(t, 2, "")
		r := berth.Cmd("build", "--progress", "plain", ".").Dir(lab.ShellContext(t, "RUN exit 3\n", nil)).Run()
		if r.Code != 1 || strings.Contains(r.Stderr, "building again") {
			t.Errorf("%s", r)
		}
	})
}

// alone is a builder with one daemon, behind a relay.
func alone(t *testing.T) (*lab.CLI, *lab.Relay) {
	t.Helper()
	berth := lab.Berth(t)
	relay := lab.NewRelay(t, "127.0.0.1", lab.BuildKit(t, lab.BuildKitOpts{TCP: true}).TCPAddr())
	berth.OK("create", "--name", "one", "--use", relay.Addr())
	return berth, relay
}

// No daemon has more builds than its limit, whoever comes at once; who finds no room
// waits, and all are built.
func TestPoolLimit(t *testing.T) {
	t.Parallel()
	const daemonCount = 3
	builds, limit := int(modelNumber(t, "BERTH_POOL_CLIENTS", 18)), int(modelNumber(t, "BERTH_POOL_LIMIT", 2))
	berth, daemons := poolOf(t, daemonCount, fmt.Sprint("max-builds=", limit))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watching sync.WaitGroup
	most := make([]int, daemonCount)
	for i, bk := range daemons {
		c := bk.Client(t)
		watching.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond) // which is all that a hot loop would see, at no cost for the builds
			defer tick.Stop()
			for ctx.Err() == nil {
				if all, err := pool.Active(ctx, c); err == nil {
					most[i] = max(most[i], len(all))
				}
				<-tick.C
			}
		})
	}
	var all []*lab.Process
	for i := range builds {
		dir := sleeper(t, fmt.Sprint("limit-", i), 2, "")
		all = append(all, berth.Cmd("build", "--progress", "plain", "--affinity", fmt.Sprint(i), ".").Dir(dir).Limit(10*time.Minute).Start())
	}
	waited := 0
	for _, p := range all {
		r := within(t, "build", p, time.Now().Add(10*time.Minute))
		if r.Code != 0 {
			t.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		if strings.Contains(r.Stderr, "have as many builds as max-builds allows") {
			waited++
		}
	}
	cancel()
	watching.Wait()
	gave := 0
	for _, bk := range daemons {
		gave += strings.Count(bk.Log(), "Solve returned error: rpc error: code = Unknown desc = node")
	}
	t.Logf("at most %v builds at once on daemons with a limit of %d; %d of %d waited; %d gave way when they were listed", most, limit, waited, builds, gave)
	if slices.Contains(most, 0) {
		t.Errorf("builds at once on the daemons: %v", most)
	}
	for i, bk := range daemons {
		// Those that gave way were listed for a moment, and are not among the records.
		if n := atOnceOn(t, bk); n > limit+1 {
			t.Errorf("daemon %d had %d builds at once that went on", i, n)
		}
	}
	if waited == 0 {
		t.Error("nobody had to wait")
	}
	r := berth.OK("history", "ls", "--format", "{{.Status}}")
	if got := strings.Count(r.Stdout, "Completed"); got != builds {
		t.Errorf("%d records of %d builds:\n%s", got, builds, r.Stdout)
	}
}

// atOnceOn is how many of a daemon's builds overlapped at the most.
func atOnceOn(t *testing.T, bk *lab.BuildKitd) int {
	t.Helper()
	all, err := records.List(t.Context(), bk.Client(t), records.Query{})
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, r := range all {
		if r.Error != nil { // it gave way, and the daemon has not let its record go
			continue
		}
		n := 0
		for _, other := range all {
			if at := r.CreatedAt.AsTime(); other.Error == nil && !other.CreatedAt.AsTime().After(at) && other.CompletedAt.AsTime().After(at) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// A wait for room ends at once on Ctrl-C, and by itself when its time is over.
func TestPoolQueue(t *testing.T) {
	t.Parallel()
	berth, _ := poolOf(t, 1, "max-builds=1,queue-timeout=2s")
	first := berth.Cmd("build", "--progress", "plain", ".").Dir(sleeper(t, "first", 600, "")).Start()
	first.WaitFor("started first")
	dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	r := berth.Fail("build", "--progress", "plain", dir)
	has(t, "stderr", r.Stderr, "no daemon of builder pool had room within 2s", "max-builds")
	p := berth.Cmd("build", "--progress", "plain", dir).Start()
	p.WaitFor("as many builds as max-builds allows")
	p.Interrupt()
	if r := within(t, "interrupted", p, time.Now().Add(atOnce)); r.Code == 0 {
		t.Errorf("%s", r)
	}
	first.Interrupt()
	within(t, "first", first, time.Now().Add(atOnce))
}

// The targets of a bake are spread over the members: those that have something in
// common stay together.
func TestPoolBake(t *testing.T) {
	t.Parallel()
	berth, _ := poolOf(t, 3, "")
	root := t.TempDir()
	var hcl strings.Builder
	var names []string
	for i := range 9 {
		name := fmt.Sprint("t", i)
		dir := join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		dockerfile := "FROM scratch\nCOPY Dockerfile /" + name + "\n"
		links := ""
		if i == 8 {
			dockerfile = "FROM base\nCOPY --from=base /t0 /again\n"
			links = "\n  contexts = { base = \"target:t0\" }"
		}
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&hcl, "target %q {\n  context = %q%s\n  output = [\"type=local,dest=out/%s\"]\n}\n", name, name, links, name)
		names = append(names, fmt.Sprintf("%q", name))
	}
	fmt.Fprintf(&hcl, "group \"default\" { targets = [%s] }\n", strings.Join(names, ", "))
	if err := os.WriteFile(join(root, "docker-bake.hcl"), []byte(hcl.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	r := berth.Cmd("bake", "--progress", "plain").Dir(root).Run()
	if r.Code != 0 {
		t.Fatalf("%s", r)
	}
	has(t, "progress", r.Stderr, "[internal] using nodes n", "3 of 3 healthy")
	if nodes := regexp.MustCompile(`n\d \(\d\)`).FindAllString(r.Stderr, -1); len(nodes) < 2 {
		t.Errorf("all on one node: %q", nodes)
	}
	if got := read(t, join(root, "out", "t8", "again")); !strings.Contains(got, "/t0") {
		t.Errorf("the target that is built upon another: %q", got)
	}
}
