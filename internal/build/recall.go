package build

import (
	"context"
	"sync"
)

// recall is Lapses for one run alone, for builders of which nothing is stored. The
// zero value is ready.
type recall struct {
	mu      sync.Mutex
	away    map[string]bool
	natives map[string]string
}

// Away implements Lapses.
func (r *recall) Away(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away[address]
}

// Lapsed implements Lapses.
func (r *recall) Lapsed(_ context.Context, address, _ string) { r.set(address, true) }

// Recovered implements Lapses.
func (r *recall) Recovered(_ context.Context, address string) { r.set(address, false) }

func (r *recall) set(address string, away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away == nil {
		r.away = map[string]bool{}
	}
	r.away[address] = away
}

// Native implements Lapses.
func (r *recall) Native(address string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.natives[address]
}

// SetNative implements Lapses.
func (r *recall) SetNative(_ context.Context, address, native string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.natives == nil {
		r.natives = map[string]string{}
	}
	r.natives[address] = native
}
