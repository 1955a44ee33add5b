package request

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// argMultiPlatform is the build argument that makes an index of one platform, too.
const argMultiPlatform = "BUILDKIT_MULTI_PLATFORM"

// Annotatable tells whether an output has something that annotations are
// written on: an image has, files have not.
func Annotatable(o buildflag.Output) bool {
	switch o.Type {
	case buildflag.OutputImage, buildflag.OutputRegistry, buildflag.OutputOCI, buildflag.OutputDocker:
		return true
	}
	return false
}

// checkAnnotations refuses what no daemon could write: on an index that no
// output has, or for a platform that is not built. What is loaded is left open:
// a Docker engine keeps an image of its own, with an index where it can.
func (r Request) checkAnnotations() error {
	for _, a := range r.Annotations {
		err := r.checkAnnotation(a, func(o buildflag.Output) bool {
			return o.Loads() && !o.Engine || r.hasIndex(o, true)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r Request) checkAnnotation(a buildflag.Annotation, hasIndex func(buildflag.Output) bool) error {
	if a.Platform != nil && len(r.Platforms) > 0 && !has(r.Platforms, *a.Platform) {
		return hint.New(fmt.Sprintf("--annotation %s: the build is not for %s but for %s", label(a), platforms.Format(*a.Platform), platformList(r.Platforms)),
			"build for it, too: --platform", "or leave the annotation out")
	}
	if !a.Level.OfIndex() {
		return nil
	}
	for _, o := range r.Outputs {
		if Annotatable(o) && !hasIndex(o) {
			return hint.New(fmt.Sprintf("--annotation %s: index annotations not supported for single platform export: type=%s makes one image here, and no index of several",
				label(a), o.Type), "annotate the image itself: --annotation manifest:"+a.Key+"=VALUE",
				"or build for several platforms: --platform linux/amd64,linux/arm64")
		}
	}
	return nil
}

// hasIndex tells whether the output's images are listed in an index, on a daemon
// that attests what it builds, or does not.
func (r Request) hasIndex(o buildflag.Output, attests bool) bool {
	switch {
	case o.Type == buildflag.OutputDocker:
		return false // the format holds one image
	case r.split || len(r.Platforms) > 1 || r.boolArg(argMultiPlatform):
		return true
	case !attests:
		return false
	case slices.ContainsFunc(r.Attests, func(a buildflag.Attest) bool { return !a.Disabled }):
		return true // an attestation is a further manifest
	case r.provenanceByDefault():
		return o.Type != buildflag.OutputOCI // see defaultProvenance: not where it is not pushed
	}
	return false
}

// annotate adds the annotations to the exports, which stand in the order of
// Exported.
func (r Request) annotate(exports []client.ExportEntry, c Capabilities) error {
	if len(r.Annotations) == 0 {
		return nil
	}
	outputs := r.Exported()
	if !slices.ContainsFunc(outputs, Annotatable) {
		return nil
	}
	if c.Engine != "" && !c.ContainerdStore {
		return needsStore(c, "an annotation", "leave it out, or use a label, which every engine keeps: --label")
	}
	if !c.since(0, 11) {
		return hint.New(fmt.Sprintf("--annotation needs BuildKit v0.11 or newer, and the daemon is %s", c.name()),
			"leave it out, or use a label: --label")
	}
	for _, a := range r.Annotations {
		err := r.checkAnnotation(a, func(o buildflag.Output) bool { return r.hasIndex(o, c.Attestations) })
		if err != nil {
			return err
		}
		for i, o := range outputs {
			if Annotatable(o) {
				setAnnotation(exports[i].Attrs, a)
			}
		}
	}
	return nil
}

// setAnnotation writes one as an attribute of an exporter. The plain form and
// the one with the level are the same to BuildKit, in no order, so that only
// one of them may be there.
func setAnnotation(attrs map[string]string, a buildflag.Annotation) {
	if a.Level == buildflag.OnManifest && a.Platform == nil {
		delete(attrs, "annotation-manifest."+a.Key)
		attrs["annotation."+a.Key] = a.Value
		return
	}
	attrs["annotation-"+where(a)+"."+a.Key] = a.Value
}

// where is the level with its platform.
func where(a buildflag.Annotation) string {
	if a.Platform == nil {
		return string(a.Level)
	}
	return string(a.Level) + "[" + platforms.Format(*a.Platform) + "]"
}

// label names an annotation without its value.
func label(a buildflag.Annotation) string { return where(a) + ":" + a.Key }

// annotationsFor are those that one node's platforms have to do with: a daemon
// refuses an annotation for a platform that it does not build.
func annotationsFor(all []buildflag.Annotation, list []ocispecs.Platform) []buildflag.Annotation {
	return slices.DeleteFunc(slices.Clone(all), func(a buildflag.Annotation) bool {
		return a.Platform != nil && !has(list, *a.Platform)
	})
}

func cloneAnnotations(in []buildflag.Annotation) []buildflag.Annotation {
	out := slices.Clone(in)
	for i, a := range out {
		if a.Platform != nil {
			p := clonePlatforms([]ocispecs.Platform{*a.Platform})[0]
			out[i].Platform = &p
		}
	}
	return out
}

func has(list []ocispecs.Platform, p ocispecs.Platform) bool {
	return slices.ContainsFunc(list, func(o ocispecs.Platform) bool {
		return strings.EqualFold(platforms.Format(platforms.Normalize(o)), platforms.Format(platforms.Normalize(p)))
	})
}
