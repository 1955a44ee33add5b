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
	unfit   map[string]bool // of those, the ones that answer
	natives map[string]string
}

// Away implements Lapses.
func (r *recall) Away(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away[address]
}

// Lapsed implements Lapses.
func (r *recall) Lapsed(_ context.Context, address, _ string) { r.set(address, false) }

// Recovered implements Lapses.
func (r *recall) Recovered(_ context.Context, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.unfit[address] {
		delete(r.away, address)
	}
}

// Unfit implements Lapses.
func (r *recall) Unfit(_ context.Context, address, _ string) { r.set(address, true) }

// Built implements Lapses.
func (r *recall) Built(_ context.Context, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.away, address)
	delete(r.unfit, address)
}

func (r *recall) set(address string, unfit bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away == nil {
		r.away, r.unfit = map[string]bool{}, map[string]bool{}
	}
	r.away[address] = true
	r.unfit[address] = unfit
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
