package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// tlsFromEnv is what the variables BERTH_TLS_… say about TLS, with paths that
// are absolute. Text from them stays in memory: it is never stored, nor given to
// another program.
func (a *app) tlsFromEnv() (endpoint.Options, error) {
	o, err := endpoint.TLSFromEnv(a.env)
	return o.Absolute(a.dir, a.home()), err
}

// schemes is the ways to dial, made once: they remember passphrases and what was
// warned about.
func (a *app) schemes() dial.Registry {
	a.registryOnce.Do(func() { a.registry = schemes.All(a.dialEnv()) })
	return a.registry
}

// warnPlain says what it means that the node at raw, which was just made, is
// reached over TCP without TLS. What is on this machine is nobody else's business.
func (a *app) warnPlain(ctx context.Context, s *builder.Service, name, raw string) {
	e, err := endpoint.Parse(raw)
	if err != nil || e.Scheme != endpoint.SchemeTCP || e.Loopback() {
		return
	}
	b, err := s.Find(ctx, name) // the options that the node had before count, too
	if err != nil {
		return
	}
	plain := func(n builder.Node) bool {
		t, err := n.Target()
		return err == nil && n.Endpoint == e.String() && !t.Options.TLS()
	}
	if !slices.ContainsFunc(b.Nodes, plain) {
		return
	}
	a.warn("%s is neither encrypted nor does it ask who calls: whoever reaches the port can run code as the daemon, "+
		"and whoever is on the way sees and changes what is built", e)
	fmt.Fprintf(a.io.Err, "hint: make certificates: berth certs create %s; or let the daemon listen on loopback only, and reach it by ssh://%s\n",
		hint.Quote(e.Hostname()), e.Hostname())
}
