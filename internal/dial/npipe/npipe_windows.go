package npipe

import (
	"context"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
)

func open(ctx context.Context, path string) (net.Conn, error) {
	c, err := winio.DialPipeContext(ctx, strings.ReplaceAll(path, "/", `\`))
	if err != nil {
		return nil, explain(path, err)
	}
	return c, nil
}
