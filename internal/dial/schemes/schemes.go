// Package schemes lists the schemes of this program, as a value.
//
// It is not for choosing: internal/remote looks up what an endpoint names.
// A new scheme is added here, in one line.
package schemes

import (
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/tcp"
	"github.com/berthbuild/berth/internal/dial/unix"
)

// All is every scheme, in the order in which they are documented.
func All() dial.Registry {
	return dial.Registry{unix.Scheme(), tcp.Scheme()}
}
