//go:build e2e && linux

package test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// cacheRecord is a line of `du --format json`.
type cacheRecord struct {
	ID, Node, Type, Description, Size string
	Mutable, Reclaimable              bool
	Parents                           []string
}

func cacheOf(t *testing.T, berth *lab.CLI, args ...string) []cacheRecord {
	t.Helper()
	var all []cacheRecord
	for line := range strings.Lines(berth.OK(append([]string{"du", "--format", "json"}, args...)...).Stdout) {
		var r cacheRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func recordIDs(all []cacheRecord) []string {
	var ids []string
	for _, r := range all {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

// removedIDs are those in prune's table.
func removedIDs(out string) []string {
	var ids []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9]{25})\*? `).FindAllStringSubmatch(out, -1) {
		ids = append(ids, m[1])
	}
	slices.Sort(ids)
	return ids
}

// fillCache builds something that leaves a record of several kinds.
func fillCache(t *testing.T, berth *lab.CLI, args ...string) {
	t.Helper()
	dir := lab.ShellContext(t, "COPY f /f\nRUN --mount=type=cache,target=/c echo x > /c/x\nRUN dd if=/dev/zero of=/big bs=1024 count=3000\n", map[string]string{"f": "f"})
	build(t, berth, dir, args...)
}

// withoutAges leaves out what two runs cannot have in common.
func withoutAges(text string) string {
	return regexp.MustCompile(`(Less than a second|About a minute|\d+ (second|minute)s?) ago`).ReplaceAllString(text, "AGE")
}

// What scripts read of du, to the byte.
func TestDuBesideBuildx(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "b", "--use", bk.UnixAddr())
	buildx := *berth
	buildx.Bin = lab.Tool(t, "buildx")
	compare := func(args ...string) {
		t.Helper()
		ours, theirs := berth.Run(append([]string{"du"}, args...)...), buildx.Run(append([]string{"du"}, args...)...)
		if ours.Code != theirs.Code || withoutAges(ours.Stdout) != withoutAges(theirs.Stdout) {
			t.Errorf("du %q: berth\n%s\nbuildx\n%s", args, ours, theirs)
		}
	}
	compare() // an empty cache
	fillCache(t, berth)
	for _, args := range [][]string{
		nil, {"--verbose"}, {"--format", "table"}, {"--format", "pretty"}, {"--format", "json"}, {"--timeout", "30s"},
		{"--format", "{{.ID}} {{.Parents}} {{.CreatedAt}} {{.Mutable}} {{.Reclaimable}} {{.Shared}} {{.Size}} {{.Description}} {{.UsageCount}} {{.LastUsedAt}} {{.Type}}"},
		{"--format", `table {{.ID}}\t{{.Description}}`}, {"--format", "{{json .ID}}"},
		{"--filter", "type=regular"}, {"--filter", "type!=regular"}, {"--filter", "type~=source"}, {"--filter", "TYPE=regular"},
		{"--filter", "description~=COPY"}, {"--filter", `description="local source for context"`}, {"--filter", "id=a"},
		{"--filter", "type=regular", "--filter", "description~=COPY"}, {"--filter", "type=regular,mutable"}, {"--filter", ""},
		{"--filter", "parents=nosuch"}, {"--filter", "until=0s"}, {"--filter", "x"}, {"--filter", "until=x"}, {"--filter", "type=regular", "--filter", "type=frontend"},
		{"--format", "json", "--verbose"}, {"--format", "{{.Nope}}"}, {"--timeout", "x"}, {"extra"}, {"--builder", "nosuch"},
	} {
		compare(args...)
	}
}

// Two daemons: du says what each has, prune removes just that.
func TestPruneFreesWhatDuShows(t *testing.T) {
	one, two := lab.BuildKit(t, lab.BuildKitOpts{}), lab.BuildKit(t, lab.BuildKitOpts{})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "one", one.UnixAddr())
	berth.OK("create", "--name", "two", two.UnixAddr())
	berth.OK("create", "--name", "both", "--use", one.UnixAddr())
	berth.OK("create", "--name", "both", "--append", two.UnixAddr())
	fillCache(t, berth, "--builder", "one")
	build(t, berth, lab.HelloContext(t), "--builder", "two")

	before := cacheOf(t, berth)
	byNode := map[string]int{}
	for _, r := range before {
		byNode[r.Node]++
	}
	if byNode["both0"] != len(cacheOf(t, berth, "--builder", "one")) || byNode["both1"] != len(cacheOf(t, berth, "--builder", "two")) || byNode["both1"] == 0 {
		t.Errorf("records by node: %v", byNode)
	}
	table := berth.OK("du").Stdout
	has(t, "du", table, "LAST ACCESSED", "NODE\n", "both0\n", "both1\n")
	total := regexp.MustCompile(`(?m)^Total:\s+(.*)$`).FindStringSubmatch(table)[1]

	// Some kinds first, shown by the same filter.
	mounts := cacheOf(t, berth, "--filter", "type=exec.cachemount")
	out := berth.OK("prune", "-f", "--filter", "type=exec.cachemount").Stdout
	if got := removedIDs(out); len(got) != 1 || !slices.Equal(got, recordIDs(mounts)) {
		t.Errorf("removed %q of %v", got, mounts)
	}
	// A record whose parents are named, which BuildKit's own prune cannot do.
	var child cacheRecord
	for _, r := range before {
		if len(r.Parents) > 0 && r.Mutable {
			child = r
		}
	}
	parent := "parents=" + strings.Join(child.Parents, ";")
	children := cacheOf(t, berth, "--filter", parent)
	if got := removedIDs(berth.OK("prune", "-f", "--filter", parent).Stdout); len(got) == 0 || !slices.Equal(got, recordIDs(children)) {
		t.Errorf("removed %q, the children of %s are %q", got, parent, recordIDs(children))
	}
	if left := cacheOf(t, berth, "--filter", "until=1h"); len(left) != 0 {
		t.Errorf("not used for an hour, just made: %v", left)
	}
	if got := removedIDs(berth.OK("prune", "-f", "--filter", "until=1h").Stdout); len(got) != 0 {
		t.Errorf("removed %q, which were used just now", got)
	}
	berth.OK("prune", "--force", "--reserved-space", "10gb")
	left := cacheOf(t, berth)
	if len(left) != len(before)-1-len(children) {
		t.Errorf("%d records are left of %d", len(left), len(before))
	}

	out = berth.OK("prune", "--force", "--all", "--verbose").Stdout
	for _, r := range left {
		has(t, "prune", out, "ID:\t\t"+r.ID+"\nNode:\t\t"+r.Node+"\n")
	}
	if rest := cacheOf(t, berth); len(rest) != 0 {
		t.Errorf("left after prune --all: %v", rest)
	}
	has(t, "du", berth.OK("du").Stdout, "Total:\t\t0B\n", "  both0:\t0B\n")
	if total == "0B" {
		t.Error("there was nothing to remove")
	}
}

func TestPruneToALimit(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "b", "--use", bk.UnixAddr())
	fillCache(t, berth)
	sizes, err := bk.Client(t).DiskUsage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all int64
	for _, r := range sizes {
		all += r.Size
	}
	if all < 4<<20 {
		t.Fatalf("the cache holds %d bytes only", all)
	}
	berth.OK("prune", "--force", "--max-used-space", "4mb")
	if sizes, err = bk.Client(t).DiskUsage(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left int64
	for _, r := range sizes {
		left += r.Size
	}
	if left > 4<<20 || left == 0 {
		t.Errorf("%d bytes are left of %d", left, all)
	}
	has(t, "prune", berth.OK("prune", "--force", "--max-used-space", "1gb", "--min-free-space", "1").Stdout, "Total:\t0B\n") // both hold already
}

// The question, on a terminal.
func TestPruneAsks(t *testing.T) {
	berth, _ := shared(t)
	fillCache(t, berth)
	const question = "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N]"
	for answer, code := range map[string]int{"n\n": 0, "\n": 0, "yess\n": 0} {
		p := berth.Cmd("prune").TTY().Start()
		p.WaitFor(question)
		p.Type(answer)
		if r := p.Wait(); r.Code != code || strings.Contains(r.Stdout, "Total:") {
			t.Errorf("%q: %s", answer, r)
		}
	}
	p := berth.Cmd("prune").TTY().Start()
	p.WaitFor(question)
	p.Interrupt()
	if r := p.Wait(); r.Code != 130 {
		t.Errorf("Ctrl-C: %s", r)
	}
	if len(cacheOf(t, berth)) == 0 {
		t.Error("something was removed without a yes")
	}
	p = berth.Cmd("prune", "--filter", "type=exec.cachemount").TTY().Start()
	p.WaitFor(question)
	p.Type("y\n")
	if r := p.Wait(); r.Code != 0 || !strings.Contains(r.Stdout, "Total:") {
		t.Error(r)
	}
	if left := cacheOf(t, berth, "--filter", "type=exec.cachemount"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// One of two daemons is dead, or frozen: the other one's part is done.
func TestDuAndPruneWithOneDown(t *testing.T) {
	one, two := lab.BuildKit(t, lab.BuildKitOpts{}), lab.BuildKit(t, lab.BuildKitOpts{TCP: true})
	berth := lab.Berth(t)
	berth.OK("create", "--name", "b", "--use", one.UnixAddr())
	berth.OK("create", "--name", "b", "--append", two.TCPAddr())
	fillCache(t, berth, onFirst("b0", "b1"))
	check := func(args ...string) {
		t.Helper()
		r := berth.Fail(args...)
		has(t, "stdout", r.Stdout, "Total:", "  b0:")
		hasNot(t, "stdout", r.Stdout, " b1") // as a word: it may be in an ID
		has(t, "stderr", r.Stderr, "hint: ")
		has(t, "last line", lastLine(r.Stderr), "ERROR: node b1 of builder b at "+two.TCPAddr()+": ")
	}
	two.Pause()
	check("du", "--timeout", "2s")
	two.Resume()
	two.Kill()
	check("du", "--timeout", "1s")
	check("prune", "--force", "--timeout", "1s")
	if left := cacheOf(t, berth, "--builder", one.UnixAddr()); len(left) != 0 {
		t.Errorf("left on the node that is up: %v", left)
	}
	one.Kill()
	r := berth.Fail("du", "--timeout", "1s")
	has(t, "stderr", r.Stderr, "node b0 of builder b at", "node b1 of builder b at")
	has(t, "last line", lastLine(r.Stderr), "ERROR: 2 of the 2 nodes of builder b could not be asked")
}

// Docker's own BuildKit, old and new.
func TestDuOfDocker(t *testing.T) {
	engines := map[string]func(*testing.T) *lab.Dockerd{
		"old": func(t *testing.T) *lab.Dockerd { return lab.Docker(t) },
	}
	for _, store := range lab.Stores() {
		engines[string(store)] = func(t *testing.T) *lab.Dockerd { return lab.ModernEngine(t, lab.ModernOpts{Store: store}) }
	}
	for name, start := range engines {
		t.Run(name, func(t *testing.T) {
			engine := start(t)
			berth := lab.Berth(t).WithDocker(engine)
			dir := lab.Context(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": strings.Repeat("a", 1<<20)})
			build(t, berth, dir, "-o", t.TempDir())
			before := cacheOf(t, berth)
			if len(before) == 0 {
				t.Fatal("the engine's cache is empty after a build")
			}
			has(t, "du", berth.OK("du").Stdout, "Reclaimable:", "Total:")
			if n := len(cacheOf(t, berth, "--filter", "type=source.local")); n == 0 || n == len(before) {
				t.Errorf("%d of %d records are of one type", n, len(before))
			}
			if old := cacheOf(t, berth, "--filter", "until=1h"); len(old) != 0 {
				t.Errorf("not used for an hour, just made: %v", old)
			}
			if name == "old" {
				r := berth.Fail("prune", "-f", "--max-used-space", "1gb")
				has(t, "stderr", r.Stderr, "buildkit v0.17.0+ is required", "Docker/20.10")
			} else {
				berth.OK("prune", "-f", "--max-used-space", "1gb")
			}
			berth.OK("prune", "-f", "-a")
			if left := cacheOf(t, berth); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
