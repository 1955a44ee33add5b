package request

import (
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// frontend is BuildKit's built-in Dockerfile frontend.
const frontend = "dockerfile.v0"

// Solve translates the build for a daemon that can do c. What needs I/O is
// left to the caller: LocalMounts under LocalContext (when Context.Dir is set)
// and LocalDockerfile (when the Dockerfile has a Dir or is Inline, as a folder
// with a file called DockerfileName), Session, and for each of Exports, which
// stand in the order of Exported, the Output or OutputDir.
func (r Request) Solve(c Capabilities) (client.SolveOpt, error) {
	if err := r.Validate(); err != nil {
		return client.SolveOpt{}, err
	}
	attrs := r.frontendAttrs()
	if err := r.addProvenance(attrs, c); err != nil {
		return client.SolveOpt{}, err
	}
	r.engineAttrs(attrs, c)
	exports := r.exports()
	for i, ex := range exports {
		exports[i] = engineExport(ex, c)
	}
	if len(exports) > 1 && !c.MultipleOutputs {
		return client.SolveOpt{}, hint.New(fmt.Sprintf("several outputs in one build need BuildKit v0.13 or newer, and the daemon is %s", c.name()),
			"build once for each output; the second build is cached")
	}
	return client.SolveOpt{Frontend: frontend, FrontendAttrs: attrs, Exports: exports}, nil
}

// DockerfileName is the name that the frontend looks for: in the Dockerfile's
// folder, or in a remote context.
func (r Request) DockerfileName() string {
	if r.Dockerfile.Name == "" {
		return DefaultDockerfile
	}
	return r.Dockerfile.Name
}

func (r Request) frontendAttrs() map[string]string {
	attrs := map[string]string{"filename": r.DockerfileName()}
	if r.Context.URL != "" {
		attrs["context"] = r.Context.URL
		if r.Dockerfile.Dir != "" || r.Dockerfile.Inline != nil {
			attrs["dockerfilekey"] = LocalDockerfile // else it is read out of the context
		}
	}
	if r.Target != "" {
		attrs["target"] = r.Target
	}
	if len(r.Platforms) > 0 {
		attrs["platform"] = platformList(r.Platforms)
	}
	if r.split {
		// One platform is a plain image otherwise, and a local export of it
		// would not be put into the platform's folder.
		attrs["multi-platform"] = "true"
	}
	if r.NoCache {
		attrs["no-cache"] = ""
	}
	if r.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	for _, kv := range r.BuildArgs {
		if kv.HasValue { // a bare NAME that nobody gave a value leaves the Dockerfile's default
			attrs["build-arg:"+kv.Key] = kv.Value
		}
	}
	for _, kv := range r.Labels {
		attrs["label:"+kv.Key] = kv.Value
	}
	return attrs
}

func (r Request) addProvenance(attrs map[string]string, c Capabilities) error {
	const key = "attest:provenance"
	switch r.Provenance {
	case ProvenanceOff:
	case ProvenanceDefault:
		if c.Attestations {
			attrs[key] = defaultProvenance
		}
	default:
		if !c.Attestations {
			return hint.New(fmt.Sprintf("provenance needs BuildKit v0.11 or newer, and the daemon is %s", c.name()))
		}
		attrs[key] = string(r.Provenance)
	}
	return nil
}

// exports are BuildKit's words for the outputs, in the order of Exported.
func (r Request) exports() []client.ExportEntry {
	var out []client.ExportEntry
	for _, o := range r.Exported() { // a copy, so it may be written to
		switch o.Type {
		case buildflag.OutputRegistry:
			o.Type = buildflag.OutputImage
			o.Attrs["push"] = "true"
			r.setName(o)
		case buildflag.OutputImage, buildflag.OutputOCI, buildflag.OutputDocker:
			r.setName(o)
		}
		if o.Type == buildflag.OutputDocker {
			delete(o.Attrs, "context") // which engine to load into is no business of the daemon
		}
		out = append(out, client.ExportEntry{Type: o.Type, Attrs: o.Attrs})
	}
	return out
}

func (r Request) setName(o buildflag.Output) {
	if _, own := o.Attrs["name"]; !own && len(r.Tags) > 0 {
		o.Attrs["name"] = strings.Join(r.Tags, ",")
	}
}

// platformList is the platforms with commas between them.
func platformList(list []ocispecs.Platform) string {
	text := make([]string, len(list))
	for i, p := range list {
		text[i] = platforms.FormatAll(p)
	}
	return strings.Join(text, ",")
}
