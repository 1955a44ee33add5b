package build

import "time"

// The times between two rounds where all daemons have too many builds.
const (
	fullRest = time.Second            // at first
	minRest  = 150 * time.Millisecond // at last
	aging    = 10 * time.Second       // after this time it is half of what it was
	crowding = 4                      // how often it doubles for those who found a place and lost it to others
)

// queue is the waiting of one build for a daemon that has room. Who waits longest
// asks most often, and so comes first. That alone would have hundreds ask at once, of
// whom one finds the place that became free: who sees by that how many they are asks
// less often, and so does everybody whose answers are slow to come.
type queue struct {
	since time.Time // zero where it has not waited
	races int       // how often a place that was free was taken by another one
}

// begin has the waiting begin, if it has not.
func (q *queue) begin() {
	if q.since.IsZero() {
		q.since = time.Now()
	}
}

// rest is the mean time until a build that has waited asks again, when asking took a
// time.
func (q *queue) rest(waited, took time.Duration) time.Duration {
	unit := float64(fullRest << min(q.races, crowding))
	return max(minRest, 2*took, time.Duration(unit/(1+waited.Seconds()/aging.Seconds())))
}
