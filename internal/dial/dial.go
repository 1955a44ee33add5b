// Package dial says what a scheme is: a way to turn an endpoint into a
// net.Conn that ends at the daemon.
//
// It is not for TLS, gRPC, waiting or explaining: those are the same for all
// schemes and live in internal/remote. Each scheme has a package of its own
// below this one, and internal/dial/schemes lists them.
//
// Rules: a dialler makes one attempt and returns when ctx ends; its errors
// keep the chain of the system's errors, so that internal/remote can tell
// them apart by type; what it returns has been proven to lead somewhere and
// is closed by the caller; nothing of it is left after Close. Every scheme
// passes dialtest.
package dial

import (
	"context"
	"net"

	"github.com/berthbuild/berth/internal/endpoint"
)

// Scheme is one way to reach a daemon.
type Scheme struct {
	Name    string // as in NAME://…
	Summary string // one line for the documentation

	// Dial makes one attempt. The caller closes the connection.
	Dial func(ctx context.Context, e endpoint.Endpoint) (net.Conn, error)
}

// Registry is the schemes that a program knows, in the order to list them.
type Registry []Scheme

// Lookup finds a scheme by its name.
func (r Registry) Lookup(name string) (Scheme, bool) {
	for _, s := range r {
		if s.Name == name {
			return s, true
		}
	}
	return Scheme{}, false
}
