package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func recorded(t testing.TB) []kind {
	t.Helper()
	text, err := os.ReadFile("times.csv")
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := parseTimes(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

// small is a world of the same proportions as the page's.
func small(t testing.TB) world {
	w := base(recorded(t))
	w.clients, w.daemons, w.projects, w.over = 1000, 20, 100, time.Minute
	w.order = orders(w.projects, w.daemons)
	return w
}

// Whatever happens, each client is served once, on a daemon that was there, and
// no daemon ever runs more than it may.
func TestConservation(t *testing.T) {
	for name, change := range map[string]func(*world){
		"steady":         func(*world) {},
		"all at once":    func(w *world) { w.over = 0 },
		"lost":           func(w *world) { w.lost, w.from, w.to = 3, 10*time.Second, 30*time.Second },
		"lost at once":   func(w *world) { w.over, w.lost, w.from, w.to = 0, 3, time.Second, 5*time.Second },
		"lost disk":      func(w *world) { w.lost, w.from, w.to, w.loseDisk = 0, 10*time.Second, 11*time.Second, true },
		"never returned": func(w *world) { w.lost, w.from, w.to = 5, 0, time.Hour },
		"one slot":       func(w *world) { w.slots, w.daemons, w.order = 1, 3, orders(w.projects, 3) },
		"no cache":       func(w *world) { w.cache = 0 },
	} {
		for _, p := range policies() {
			t.Run(name+"/"+p.name(), func(t *testing.T) {
				w := small(t)
				change(&w)
				s := run(w, p)
				check(t, s)
			})
		}
	}
}

func check(t *testing.T, s *sim) {
	t.Helper()
	attempts := 0
	for i, c := range s.all {
		takes := c.end - c.start
		if c.served != 1 || c.on != -1 || c.start < c.arrive || takes != c.coldFor && takes != c.warmFor {
			t.Fatalf("client %d: %+v", i, c)
		}
		attempts += c.attempts
	}
	if len(s.queue) != 0 || s.free != s.slots*s.daemons {
		t.Errorf("%d wait, %d of %d slots are free", len(s.queue), s.free, s.slots*s.daemons)
	}
	for i, d := range s.members {
		if d.most > s.slots || len(d.running) != 0 || len(d.cache) > s.cache {
			t.Errorf("daemon %d: %+v", i, d)
		}
	}
	if r := s.result(); r.redone != attempts-s.clients || s.lost < 0 && r.redone != 0 {
		t.Errorf("%d begun again", r.redone)
	}
}

// No client waits while a daemon that it would take has room: nothing is held
// back. With one kind of build of one time the makespan is then known.
func TestNoIdling(t *testing.T) {
	w := small(t)
	w.kinds = []kind{{cold: []time.Duration{time.Second}, warm: []time.Duration{time.Second}}}
	w.over, w.clients, w.daemons, w.slots, w.order = 0, 100, 5, 4, orders(w.projects, 5)
	for _, p := range []policy{affinity{}, leastBusy{}, random{}} {
		if r := run(w, p).result(); r.makespan != 5*time.Second || r.waits[3] != 4*time.Second {
			t.Errorf("%s: %v, longest wait %v", p.name(), r.makespan, r.waits[3])
		}
	}
}

func TestDeterministic(t *testing.T) {
	for _, p := range policies() {
		w := small(t)
		w.lost, w.from, w.to = 3, 10*time.Second, 30*time.Second
		if a, b := run(w, p).result(), run(w, p).result(); a != b {
			t.Errorf("%s: %+v and %+v", p.name(), a, b)
		}
		c := w
		c.seed++
		if run(w, p).result() == run(c, p).result() {
			t.Errorf("%s: another seed changes nothing", p.name())
		}
	}
}

// A daemon that is lost moves its own projects, and no other.
func TestMoved(t *testing.T) {
	for _, lost := range []int{0, 7, 199} {
		m := moved(1000, 200, lost)
		if m.rendezvous != m.own || m.own == 0 || m.remainder < 900 {
			t.Errorf("%+v", m)
		}
	}
}

// The first choices have to be held out for, and not for ever.
func TestPatience(t *testing.T) {
	w := small(t)
	w.kinds = []kind{{cold: []time.Duration{time.Minute}, warm: []time.Duration{time.Minute}}}
	w.over, w.clients, w.projects, w.slots = 0, 3, 1, 1
	s := run(w, affinity{first: 2, wait: 5 * time.Second})
	var got []string
	for _, c := range s.all {
		got = append(got, fmt.Sprint(c.start))
	}
	if want := []string{"0s", "0s", "5s"}; !slices.Equal(got, want) {
		t.Errorf("started at %v, want %v", got, want)
	}
}

func TestStatistics(t *testing.T) {
	d := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	if percentile(d, 50) != 5 || percentile(d, 95) != 10 || percentile(d, 100) != 10 || percentile(nil, 50) != 0 {
		t.Errorf("percentiles %v %v", percentile(d, 50), percentile(d, 95))
	}
	if jain([]float64{2, 2, 2}) != 1 || jain([]float64{1, 0, 0, 0}) != 0.25 || jain(nil) != 1 {
		t.Error("Jain's index")
	}
}

// The page and the plot are what the program writes.
func TestPage(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	page, svg, err := render("times.csv", filepath.Join(docs, "scaling.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"scaling.md": page, "scaling.svg": svg} {
		got, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/%s is not what the program says now: make scaling (%v)", name, err)
		}
	}
}

func TestParseTimes(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{"kind,state,seconds\na,cold,1\n", "a is not there both"},
		{"kind,state,seconds\n", "no times"},
		{"kind,state,seconds\na,cold,x\n", "no number"},
		{"kind,state,seconds\na,cold,-1\n", "no number"},
		{"kind,state,seconds\na,tepid,1\n", "neither cold nor warm"},
		{"kind,state\na,b\n", "fewer than 3 fields"},
	} {
		if _, err := parseTimes(c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.text, err)
		}
	}
}

func FuzzParseTimes(f *testing.F) {
	f.Add("kind,state,seconds\na,cold,1\na,warm,0.5\n")
	f.Add("\"")
	f.Fuzz(func(t *testing.T, text string) {
		kinds, err := parseTimes(text)
		if err != nil {
			return
		}
		for _, k := range kinds {
			for _, d := range append(slices.Clone(k.cold), k.warm...) {
				if d < 0 || d > maxSeconds*time.Second {
					t.Errorf("%v", d)
				}
			}
		}
	})
}
