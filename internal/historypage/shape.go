package historypage

import (
	"slices"
	"strings"
)

// lanes gives each step a lane, so that no two that ran at once share one, and says how
// many there are: as many as ran at once at the most. A step counts as long enough to
// be seen, which a cached one is not.
func lanes(steps []Step, duration int64) int {
	least := max(1, duration/300)
	var free []int64 // when each lane is free again
	for _, i := range byStart(steps) {
		s := &steps[i]
		if s.Start < 0 {
			s.Lane = -1
			continue
		}
		s.Lane = slices.IndexFunc(free, func(until int64) bool { return until <= s.Start })
		if s.Lane < 0 {
			s.Lane = len(free)
			free = append(free, 0)
		}
		free[s.Lane] = max(s.End, s.Start+least)
	}
	return len(free)
}

func byStart(steps []Step) []int {
	order := make([]int, len(steps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compare(steps[a].Start, steps[b].Start) })
	return order
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// critical marks the steps that the build's length hung on, and says how long they took
// together. It walks back from the step that ended last: to the one of its inputs that
// ended last, or, where a step names none, as an export does, to the step that ended
// last before it began.
func critical(steps []Step) int64 {
	at := -1
	for i, s := range steps {
		if s.Start >= 0 && (at < 0 || s.End > steps[at].End || s.End == steps[at].End && s.Start < steps[at].Start) {
			at = i
		}
	}
	var ended []int // by their ends
	for i, s := range steps {
		if s.Start >= 0 {
			ended = append(ended, i)
		}
	}
	slices.SortStableFunc(ended, func(a, b int) int { return compare(steps[a].End, steps[b].End) })
	var total int64
	seen := make([]bool, len(steps))
	for at >= 0 && !seen[at] {
		seen[at] = true
		before := earlier(steps, ended, seen, at)
		from := steps[at].Start
		if before >= 0 {
			from = max(from, steps[before].End)
		}
		share := max(0, steps[at].End-from)
		steps[at].Critical = share
		total += share
		at = before
	}
	return total
}

// earlier is the step that the one at i waited for last; -1 where it waited for none.
func earlier(steps []Step, ended []int, seen []bool, i int) int {
	before := -1
	for _, j := range steps[i].Inputs {
		if !seen[j] && steps[j].Start >= 0 && (before < 0 || steps[j].End > steps[before].End) {
			before = j
		}
	}
	if before >= 0 {
		return before
	}
	n, _ := slices.BinarySearchFunc(ended, steps[i].Start+1, func(j int, until int64) int { return compare(steps[j].End, until) })
	for n--; n >= 0; n-- {
		if j := ended[n]; !seen[j] && j != i {
			return j
		}
	}
	return -1
}

// Comparison is two builds side by side. A is the one looked at, B what it is held
// against.
type Comparison struct {
	A    Side         `json:"a"`
	B    Side         `json:"b"`
	Rows []Difference `json:"rows"` // what got slower first
}

// Side is one of two builds.
type Side struct {
	Ref      string `json:"ref"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Started  string `json:"started"`
	Duration int64  `json:"duration"`
	Steps    []Step `json:"steps"`
	Lanes    int    `json:"lanes"`
	Critical int64  `json:"critical"`
}

// Difference is one step in two builds; an index is -1 where a build does not have it.
type Difference struct {
	Name  string `json:"name"`
	A     int    `json:"a"`
	B     int    `json:"b"`
	Delta int64  `json:"delta"` // by how much it is slower in A
}

// Compare holds a against b. Steps are the same ones when they have the same name, and
// are the first of it in both, or the second, and so on: digests change with what a
// step is made of, which is what one wants to compare. Of those that are left, the same
// instruction at the same place in the same stage is one, since a changed argument is a
// part of the name.
func Compare(a, b *Build) Comparison {
	c := Comparison{A: side(a), B: side(b), Rows: []Difference{}}
	same := make([]int, len(a.Steps)) // the step of b, by that of a
	taken := make([]bool, len(b.Steps))
	for i := range same {
		same[i] = -1
	}
	for _, key := range []func(Step) string{named, placed} {
		there := map[string][]int{}
		for j, s := range b.Steps {
			if !taken[j] {
				there[key(s)] = append(there[key(s)], j)
			}
		}
		for i, s := range a.Steps {
			if left := there[key(s)]; same[i] < 0 && key(s) != "" && len(left) > 0 {
				same[i], there[key(s)], taken[left[0]] = left[0], left[1:], true
			}
		}
	}
	for i, s := range a.Steps {
		row := Difference{Name: s.Name, A: i, B: same[i], Delta: s.Busy}
		if row.B >= 0 {
			row.Delta -= b.Steps[row.B].Busy
		}
		c.Rows = append(c.Rows, row)
	}
	for j, s := range b.Steps {
		if !taken[j] {
			c.Rows = append(c.Rows, Difference{Name: s.Name, A: -1, B: j, Delta: -s.Busy})
		}
	}
	slices.SortStableFunc(c.Rows, func(x, y Difference) int { return compare(y.Delta, x.Delta) })
	return c
}

func side(b *Build) Side {
	return Side{Ref: b.Ref, Name: b.Name, Status: b.Status, Started: b.Started, Duration: b.Duration, Steps: b.Steps, Lanes: b.Lanes, Critical: b.Critical}
}

// placed is where a step is in its stage, and which instruction it is; "" where its
// name does not say.
func placed(s Step) string {
	word, _, _ := strings.Cut(s.Text, " ")
	if !strings.Contains(s.Stage, "/") {
		return ""
	}
	return s.Stage + "] " + word
}

// named is a step's name without its number, which changes when a line is added above.
func named(s Step) string {
	stage := s.Stage
	for i := len(stage) - 1; i >= 0; i-- {
		if c := stage[i]; c != '/' && (c < '0' || c > '9') {
			if c == ' ' {
				stage = stage[:i]
			}
			break
		} else if i == 0 {
			stage = ""
		}
	}
	return stage + "] " + s.Text
}
