//go:build e2e && linux

package test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
	"github.com/moby/buildkit/client"
)

// The model test: random histories of edits and builds, of several folders on
// several daemons, and after every build a comparison of what the image holds with
// what the folder holds. contextmodel_edits_test.go has the edits, and
// contextmodel_state_test.go what is compared.
//
//	BERTH_MODEL_BUILDS=20000   how many builds (2,000 when it is not set)
//	BERTH_MODEL_SEED=7         the seed; a random one, which is printed, when it is not set
//	BERTH_MODEL_HISTORY=12     only that history
//	BERTH_MODEL_FROM=100       that history and those after it
//	BERTH_MODEL_BINARY=FILE    another binary; else the first worker has the one that
//	                           finds data races, and the others one that is faster
const (
	modelBuilds  = 2000
	modelWorkers = 3
	historySteps = 60
)

// modelRun is shared by the workers.
type modelRun struct {
	seed   uint64
	only   int // a history; -1 is all
	builds int64
	next   atomic.Int64 // the next history
	made   atomic.Int64 // builds
	mu     sync.Mutex
	counts map[string]int
	fast   string // the binary; see fastBerth
}

func (r *modelRun) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

func modelNumber(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func TestContextModel(t *testing.T) {
	r := &modelRun{counts: map[string]int{}}
	r.builds = modelNumber(t, "BERTH_MODEL_BUILDS", modelBuilds)
	r.seed = uint64(modelNumber(t, "BERTH_MODEL_SEED", time.Now().UnixNano()%1_000_000_000)) //nolint:gosec // any number is a seed
	r.only = int(modelNumber(t, "BERTH_MODEL_HISTORY", -1))
	r.next.Store(modelNumber(t, "BERTH_MODEL_FROM", 0))
	workers := modelWorkers
	if r.only >= 0 {
		workers = 1
	}
	if os.Getenv("BERTH_MODEL_BINARY") == "" {
		r.fast = fastBerth(t)
	}
	t.Logf("seed %d", r.seed)
	began := time.Now()
	t.Run("histories", func(t *testing.T) {
		for w := range workers {
			t.Run(strconv.Itoa(w), func(t *testing.T) {
				t.Parallel()
				r.work(t, w > 0)
			})
		}
	})
	t.Logf("seed %d: %d builds in %d histories in %.0f s", r.seed, r.made.Load(), r.next.Load()-modelNumber(t, "BERTH_MODEL_FROM", 0), time.Since(began).Seconds())
	for _, what := range slices.Sorted(maps.Keys(r.counts)) {
		t.Logf("  %6d %s", r.counts[what], what)
	}
}

// fastBerth is berth without the race detector.
func fastBerth(t *testing.T) string {
	t.Helper()
	bin := join(lab.Dir(t), "berth")
	build := exec.Command("go", "build", "-o", bin, "./cmd/berth")
	build.Dir = lab.ModuleRoot(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// work makes histories on two daemons of its own. Their state is in memory: they
// write to disk at each step of a build, and wait for that.
func (r *modelRun) work(t *testing.T, fast bool) {
	roots := lab.Dir(t)
	if err := syscall.Mount("tmpfs", roots, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	w := &modelWorker{t: t, run: r, berth: lab.Berth(t)}
	switch bin := os.Getenv("BERTH_MODEL_BINARY"); {
	case bin != "":
		w.berth.Bin = bin
	case fast:
		w.berth.Bin = r.fast
	}
	w.cache = join(w.berth.Home, ".cache", "berth", "contexts")
	for i := range 2 {
		bk := lab.BuildKit(t, lab.BuildKitOpts{Config: "[worker.oci]\n  gc = false\n", Root: join(roots, fmt.Sprint(i))})
		w.daemons = append(w.daemons, bk)
		w.berth.OK("create", "--name", fmt.Sprint("b", i), "--driver", "remote", bk.UnixAddr())
	}
	if r.only >= 0 {
		w.history(r.only)
		return
	}
	for !t.Failed() && r.made.Load() < r.builds {
		w.history(int(r.next.Add(1) - 1))
	}
}

// modelWorker makes one history after the other.
type modelWorker struct {
	t       *testing.T
	run     *modelRun
	berth   *lab.CLI
	cache   string // where berth remembers contexts
	daemons []*lab.BuildKitd
}

// history is one of them. Its random numbers follow from the seed and its number
// alone.
type history struct {
	*modelWorker
	number  int
	rnd     *rand.Rand
	dir     string
	folders []*folder
	log     []string
	failed  bool
}

func (w *modelWorker) history(number int) {
	h := &history{modelWorker: w, number: number, rnd: rand.New(rand.NewPCG(w.run.seed, uint64(number))), dir: lab.Dir(w.t)} //nolint:gosec // it is to be repeatable
	for _, name := range []string{"1/proj", "2/proj", "3/other"} {
		f := &folder{h: h, dir: join(h.dir, name)}
		h.folders = append(h.folders, f)
		f.fill()
	}
	for i := 0; i < historySteps && !h.failed && !w.t.Failed(); i++ {
		h.step()
	}
	sweepErr := os.RemoveAll(h.dir)
	if sweepErr != nil {
		w.t.Error(sweepErr)
	}
}

// say adds to the log of the history.
func (h *history) say(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// fail ends the history.
func (h *history) fail(format string, args ...any) {
	if h.failed {
		return
	}
	h.failed = true
	h.t.Errorf("BERTH_MODEL_SEED=%d BERTH_MODEL_HISTORY=%d: %s\nwhat was done:\n  %s", h.run.seed, h.number,
		fmt.Sprintf(format, args...), strings.Join(h.log, "\n  "))
}

func (h *history) folder() *folder { return h.folders[h.rnd.IntN(len(h.folders))] }

// chance is true n times of 1,000.
func (h *history) chance(n int) bool { return h.rnd.IntN(1000) < n }

// step is some edits, and some builds.
func (h *history) step() {
	f := h.folder()
	if !h.chance(150) { // else nothing has changed
		for range 1 + h.rnd.IntN(4) {
			f.edit(false)
		}
	}
	switch n := h.rnd.IntN(1000); {
	case n < 470:
		h.quiet(f)
	case n < 620:
		h.racing(f)
	case n < 740:
		h.several(f, false)
	case n < 800:
		h.several(f, true)
	case n < 880:
		h.killed(f)
	case n < 920:
		h.damage()
		h.quiet(f)
	case n < 945:
		h.prune(client.PruneAll)
		h.quiet(f)
	case n < 970:
		h.prune(client.WithFilter([]string{"type==source.local"}))
		h.quiet(f)
	case n < 980:
		h.restart(f)
	default:
		for _, f := range h.folders {
			h.quiet(f)
		}
	}
}

// quiet builds while nothing else happens.
func (h *history) quiet(f *folder) {
	b := h.start(f)
	h.exact(b, f.state())
}

// racing builds while the folder is edited, and then once more.
func (h *history) racing(f *folder) {
	states := []holding{f.state()}
	f.freshen()
	states = append(states, f.state())
	before := ""
	if h.chance(600) {
		before = join(h.dir, fmt.Sprint("before", len(h.log)))
		f.try(exec.Command("cp", "-a", f.dir, before).Run())
	}
	b := h.start(f)
	h.race(f, &states)
	h.loose(b, f, states)
	h.exact(h.start(f), f.state())
	if before == "" {
		return
	}
	// What was named while it changed is there again: no other bytes may have its name.
	f.say("is again as it was before that build")
	gone := before + "-gone"
	f.try(os.Rename(f.dir, gone), os.Rename(before, f.dir), os.RemoveAll(gone))
	h.exact(h.start(f), f.state())
}

// race makes edits, each of which is one call to the kernel.
func (h *history) race(f *folder, states *[]holding) {
	time.Sleep(time.Duration(h.rnd.IntN(120)) * time.Millisecond) // a build has begun, and is somewhere
	for range 1 + h.rnd.IntN(6) {
		time.Sleep(time.Duration(h.rnd.IntN(6)) * time.Millisecond)
		f.edit(true)
		*states = append(*states, f.state())
	}
}

// several builds run at once, in one folder or in two.
func (h *history) several(f *folder, edits bool) {
	states := []holding{f.state()}
	other := h.folder()
	if h.chance(500) {
		f.freshen()
		states = append(states, f.state())
	}
	var all []*modelBuild
	for range 2 + h.rnd.IntN(2) {
		all = append(all, h.start(f))
	}
	if other != f {
		all = append(all, h.start(other))
	}
	if h.chance(200) {
		f.h.say("kill -9 of the first")
		time.Sleep(time.Duration(h.rnd.IntN(80)) * time.Millisecond) // it is somewhere
		_ = all[0].cmd.Process.Signal(syscall.SIGKILL)
		<-all[0].done
		h.run.count("builds killed")
		all = all[1:]
		for _, b := range all {
			b.left = true
		}
	}
	if edits {
		h.race(f, &states)
	}
	for _, b := range all {
		if edits && (b.f == f || b.with == f) {
			h.loose(b, f, states)
		} else {
			h.exact(b, b.f.state())
		}
	}
	if edits {
		h.exact(h.start(f), f.state())
	}
}

// killed ends a build in the middle, and builds again.
func (h *history) killed(f *folder) {
	f.freshen()
	b := h.start(f)
	wait := time.Duration(h.rnd.IntN(120)) * time.Millisecond
	h.say("kill -9 of it after %v", wait)
	time.Sleep(wait) // it is somewhere
	_ = b.cmd.Process.Signal(syscall.SIGKILL)
	<-b.done
	h.run.count("builds killed")
	h.exact(h.start(f), f.state())
}

// restart ends a daemon, in the middle of a build or not, and starts it again.
func (h *history) restart(f *folder) {
	i := h.rnd.IntN(len(h.daemons))
	end, how := h.daemons[i].Stop, "SIGTERM"
	if h.chance(600) {
		end, how = h.daemons[i].Kill, "kill -9"
	}
	var b *modelBuild
	if h.chance(700) {
		f.freshen()
		b = h.startOn(f, i)
		time.Sleep(time.Duration(h.rnd.IntN(150)) * time.Millisecond) // it is somewhere
	}
	h.say("%s of daemon %d", how, i)
	end()
	h.daemons[i].Start(h.t)
	if b != nil {
		<-b.done
		if b.code() == 0 {
			h.exact(b, f.state())
		}
	}
	h.run.count("daemons ended by " + how)
	h.exact(h.startOn(f, i), f.state())
}

func (h *history) prune(o client.PruneOption) {
	i := h.rnd.IntN(len(h.daemons))
	c, err := client.New(h.t.Context(), h.daemons[i].UnixAddr())
	if err != nil {
		h.fail("prune: %v", err)
		return
	}
	defer func() { _ = c.Close() }()
	var info client.PruneInfo
	o.SetPruneOption(&info)
	h.say("prune daemon %d %v", i, info.Filter)
	if err := c.Prune(h.t.Context(), nil, o); err != nil {
		h.fail("prune: %v", err)
	}
	h.run.count("prunings")
}

// damage does something to what berth remembers.
func (h *history) damage() {
	list, _ := filepath.Glob(join(h.cache, "*.ctx"))
	if len(list) == 0 {
		return
	}
	path := list[h.rnd.IntN(len(list))]
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		h.fail("damage: %v", err)
		return
	}
	at := h.rnd.IntN(len(data))
	switch h.rnd.IntN(4) {
	case 0:
		h.say("truncate %s", filepath.Base(path))
		err = os.Truncate(path, int64(at))
	case 1:
		h.say("flip a bit of %s", filepath.Base(path))
		data[at] ^= 1 << h.rnd.IntN(8)
		err = os.WriteFile(path, data, 0o600)
	case 2:
		h.say("delete %s", filepath.Base(path))
		err = os.Remove(path)
	case 3:
		h.say("delete what berth remembers")
		err = os.RemoveAll(h.cache)
	}
	if err != nil {
		h.fail("damage: %v", err)
	}
	h.run.count("damages to what berth remembers")
}
