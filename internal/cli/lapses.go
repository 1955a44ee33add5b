package cli

import (
	"context"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/state"
)

// lapses is the state folder's memory of daemons that could not be reached. What
// cannot be written is forgotten: the builds are as good without.
type lapses struct {
	store *state.Store

	mu   sync.Mutex
	read time.Time
	all  map[string]state.Lapse
}

// lapsesFresh is how long what was read is believed.
const lapsesFresh = time.Second

// lapsesOf is nil for a builder that nothing is stored of.
func lapsesOf(s *builder.Service, b *builder.Builder) build.Lapses {
	if b.Source != builder.Stored {
		return nil
	}
	return &lapses{store: s.Store}
}

// Away implements build.Lapses.
func (l *lapses) Away(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.read) > lapsesFresh {
		l.all, l.read = l.store.Lapses(now), now
	}
	return now.Before(l.all[address].Until)
}

// Lapsed implements build.Lapses.
func (l *lapses) Lapsed(ctx context.Context, address, why string) {
	_ = l.store.Lapsed(ctx, address, state.Lapse{Why: why}, time.Now())
	l.forget()
}

// Unfit implements build.Lapses.
func (l *lapses) Unfit(ctx context.Context, address, why string) {
	_ = l.store.Lapsed(ctx, address, state.Lapse{Why: why, Unfit: true}, time.Now())
	l.forget()
}

// Recovered implements build.Lapses.
func (l *lapses) Recovered(ctx context.Context, address string) {
	_ = l.store.Recovered(ctx, address, false, time.Now())
	l.forget()
}

// Built implements build.Lapses.
func (l *lapses) Built(ctx context.Context, address string) {
	_ = l.store.Recovered(ctx, address, true, time.Now())
	l.forget()
}

// Native implements build.Lapses.
func (l *lapses) Native(address string) string { return l.store.Native(address) }

// SetNative implements build.Lapses.
func (l *lapses) SetNative(ctx context.Context, address, native string) {
	_ = l.store.SetNative(ctx, address, native)
}

func (l *lapses) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read = time.Time{}
}
