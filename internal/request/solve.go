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
// left to the caller: LocalMounts under LocalContext (when Context.Dir or Empty
// is set), LocalDockerfile (when the Dockerfile has a Dir or is Inline, as a
// folder with a file called DockerfileName) and NamedLocal (for each folder in
// Contexts), OCIStores under LayoutStore, the archive of Context.Upload, Session,
// and for each of Exports, which stand in the order of Exported, the Output or
// OutputDir.
func (r Request) Solve(c Capabilities) (client.SolveOpt, error) {
	if err := r.Validate(); err != nil {
		return client.SolveOpt{}, err
	}
	attrs := r.frontendAttrs()
	inputs, err := r.addSources(attrs, c)
	if err != nil {
		return client.SolveOpt{}, err
	}
	if err := r.addAttests(attrs, c); err != nil {
		return client.SolveOpt{}, err
	}
	if err := r.addContainers(attrs, c); err != nil {
		return client.SolveOpt{}, err
	}
	r.engineAttrs(attrs, c)
	r.callAttrs(attrs)
	exports := r.exports()
	if err := r.annotate(exports, c); err != nil {
		return client.SolveOpt{}, err
	}
	for i, ex := range exports {
		exports[i] = engineExport(ex, c)
	}
	if len(exports) > 1 && !c.MultipleOutputs {
		return client.SolveOpt{}, hint.New(fmt.Sprintf("several outputs in one build need BuildKit v0.13 or newer, and the daemon is %s", c.name()),
			"build once for each output; the second build is cached")
	}
	rights, err := r.entitlements(c)
	if err != nil {
		return client.SolveOpt{}, err
	}
	opt := client.SolveOpt{Frontend: frontend, FrontendAttrs: attrs, FrontendInputs: inputs, Exports: exports, AllowedEntitlements: rights}
	if err := r.addCaches(&opt, c); err != nil {
		return client.SolveOpt{}, err
	}
	return opt, nil
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
	if stages, set := r.noCacheAttr(); set {
		attrs["no-cache"] = stages
	}
	if r.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	for _, kv := range r.BuildArgs {
		if kv.HasValue { // a bare NAME that nobody gave a value leaves the Dockerfile's default
			attrs["build-arg:"+kv.Key] = kv.Value
		}
	}
	r.addVCS(attrs)
	for _, kv := range r.Labels {
		attrs["label:"+kv.Key] = kv.Value
	}
	return attrs
}

// exports are BuildKit's words for the outputs, in the order of Exported.
func (r Request) exports() []client.ExportEntry {
	var out []client.ExportEntry
	for _, o := range r.Exported() { // a copy, so it may be written to
		switch o.Type {
		case buildflag.OutputRegistry:
			o.Type = buildflag.OutputImage
			asRegistry(o)
			r.setName(o)
		case buildflag.OutputImage, buildflag.OutputOCI, buildflag.OutputDocker:
			r.setName(o)
		}
		r.setArtifacts(o)
		if o.Type == buildflag.OutputDocker || o.Engine {
			delete(o.Attrs, "context") // which engine to load into is no business of the daemon
		}
		out = append(out, client.ExportEntry{Type: o.Type, Attrs: o.Attrs})
	}
	return out
}

// asRegistry says of an image what type=registry means.
func asRegistry(o buildflag.Output) {
	o.Attrs["push"] = "true"
	setDefault(o, "unpack", "false") // it is not for containers of the daemon's own
}

// setName names an image by the tags. They win over a name= of its own, as with
// buildx. What one of several nodes pushes has no tag yet: their index gets it.
func (r Request) setName(o buildflag.Output) {
	if len(r.Tags) > 0 && (!r.split || !pushes(o)) {
		o.Attrs["name"] = strings.Join(r.Tags, ",")
	}
}

// setDefault fills in what the user left open.
func setDefault(o buildflag.Output, key, value string) {
	if _, own := o.Attrs[key]; !own {
		o.Attrs[key] = value
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
