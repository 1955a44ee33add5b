//go:build e2e && linux

// Package test runs the berth binary, built with the race detector, against
// real daemons: buildkitd, dockerd, a registry, and docker's own command. See
// test/lab for what is started and how it ends.
package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// has fails the test unless text contains every part.
func has(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

// hasNot fails the test when text contains a part.
func hasNot(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(text, p) {
			t.Errorf("%s has %q:\n%s", what, p, text)
		}
	}
}

// lastLine is what scripts read of a failure.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return lines[len(lines)-1]
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// shared is a world with the builder "b" on the package's own daemon.
func shared(t *testing.T) (*lab.CLI, *lab.BuildKitd) {
	t.Helper()
	bk := lab.Shared(t)
	berth := lab.Berth(t)
	berth.OK("create", "--name", "b", "--driver", "remote", "--use", bk.UnixAddr())
	return berth, bk
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func join(elem ...string) string { return filepath.Join(elem...) }
