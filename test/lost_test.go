//go:build e2e && linux

package test

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthbuild/berth/test/lab"
)

const (
	// noHang is when a build must have ended whose daemon was lost: 30 s, and room
	// for a busy machine.
	noHang = 45 * time.Second
	// atOnce is when one must have ended that was interrupted: 2 s, and room.
	atOnce = 8 * time.Second
)

// sleeper is a context whose RUN says that it runs, for d seconds. Two steps of one
// daemon need different names: it would run them as one.
func sleeper(t *testing.T, name string, d int, more string) string {
	return lab.ShellContext(t, fmt.Sprintf("RUN echo sta''rted %s; sleep %d\n%s", name, d, more), nil)
}

// within waits for a build that must have ended by a time, and fails when it
// hangs.
func within(t *testing.T, what string, p *lab.Process, by time.Time) lab.Result {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(time.Until(by)):
		t.Errorf("%s: it hangs:\n%s", what, p.Stderr())
		p.Signal(syscall.SIGQUIT) // its goroutines
	}
	return p.Wait()
}

// losing is a build that loses its daemon in the middle.
type losing struct {
	name, addr string
	cli        *lab.CLI
	context    string
	args       []string
	ready      <-chan struct{} // when the fault may come; nil: when it says so
	says       string          // "": that the step runs
	fault      func()
	want       []string // in the last line, besides the name and the address
	hint       string

	p *lab.Process
}

func (l *losing) start() {
	l.cli.OK("create", "--name", l.name, "--driver-opt", "retries=0", l.addr)
	args := append([]string{"build", "--builder", l.name, "--progress", "plain", "--no-cache"}, l.args...)
	l.p = l.cli.Cmd(append(args, ".")...).Dir(l.context).Start()
}

// waitReady waits until the build is where the fault is to come.
func (l *losing) waitReady(t *testing.T) {
	t.Helper()
	if l.ready == nil {
		l.p.WaitFor(cmp.Or(l.says, "started "+l.name))
		return
	}
	select {
	case <-l.ready:
	case <-l.p.Done():
		t.Fatalf("%s: it ended: %s", l.name, l.p.Wait())
	}
}

// lose makes all the faults, and then looks how the builds end.
func lose(t *testing.T, all []*losing) {
	t.Helper()
	for _, l := range all {
		l.start()
	}
	for _, l := range all {
		l.waitReady(t)
		l.fault()
	}
	by := time.Now().Add(noHang)
	for _, l := range all {
		r := within(t, l.name, l.p, by)
		if r.Code != 1 {
			t.Errorf("%s: exit %d", l.name, r.Code)
		}
		last := lastLine(r.Stderr)
		t.Log(last)
		has(t, l.name, last, append([]string{"ERROR: failed to build: ", "node " + l.name + "0 of builder " + l.name + " at " + l.addr}, l.want...)...)
		hasNot(t, l.name, last, "rpc error", "context canceled", "deadline")
		has(t, l.name, r.Stderr, "\nhint: ", l.hint)
		if strings.Count(r.Stderr, "ERROR: failed to build") != 1 {
			t.Errorf("%s: not one error: %s", l.name, r.Stderr)
		}
	}
}

// A daemon that is killed, frozen, cut off or cut in the middle of a RUN: one
// clear error each, which says what happened, and never a hang.
func TestLostInTheMiddle(t *testing.T) {
	t.Parallel()
	berth := lab.Berth(t)
	killedTCP, killedUnix := lab.BuildKit(t, lab.BuildKitOpts{TCP: true}), lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	frozenTCP, frozenUnix := lab.BuildKit(t, lab.BuildKitOpts{TCP: true}), lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	link := lab.NewLink(t)
	silent, cut, wall := lab.NewRelay(t, "127.0.0.1", bk.TCPAddr()), lab.NewRelay(t, "127.0.0.1", bk.TCPAddr()), lab.NewRelay(t, link.Near, bk.TCPAddr())
	defer frozenTCP.Resume()
	defer frozenUnix.Resume()
	out := t.TempDir()
	lost := func(name, addr string, fault func(), want, hint string) *losing {
		return &losing{
			name: name, addr: addr, cli: berth, context: sleeper(t, name, 601, ""), fault: fault, hint: hint,
			args: []string{"-o", "type=tar,dest=" + join(out, name+".tar")}, want: []string{"was lost during the build: ", want},
		}
	}
	behind := lost("walled", wall.Addr(), link.Drop, "nothing was heard of it for ", "berth doctor walled")
	behind.cli = link.Berth(berth)
	lose(t, []*losing{
		lost("killed", killedTCP.TCPAddr(), killedTCP.Kill, ", and it cannot be reached now (", "berth inspect killed"),
		lost("socket", killedUnix.UnixAddr(), killedUnix.Kill, ", and it cannot be reached now (", "out of memory?"),
		lost("frozen", frozenTCP.TCPAddr(), frozenTCP.Pause, "nothing was heard of it for ", "berth doctor frozen"),
		lost("icy", frozenUnix.UnixAddr(), frozenUnix.Pause, "nothing was heard of it for ", "berth doctor icy"),
		lost("silent", silent.Addr(), func() { silent.Silence(true) }, "not even the answer to a ping", "berth doctor silent"),
		lost("cut", cut.Addr(), cut.Cut, ", but the daemon answers: it was restarted, or something on the way cut the connection", "proxy or firewall"),
		behind,
	})
	if left := names(t, out); len(left) != 0 {
		t.Errorf("left at the destination: %q", left)
	}
}

// ballast is a file that does not compress, of so many MiB.
const ballast = 64

// A connection that is cut, or falls silent, while a context is sent or a result
// fetched.
func TestLostInTransfer(t *testing.T) {
	t.Parallel()
	berth := lab.Berth(t)
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	data := make([]byte, ballast<<20)
	_, _ = rand.Read(data) // never fails
	out := t.TempDir()
	var all []*losing
	for _, up := range []bool{true, false} {
		for _, cut := range []bool{true, false} {
			all = append(all, transfer(t, berth, bk, data, out, up, cut))
		}
	}
	lose(t, all)
	if left := names(t, out); len(left) != 0 {
		t.Errorf("left at the destination: %q", left)
	}
}

// transfer is a build whose connection ends while its bytes go up, or down.
func transfer(t *testing.T, berth *lab.CLI, bk *lab.BuildKitd, data []byte, out string, up, cut bool) *losing {
	t.Helper()
	relay := lab.NewRelay(t, "127.0.0.1", bk.TCPAddr())
	l := &losing{
		cli: berth, addr: relay.Addr(), want: []string{"was lost during the build: ", "nothing was heard of it for "}, hint: "berth doctor ",
		fault: func() {}, // it has fallen silent
	}
	way := "down"
	if up {
		way = "up"
		// Each has content of its own: the daemon would fetch one for both.
		l.context = lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY ballast cut /\n", "cut": fmt.Sprint(cut)})
		if err := os.WriteFile(join(l.context, "ballast"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		l.ready = relay.StopAfter(ballast<<20/8, 0)
	} else {
		l.context = lab.ShellContext(t, fmt.Sprintf("RUN head -c %d /dev/urandom > /ballast\n", ballast<<20), nil)
		l.ready = relay.StopAfter(0, ballast<<20/8)
	}
	l.name = "mute-" + way
	if cut {
		l.name, l.hint, l.want[1] = "cut-"+way, "proxy or firewall", ", but the daemon answers: "
		l.fault = func() {
			relay.Cut()
			relay.Silence(false) // for whoever comes next
		}
	}
	l.args = []string{"-o", "type=tar,dest=" + join(out, l.name+".tar")}
	return l
}

// Pauses of 20 s survive, of the daemon as of the client.
func TestPausesSurvive(t *testing.T) {
	t.Parallel()
	const pause, longer = 20 * time.Second, 40
	berth := lab.Berth(t)
	var builds []*lab.Process
	stop := map[int]func(on bool){}
	for i, bk := range []*lab.BuildKitd{lab.BuildKit(t, lab.BuildKitOpts{TCP: true}), lab.BuildKit(t, lab.BuildKitOpts{Unix: true}), lab.BuildKit(t, lab.BuildKitOpts{TCP: true})} {
		name := fmt.Sprintf("p%d", i)
		berth.OK("create", "--name", name, bk.Addr())
		// A secret is asked for at the end: the session has survived, too.
		dir := sleeper(t, name, longer, "RUN --mount=type=secret,id=s cat /run/secrets/s\n")
		p := berth.Cmd("build", "--builder", name, "--progress", "plain", "--secret", "id=s,src="+join(dir, "Dockerfile"), ".").Dir(dir).Start()
		builds = append(builds, p)
		stop[i] = func(on bool) {
			switch {
			case i < 2 && on:
				bk.Pause()
			case i < 2:
				bk.Resume()
			case on:
				p.Signal(syscall.SIGSTOP)
			default:
				p.Signal(syscall.SIGCONT)
			}
		}
	}
	for i, p := range builds {
		p.WaitFor(fmt.Sprintf("started p%d", i))
	}
	for i := range builds {
		stop[i](true)
		defer stop[i](false)
	}
	time.Sleep(pause) // that is the fault; nothing is waited for
	for i := range builds {
		stop[i](false)
	}
	for i, p := range builds {
		if r := p.Wait(); r.Code != 0 {
			t.Errorf("p%d: %s", i, r)
		}
	}
}

// A client that was suspended for so long that the daemon gave its session up:
// what needs no session goes on, what needs it is built again, or fails with the
// reason.
func TestSessionLost(t *testing.T) {
	t.Parallel()
	berth := lab.Berth(t)
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	berth.OK("create", "--name", "slept", "--driver-opt", "retries=0", bk.TCPAddr())
	berth.OK("create", "--name", "awake", bk.TCPAddr())
	start := func(builder, name, more string) *lab.Process {
		dir := sleeper(t, name, 60, more)
		p := berth.Cmd("build", "--builder", builder, "--progress", "plain", "--secret", "id=s,src="+join(dir, "Dockerfile"), ".").Dir(dir).Start()
		p.WaitFor("started " + name)
		p.Signal(syscall.SIGSTOP)
		return p
	}
	builds := []*lab.Process{
		start("slept", "needy", "RUN --mount=type=secret,id=s cat /run/secrets/s\n"),
		start("slept", "interrupted", "RUN --mount=type=secret,id=s,required cat /run/secrets/s\n"),
		start("slept", "modest", "RUN echo done\n"),
		start("awake", "stubborn", "RUN --mount=type=secret,id=s cat /run/secrets/s\n"),
	}
	bk.WaitForLog(t, `msg="healthcheck failed fatally"`, 3*len(builds)) // of each its own, and those of its context and of its Dockerfile
	for _, p := range builds {
		p.Signal(syscall.SIGCONT)
	}
	builds[1].Interrupt()
	if r := within(t, "interrupted", builds[1], time.Now().Add(atOnce)); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
		t.Errorf("interrupted without a session: %s", r)
	}
	r := within(t, "needy", builds[0], time.Now().Add(noHang))
	if r.Code != 1 {
		t.Errorf("without its session: %s", r)
	}
	has(t, "last line", lastLine(r.Stderr), "session with node slept0 of builder slept at "+bk.TCPAddr()+" was lost during the build: ", "the daemon lost touch with this machine")
	hasNot(t, "last line", lastLine(r.Stderr), "context deadline")
	has(t, "stderr", r.Stderr, "hint: build again", "suspended")
	if r := builds[2].Wait(); r.Code != 0 {
		t.Errorf("a build that needs no session any more: %s", r)
	}
	if r := builds[3].Wait(); r.Code != 0 || !strings.Contains(r.Stderr, "building again: session with node awake0 of builder awake") {
		t.Errorf("a build that may be built again: %s", r)
	}
}

// A daemon that is told to stop: what it builds ends well; what comes then is
// refused, and told why when the connection was there already.
func TestDraining(t *testing.T) {
	t.Parallel()
	berth := lab.Berth(t)
	bk := lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	other := lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	other.Stop()
	berth.OK("create", "--name", "d", "--platform", "linux/amd64", bk.TCPAddr())
	berth.OK("create", "--append", "--name", "d", "--platform", "linux/arm64", other.UnixAddr())
	running := func(name string, d int) *lab.Process {
		dir := sleeper(t, name, d, "RUN --mount=type=secret,id=s cat /run/secrets/s\n")
		p := berth.Cmd("build", "--builder", "d", "--platform", "linux/amd64", "--progress", "plain", "--secret", "id=s,src="+join(dir, "Dockerfile"), ".").Dir(dir).Start()
		p.WaitFor("started " + name)
		return p
	}
	ends, interrupted := running("ends", 20), running("interrupted", 601)
	// It waits for the other node, and finds the first one gone when that is there.
	late := berth.Cmd("build", "--builder", "d", "--platform", "linux/amd64,linux/arm64", "--progress", "plain", ".").Dir(lab.HelloContext(t)).Start()
	late.WaitFor("no node for linux/arm64: node d1 of builder d")
	bk.Terminate()
	bk.WaitRefused(t)
	other.Start(t)
	r := within(t, "late", late, time.Now().Add(noHang))
	if r.Code != 1 {
		t.Errorf("a build that came late: %s", r)
	}
	has(t, "last line", lastLine(r.Stderr), "no node for linux/amd64: node d0 of builder d at "+bk.TCPAddr(), "connection refused")
	r = berth.Run("build", "--builder", "d", "--platform", "linux/amd64", "--timeout", "1s", lab.HelloContext(t))
	if r.Code != 1 {
		t.Errorf("a new build: %s", r)
	}
	has(t, "a new build", lastLine(r.Stderr), "node d0 of builder d at "+bk.TCPAddr(), "connection refused")
	interrupted.Interrupt()
	if r := within(t, "interrupted", interrupted, time.Now().Add(atOnce)); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
		t.Errorf("interrupted while draining: %s", r)
	}
	if r := ends.Wait(); r.Code != 0 {
		t.Errorf("the build that ran: %s", r)
	}
}

// Ctrl-C ends a build at once, in whatever state it is.
func TestInterruptAnywhere(t *testing.T) {
	t.Parallel()
	berth := lab.Berth(t)
	bk, frozen := lab.BuildKit(t, lab.BuildKitOpts{TCP: true}), lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	defer frozen.Resume()
	data := make([]byte, ballast<<20)
	_, _ = rand.Read(data) // never fails
	out := t.TempDir()
	link := lab.NewLink(t)
	wall := lab.NewRelay(t, link.Near, bk.TCPAddr())
	silent := lab.NewRelay(t, "127.0.0.1", bk.TCPAddr())
	at := func(name, addr string, fault func()) *losing {
		return &losing{name: name, addr: addr, cli: berth, context: sleeper(t, name, 602, ""), fault: fault}
	}
	walled := at("walled", wall.Addr(), link.Drop)
	walled.cli = link.Berth(berth)
	all := []*losing{
		at("running", bk.TCPAddr(), func() {}), at("frozen", frozen.UnixAddr(), frozen.Pause), at("silent", silent.Addr(), func() { silent.Silence(true) }), walled,
		transfer(t, berth, bk, data, out, true, false), transfer(t, berth, bk, data, out, false, false),
	}
	greeting := at("greeting", stall(t), func() {})
	greeting.says = "waiting for node greeting0"
	all = append(all, greeting)
	for _, l := range all {
		l.start()
		l.waitReady(t)
		l.fault()
		l.p.Interrupt()
		if r := within(t, l.name, l.p, time.Now().Add(atOnce)); r.Code != 130 || lastLine(r.Stderr) != "ERROR: canceled" {
			t.Errorf("%s: %s", l.name, r)
		}
	}
	if left := names(t, out); len(left) != 0 {
		t.Errorf("left at the destination: %q", left)
	}
}
