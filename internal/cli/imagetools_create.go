package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imagetools"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/registry"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/spf13/cobra"
)

type imagetoolsCreateOptions struct {
	files, tags, annotations, platforms []string
	appendTo, dryRun, preferIndex       bool
	metadataFile, progress              string
}

func newImagetoolsCreateCmd(a *app) *cobra.Command {
	var o imagetoolsCreateOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [SOURCE...]",
		Short: "Make an image out of others, or copy one",
		Long: `Make an index that lists the manifests of the sources, and write it under every tag,
with all that it lists. Nothing is built: the manifests stay what they are.

A SOURCE is an image in a registry, a folder with an OCI layout
(oci-layout://FOLDER[:TAG][@DIGEST]), a digest in the one repository that the call is about,
or an OCI descriptor in JSON. A tag may be a folder with an OCI layout, too. One source alone
that is an index is copied as it is.

Attestations and signatures go where their image goes. Within one registry blobs are mounted
and not sent.`,
		Example: `  berth imagetools create -t ghcr.io/user/app:1 ghcr.io/user/app:1-amd64 ghcr.io/user/app:1-arm64
  berth imagetools create -t registry.example.com/app:1 docker.io/user/app:1
  berth imagetools create --dry-run --platform linux/arm64 ghcr.io/user/app:1`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.traced(cmd, func(ctx context.Context) error { return a.runImagetoolsCreate(ctx, o, args) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.annotations, "annotation", nil, "an annotation: index:NAME=VALUE or manifest-descriptor[PLATFORM]:NAME=VALUE")
	f.BoolVar(&o.appendTo, "append", false, "add the sources to what the first tag stands for")
	f.BoolVar(&o.dryRun, "dry-run", false, "show the image instead of writing it")
	f.StringArrayVarP(&o.files, "file", "f", nil, `a file with a source: a descriptor, a manifest, a digest or a name ("-" is standard input)`)
	f.StringVar(&o.metadataFile, "metadata-file", "", "write the result to a file, in JSON")
	f.StringArrayVarP(&o.platforms, "platform", "p", nil, "only these platforms, such as linux/amd64,linux/arm64")
	f.BoolVar(&o.preferIndex, "prefer-index", true, "make an index also of a single image, instead of a copy")
	f.StringVar(&o.progress, "progress", string(progress.Auto), "how to show progress: auto, tty, plain, rawjson, quiet or none")
	f.StringArrayVarP(&o.tags, "tag", "t", nil, "the image's name, as [registry/]repository[:tag] or oci-layout://FOLDER:TAG; may be repeated")
	completeWith(cmd, "progress", completeProgress)
	return cmd
}

// completeProgress offers the modes.
func completeProgress(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var words []string
	for _, m := range progress.Modes() {
		words = append(words, string(m))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) runImagetoolsCreate(ctx context.Context, o imagetoolsCreateOptions, sources []string) error {
	mode, err := progress.ParseMode(o.progress)
	if err != nil {
		return err
	}
	plan, err := a.imagePlan(ctx, o, sources)
	if err != nil {
		return err
	}
	var metadata *atomicfile.File
	if o.metadataFile != "" && !o.dryRun {
		if metadata, err = atomicfile.Create(a.abs(o.metadataFile), 0o644); err != nil {
			return hint.Wrap(err, "--metadata-file")
		}
		defer metadata.Abort() //nolint:errcheck // after Commit it does nothing
	}
	waits := &heldWaits{show: a.showWait}
	tools, closeTools, err := a.imageTools(ctx, waits.say)
	if err != nil {
		return err
	}
	defer closeTools()
	made, err := tools.Make(ctx, plan)
	if err != nil {
		return err
	}
	for _, note := range made.Notes {
		a.warn("%s", note)
	}
	if o.dryRun {
		_, err := fmt.Fprintf(a.io.Out, "%s\n", made.Raw)
		return err
	}
	if err := a.pushImage(ctx, mode, tools, plan, made, waits); err != nil {
		return err
	}
	if metadata == nil {
		return nil
	}
	data, err := json.MarshalIndent(map[string]any{
		exptypes.ExporterImageDescriptorKey: made.Desc,
		exptypes.ExporterImageNameKey:       plan.Name(),
	}, "", "  ")
	if err == nil {
		err = finishFile(metadata, data)
	}
	return hint.Wrap(err, "--metadata-file")
}

// imagePlan reads the flags, and the files that they name.
func (a *app) imagePlan(ctx context.Context, o imagetoolsCreateOptions, sources []string) (*imagetools.Plan, error) {
	req := imagetools.Request{
		Sources: sources, Tags: o.tags, DryRun: o.dryRun, Append: o.appendTo, PreferIndex: o.preferIndex,
	}
	var err error
	if req.Annotations, err = buildflag.ParseAnnotations(o.annotations); err != nil {
		return nil, err
	}
	if len(o.platforms) > 0 {
		if req.Platforms, err = buildflag.ParsePlatforms(o.platforms); err != nil {
			return nil, err
		}
	}
	for _, name := range o.files {
		text, err := a.readSource(ctx, name)
		if err != nil {
			return nil, hint.Wrap(err, "--file")
		}
		req.Files = append(req.Files, text)
	}
	return imagetools.NewPlan(req)
}

// maxSource bounds a file that describes a source.
const maxSource = registry.MaxManifest

// readSource reads a file, or standard input, which ends with ctx.
func (a *app) readSource(ctx context.Context, name string) (string, error) {
	if name != "-" {
		f, err := os.Open(a.abs(name))
		if err != nil {
			return "", err
		}
		defer f.Close() //nolint:errcheck // only read
		return readSource(f, name)
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := readSource(a.io.In, "standard input")
		answers <- answer{text, err}
	}()
	select {
	case got := <-answers:
		return got.text, got.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func readSource(r io.Reader, name string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSource+1))
	if err == nil && len(text) > maxSource {
		err = fmt.Errorf("%s has more than %d MiB, which no manifest has", name, maxSource>>20)
	}
	return string(text), err
}

// pushImage writes the image, and shows how.
func (a *app) pushImage(ctx context.Context, mode progress.Mode, tools *imagetools.Tools, plan *imagetools.Plan, made *imagetools.Result, waits *heldWaits) error {
	printer, err := progress.New(a.io.Err, mode, progress.Options{Phase: "Pushing"})
	if err != nil {
		return err
	}
	a.notices.hold()
	waits.log(printer)
	err = tools.Push(ctx, plan, made, func(name string) imagetools.Step { return printer.Step("[internal] pushing " + name) })
	waits.end()
	a.closeDisplay(display{printer: printer, mode: mode})
	return err
}
