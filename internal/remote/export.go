package remote

import (
	"context"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc"
)

// ownExport stands before the type of an export that its caller takes.
const ownExport = "berth:"

// OwnExport names a type of export ("local", "tar", …) for client.Solve so that
// the client leaves it alone: it would write folders itself, into the place where
// they shall be in the end. The caller takes what the daemon sends, by a session
// service of its own (filesync's FileSend). The daemon is told the plain type.
func OwnExport(kind string) string { return ownExport + kind }

// tellExports gives the exports of a Solve their types back.
func tellExports(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if r, ok := req.(*controlapi.SolveRequest); ok {
		for _, ex := range r.Exporters {
			ex.Type = strings.TrimPrefix(ex.Type, ownExport)
		}
		r.ExporterDeprecated = strings.TrimPrefix(r.ExporterDeprecated, ownExport) // as old daemons read it
	}
	return call(ctx, method, req, reply, cc, opts...)
}
