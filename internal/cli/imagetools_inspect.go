package cli

import (
	"context"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imagetools"
	"github.com/spf13/cobra"
)

type imagetoolsInspectOptions struct {
	format string
	raw    bool
}

func newImagetoolsInspectCmd(a *app) *cobra.Command {
	var o imagetoolsInspectOptions
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME",
		Short: "Show an image in a registry, or in a folder with an OCI layout",
		Long: `Show what a name stands for in a registry: its digest, and the manifests that it
lists. NAME is [REGISTRY/]REPOSITORY[:TAG][@DIGEST], or oci-layout://FOLDER[:TAG][@DIGEST].

--format takes a template over .Name .Manifest .Image .Provenance .SBOM, with the function
json. Where an image is for several platforms, .Image .Provenance and .SBOM are by platform:
{{json (index .Image "linux/arm64")}}.

Docker's credentials are used (docker login), and what the builder's buildkitd.toml says of
registries: mirrors, http, insecure, ca and keypair.`,
		Example: `  berth imagetools inspect alpine
  berth imagetools inspect --raw ghcr.io/user/app:1 | sha256sum
  berth imagetools inspect --format '{{json .Provenance}}' ghcr.io/user/app:1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, "imagetools inspect requires 1 argument, the image's name")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.traced(cmd, func(ctx context.Context) error { return a.runImagetoolsInspect(ctx, o, args[0]) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", `a template, such as '{{json .Image}}' (default: "{{.Manifest}}")`)
	f.BoolVar(&o.raw, "raw", false, "the manifest as the registry has it, to the byte")
	return cmd
}

func (a *app) runImagetoolsInspect(ctx context.Context, o imagetoolsInspectOptions, name string) error {
	if o.raw && o.format != "" {
		return hint.New("format and raw cannot be used together", "leave one out")
	}
	view, err := parseImageFormat(o.format)
	if err != nil {
		return err
	}
	ref, err := imagetools.ParseLocation(name)
	if err != nil {
		return err
	}
	tools, closeTools, err := a.imageTools(ctx, a.showWait)
	if err != nil {
		return err
	}
	defer closeTools()
	img, err := tools.Get(ctx, ref)
	if err != nil {
		return err
	}
	if o.raw {
		_, err = a.io.Out.Write(img.Raw)
		return err
	}
	if view.text {
		return writeImage(a.io.Out, img)
	}
	return a.formatImage(ctx, view, tools, img, name)
}
