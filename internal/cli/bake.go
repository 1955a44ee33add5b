package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"
)

// bakeOptions are bake's flags as they were given.
type bakeOptions struct {
	names        []string // targets, groups and patterns
	files        []string
	vars         []string
	set          []string
	allow        []string
	jobs         string
	list         string
	listTargets  bool // --list=targets, as it was once called
	listVars     bool // --list=variables
	policy       []string
	print        bool
	call         string
	check        bool
	load         bool
	push         bool
	noCache      bool
	pull         bool
	provenance   string
	sbom         string
	progress     string
	contextSync  string
	affinity     string
	metadataFile string
	timeout      time.Duration
	given        func(flag string) bool
}

// bakeFlags are those of bake's flags that have a grammar.
type bakeFlags struct {
	rights   bakeRights
	jobs     buildflag.Jobs
	call     buildflag.Call // of every target; a build leaves it to them
	noPolicy bool
}

func newBakeCmd(a *app) *cobra.Command {
	var o bakeOptions
	cmd := &cobra.Command{
		Use:     "bake [OPTIONS] [TARGET...]",
		Aliases: []string{"f"},
		Short:   "Build many targets from one definition",
		Long: `Build the targets of a definition, all at once: compose.yaml, docker-bake.hcl,
docker-bake.json and what overrides them, or the files that --file names. Without a
target it is the group or target "default".

A Git or HTTP URL before the targets is where the definition comes from: the
builder fetches it, and paths in it are of there, but for those that begin with
cwd://. A second URL is what it has as BAKE_CMD_CONTEXT.

A target may only read files below the working directory, and write there, unless
--allow grants more; the error says what to grant. One of a definition from
elsewhere may read nothing here by itself.`,
		Example: `  berth bake
  berth bake --print
  berth bake app --set app.args.VERSION=2 --push
  berth bake "https://example.com/acme/images.git#main:base" app`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names, o.given = args, cmd.Flags().Changed
			return a.traced(cmd, func(ctx context.Context) error { return a.runBake(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "file", "f", nil, `a definition (default: compose.yaml, docker-bake.hcl and others; "-" is standard input)`)
	f.StringArrayVar(&o.vars, "var", nil, "the value of a variable (format: name=value)")
	f.StringArrayVar(&o.set, "set", nil, `override a target (format: "targetpattern.key=value")`)
	f.StringArrayVar(&o.allow, "allow", nil, "let the targets use something of this machine (such as fs.read=PATH, ssh, network.host)")
	f.StringVarP(&o.jobs, "jobs", "j", "fail-fast", `how targets are built together (format: "N" or "mode[,parallel=N]", the modes fail-fast, defer-error, defer-output)`)
	f.StringVar(&o.list, "list", "", `list "targets" or "variables" (format: "targets,format=json")`)
	f.BoolVar(&o.listTargets, "list-targets", false, "the old name of --list=targets")
	f.BoolVar(&o.listVars, "list-variables", false, "the old name of --list=variables")
	hideFlags(cmd, "list-targets", "list-variables")
	f.StringArrayVar(&o.policy, "policy", nil, `hold no target against a policy: none is evaluated here (format: "disabled=true")`)
	f.BoolVar(&o.print, "print", false, "print what would be built, in JSON")
	f.StringVar(&o.call, "call", "build", "how to evaluate the Dockerfiles: build, check, outline or targets")
	f.BoolVar(&o.check, "check", false, "shorthand for --call=check")
	f.BoolVar(&o.load, "load", false, "load the images into Docker (--set=*.output=type=docker)")
	f.BoolVar(&o.push, "push", false, "push the images (--set=*.output=type=registry)")
	f.BoolVar(&o.noCache, "no-cache", false, "do not use the cache")
	f.BoolVar(&o.pull, "pull", false, "look for newer base images")
	f.StringVar(&o.provenance, "provenance", "", "shorthand for --set=*.attest=type=provenance")
	f.StringVar(&o.sbom, "sbom", "", "shorthand for --set=*.attest=type=sbom")
	f.StringVar(&o.affinity, "affinity", "", "what the build is known by where a node is chosen out of several: the same key, the same node (default: the context's Git remote, the Dockerfile and the target)")
	f.StringVar(&o.contextSync, "context-sync", "", "how local folders are sent: auto sends what the daemon lacks, full sends everything (default auto, or $BERTH_CONTEXT_SYNC)")
	f.StringVar(&o.progress, "progress", string(progress.Auto), "how to show progress: auto, tty, plain, rawjson, quiet or none")
	f.StringVar(&o.metadataFile, "metadata-file", "", "write the results to a file, in JSON, by target")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait for the daemons (default: the node's connect-timeout, 20s)")
	completeWith(cmd, "progress", completeWords("auto", "tty", "plain", "rawjson", "quiet", "none"))
	completeWith(cmd, "jobs", completeWords("fail-fast", "defer-error", "defer-output"))
	completeWith(cmd, "list", completeWords("targets", "variables"))
	return cmd
}

func (a *app) runBake(ctx context.Context, o bakeOptions) error {
	asked, err := a.readBakeFlags(&o)
	if err != nil {
		return err
	}
	d, err := a.newBakeDisplay(o)
	if err != nil {
		return err
	}
	defer d.close()
	url, command := o.takeURLs()
	from, files, err := a.bakeFiles(ctx, url, o, d)
	if err != nil {
		return err
	}
	def, err := a.evaluate(ctx, from, files, valueOr(command, cwdScheme), asked.rights, o)
	if err != nil {
		return err
	}
	if o.list != "" {
		d.close()
		return a.listBake(def, o.list)
	}
	relative, err := a.envBool("BUILDX_BAKE_FILE_RELATIVE_PATHS")
	if err != nil {
		return err
	}
	plan, err := bake.Resolve(def, bake.Selection{
		Names: o.names, Set: append(o.set, o.flags(asked.call).Set()...), Env: a.lookupEnv, Within: from.within(), FileRelative: relative && !from.elsewhere(),
		Epoch: a.env("SOURCE_DATE_EPOCH"), NoPolicy: asked.noPolicy,
	})
	if err != nil {
		return err
	}
	for _, w := range plan.Warnings {
		a.warn("%s", termtext.Clean(w))
	}
	if o.print {
		d.close()
		return a.printPlan(plan)
	}
	return a.bake(ctx, plan, from, asked, o, d)
}

// readBakeFlags refuses what cannot be meant, before anything is read.
func (a *app) readBakeFlags(o *bakeOptions) (f bakeFlags, err error) {
	a.oldListFlags(o)
	if o.print && o.list != "" {
		return f, hint.New("--print and --list are mutually exclusive", "leave one out")
	}
	if o.check && !o.given("call") {
		o.call = "check"
	}
	if f.call, err = buildflag.ParseCall(o.call); err != nil {
		return f, err
	}
	if f.rights, err = parseBakeAllow(o.allow); err != nil {
		return f, err
	}
	if f.noPolicy, err = bake.ParsePolicy(o.policy); err != nil {
		return f, err
	}
	f.jobs, err = buildflag.ParseJobs(o.jobs)
	return f, err
}

// oldListFlags reads --list by its old names, which buildx still takes.
func (a *app) oldListFlags(o *bakeOptions) {
	for _, old := range []struct {
		given bool
		what  string
	}{{o.listTargets, "targets"}, {o.listVars, "variables"}} {
		if !old.given {
			continue
		}
		a.warn("--list-%s is deprecated: use --list=%s", old.what, old.what)
		if o.list == "" {
			o.list = old.what
		}
	}
}

// flags are those that stand for --set of every target.
func (o bakeOptions) flags(call buildflag.Call) bake.Flags {
	f := bake.Flags{Load: o.load, Push: o.push, Provenance: o.provenance, SBOM: o.sbom, Call: call.Method}
	if o.given("no-cache") {
		f.NoCache = &o.noCache
	}
	if o.given("pull") {
		f.Pull = &o.pull
	}
	return f
}

// evaluate evaluates the definition.
func (a *app) evaluate(ctx context.Context, from bakeOrigin, files []eval.File, command string, rights bakeRights, o bakeOptions) (*eval.Definition, error) {
	vars := map[string]string{}
	for _, v := range o.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, hint.New(fmt.Sprintf("--var %q is not NAME=VALUE", termtext.Line(name, 80)), "write --var NAME=VALUE")
		}
		vars[name] = value
	}
	noEnv, err := a.envBool("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")
	if err != nil {
		return nil, err
	}
	in := eval.Input{
		Files: files, Vars: vars, Now: time.Now(), Home: a.home(),
		Builtins: map[string]string{"BAKE_CMD_CONTEXT": command, "BAKE_LOCAL_PLATFORM": localPlatform()},
	}
	if !noEnv {
		in.Env = a.lookupEnv
	}
	source := bake.Source{Input: in, Environ: func() (map[string]string, error) { return a.bakeEnviron(from, !noEnv, rights) }}
	if !from.elsewhere() {
		source.Read, source.MayRead = a.bakeRead, func(name string) error { return a.mayRead(name, rights) }
	}
	def, err := bake.Evaluate(ctx, source)
	if err != nil {
		return nil, err
	}
	for _, w := range def.Warnings {
		a.warn("%s", termtext.Clean(w.String()))
	}
	return def, nil
}

func (a *app) printPlan(plan *bake.Plan) error {
	text, err := plan.JSON()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.io.Out, "%s\n", strings.TrimRight(string(text), "\n"))
	return err
}

// bake builds a plan.
func (a *app) bake(ctx context.Context, plan *bake.Plan, from bakeOrigin, asked bakeFlags, o bakeOptions, d *bakeDisplay) error {
	if len(plan.Targets) == 0 {
		a.warn("there is nothing to build")
		return nil
	}
	targets, sources, err := a.bakeTargets(plan, from, o, asked)
	if err != nil {
		return err
	}
	if err := a.grant(ctx, plan, targets, sources, from, asked.rights, d); err != nil {
		return err
	}
	keepFindings, err := a.envBool("BUILDX_METADATA_WARNINGS")
	if err != nil {
		return err
	}
	files, err := openResultFiles(buildOptions{metadataFile: o.metadataFile})
	if err != nil {
		return err
	}
	defer files.abort()
	s := a.service()
	b, err := s.Find(ctx, a.builderName(nil))
	if err != nil {
		return err
	}
	for i, t := range targets {
		if !plan.Targets[i].Linked {
			targets[i].Request = a.withDefaultLoad(t.Request, b)
		}
	}
	if err := d.open(b); err != nil {
		return err
	}
	opts, refs, err := a.bakeSolveOptions(ctx, s, b, targets, sources, o, d.display)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(targets, func(t build.Target) bool { return !t.Request.Call.IsBuild() }) {
		return a.callTargets(ctx, b, plan, targets, opts, d, files)
	}
	opts.Jobs = asked.jobs
	results, err := build.RunAll(ctx, b, targets, opts)
	refs.save(ctx, a, s)
	found := d.close()
	made := bakeResults{results: results}
	if keepFindings {
		made.warnings = found
	}
	if err != nil {
		if len(results) > 0 { // of those that did not fail
			if fileErr := files.commit(made); fileErr != nil {
				err = errors.Join(err, fileErr)
			}
		}
		if ctx.Err() == nil {
			a.printFailedSteps(d.printer)
			a.printFindings(found, d.display)
		}
		return bakeError(ctx, err)
	}
	if err := files.commit(made); err != nil {
		return err
	}
	if !slices.ContainsFunc(targets, func(t build.Target) bool { return len(t.Request.Outputs) > 0 }) {
		a.warn("No output specified for %s target(s) with %s driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load",
			strings.Join(targetNames(targets), ", "), b.Driver)
	}
	a.printFindings(found, d.display)
	return nil
}

func bakeError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err // it names the target
}

func targetNames(targets []build.Target) []string {
	var names []string
	for _, t := range targets {
		names = append(names, t.Name)
	}
	return names
}

// bakeResults are the results by target, as the metadata file holds them, and
// beside them what was found in the Dockerfiles, where that is wanted.
type bakeResults struct {
	results  map[string]*build.Result
	warnings []client.VertexWarning
}

// ImageID implements outcome; several images have several.
func (bakeResults) ImageID() string { return "" }

// Metadata implements outcome.
func (r bakeResults) Metadata() map[string]any {
	out := map[string]any{}
	for name, res := range r.results {
		out[name] = res.Metadata()
	}
	if len(r.warnings) > 0 {
		out[build.MetadataWarnings] = r.warnings
	}
	return out
}
