package main

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/berthbuild/berth/internal/rendezvous"
)

// world is what is simulated. Equal worlds give equal results.
type world struct {
	clients, daemons, projects int

	slots int           // builds that a daemon runs at once
	cache int           // projects whose cache a daemon has room for
	over  time.Duration // clients arrive evenly spread over it; 0 for all at once
	skew  float64       // of the projects' popularity: the n-th has 1/n^skew
	kinds []kind
	order [][]int // of the daemons, for each project; see orders
	seed  uint64

	lost     int // a daemon that goes, -1 for none
	from, to time.Duration
	loseDisk bool // and comes back without its cache
}

// client is one build that somebody waits for.
type client struct {
	arrive, start, end time.Duration
	project            int
	coldFor, warmFor   time.Duration
	on                 int // the daemon, -1 while it waits
	warm               bool
	served, attempts   int
}

// daemon is one member.
type daemon struct {
	running []int
	up      bool
	epoch   int // counts losses: what a lost daemon was about to finish is void
	cache   []int
	busy    time.Duration
	most    int // builds at once
}

// sim is a run in progress.
type sim struct {
	world
	policy  policy
	now     time.Duration
	all     []client
	members []daemon
	free    int   // slots of daemons that are up
	queue   []int // clients that wait, by their arrival
	events  events
	seq     int
	rand    *rand.Rand // the policy's own
}

type eventKind uint8

const (
	arrives eventKind = iota
	finishes
	loses   // its patience
	goes    // a daemon
	returns // a daemon
)

type event struct {
	at           time.Duration
	seq          int // those at one time happen in the order of their making
	kind         eventKind
	client, on   int
	epoch, tries int
}

// events is a heap by time.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push is heap's.
func (e *events) Push(x any) { *e = append(*e, x.(event)) } //nolint:errcheck // only events are pushed

// Pop is heap's.
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// memberName is as pods of a StatefulSet are called.
func memberName(i int) string { return fmt.Sprintf("buildkitd-%d", i) }

func memberNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = memberName(i)
	}
	return names
}

func projectKey(i int) string { return fmt.Sprintf("git.example/team/project-%d", i) }

// orders gives each project its rendezvous order of the daemons.
func orders(projects, daemons int) [][]int {
	names := memberNames(daemons)
	all := make([][]int, projects)
	for i := range all {
		all[i] = rendezvous.Order(projectKey(i), names)
	}
	return all
}

// run simulates the world under a policy, to the end of the last build.
func run(w world, p policy) *sim {
	s := &sim{world: w, policy: p, members: make([]daemon, w.daemons), free: w.daemons * w.slots}
	s.rand = rand.New(rand.NewPCG(w.seed, 2))
	for i := range s.members {
		s.members[i].up = true
	}
	s.arrivals()
	if w.lost >= 0 {
		s.schedule(event{at: w.from, kind: goes, on: w.lost})
		s.schedule(event{at: w.to, kind: returns, on: w.lost})
	}
	for s.events.Len() > 0 {
		e, _ := heap.Pop(&s.events).(event)
		s.now = e.at
		s.happens(e)
	}
	return s
}

// arrivals draws the clients. They are the same under every policy, with the
// same times for either state of the cache.
func (s *sim) arrivals() {
	r := rand.New(rand.NewPCG(s.seed, 1))
	popular := make([]float64, s.projects) // cumulative
	total := 0.0
	for i := range popular {
		total += 1 / math.Pow(float64(i+1), s.skew)
		popular[i] = total
	}
	s.all = make([]client, s.clients)
	for i := range s.all {
		c := &s.all[i]
		c.on = -1
		c.project = sort.SearchFloat64s(popular, r.Float64()*total)
		k := s.kinds[c.project%len(s.kinds)]
		c.coldFor, c.warmFor = k.cold[r.IntN(len(k.cold))], k.warm[r.IntN(len(k.warm))]
		if s.over > 0 {
			c.arrive = time.Duration(r.Float64() * float64(s.over))
		}
	}
	slices.SortStableFunc(s.all, func(a, b client) int { return cmp.Compare(a.arrive, b.arrive) })
	for i := range s.all {
		s.schedule(event{at: s.all[i].arrive, kind: arrives, client: i})
	}
}

func (s *sim) schedule(e event) {
	s.seq++
	e.seq = s.seq
	heap.Push(&s.events, e)
}

func (s *sim) happens(e event) {
	switch e.kind {
	case arrives:
		s.place(e.client)
	case loses:
		if c := &s.all[e.client]; c.on < 0 && c.served == 0 && c.attempts == e.tries {
			if at, waits := slices.BinarySearch(s.queue, e.client); waits {
				s.queue = slices.Delete(s.queue, at, at+1)
				s.place(e.client)
			}
		}
	case finishes:
		if s.members[e.on].epoch == e.epoch {
			s.finish(e.client)
		}
	case goes:
		s.lose(e.on)
	case returns:
		d := &s.members[e.on]
		d.up = true
		if s.loseDisk {
			d.cache = nil
		}
		s.free += s.slots
		for range s.slots {
			s.offer(e.on)
		}
	}
}

// place gives a client to a daemon, or has it wait.
func (s *sim) place(i int) {
	if s.free > 0 {
		if d, ok := s.policy.choose(s, &s.all[i]); ok {
			s.begin(i, d)
			return
		}
	}
	at, _ := slices.BinarySearch(s.queue, i) // clients are numbered by their arrival
	s.queue = slices.Insert(s.queue, at, i)
	if p, c := s.policy.patience(), &s.all[i]; p > 0 && s.now < c.arrive+p {
		s.schedule(event{at: c.arrive + p, kind: loses, client: i, tries: c.attempts})
	}
}

// hasRoom tells whether a daemon takes one more.
func (s *sim) hasRoom(d int) bool { return s.members[d].up && len(s.members[d].running) < s.slots }

// offer gives a free slot to the first who waits and takes it.
func (s *sim) offer(d int) {
	for at, i := range s.queue {
		if s.hasRoom(d) && s.policy.admits(s, &s.all[i], d) {
			s.queue = slices.Delete(s.queue, at, at+1)
			s.begin(i, d)
			return
		}
	}
}

func (s *sim) begin(i, on int) {
	c, d := &s.all[i], &s.members[on]
	c.start, c.on, c.attempts = s.now, on, c.attempts+1
	d.running = append(d.running, i)
	d.most = max(d.most, len(d.running))
	s.free--
	takes := c.coldFor
	if c.warm = d.remembers(c.project, s.cache); c.warm {
		takes = c.warmFor
	}
	s.schedule(event{at: s.now + takes, kind: finishes, client: i, on: on, epoch: d.epoch})
}

func (s *sim) finish(i int) {
	c := &s.all[i]
	on := c.on
	d := &s.members[on]
	c.end, c.on, c.served = s.now, -1, c.served+1
	d.running = slices.DeleteFunc(d.running, func(r int) bool { return r == i })
	d.busy += c.end - c.start
	if !d.remembers(c.project, s.cache) {
		d.cache = append(d.cache, c.project)
		d.cache = d.cache[max(0, len(d.cache)-s.cache):]
	}
	s.free++
	s.offer(on)
}

// lose takes a daemon away; its builds begin anew elsewhere.
func (s *sim) lose(on int) {
	d := &s.members[on]
	again := slices.Clone(d.running)
	s.free -= s.slots - len(d.running)
	d.up, d.running, d.epoch = false, nil, d.epoch+1
	for _, i := range again {
		s.all[i].on = -1
	}
	for _, i := range again {
		s.place(i)
	}
}

// remembers tells whether a project's cache is there, and makes it the one that
// was used last.
func (d *daemon) remembers(project, room int) bool {
	at := slices.Index(d.cache, project)
	if at < 0 || room == 0 {
		return false
	}
	d.cache = append(slices.Delete(d.cache, at, at+1), project)
	return true
}
