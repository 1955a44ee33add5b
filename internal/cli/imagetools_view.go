package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"text/template/parse"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imagetools"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxImageText bounds each thing that an image says of itself, in the text.
const maxImageText = 64 << 10

// writeImage is the text that scripts read.
func writeImage(out io.Writer, img *imagetools.Image) error {
	var b bytes.Buffer
	w := columns(&b)
	w.line("", "Name", img.Ref.String())
	w.line("", "MediaType", img.Desc.MediaType)
	w.line("", "Digest", img.Desc.Digest.String())
	if img.Index != nil {
		w.flush()
		w.title("", "")
		w.title("Manifests:", "")
		w.flush()
		for i, d := range img.Index.Manifests {
			if i > 0 {
				w.title("", "")
			}
			writeEntry(&b, w, img.Ref.WithDigest(d.Digest).String(), d)
		}
	}
	w.flush()
	_, err := out.Write(b.Bytes())
	return err
}

// writeEntry is a manifest in the list.
func writeEntry(b *bytes.Buffer, w *columnWriter, name string, d ocispecs.Descriptor) {
	const indent = "  "
	w.line(indent, "Name", name)
	w.line(indent, "MediaType", d.MediaType)
	if d.Platform == nil {
		return
	}
	w.line(indent, "Platform", platforms.Format(*d.Platform))
	if d.Platform.OSVersion != "" {
		w.line(indent, "OSVersion", d.Platform.OSVersion)
	}
	if len(d.Platform.OSFeatures) > 0 {
		w.line(indent, "OSFeatures", strings.Join(d.Platform.OSFeatures, ", "))
	}
	if len(d.URLs) > 0 {
		w.line(indent, "URLs", strings.Join(d.URLs, ", "))
	}
	if len(d.Annotations) > 0 {
		w.title(indent+"Annotations:", "")
		w.flush()
		inner := columns(b)
		for _, key := range slices.Sorted(maps.Keys(d.Annotations)) {
			inner.line(indent+indent, termtext.Line(key, maxImageText), d.Annotations[key])
		}
		inner.flush()
	}
}

// columnWriter aligns what stands behind the names.
type columnWriter struct{ w *tabwriter.Writer }

func columns(out io.Writer) *columnWriter {
	return &columnWriter{tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)}
}

// line is a name and its value, which others may have chosen.
func (c *columnWriter) line(indent, name, value string) {
	fmt.Fprintf(c.w, "%s%s:\t%s\n", indent, name, termtext.Line(value, maxImageText))
}

func (c *columnWriter) title(name, value string) { fmt.Fprintf(c.w, "%s\t%s\n", name, value) }

func (c *columnWriter) flush() { _ = c.w.Flush() } // into a buffer

// imageFormat is a parsed --format.
type imageFormat struct {
	text bool // the default
	tmpl *template.Template
	// image says that configurations are needed.
	image bool
}

// wholeManifest is the template that stands for the default.
func wholeManifest() *regexp.Regexp { return regexp.MustCompile(`^\{\{-?\s*\.Manifest\s*-?\}\}$`) }

// parseImageFormat reads the option. Besides Go's own functions there are those of
// docker's commands; json is indented.
func parseImageFormat(s string) (imageFormat, error) {
	if s == "" || wholeManifest().MatchString(strings.TrimSpace(s)) {
		return imageFormat{text: true}, nil
	}
	funcs := template.FuncMap{"json": indented, "join": strings.Join, "split": strings.Split, "lower": strings.ToLower, "upper": strings.ToUpper}
	tmpl, err := template.New("").Funcs(funcs).Parse(s)
	if err != nil {
		return imageFormat{}, hint.Wrap(err, fmt.Sprintf("--format %q", s), "--format '{{json .Image}}'")
	}
	f := imageFormat{tmpl: tmpl}
	for _, t := range tmpl.Templates() {
		f.image = f.image || needsImage(t.Root)
	}
	return f, nil
}

func indented(v any) (string, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return string(b), err
}

// needsImage tells whether a part of a template may look at .Image. What cannot be told
// by its text may.
func needsImage(n parse.Node) bool {
	switch n := n.(type) {
	case nil, *parse.TextNode, *parse.CommentNode, *parse.StringNode, *parse.NumberNode, *parse.BoolNode, *parse.NilNode,
		*parse.IdentifierNode, *parse.BreakNode, *parse.ContinueNode:
		return false
	case *parse.FieldNode:
		return len(n.Ident) > 0 && n.Ident[0] == "Image"
	case *parse.ListNode:
		return n != nil && slices.ContainsFunc(n.Nodes, needsImage)
	case *parse.ActionNode:
		return needsImage(n.Pipe)
	case *parse.PipeNode:
		if n == nil {
			return false
		}
		return slices.ContainsFunc(n.Cmds, func(c *parse.CommandNode) bool { return slices.ContainsFunc(c.Args, needsImage) })
	case *parse.IfNode:
		return needsImage(n.Pipe) || needsImage(n.List) || needsImage(n.ElseList)
	case *parse.RangeNode:
		return needsImage(n.Pipe) || needsImage(n.List) || needsImage(n.ElseList)
	case *parse.WithNode:
		return needsImage(n.Pipe) || needsImage(n.List) || needsImage(n.ElseList)
	}
	return true
}

// manifestView is an index in a template.
type manifestView struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType,omitempty"`
	Digest        digest.Digest         `json:"digest"`
	Size          int64                 `json:"size"`
	Manifests     []ocispecs.Descriptor `json:"manifests"`
	Annotations   map[string]string     `json:"annotations,omitempty"`
}

// imageView is an image for one platform in a template.
type imageView struct {
	Name     string          `json:"name,omitempty"`
	Manifest any             `json:"manifest,omitempty"`
	Image    *ocispecs.Image `json:"image,omitempty"`

	ctx     context.Context //nolint:containedctx // a template has no other way
	details *imagetools.Details
}

// SBOM is read when the template asks for it.
func (v imageView) SBOM() (imagetools.SBOM, error) {
	all, err := v.details.SBOM(v.ctx)
	return onlyOne(all), err
}

// Provenance is read when the template asks for it.
func (v imageView) Provenance() (imagetools.Provenance, error) {
	all, err := v.details.Provenance(v.ctx)
	return onlyOne(all), err
}

func onlyOne[T any](all map[string]T) T {
	var one T
	for _, v := range all {
		one = v
	}
	return one
}

// imagesView is an image for several platforms in a template.
type imagesView struct {
	Name     string                     `json:"name,omitempty"`
	Manifest any                        `json:"manifest,omitempty"`
	Image    map[string]*ocispecs.Image `json:"image,omitempty"`

	ctx     context.Context //nolint:containedctx // a template has no other way
	details *imagetools.Details
}

// SBOM is by platform, and read when the template asks for it.
func (v imagesView) SBOM() (map[string]imagetools.SBOM, error) { return v.details.SBOM(v.ctx) }

// Provenance is by platform, and read when the template asks for it.
func (v imagesView) Provenance() (map[string]imagetools.Provenance, error) {
	return v.details.Provenance(v.ctx)
}

// formatImage writes an image by a template.
func (a *app) formatImage(ctx context.Context, f imageFormat, tools *imagetools.Tools, img *imagetools.Image, name string) error {
	details, err := tools.Details(ctx, img)
	if err != nil {
		return err
	}
	var manifest any = img.Desc
	if img.Index != nil {
		manifest = manifestView{
			SchemaVersion: img.Index.SchemaVersion, MediaType: img.Index.MediaType, Digest: img.Desc.Digest, Size: img.Desc.Size,
			Manifests: img.Index.Manifests, Annotations: img.Index.Annotations,
		}
	}
	var configs map[string]*ocispecs.Image
	if f.image {
		if configs, err = details.Configs(ctx); err != nil {
			return err
		}
	}
	var view any = imagesView{Name: name, Manifest: manifest, Image: configs, ctx: ctx, details: details}
	if len(details.Platforms()) <= 1 {
		view = imageView{Name: name, Manifest: manifest, Image: onlyOne(configs), ctx: ctx, details: details}
	}
	var b bytes.Buffer
	if err := f.tmpl.Execute(&b, view); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return hint.Wrap(err, "--format")
	}
	text := b.String()
	if a.io.OutTTY {
		text = termtext.Clean(text)
	}
	_, err = io.WriteString(a.io.Out, text)
	return err
}
