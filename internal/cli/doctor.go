package cli

import (
	"context"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/doctor"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type doctorOptions struct {
	format  string
	timeout time.Duration
	push    string
}

func newDoctorCmd(a *app) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS] [BUILDER | ENDPOINT]",
		Short: "Walk the way a build takes, and say where it ends",
		Long: `Walk the way that a build takes to each daemon of a builder, or to an endpoint
that no builder was made for, and tell of each step how long it took and what was
seen: the state, certificates and their expiry, every address of the name, TLS,
HTTP/2, BuildKit itself, its workers, a session, and a trial build. For the first
step that fails it says why, and what to try; steps that do not need it are taken
all the same.

The exit code is 0 only when a build would work. Nothing secret is printed: the
output can be handed on as it is.

--format takes json, or a template over the same fields. The names of the steps
and the classes of failures are stable.`,
		Example: `  berth doctor
  berth doctor remote
  berth doctor --push registry.example.com/app:1 remote
  berth doctor --format json tcp://buildkitd.example.com:1234`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOneBuilder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runDoctor(cmd.Context(), a.builderName(args), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.push, "push", "", "also see whether a registry takes the login for a push of this reference")
	f.DurationVar(&o.timeout, "timeout", doctor.DefaultTimeout, "how long all of it may take")
	f.StringVar(&o.format, "format", "", "json, or a template over the same fields")
	completeWith(cmd, "format", completeWords(ui.FormatJSON))
	return cmd
}

func (a *app) runDoctor(ctx context.Context, name string, o doctorOptions) error {
	if o.timeout <= 0 {
		return hint.New(fmt.Sprintf("--timeout %s leaves no time", o.timeout), "give a time such as 1m")
	}
	format, err := ui.ParseFormat(o.format)
	if err != nil {
		return err
	}
	do := a.doctorOptions(name, o)
	printer := &doctorPrinter{io: a.io, color: a.io.OutTTY && a.env("NO_COLOR") == ""}
	if format.IsTable() {
		do.OnBuilder, do.OnNode, do.OnStep, do.OnWait = printer.builder, printer.node, printer.step, printer.wait
	}
	report, err := doctor.Run(ctx, do)
	printer.clear()
	if err != nil {
		return err
	}
	switch {
	case format.IsJSON():
		err = ui.WriteJSON(a.io.Out, viewReport(report))
	case format.IsTable():
		err = printer.end(report)
	default:
		err = format.Execute(a.io.Out, nil, []any{viewReport(report)})
	}
	if err != nil {
		return err
	}
	node, step, broken := report.Broken()
	if !broken {
		return nil
	}
	where := ""
	if node != "" {
		where = "node " + node + ": "
	}
	return fmt.Errorf("a build would not work: %s%s: %s", where, step.Name, step.Text)
}

// doctorOptions wires what the doctor looks at.
func (a *app) doctorOptions(name string, o doctorOptions) doctor.Options {
	s := a.service()
	do := doctor.Options{
		Schemes: s.Schemes, Timeout: o.timeout, Client: buildkitVersion(), Push: o.push,
		Secrets: a.knownSecrets(), State: a.stateDir(),
		Find:   func(ctx context.Context) (*builder.Builder, error) { return s.Find(ctx, name) },
		Engine: a.lookAtEngine,
	}
	if config, err := a.dockerConfig(); err == nil {
		do.Keychain = keychain(config)
	}
	return do
}

// lookAtEngine asks the Docker engine that --load would use.
func (a *app) lookAtEngine(ctx context.Context) (doctor.Engine, error) {
	config, err := a.dockerConfig()
	if err != nil {
		return doctor.Engine{}, err
	}
	e, err := config.Engine("")
	if err != nil {
		return doctor.Engine{}, err
	}
	c, err := e.Client(ctx)
	if err != nil {
		return doctor.Engine{}, err
	}
	defer c.Close() //nolint:errcheck // an engine client holds nothing worth an error
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		return doctor.Engine{}, err
	}
	store := "graph driver " + info.Info.Driver
	for _, s := range info.Info.DriverStatus {
		if s[0] == "driver-type" && strings.HasPrefix(s[1], "io.containerd.snapshotter") {
			store = "containerd, snapshotter " + info.Info.Driver
		}
	}
	return doctor.Engine{Context: e.Name, Host: e.Shown(), Version: info.Info.ServerVersion, Store: store}, nil
}

// knownSecrets is what the environment holds that must not be printed.
func (a *app) knownSecrets() []string {
	var all []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "DOCKER_HOST"} {
		for _, n := range []string{name, strings.ToLower(name)} {
			if u, err := url.Parse(a.env(n)); err == nil {
				if password, ok := u.User.Password(); ok {
					all = append(all, password, url.QueryEscape(password))
				}
			}
		}
	}
	return append(all, a.env(endpoint.EnvKeyPEM))
}

// buildkitVersion is the BuildKit whose client this is.
func buildkitVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/moby/buildkit" {
			return m.Version
		}
	}
	return ""
}
