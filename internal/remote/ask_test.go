package remote

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// locked is a scheme that needs an answer before it dials for real.
func locked(ask func(ctx context.Context) error, given *bool) dial.Registry {
	return scripted(func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
		if !*given {
			return nil, &dial.Error{Class: "locked", Text: "a key is locked", Tries: []string{"unlock it"}, Ask: ask}
		}
		return new(net.Dialer).DialContext(ctx, "tcp", e.Address())
	})
}

// The time that a person needs is nobody's fault: the budget begins anew.
func TestAskIsOutsideOfTheBudget(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	given := false
	cfg := quick()
	cfg.Budget = 20 * time.Second
	var hadDeadline bool
	cfg.Schemes = locked(func(ctx context.Context) error {
		_, hadDeadline = ctx.Deadline()
		given = true
		return nil
	}, &given)
	mustConnect(t, target(t, s.Endpoint()), cfg)
	if hadDeadline || !given {
		t.Errorf("asked: %v, with a deadline: %v", given, hadDeadline)
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	given := false
	asked := 0
	cfg := quick()
	cfg.Schemes = locked(func(context.Context) error { asked++; return errors.New("no passphrase was given") }, &given)
	_, err := Connect(t.Context(), target(t, s.Endpoint()), cfg)
	var f *Failure
	if !errors.As(err, &f) || f.Class != "locked" || f.Short() != "no passphrase was given" || f.Heals || strings.Join(f.Hints(), "") != "unlock it" || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}

	// A snapshot asks nobody.
	cfg.Once = true
	_, err = Connect(t.Context(), target(t, s.Endpoint()), cfg)
	if !errors.As(err, &f) || f.Short() != "a key is locked" || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}

	// Ctrl-C at the question.
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cfg.Once = false
	cfg.Schemes = locked(func(ctx context.Context) error { cancel(stop); return context.Cause(ctx) }, &given)
	if _, err = Connect(ctx, target(t, s.Endpoint()), cfg); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}

	// A scheme that is never content does not ask for ever.
	asked = 0
	cfg.Schemes = locked(func(context.Context) error { asked++; return nil }, &given)
	if _, err = Connect(t.Context(), target(t, s.Endpoint()), cfg); err == nil || asked != maxAsked {
		t.Errorf("%v, asked %d times", err, asked)
	}
}
