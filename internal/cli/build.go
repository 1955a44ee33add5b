package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/gitinfo"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/load"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/snapshot"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/spf13/cobra"
)

func exactlyOneContext(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 1:
		return nil
	case 0:
		return usageError(cmd, `the build context is missing: name a folder, such as "."`)
	}
	return usageError(cmd, fmt.Sprintf("one build context is wanted, not %d: %s", len(args), strings.Join(args, " ")))
}

func (a *app) runBuild(ctx context.Context, o buildOptions) error {
	a.interruptible(ctx, o)
	a.warnIgnored(o.given)
	req, err := a.newRequest(o)
	if err != nil {
		return err
	}
	mode, err := a.progressMode(o)
	if err != nil {
		return err
	}
	keepFindings, err := a.envBool("BUILDX_METADATA_WARNINGS")
	if err != nil {
		return err
	}
	files, err := openResultFiles(o)
	if err != nil {
		return err
	}
	defer files.abort()
	s := a.service()
	b, err := s.Find(ctx, a.builderName(nil))
	if err != nil {
		return err
	}
	req = a.withDefaultLoad(req, b)
	d, err := a.openDisplay(mode, b)
	if err != nil {
		return err
	}
	if !req.Call.IsBuild() {
		return a.runCall(ctx, s, b, req, o, d, files)
	}
	res, err := a.solve(ctx, s, b, req, o, d.printer)
	found := a.closeDisplay(d)
	if err != nil {
		if ctx.Err() == nil {
			a.printFailedSteps(d.printer)
			a.printFindings(found, d)
		}
		return buildError(ctx, err)
	}
	if keepFindings {
		res.Warnings = found
	}
	if !d.quiet() {
		for _, missing := range res.Missing() {
			a.warn("%v", missing)
		}
	}
	if err := files.commit(res); err != nil {
		return err
	}
	if len(req.Outputs) == 0 {
		a.warn("No output specified with %s driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load", b.Driver)
	}
	a.printFindings(found, d)
	if d.quiet() {
		if id := res.ImageID(); id != "" {
			_, err = fmt.Fprintln(a.io.Out, id)
		}
	}
	return err
}

// buildError names the command that failed, unless it was ended on purpose.
func buildError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("failed to build: %w", err)
}

func (a *app) solve(ctx context.Context, s *builder.Service, b *builder.Builder, req request.Request, o buildOptions, printer *progress.Printer) (*build.Result, error) {
	opts, err := a.solveOptions(ctx, s, b, req, o, printer)
	if err != nil {
		return nil, err
	}
	return build.Run(ctx, b, req, opts)
}

// solveOptions are what a build, or a call, needs of the world. The builder
// counts as used.
func (a *app) solveOptions(ctx context.Context, s *builder.Service, b *builder.Builder, req request.Request, o buildOptions, printer *progress.Printer) (build.Options, error) {
	config, err := a.dockerConfig()
	if err != nil {
		return build.Options{}, err
	}
	contexts, err := a.contextSync(o.contextSync)
	if err != nil {
		return build.Options{}, err
	}
	machine, err := a.machine(ctx, s, b)
	if err != nil {
		return build.Options{}, err
	}
	if b.Err == nil && b.Source == builder.Stored {
		if err := s.Store.Touch(ctx, b.Name, time.Now()); err != nil {
			return build.Options{}, err
		}
	}
	return build.Options{
		Schemes: s.Schemes, Progress: printer, Budget: o.timeout,
		Stdin: a.io.In, Stdout: a.io.Out, LookupEnv: a.lookupEnv, Machine: machine, Traces: a.traces,
		Contexts: contexts, Debug: a.debug,
		Auth:     authprovider.LoadAuthConfig(config.File()),
		Keychain: keychain(config),
		Engine: func(ctx context.Context, name string) (build.Engine, error) {
			return openEngine(ctx, config, name)
		},
		Loaded:     load.Remember(filepath.Join(a.cacheDir(), "loaded.json")),
		Started:    a.saveRef(ctx, s, b, req, o),
		Origin:     a.origin(req, gitinfo.Read),
		Provenance: a.metadataProvenance(o),
		Affinity:   o.affinity,
		Lapses:     lapsesOf(s, b),
	}, nil
}

// contextSync is how local folders are sent, by the flag or else by the environment.
func (a *app) contextSync(flag string) (build.ContextSync, error) {
	what := "--context-sync"
	if flag == "" {
		flag, what = cmp.Or(a.env("BERTH_CONTEXT_SYNC"), "auto"), "BERTH_CONTEXT_SYNC"
	}
	c := build.ContextSync{Full: flag == "full", Salt: a.env("BERTH_CONTEXT_SALT")}
	if flag != "auto" && flag != "full" {
		return c, hint.New(fmt.Sprintf("%s=%s: there are auto and full", what, flag), "send what the daemon lacks: --context-sync=auto")
	}
	if !c.Full {
		c.Store = snapshot.NewStore(filepath.Join(a.cacheDir(), "contexts"))
	}
	return c, nil
}

// machine identifies this machine to the daemons. A build on what is stored
// nowhere stores nothing for it.
func (a *app) machine(ctx context.Context, s *builder.Service, b *builder.Builder) (string, error) {
	if b.KeepsRecords() {
		return s.Store.NodeID(ctx)
	}
	return s.Store.PeekNodeID()
}

func (a *app) progressMode(o buildOptions) (progress.Mode, error) {
	mode, err := progress.ParseMode(o.progress)
	if err != nil {
		return "", err
	}
	if o.quiet {
		if mode != progress.Auto && mode != progress.Quiet {
			return "", errors.New("progress=" + o.progress + " and quiet cannot be used together")
		}
		return progress.Quiet, nil
	}
	if fromEnv := a.env("BUILDKIT_PROGRESS"); mode == progress.Auto && fromEnv != "" {
		if mode, err = progress.ParseMode(fromEnv); err != nil {
			return "", fmt.Errorf("BUILDKIT_PROGRESS: %w", err)
		}
	}
	return mode, nil
}

// envBool reads a variable that is a switch; unset is false.
func (a *app) envBool(name string) (bool, error) {
	v := a.env(name)
	if v == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("%s=%q is neither true nor false", name, v)
	}
	return on, nil
}

// readAllLimited reads a stream that a person or a script gave us, but not an
// endless one.
func readAllLimited(r io.Reader, limit int64, what string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d MiB", what, limit>>20)
	}
	return data, nil
}
