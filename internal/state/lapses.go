package state

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// lapsesFile remembers daemons that could not be reached. It is ours.
const lapsesFile = "lapses.json"

const (
	// firstPause is for how long a daemon is passed over after it could not be
	// reached once; each further time doubles it.
	firstPause = 5 * time.Second
	maxPause   = 2 * time.Minute
	// forgotten is after how long a lapse counts no more.
	forgotten = 10 * time.Minute
	// maxLapses bounds the file; the oldest are forgotten.
	maxLapses = 256
	// maxWhy bounds a reason, in bytes.
	maxWhy = 300
)

// Lapse is that a daemon could not be reached, or failed as a daemon.
type Lapse struct {
	At    time.Time `json:"at"`    // when that was seen last
	Until time.Time `json:"until"` // for how long others are preferred
	Times int       `json:"times"` // how often, one after the other
	Why   string    `json:"why,omitempty"`
	Unfit bool      `json:"unfit,omitempty"` // it answers, but does not build
}

// Lapses are the remembered ones, by the daemon's address. It is a help only: what
// cannot be read is forgotten. Reading takes no lock, since the file appears whole.
func (s *Store) Lapses(now time.Time) map[string]Lapse {
	data, err := readFile(s.path(lapsesFile))
	if err != nil {
		return nil
	}
	return parseLapses(data, now)
}

func parseLapses(data []byte, now time.Time) map[string]Lapse {
	all := map[string]Lapse{}
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	maps.DeleteFunc(all, func(_ string, l Lapse) bool {
		// A clock that was set back must not keep a daemon out for long.
		return l.Times < 1 || now.Sub(l.At) > forgotten || l.At.After(now.Add(time.Minute)) || l.Until.After(now.Add(maxPause))
	})
	return all
}

// Lapsed remembers that the daemon at an address could not be reached, or, with
// Unfit, did not build; of seen, only Why and Unfit count. Processes that see the
// same within the pause count as one.
func (s *Store) Lapsed(ctx context.Context, address string, seen Lapse, now time.Time) error {
	return s.changeLapses(ctx, now, func(all map[string]Lapse) bool {
		l := all[address]
		if now.Before(l.Until) {
			return false
		}
		l.Times++
		pause := firstPause << min(l.Times-1, 10)
		if seen.Unfit { // a disk is not emptied in seconds
			pause = maxPause
		}
		why := seen.Why
		if len(why) > maxWhy {
			why = strings.ToValidUTF8(why[:maxWhy], "") + "…"
		}
		all[address] = Lapse{At: now.UTC(), Until: now.Add(min(pause, maxPause)).UTC(), Times: l.Times, Why: why, Unfit: seen.Unfit}
		return true
	})
}

// Recovered forgets what was remembered of a daemon that has answered, or built: of
// one that is unfit, its answers say nothing.
func (s *Store) Recovered(ctx context.Context, address string, built bool, now time.Time) error {
	has := func(all map[string]Lapse) bool {
		l, ok := all[address]
		return ok && (built || !l.Unfit)
	}
	if !has(s.Lapses(now)) {
		return nil
	}
	return s.changeLapses(ctx, now, func(all map[string]Lapse) bool {
		if !has(all) {
			return false
		}
		delete(all, address)
		return true
	})
}

func (s *Store) changeLapses(ctx context.Context, now time.Time, change func(map[string]Lapse) bool) error {
	return s.writing(ctx, func() error {
		data, err := readFile(s.path(lapsesFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			data = nil // written anew
		}
		all := parseLapses(data, now)
		if all == nil {
			all = map[string]Lapse{}
		}
		if !change(all) {
			return nil
		}
		for len(all) > maxLapses {
			oldest := slices.MinFunc(slices.Collect(maps.Keys(all)), func(a, b string) int { return all[a].At.Compare(all[b].At) })
			delete(all, oldest)
		}
		if data, err = json.Marshal(all); err != nil {
			return err
		}
		return s.writeFile(s.path(lapsesFile), data, fileMode)
	})
}

// nativesFile remembers the platforms of daemons. It is ours.
const nativesFile = "natives.json"

// Native is the platform that the daemon at an address builds for when none is
// named, as far as it is remembered: "" where it is not. It is a help only.
func (s *Store) Native(address string) string { return s.natives()[address] }

func (s *Store) natives() map[string]string {
	all := map[string]string{}
	data, err := readFile(s.path(nativesFile))
	if err != nil || json.Unmarshal(data, &all) != nil {
		return map[string]string{}
	}
	return all
}

// SetNative remembers it. What is remembered already costs no lock.
func (s *Store) SetNative(ctx context.Context, address, native string) error {
	if s.Native(address) == native {
		return nil
	}
	return s.writing(ctx, func() error {
		all := s.natives()
		if len(all) >= maxLapses { // daemons come and go: those that live are remembered again
			all = map[string]string{}
		}
		all[address] = native
		data, err := json.Marshal(all)
		if err != nil {
			return err
		}
		return s.writeFile(s.path(nativesFile), data, fileMode)
	})
}
