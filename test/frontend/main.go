// Command frontend is a BuildKit frontend in an image of its own, for the
// end-to-end tests: what a Dockerfile's syntax line names when it is not
// BuildKit's built-in one. It answers a few calls. It builds nothing, unless its
// image sets BUILDS in the environment: to "dockerfiles" as the frontend that is
// published does, or to "as before v0.16", when frontends did not know yet that a
// local folder may have a session of its own.
//
// It is not for users.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"

	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/errdefs"
)

func main() {
	if err := grpcclient.RunFromEnvironment(context.Background(), answer); err != nil {
		fmt.Fprintln(os.Stderr, "frontend:", err)
		os.Exit(1)
	}
}

// old is a daemon whose frontend does not hear of the sessions of folders.
type old struct{ client.Client }

// BuildOpts implements client.Client.
func (o old) BuildOpts() client.BuildOpts {
	opts := o.Client.BuildOpts()
	opts.Opts = maps.Clone(opts.Opts)
	maps.DeleteFunc(opts.Opts, func(k, _ string) bool { return strings.HasPrefix(k, "local-sessionid:") })
	return opts
}

// answer knows the targets of no Dockerfile, a method of its own, and what it
// knows.
func answer(ctx context.Context, c client.Client) (*client.Result, error) {
	switch os.Getenv("BUILDS") {
	case "dockerfiles":
		return dockerfile.Build(ctx, c)
	case "as before v0.16":
		return dockerfile.Build(ctx, old{c})
	}
	switch id := c.BuildOpts().Opts["requestid"]; id {
	case targets.RequestTargets:
		return targets.List{Targets: []targets.Target{{Name: "from-the-image", Default: true, Description: "is answered by another frontend"}}}.ToResult()
	case "frontend.sums":
		return result(map[string]string{"result.txt": "1 + 1 = 3\n", "result.statuscode": "1"}), nil
	case subrequests.RequestSubrequestsDescribe:
		text, err := json.Marshal([]subrequests.Request{{Name: "frontend.sums", Version: "0.1", Description: "does sums"}})
		if err != nil {
			return nil, err
		}
		return result(map[string]string{"result.json": string(text), "version": "1.0.0"}), nil
	case "":
		return nil, fmt.Errorf("this frontend builds nothing")
	default:
		return nil, errdefs.NewUnsupportedSubrequestError(id)
	}
}

func result(meta map[string]string) *client.Result {
	r := client.NewResult()
	for k, v := range meta {
		r.AddMeta(k, []byte(v))
	}
	return r
}
