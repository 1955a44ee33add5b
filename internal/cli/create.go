package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
)

type createOptions struct {
	builder.CreateOptions
	platforms []string
	bootstrap bool
	leave     bool
	timeout   time.Duration
	from      string

	// buildx's options for daemons that it starts itself.
	buildkitdFlags, buildkitdConfig string
}

func newCreateCmd(a *app) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [ENDPOINT]",
		Short: "Make a builder of daemons that are running",
		Long: `Make a builder out of a BuildKit daemon that is already running, add a node to
one (--append), or take a node out (--leave --node NODE). Prints the builder's
name.

Endpoints:
  unix:///path/to/buildkitd.sock
  tcp://HOST:PORT                 IPv6 hosts in brackets: tcp://[::1]:1234
  ssh://[USER@]HOST[:PORT][/SOCKET]
  docker-container://NAME[?context=CONTEXT]
  podman-container://NAME, nerdctl-container://NAME
  kube-pod://NAME, kube-deployment://NAME, kube-statefulset://NAME,
  kube-service://NAME, kube-selector://?selector=LABELS
  exec://?cmd=COMMAND             a command that speaks BuildKit on its stdio
  npipe:////./pipe/NAME           on Windows

Driver options (--driver-opt k=v,k=v, or one each):
  cacert, cert, key   TLS: the CA's certificate, and your own certificate and key
  tlsdir              a folder with the three (ca.pem, cert.pem, key.pem, or as
                      in a Secret of Kubernetes: ca.crt, tls.crt, tls.key)
  ca=system           trust the system's CAs too
  servername          the name that the daemon's certificate must carry
                      (default: the endpoint's host)
  proxy               http://[USER:PASSWORD@]HOST:PORT, https://, socks5://,
                      socks5h://, or env (HTTPS_PROXY, ALL_PROXY, NO_PROXY)
  default-load        load results into Docker when a build names no output
  connect-timeout     how long commands wait for the daemon (default 20s)
  pool                how a daemon is chosen out of several: affinity (default:
                      the same work where it was done before), least-busy, first
  resolve=all         each address of a tcp:// endpoint's name is a daemon
  max-builds          how many builds a daemon may have at once
  queue-timeout       how long a build waits for one with room (default 1h)
  retries             how often a build is built again whose daemon is lost
                      (default 2 where there are several daemons, otherwise 0)

Without ENDPOINT, BUILDKIT_HOST is taken. The daemon need not be up, unless
--bootstrap asks to wait for it.`,
		Example: `  berth create --name local --driver remote unix://$HOME/buildkitd.sock
  berth create --name remote --use \
    --driver-opt cacert=certs/ca.pem,cert=certs/cert.pem,key=certs/key.pem \
    tcp://buildkitd.example.com:1234
  berth create --name remote --append --platform linux/arm64 tcp://arm.example.com:1234`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.Endpoint = args[0]
			}
			if o.from != "" {
				if err := checkFrom(cmd, args); err != nil {
					return err
				}
				return a.runCreateFrom(cmd.Context(), o)
			}
			return a.runCreate(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", "", "the builder's name (default: one is made up)")
	f.StringVar(&o.Node, "node", "", "the node to make or change (default: NAME0, NAME1, …)")
	f.StringVar(&o.Driver, "driver", "", "the driver: remote")
	f.StringArrayVar(&o.DriverOpts, "driver-opt", nil, "options for the driver (k=v,k=v)")
	f.StringArrayVar(&o.platforms, "platform", nil, "fix the platforms that the node builds for")
	f.BoolVar(&o.Append, "append", false, "add a node to the builder")
	f.BoolVar(&o.leave, "leave", false, "take the node out of the builder")
	f.BoolVar(&o.Use, "use", false, "choose the builder, as berth use does")
	f.BoolVar(&o.bootstrap, "bootstrap", false, "wait until the daemon answers")
	f.DurationVar(&o.timeout, "timeout", 0, "how long --bootstrap waits (default: the node's connect-timeout, 20s)")
	f.StringVar(&o.from, "from", "", `make the builders of a definition file ("-" is standard input); see berth export`)
	f.StringVar(&o.buildkitdFlags, "buildkitd-flags", "", "")
	f.StringVar(&o.buildkitdConfig, "buildkitd-config", "", "")
	f.StringVar(&o.buildkitdConfig, "config", "", "")
	hideFlags(cmd, "buildkitd-flags", "buildkitd-config", "config")
	completeWith(cmd, "name", a.completeBuilders)
	completeWith(cmd, "driver", completeWords(builder.DriverRemote))
	return cmd
}

func (a *app) runCreate(ctx context.Context, o createOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	s := a.service()
	if o.leave {
		name, err := s.Leave(ctx, o.Name, o.Node)
		return a.printName(name, err)
	}
	o.Dir, o.Home = a.dir, a.home()
	if o.Endpoint == "" {
		o.Endpoint = a.env("BUILDKIT_HOST")
	}
	err := o.splitURL()
	if err != nil {
		return err
	}
	if o.Platforms, err = buildflag.ParsePlatforms(o.platforms); err != nil {
		return err
	}
	name, err := s.Create(ctx, o.CreateOptions)
	if err != nil {
		return err
	}
	a.warnPlain(ctx, s, name, o.Endpoint)
	if o.bootstrap {
		b, err := s.Find(ctx, name)
		if err != nil {
			return err
		}
		if _, err := a.bootstrap(ctx, s, b, o.timeout); err != nil {
			return err
		}
	}
	return a.printName(name, nil)
}

// check refuses what cannot be meant, before anything is looked at.
func (o createOptions) check() error {
	switch {
	case o.leave && o.Append:
		return hint.New("--leave and --append exclude each other", "leave one out")
	case o.leave && o.Endpoint != "":
		return hint.New("--leave takes no endpoint", "name the node: --leave --node NODE")
	case o.timeout < 0:
		return hint.New(fmt.Sprintf("--timeout %s is negative", o.timeout), "give a time such as 20s")
	case o.buildkitdFlags != "":
		return hint.New("setting buildkit flags is not supported for remote driver", "set them where the daemon is started")
	case o.buildkitdConfig != "":
		return hint.New("setting config file is not supported for remote driver", "set it where the daemon is started")
	}
	return nil
}

func (a *app) printName(name string, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.io.Out, name)
	return err
}
