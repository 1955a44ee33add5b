package outcome

import (
	"errors"
	"slices"
	"strings"

	"github.com/containerd/typeurl/v2"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/stack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FromDaemon tells whether a daemon made the error, or passed it on. Those bear
// the stack of the process that they come from, and have it here as a
// *stack.Stack; what the transport makes has none, and what is made in this
// process has its stack in another form. So neither process numbers nor command
// lines need to be compared, which in containers are often the same.
func FromDaemon(err error) bool {
	var far interface{ StackTrace() *stack.Stack }
	if errors.As(err, &far) {
		return true
	}
	// The errors of streams are handed over as they came.
	var raw interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &raw) {
		return false
	}
	want, uerr := typeurl.TypeURL(&stack.Stack{})
	if uerr != nil {
		return false
	}
	for _, d := range raw.GRPCStatus().Proto().GetDetails() {
		if d.GetTypeUrl() == want {
			return true
		}
	}
	return false
}

// exited tells whether a program that the build ran ended with an error.
func exited(err error) bool {
	var e *gateway.ExitError
	return errors.As(err, &e)
}

// code is the error's gRPC code, and whether it came as one of gRPC.
func code(err error) (c codes.Code, grpc bool) {
	var raw interface{ GRPCStatus() *status.Status }
	return grpcerrors.Code(err), errors.As(err, &raw)
}

// noSession tells whether the daemon looked for the session in vain. BuildKit
// has no type for that, and gives it the code of whatever it waited with.
func noSession(err error) bool {
	said := err.Error()
	return strings.Contains(said, "no active session for ") || strings.Contains(said, "session healthcheck failed fatally")
}

// refTaken tells whether the reference is in use, for which there is no type
// either.
func refTaken(err error) bool {
	said := err.Error()
	i := strings.Index(said, "job ID ")
	return i >= 0 && strings.HasSuffix(said[i:], " exists")
}

// ownTrouble tells whether the daemon could not do its own part of the work, which
// another machine may. Errors of its kernel, which is Linux whatever ours is, come
// as text alone; each ends the error, behind the path that it is about. What a program of the build says of a
// full disk is in the program's log, and looks like any failure of it.
func ownTrouble(err error) bool {
	text := said(err)
	return slices.ContainsFunc([]string{
		"no space left on device", "disk quota exceeded", "read-only file system", "input/output error",
		"cannot allocate memory", "too many open files", "too many open files in system",
	}, func(errno string) bool { return strings.HasSuffix(text, ": "+errno) })
}

// said is what the other side says, without the layers of "failed to …" and
// without gRPC's own words around it.
func said(err error) string {
	st, ok := grpcerrors.AsGRPCStatus(err)
	if !ok || st == nil || st.Message() == "" {
		return err.Error()
	}
	text := st.Message()
	if strings.HasPrefix(text, "rpc error: code = ") {
		if _, inner, ok := strings.Cut(text, " desc = "); ok {
			return inner
		}
	}
	return text
}
