package main

import (
	"slices"
	"time"
)

// policy says which daemon takes a build. It never gives one to a daemon that
// is away or full.
type policy interface {
	name() string
	// choose picks a daemon that has room; false has the client wait.
	choose(s *sim, c *client) (int, bool)
	// admits tells whether a client that waits takes a slot that became free.
	admits(s *sim, c *client, d int) bool
	// patience is after how long a client that was offered a slot in vain is
	// asked again; 0 for never.
	patience() time.Duration
}

// policies are those that are compared.
func policies() []policy {
	return []policy{affinity{}, affinity{first: 4, wait: 30 * time.Second}, leastBusy{}, random{}}
}

// affinity takes the first daemon in the project's rendezvous order that has
// room. With first it holds out for one of so many, for as long as wait, before
// it takes any other.
type affinity struct {
	first int
	wait  time.Duration
}

func (a affinity) name() string {
	if a.first > 0 {
		return "affinity, patient"
	}
	return "affinity"
}

func (a affinity) choose(s *sim, c *client) (int, bool) {
	for _, d := range s.order[c.project] {
		if s.hasRoom(d) {
			return d, a.admits(s, c, d)
		}
	}
	return 0, false
}

func (a affinity) admits(s *sim, c *client, d int) bool {
	if a.first == 0 || s.now >= c.arrive+a.wait {
		return true
	}
	seen := 0
	for _, o := range s.order[c.project] {
		if !s.members[o].up {
			continue // there is nothing to wait for
		}
		if o == d {
			return true
		}
		if seen++; seen == a.first {
			return false
		}
	}
	return false
}

func (a affinity) patience() time.Duration { return a.wait }

// leastBusy takes the one that runs the fewest builds, any of several.
type leastBusy struct{}

func (leastBusy) name() string { return "least busy" }

func (leastBusy) choose(s *sim, _ *client) (int, bool) {
	fewest := s.slots
	for d := range s.members {
		if s.members[d].up {
			fewest = min(fewest, len(s.members[d].running))
		}
	}
	return s.anyOf(func(d int) bool { return s.hasRoom(d) && len(s.members[d].running) == fewest })
}

func (leastBusy) admits(*sim, *client, int) bool { return true }
func (leastBusy) patience() time.Duration        { return 0 }

// random takes any daemon that has room.
type random struct{}

func (random) name() string { return "random" }

func (random) choose(s *sim, _ *client) (int, bool) { return s.anyOf(s.hasRoom) }

// anyOf draws one of the daemons that are wanted.
func (s *sim) anyOf(wanted func(d int) bool) (int, bool) {
	n := 0
	for d := range s.members {
		if wanted(d) {
			n++
		}
	}
	if n == 0 {
		return 0, false
	}
	left := s.rand.IntN(n)
	for d := range s.members {
		if wanted(d) {
			if left == 0 {
				return d, true
			}
			left--
		}
	}
	return 0, false
}

func (random) admits(*sim, *client, int) bool { return true }
func (random) patience() time.Duration        { return 0 }

// result is what is told of a run.
type result struct {
	policy                string
	makespan              time.Duration
	waits                 [4]time.Duration // of 50, 95, 99 and 100 percent
	turnarounds           [2]time.Duration // wait and build, of 50 and 95 percent
	hits                  float64          // the share of builds with a warm cache
	fair                  float64          // Jain's index of the daemons' busy times
	redone                int              // builds that were begun again
	before, during, after float64          // hits of who arrived before, during and after a loss
}

func (s *sim) result() result {
	r := result{policy: s.policy.name()}
	var waits, whole []time.Duration
	warm := 0
	phases := [3]struct{ hits, all int }{}
	for _, c := range s.all {
		waits = append(waits, c.start-c.arrive)
		whole = append(whole, c.end-c.arrive)
		r.makespan = max(r.makespan, c.end)
		r.redone += c.attempts - 1
		phase := 0
		if c.arrive >= s.from {
			phase = 1
		}
		if c.arrive >= s.to {
			phase = 2
		}
		phases[phase].all++
		if c.warm {
			warm++
			phases[phase].hits++
		}
	}
	slices.Sort(waits)
	slices.Sort(whole)
	for i, p := range []int{50, 95, 99, 100} {
		r.waits[i] = percentile(waits, p)
	}
	r.turnarounds = [2]time.Duration{percentile(whole, 50), percentile(whole, 95)}
	r.hits = share(warm, len(s.all))
	r.before, r.during, r.after = share(phases[0].hits, phases[0].all), share(phases[1].hits, phases[1].all), share(phases[2].hits, phases[2].all)
	var busy []float64
	for i := range s.members {
		busy = append(busy, s.members[i].busy.Seconds())
	}
	r.fair = jain(busy)
	return r
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// percentile is the smallest value that p percent do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// jain is 1 when all have the same, and 1/n when one has everything.
func jain(x []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum += v
		squares += v * v
	}
	if squares == 0 {
		return 1
	}
	return sum * sum / (float64(len(x)) * squares)
}
