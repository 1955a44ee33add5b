package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/rendezvous"
)

// base is the world of the page.
func base(kinds []kind) world {
	w := world{
		clients: 10_000, daemons: 200, projects: 1000, slots: 4, cache: 25, skew: 0.9,
		over: time.Minute, kinds: kinds, seed: 1, lost: -1,
	}
	w.order = orders(w.projects, w.daemons)
	return w
}

// scenario is a world with a title.
type scenario struct {
	title string
	w     world
}

func scenarios(base world) []scenario {
	calm, steady, burst := base, base, base
	calm.over = 10 * time.Minute
	burst.over = 0
	return []scenario{
		{"Over ten minutes: a tenth of the daemons would do, even if all caches were cold", calm},
		{"Over one minute: without warm caches the daemons are just too few", steady},
		{"All at once", burst},
	}
}

// losing is the calm world in which a daemon goes and comes back: the one where
// the most popular project is at home.
func losing(w world) world {
	w.over, w.from, w.to = 10*time.Minute, 4*time.Minute, 7*time.Minute
	w.lost = w.order[0][0]
	return w
}

// The marks between which the tables stand.
const (
	beginMark = "<!-- begin: made by `make scaling` -->\n"
	endMark   = "<!-- end -->\n"
)

// fill puts text between the marks of a page.
func fill(page []byte, text string) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(beginMark))
	_, after, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok || !ok2 {
		return nil, errors.New("it has no marks for the tables")
	}
	return bytes.Join([][]byte{before, []byte(beginMark), []byte(text), []byte(endMark), after}, nil), nil
}

// tables is all that the page tells in numbers.
func tables(kinds []kind) string {
	var b strings.Builder
	w := base(kinds)
	for _, s := range scenarios(w) {
		fmt.Fprintf(&b, "### %s\n\n", s.title)
		b.WriteString("| policy | makespan | wait: median | 95 % | 99 % | longest | wait and build: median | 95 % | warm caches | fairness |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
		for _, p := range policies() {
			r := run(s.w, p).result()
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %.2f |\n", r.policy, seconds(r.makespan),
				seconds(r.waits[0]), seconds(r.waits[1]), seconds(r.waits[2]), seconds(r.waits[3]),
				seconds(r.turnarounds[0]), seconds(r.turnarounds[1]), percent(r.hits), r.fair)
		}
		b.WriteString("\n")
	}
	lossTables(&b, losing(w))
	return b.String()
}

func lossTables(b *strings.Builder, w world) {
	fmt.Fprintf(b, "### A daemon is lost from minute %.0f to minute %.0f of ten\n\n", w.from.Minutes(), w.to.Minutes())
	b.WriteString("| policy | its disk | builds begun again | longest wait | warm caches before | while it is away | after |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, p := range []policy{affinity{}, leastBusy{}, random{}} {
		for _, disk := range []string{"kept", "lost"} {
			w.loseDisk = disk == "lost"
			if _, ok := p.(affinity); w.loseDisk && !ok {
				continue // it hardly matters where few caches are warm
			}
			r := run(w, p).result()
			fmt.Fprintf(b, "| %s | %s | %d | %s | %s | %s | %s |\n", r.policy, disk, r.redone, seconds(r.waits[3]), percent(r.before), percent(r.during), percent(r.after))
		}
	}
	m := moved(w.projects, w.daemons, w.lost)
	fmt.Fprintf(b, "\nOf the %d projects, %d are at home on that daemon (%.1f expected), and %d move when it goes: to %d other daemons. With the remainder of a hash by the number of daemons, %d would move.\n",
		w.projects, m.own, float64(w.projects)/float64(w.daemons), m.rendezvous, m.heirs, m.remainder)
}

// moves counts the projects whose first daemon is another one when one is lost.
type moves struct {
	own        int // those that were its own
	rendezvous int
	heirs      int // daemons that inherit
	remainder  int // moved if the daemon were chosen by hash modulo their number
}

func moved(projects, daemons, lost int) moves {
	names := memberNames(daemons)
	left := append(append([]string{}, names[:lost]...), names[lost+1:]...)
	var m moves
	heirs := map[string]bool{}
	for i := range projects {
		key := projectKey(i)
		before, after := names[rendezvous.Order(key, names)[0]], left[rendezvous.Order(key, left)[0]]
		if before == names[lost] {
			m.own++
		}
		if before != after {
			m.rendezvous++
			heirs[after] = true
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(key)) // never fails
		if names[h.Sum64()%uint64(daemons)] != left[h.Sum64()%uint64(daemons-1)] {
			m.remainder++
		}
	}
	m.heirs = len(heirs)
	return m
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
