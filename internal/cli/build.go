package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/state"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/spf13/cobra"
)

// buildOptions are build's flags as they were given.
type buildOptions struct {
	context      string
	file         string
	tags         []string
	buildArgs    []string
	labels       []string
	target       string
	platforms    []string
	outputs      []string
	secrets      []string
	ssh          []string
	noCache      bool
	pull         bool
	push         bool
	load         bool
	quiet        bool
	progress     string
	iidFile      string
	metadataFile string
	timeout      time.Duration
}

func newBuildCmd(a *app) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:     "build [OPTIONS] PATH | URL",
		Aliases: []string{"b"},
		Short:   "Build an image, or files",
		Long: `Build from a Dockerfile and a context: a folder, or the URL of a Git repository
or tarball that the daemon fetches itself.

Where the result goes:
  --load                     into Docker, found by DOCKER_HOST and docker's context
  --push                     to the registry that the tag names
  -o DIR                     the final stage's files, into a folder
  -o type=tar,dest=FILE      the same as an archive; "-" is standard output
  -o type=oci,dest=FILE      an image as an archive (or type=docker)
Without any of them the result stays in the daemon's cache.

Results, such as the image's id with -q, go to standard output; progress and
warnings to standard error.`,
		Example: `  berth build -t app --load .
  berth build --builder remote --platform linux/amd64,linux/arm64 -t registry.example.com/app:1 --push .
  berth build --secret id=token,src=$HOME/.token -o dist .`,
		Args: exactlyOneContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.context = args[0]
			return a.runBuild(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", `the Dockerfile (default: "PATH/Dockerfile"; "-" is standard input)`)
	f.StringArrayVarP(&o.tags, "tag", "t", nil, "the image's name, as [registry/]repository[:tag]; may be repeated")
	f.StringArrayVar(&o.buildArgs, "build-arg", nil, "a build-time variable: NAME=VALUE, or NAME to take it from the environment")
	f.StringArrayVar(&o.labels, "label", nil, "a label for the image: NAME=VALUE")
	f.StringVar(&o.target, "target", "", "the stage to build")
	f.StringArrayVar(&o.platforms, "platform", nil, "what to build for, such as linux/amd64,linux/arm64")
	f.StringArrayVarP(&o.outputs, "output", "o", nil, `where the result goes (format: "type=local,dest=path")`)
	f.StringArrayVar(&o.secrets, "secret", nil, `a secret for the build (format: "id=mysecret[,src=/local/secret|,env=NAME]")`)
	f.StringArrayVar(&o.ssh, "ssh", nil, `an ssh agent or keys for the build (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	f.BoolVar(&o.noCache, "no-cache", false, "do not use the cache")
	f.BoolVar(&o.pull, "pull", false, "look for newer base images")
	f.BoolVar(&o.push, "push", false, "push the image (--output=type=registry)")
	f.BoolVar(&o.load, "load", false, "load the image into Docker (--output=type=docker)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress; print the image's id")
	f.StringVar(&o.progress, "progress", string(progress.Auto), "how to show progress: auto, tty, plain, rawjson, quiet or none")
	f.StringVar(&o.iidFile, "iidfile", "", "write the image's id to a file")
	f.StringVar(&o.metadataFile, "metadata-file", "", "write the build's result to a file, in JSON")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait for the daemon (default: the node's connect-timeout, 20s)")
	completeWith(cmd, "progress", completeWords("auto", "tty", "plain", "rawjson", "quiet", "none"))
	completeWith(cmd, "output", completeWords("type=local,dest=", "type=tar,dest=", "type=oci,dest=", "type=docker", "type=image", "type=registry"))
	return cmd
}

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
	req, err := a.newRequest(o)
	if err != nil {
		return err
	}
	mode, err := a.progressMode(o)
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
	printer, err := progress.New(a.io.Err, mode, progress.Options{Builder: b.Name, Driver: b.Driver})
	if err != nil {
		return err
	}
	res, err := a.solve(ctx, s, b, req, o, printer)
	warnings, _ := printer.Close() // the build's own error matters more than the display's
	if err != nil {
		return buildError(ctx, err)
	}
	if mode != progress.RawJSON {
		a.printWarnings(warnings)
	}
	if err := files.commit(res); err != nil {
		return err
	}
	if len(req.Outputs) == 0 {
		a.warn("No output specified with %s driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load", b.Driver)
	}
	if o.quiet || mode == progress.Quiet {
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
	config, err := a.dockerConfig()
	if err != nil {
		return nil, err
	}
	machine, err := a.machine(ctx, s, b)
	if err != nil {
		return nil, err
	}
	if b.Err == nil && b.Source == builder.Stored {
		if err := s.Store.Touch(ctx, b.Name, time.Now()); err != nil {
			return nil, err
		}
	}
	return build.Run(ctx, b, req, build.Options{
		Schemes: s.Schemes, Progress: printer, Budget: o.timeout,
		Stdout: a.io.Out, LookupEnv: a.lookupEnv, Machine: machine,
		Auth:     authprovider.LoadAuthConfig(config.File()),
		Keychain: keychain(config),
		Engine: func(ctx context.Context, name string) (build.Engine, error) {
			return openEngine(ctx, config, name)
		},
		Started: func(node, ref string) {
			if !b.KeepsRecords() {
				return
			}
			// A record that cannot be written must not stop a build that can.
			err := s.Store.SaveRef(ctx, b.Name, node, ref, state.Ref{
				Target: "default", LocalPath: localPath(req), DockerfilePath: dockerfilePath(req),
			})
			if err != nil && a.debug {
				a.warn("the build's reference was not kept: %v", err)
			}
		},
	})
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

// printWarnings lists what the Dockerfile's frontend found.
func (a *app) printWarnings(all []client.VertexWarning) {
	if len(all) == 0 {
		return
	}
	noun := "warnings"
	if len(all) == 1 {
		noun = "warning"
	}
	fmt.Fprintf(a.io.Err, "\n %d %s found:\n", len(all), noun)
	for _, w := range all {
		fmt.Fprintf(a.io.Err, " - %s", w.Short)
		if len(w.Range) > 0 && w.Range[0].Start != nil {
			fmt.Fprintf(a.io.Err, " (line %d)", w.Range[0].Start.Line)
		}
		fmt.Fprintln(a.io.Err)
		if a.debug {
			for _, line := range w.Detail {
				fmt.Fprintf(a.io.Err, "   %s\n", line)
			}
			if w.URL != "" {
				fmt.Fprintf(a.io.Err, "   %s\n", w.URL)
			}
		}
	}
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
