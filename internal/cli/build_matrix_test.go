package cli

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildkittest"
)

// badValues are what no flag of the caches, containers, annotations and rights
// can mean: flag → kind of mistake → value. A line break between two values gives
// the flag twice.
func badValues() map[string]map[string]string {
	const bell, long = "\x1b]0;pwned\a", 64 << 10
	return map[string]map[string]string{
		"--cache-from": {
			"empty": "", "malformed": "type=local,src", "no type": "ref=a", "duplicate": "type=local,src=a,src=b", "unknown": "type=no such type",
			"a bad name": "a b", "nothing to read": "type=local", "mode": "type=gha,mode=most", "hostile": "type=" + bell, "hostile name": "a/" + bell, "long": strings.Repeat("A", long),
		},
		"--cache-to": {
			"empty": "", "malformed": `type=gha,token="hunter2`, "no type": "dest=x", "duplicate": "type=local,dest=a,dest=b", "unknown": "type=no such type",
			"nowhere to write": "type=local,src=x", "twice the same": "type=local,dest=a\ntype=local,dest=a", "one folder": "type=local,dest=a\ntype=local,dest=./a,mode=max",
			"a bad flag in it": "type=registry,ref=a,ignore-error=perhaps", "hostile": "type=gha,hunter2" + bell, "long": "type=registry,ref=" + strings.Repeat("A", long),
		},
		"--no-cache-filter": {
			"empty": "", "malformed": "a,,b", "unknown": "a b", "hostile": bell, "long": strings.Repeat("ä", long/2),
		},
		"--annotation": {
			"empty": "", "malformed": "a", "no key": "=b", "unknown": "image:a=b", "unknown platform": "manifest[linux/*]:a=b", "duplicate": "index,,index:a=b",
			"no index": "index:a=hunter2", "hostile": bell + "=x", "hostile level": bell + ":a=x", "long": strings.Repeat("a", long),
		},
		"--add-host": {
			"empty": "", "malformed": "a", "no address": "a=", "no name": "=1.2.3.4", "duplicate": "a=1.2.3.4=1.2.3.5", "unknown": "a=b", "another line": "a=1.2.3.4\rb=1.2.3.4",
			"gateway": "h=host-gateway", "hostile": bell + "=1.2.3.4", "hostile address": "a=" + bell, "long": strings.Repeat("a", long),
		},
		"--network": {
			"empty": "", "malformed": "none,", "duplicate": "none,none", "unknown": "bridge", "hostile": bell, "long": strings.Repeat("a", long),
		},
		"--shm-size": {
			"empty": "", "malformed": "x", "negative": "-1", "duplicate": "1m,2m", "unknown": "1q", "too large": "99999999p", "hostile": bell, "long": strings.Repeat("9", long),
		},
		"--ulimit": {
			"empty": "", "malformed": "nofile", "duplicate": "nofile=1:2:3", "unknown": "files=1", "soft over hard": "nofile=2:1", "hostile": bell + "=1", "long": strings.Repeat("a", long),
		},
		"--cgroup-parent": {
			"empty": "", "malformed": "a\tb", "unknown": "../outside", "hostile": "/" + bell, "hostile path": "/a/../../../x",
		},
		"--resource": {
			"empty": "", "malformed": "memory", "no value": "memory=", "duplicate": "memory=1m,memory=2m", "unknown": "cpus=2", "negative": "cpu-shares=-1", "hostile": bell + "=1", "long": "memory=" + strings.Repeat("a", long),
		},
		"--allow": {
			"empty": "", "malformed": "device=", "duplicate": "device=a,alias=b,alias=c", "unknown": "fs.read=/", "hostile": bell, "long": strings.Repeat("a", long),
		},
		"--build-arg": {"empty": "", "malformed": "=hunter", "hostile": "=" + bell},
		"--secret": {
			"empty": "", "malformed": "id=x,hunter2", "duplicate": "id=x,id=y", "unknown": "id=x,value=hunter2", "hostile": "id=x," + bell,
		},
	}
}

// A value that cannot be meant ends the command with 1 and a message that names
// the flag and what would be right; no daemon is contacted and nothing is
// written. What may be a secret is not repeated, nor what acts on a terminal.
func TestBadValuesAreRefused(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	for _, flag := range slices.Sorted(maps.Keys(badValues())) {
		for kind, value := range badValues()[flag] {
			t.Run(flag+" "+kind, func(t *testing.T) {
				w := newWorld(t)
				args := []string{"build", "--builder", s.Endpoint(), "-t", "x", "-o", "type=image"}
				for v := range strings.SplitSeq(value, "\n") {
					args = append(args, flag, v)
				}
				before := tree(t, w.dir) + tree(t, w.home)
				code, stdout, stderr := w.run(nil, append(args, "ctx")...)
				lines := strings.Split(strings.TrimRight(stderr, "\n"), "\n")
				last := lines[len(lines)-1]
				if code != 1 || stdout != "" || !strings.HasPrefix(last, "ERROR: ") {
					t.Fatalf("exit %d, stdout %q, stderr:\n%s", code, stdout, stderr)
				}
				if !strings.Contains(stderr, flag) {
					t.Errorf("%s is not named:\n%s", flag, stderr)
				}
				if !strings.Contains(stderr, "hint: ") {
					t.Errorf("it does not say what would be right:\n%s", stderr)
				}
				if strings.Contains(stderr, "hunter2") {
					t.Errorf("it repeats what may be a secret:\n%s", stderr)
				}
				if strings.ContainsAny(stderr, "\x1b\a\x00") || len(stderr) > 4000 {
					t.Errorf("%d bytes of output: %.4000q", len(stderr), stderr)
				}
				if s.Connections() != 0 {
					t.Fatal("the daemon was contacted")
				}
				if after := tree(t, w.dir) + tree(t, w.home); after != before {
					t.Errorf("something was written:\n%s", after)
				}
				entries, err := os.ReadDir(filepath.Join(w.dir))
				if err != nil || len(entries) != 1 {
					t.Errorf("something was made: %v, %v", entries, err)
				}
			})
		}
	}
}

// Every flag that the matrix is about is on the command line, with the mistakes
// that are made with each.
func TestMatrixIsWhole(t *testing.T) {
	flags := newBuildCmd(&app{}).Flags()
	for flag, values := range badValues() {
		if flags.Lookup(strings.TrimPrefix(flag, "--")) == nil {
			t.Errorf("there is no %s", flag)
		}
		for _, kind := range []string{"empty", "malformed", "hostile"} {
			if _, ok := values[kind]; !ok {
				t.Errorf("%s has no value that is %s", flag, kind)
			}
		}
	}
}
