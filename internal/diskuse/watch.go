package diskuse

import (
	"errors"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// explain says which daemon failed, and what to try. The name is the builder's,
// as it is written after a command.
func explain(t remote.Target, name string, err error) error {
	var tries []string
	switch {
	case errors.Is(err, remote.ErrSilent):
		tries = []string{"see how it is: berth doctor " + name}
	case grpcerrors.Code(err) == codes.Unimplemented:
		tries = []string{"this daemon does not know the call; a newer BuildKit does"}
	}
	return hint.Wrap(err, t.String(), tries...)
}
