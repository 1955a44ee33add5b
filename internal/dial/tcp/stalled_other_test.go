//go:build !linux

package tcp

import (
	"testing"

	"github.com/berthbuild/berth/internal/endpoint"
)

func stalled(t testing.TB) endpoint.Endpoint {
	t.Skip("how to fill the queue of a listener is known for Linux only")
	return endpoint.Endpoint{}
}
