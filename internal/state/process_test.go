package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// The test binary is its own helper: with these variables it is a process
// that uses the store in that folder.
const (
	envDir  = "BERTH_TEST_STATE_DIR"
	envName = "BERTH_TEST_STATE_NAME"
	envLoop = "BERTH_TEST_STATE_LOOP"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(envDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, name := Open(dir), os.Getenv(envName)
	// The machine may be slow; what is tested is that nothing gets lost.
	s.lockBudget = 2 * time.Minute
	for {
		if err := useStore(context.Background(), s, name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if os.Getenv(envLoop) == "" {
			return
		}
		fmt.Println("round") // fails when the test has gone, and ends the process
	}
}

// useStore creates a builder that stays and one that goes, adds a node to the
// shared one, and chooses its own.
func useStore(ctx context.Context, s *Store, name string) error {
	added := func(builder, node string) error {
		return s.Change(ctx, builder, func(g *Group) (*Group, error) {
			if g == nil {
				g = &Group{Name: builder, Driver: "remote"}
			}
			if !slices.ContainsFunc(g.Nodes, func(n Node) bool { return n.Name == node }) {
				g.Nodes = append(g.Nodes, Node{Name: node, Endpoint: "tcp://h:1"})
			}
			return g, nil
		})
	}
	goes := "goes-" + name
	id, err := s.NodeID(ctx)
	steps := []error{
		err,
		added("stays-"+name, "n"),
		added(goes, "n"),
		added("shared", name),
		s.SetCurrent(ctx, "k", "stays-"+name, false, true),
		s.Touch(ctx, goes, time.Now()),
		s.SaveRef(ctx, goes, "n", id, Ref{Target: name}),
		s.Remove(ctx, goes),
	}
	_, damages, err := s.List(ctx)
	if damages != nil {
		err = fmt.Errorf("damaged: %v", damages)
	}
	return errors.Join(append(steps, err)...)
}

func helper(t *testing.T, dir, name, loop string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envDir+"="+dir, envName+"="+name, envLoop+"="+loop)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestManyProcessesLoseNothing(t *testing.T) {
	const n = 50
	dir := t.TempDir()
	var procs []*exec.Cmd
	for i := range n {
		cmd := helper(t, dir, fmt.Sprintf("p%02d", i), "")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		procs = append(procs, cmd)
	}
	for _, cmd := range procs {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	s := Open(dir)
	groups, damages, err := s.List(t.Context())
	if err != nil || damages != nil {
		t.Fatal(damages, err)
	}
	want := []string{"shared"}
	for i := range n {
		want = append(want, fmt.Sprintf("stays-p%02d", i))
	}
	if got := names(groups); !slices.Equal(got, want) {
		t.Errorf("builders %q, want %q", got, want)
	}
	if got := len(groups[0].Nodes); got != n {
		t.Errorf("the shared builder has %d nodes, want %d", got, n)
	}
	if cur, err := s.Current(t.Context(), "k"); err != nil || !slices.Contains(want, cur) {
		t.Errorf("Current = %q, %v", cur, err)
	}
	for _, left := range []string{"activity", "refs"} {
		entries, err := os.ReadDir(s.path(left))
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if e.Name() != versionFile {
				t.Errorf("left behind: %s/%s", left, e.Name())
			}
		}
	}
}

// A killed process must leave state that can be read and changed, and no lock.
func TestKilledProcessLeavesReadableState(t *testing.T) {
	const rounds = 25
	s := Open(t.TempDir())
	id := ""
	for range rounds {
		cmd := helper(t, s.dir, fmt.Sprintf("p%d", rand.N(3)), "1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rand.N(3) {
			lines.Scan()
		}
		// Anywhere within a round: as long as one read of ours takes, some times.
		for range rand.N(200) {
			_, _ = os.ReadDir(s.path("instances"))
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // "signal: killed"

		groups, damages, err := s.List(t.Context())
		if err != nil || damages != nil || len(groups) < 2 {
			t.Fatalf("after a kill: %q, %v, %v", names(groups), damages, err)
		}
		if cur, err := s.Current(t.Context(), "k"); err != nil || cur == "" {
			t.Fatalf("after a kill: Current = %q, %v", cur, err)
		}
		now, err := s.NodeID(t.Context())
		if err != nil || id != "" && now != id {
			t.Fatalf("after a kill: NodeID = %q, was %q, %v", now, id, err)
		}
		id = now
	}
}
