//go:build e2e && linux

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tools are the pinned binaries that `make tools` builds into the cache.
type Tools struct {
	BuildKitd, BuildCtl string
}

// FindTools gives the tools' paths, and fails the test when they are not built.
func FindTools(t testing.TB) Tools {
	t.Helper()
	return Tools{BuildKitd: Tool(t, "buildkitd"), BuildCtl: Tool(t, "buildctl")}
}

// Tool is the path of one pinned binary out of the cache: buildkitd, buildctl,
// buildx. It fails the test when it is not built.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(cacheDir(t), "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("lab: %v: run `make tools`", err)
	}
	return path
}

// cacheDir is $BERTH_CACHE, or ~/.cache/berth.
func cacheDir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("BERTH_CACHE"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal("lab: ", err)
	}
	return filepath.Join(home, ".cache", "berth")
}

// Need skips the test, loudly, when the machine lacks one of the programs; it
// fails the test where CI=true, because there a skipped test is a test that
// nobody runs. The name "root" asks for user id 0.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		if p == "root" {
			if os.Geteuid() != 0 {
				missing = append(missing, "root rights")
			}
		} else if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return
	}
	what := "this machine lacks " + strings.Join(missing, ", ") + ": `make deps` installs what the tests need"
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip("SKIPPED: " + what)
}
