package request

import (
	"fmt"
	"slices"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// exporterMoby is what a Docker engine calls the export into its own images.
const exporterMoby = "moby"

// snapshotterLabel is on the worker of an engine with the containerd image
// store, and on no other.
const snapshotterLabel = "org.mobyproject.buildkit.worker.snapshotter"

// gatewayLabel is where an engine tells its HostGateway.
const gatewayLabel = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

// EngineCapabilities are those of the BuildKit inside a Docker engine: host is
// what the engine calls itself, as in "Docker/20.10.24 (linux)".
func EngineCapabilities(v client.BuildkitVersion, workers []*client.WorkerInfo, host string) Capabilities {
	c := CapabilitiesOf(v)
	c.Engine = host
	if c.Engine == "" {
		c.Engine = "a Docker engine"
	}
	c.ContainerdStore = slices.ContainsFunc(workers, func(w *client.WorkerInfo) bool {
		_, ok := w.Labels[snapshotterLabel]
		return ok
	})
	for _, w := range workers {
		if ip := w.Labels[gatewayLabel]; c.HostGateway == "" {
			c.HostGateway = ip
		}
	}
	c.Attestations = c.Attestations && c.ContainerdStore
	return c
}

// ForEngine is the build as a Docker engine takes it, when the daemon is one:
// what is to be loaded or pushed becomes one image output, since the image is
// the engine's own then. What the engine cannot do is refused with the reason.
// For any other daemon the build stays as it is.
func (r Request) ForEngine(c Capabilities) (Request, error) {
	if c.Engine == "" {
		return r, nil
	}
	for _, check := range []func(Capabilities) error{r.checkEnginePlatforms, r.checkEngineAttestations, r.checkEngineOutputs} {
		if err := check(c); err != nil {
			return Request{}, err
		}
	}
	out := r.clone()
	out.Outputs = nil
	image := -1
	for _, o := range r.clone().Outputs {
		if !intoEngine(o) {
			out.Outputs = append(out.Outputs, o)
			continue
		}
		if o.Type == buildflag.OutputRegistry {
			o.Attrs["push"] = "true"
		}
		o.Type = buildflag.OutputImage
		if image >= 0 && mergeable(out.Outputs[image], o) {
			out.Outputs[image] = merged(out.Outputs[image], o)
			continue
		}
		image = len(out.Outputs)
		out.Outputs = append(out.Outputs, o)
	}
	return out, nil
}

// EnginePushes are the names of what the engine's own API must push when the
// build is done: those of the outputs that ask for it, on an engine whose
// BuildKit keeps images where it cannot push them from.
func (r Request) EnginePushes(c Capabilities) []string {
	var names []string
	if c.Engine == "" || c.ContainerdStore {
		return nil
	}
	for _, o := range r.Outputs {
		if o.Type != buildflag.OutputImage || !pushes(o) {
			continue
		}
		for _, name := range r.names(o) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// intoEngine tells whether an output is an image that the engine keeps.
func intoEngine(o buildflag.Output) bool {
	switch o.Type {
	case buildflag.OutputImage, buildflag.OutputRegistry:
		return true
	case buildflag.OutputDocker:
		return o.Dest == ""
	}
	return false
}

// mergeable tells whether two image outputs differ only in whether they push.
func mergeable(a, b buildflag.Output) bool {
	plain := func(o buildflag.Output) string {
		o = cloneOutput(o)
		delete(o.Attrs, "push")
		return o.String()
	}
	return plain(a) == plain(b)
}

func merged(a, b buildflag.Output) buildflag.Output {
	if pushes(b) {
		a.Attrs["push"] = "true"
	}
	return a
}

func (r Request) checkEnginePlatforms(c Capabilities) error {
	if len(r.Platforms) < 2 || c.ContainerdStore {
		return nil
	}
	return needsStore(c, fmt.Sprintf("a build for several platforms (%s)", platformList(r.Platforms)), "choose one with --platform")
}

func (r Request) checkEngineAttestations(c Capabilities) error {
	if c.ContainerdStore {
		return nil
	}
	for _, a := range r.Attests {
		if !a.Disabled {
			return needsStore(c, attestName(a), "leave it out: --"+a.Type+"=false")
		}
	}
	return nil
}

func (r Request) checkEngineOutputs(c Capabilities) error {
	for _, o := range r.Outputs {
		switch o.Type {
		case buildflag.OutputOCI, buildflag.OutputDocker:
			if o.Type == buildflag.OutputDocker && o.Dest == "" {
				if o.Attrs["context"] != "" {
					return hint.New("this builder is a Docker engine, and loads into itself only", "leave context="+o.Attrs["context"]+" out")
				}
				continue
			}
			if !c.ContainerdStore {
				return needsStore(c, fmt.Sprintf("an image as an archive (type=%s)", o.Type),
					"let the engine write it after the build: docker save -o FILE IMAGE")
			}
		case buildflag.OutputImage, buildflag.OutputRegistry:
			if o.Bool("push-by-digest", false) {
				// It would be refused at the end of the build, after the tag was given.
				return hint.New(fmt.Sprintf("%s cannot push by digest: it gives every image a name with a tag", c.Engine),
					"push it by a tag: the digest is in --metadata-file", ownDaemon)
			}
		}
	}
	return nil
}

// needsStore is the refusal of what needs the containerd image store.
func needsStore(c Capabilities, what string, hints ...string) error {
	return hint.New(fmt.Sprintf("%s needs an engine with the containerd image store, and %s keeps images in a graph driver", what, c.Engine),
		append(hints,
			`with Docker 24 or newer, switch the store on: {"features": {"containerd-snapshotter": true}} in daemon.json`,
			"or "+ownDaemon)...)
}

const ownDaemon = "build on a daemon of your own: berth create --use --driver remote ENDPOINT"

// engineAttrs are what a Docker engine wants to be told besides.
func (r Request) engineAttrs(attrs map[string]string, c Capabilities) {
	if c.Engine != "" && !r.Pull {
		attrs["image-resolve-mode"] = "local" // its own images first, as docker build does
	}
}

// engineExport makes an image export one into the engine's own images.
func engineExport(ex client.ExportEntry, c Capabilities) client.ExportEntry {
	if c.Engine == "" || ex.Type != client.ExporterImage {
		return ex
	}
	ex.Type = exporterMoby
	if !c.ContainerdStore {
		delete(ex.Attrs, "push") // see EnginePushes
	}
	return ex
}
