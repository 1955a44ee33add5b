package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/kubeconfig"
)

// The stages on the way into a pod.
const (
	stageConfig      = "kubeconfig"   // the cluster, and the user
	stageCredentials = "credentials"  // what says who we are
	stageCluster     = "cluster"      // the API server answers us
	stagePod         = "pod"          // there is one, and it is ready
	stageExec        = "exec"         // a command may be run in it
	stageForward     = "port-forward" // or a port of it be forwarded
	stageBuildctl    = "buildctl"     // the command is there, and finds the daemon
	stagePort        = "port"         // somebody listens on the port
)

func stages(e endpoint.Endpoint) []string {
	all := []string{stageConfig, stageCredentials, stageCluster, stagePod}
	if e.Param(endpoint.KubeVia) == endpoint.ViaPortForward {
		return append(all, stageForward, stagePort)
	}
	return append(all, stageExec, stageBuildctl)
}

// configText says what the configuration leads to; never what it proves us by.
func configText(c *kubeconfig.Config) string {
	if c.Context == "" {
		return "cluster " + c.Server.Redacted()
	}
	return fmt.Sprintf("context %s: cluster %s", c.Context, c.Server.Redacted())
}

// credentialsText says of what kind they are.
func credentialsText(c *kubeconfig.Config, cred kubeconfig.Credentials) string {
	kind := "none"
	switch {
	case cred.Token != "":
		kind = "a token"
	case len(cred.Cert) > 0 || len(c.Cert) > 0:
		kind = "a client certificate"
	case c.Username != "":
		kind = "a user name and password"
	}
	if c.User == "" {
		return kind
	}
	return kind + " of the user " + c.User
}

// tell tells a tracer how pods were found. The first request shows whether the
// API server is there and knows us, so that it is no request of its own.
func (c *cluster) tell(ctx context.Context, began time.Time, pods []Pod, err error) {
	if !dial.Traced(ctx) {
		return
	}
	took := time.Since(began)
	var own *dial.Error
	if err != nil && (!errors.As(err, &own) || own.Class == APIServer || own.Class == APITLS || own.Class == Unauthorized) {
		dial.Report(ctx, dial.Stage{Name: stageCluster, Took: took, Err: err})
		return
	}
	dial.Report(ctx, dial.Stage{Name: stageCluster, Text: c.api.Server() + " answers", Took: took})
	s := dial.Stage{Name: stagePod, Err: err}
	if len(pods) > 0 {
		s.Text = fmt.Sprintf("%s in namespace %s is ready", pods[0].Name, c.ns)
		if len(pods) > 1 {
			s.Text += fmt.Sprintf(" (the first of %d)", len(pods))
		}
	}
	dial.Report(ctx, s)
}
