package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	of := func(s sample) int64 { return s.rss }
	for _, tc := range []struct {
		in   []int64
		want int64
	}{{nil, 0}, {[]int64{7}, 7}, {[]int64{9, 1, 5}, 5}, {[]int64{4, 1, 2, 100}, 3}} {
		var list []sample
		for _, v := range tc.in {
			list = append(list, sample{rss: v})
		}
		if got := median(list, of); got != tc.want {
			t.Errorf("%v: %d, wanted %d", tc.in, got, tc.want)
		}
	}
}

func TestBlackhole(t *testing.T) {
	b, err := newBlackhole()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	_, err = net.DialTimeout("tcp", strings.TrimPrefix(b.endpoint, "tcp://"), 200*time.Millisecond)
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("wanted a timeout, got %v", err)
	}
}

func TestOnTerminal(t *testing.T) {
	first, wall, err := onTerminal(exec.Command("sh", "-c", "test -t 1 && echo running"), "running")
	if err != nil || first <= 0 || first > wall {
		t.Errorf("first %v, wall %v, %v", first, wall, err)
	}
	if _, _, err := onTerminal(exec.Command("sh", "-c", "echo nothing"), "running"); err == nil {
		t.Error("no error though the text never appeared")
	}
}

func TestContexts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers.json")
	if err := os.WriteFile(file, []byte(`[{"Scheme":"unix","Endpoint":"unix:///x","Context":true},{"Scheme":"ssh","Endpoint":"ssh://x"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	peers, err := readPeers(file)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{options: options{contextMiB: 100, contextRuns: 1}, peers: peers}
	var w bytes.Buffer
	took := func(d time.Duration) []sample { return []sample{{wall: d, cpu: time.Second, rss: 10 << 20}} }
	b.contexts(&w, &transfers{
		routes:  []route{{tool{name: "berth"}, &b.peers[0]}, {tool{name: "berth"}, &b.peers[1]}, {tool{name: "buildx"}, &b.peers[1]}},
		samples: [][]sample{took(time.Second), took(2 * time.Second), took(4 * time.Second)},
	})
	for _, want := range []string{
		"\n| berth, ssh | 2.00 s | 50 | 1.00 s | 10.0 MiB |\n", "\n| berth, ssh / buildx, ssh | **2.00** |\n", "\n| berth, ssh / berth, unix | **0.50** |\n",
	} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("no %q in:\n%s", want, w.String())
		}
	}
	if strings.Contains(w.String(), "buildx, unix") {
		t.Errorf("a row for what was not measured:\n%s", w.String())
	}
	w.Reset()
	if b.contexts(&w, nil); w.Len() > 0 {
		t.Errorf("without peers: %s", w.String())
	}
}

func TestSection(t *testing.T) {
	b := &bench{options: options{berth: "/b"}}
	var w bytes.Buffer
	ms := time.Millisecond
	b.section(&w, table{scenario: scenario{title: "a thing"}, samples: map[string][]sample{
		"berth":  {{wall: 10 * ms, cpu: 5 * ms, rss: 10 << 20}},
		"buildx": {{wall: 40 * ms, cpu: 50 * ms, rss: 20 << 20}},
	}})
	const want = `
## A thing

| | wall | CPU | memory |
|---|---:|---:|---:|
| berth | 10.0 ms | 5.0 ms | 10.0 MiB |
| buildx | 40.0 ms | 50.0 ms | 20.0 MiB |
| berth / buildx | **0.25** | **0.10** | **0.50** |
`
	if w.String() != want {
		t.Errorf("got %s\nwanted %s", w.String(), want)
	}
}
