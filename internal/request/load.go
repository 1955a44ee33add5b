package request

import (
	"fmt"

	"github.com/distribution/reference"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// LoadStore is how a Docker engine keeps the images that are loaded into it.
type LoadStore struct {
	Engine     string // for a sentence
	Containerd bool   // it keeps indexes: several platforms, attestations
}

// ForLoad is the build as the engines take it that its outputs are loaded into;
// store tells of the engine of one. An engine with containerd's store is sent OCI
// images, which may be indexes. What the others cannot keep is refused with the
// reason.
func (r Request) ForLoad(store func(buildflag.Output) LoadStore) (Request, error) {
	out := r.clone()
	for i, o := range out.Outputs {
		if !o.Loads() {
			continue
		}
		s := store(o)
		if s.Containerd {
			out.Outputs[i].Type, out.Outputs[i].Engine = buildflag.OutputOCI, true
			continue
		}
		if err := r.checkLoad(s); err != nil {
			return Request{}, err
		}
	}
	return out, nil
}

// checkLoad refuses what makes an index, for an engine that keeps none.
func (r Request) checkLoad(s LoadStore) error {
	refuse := func(what string, hints ...string) error {
		return hint.New(fmt.Sprintf("%s cannot be loaded: %s keeps images in a graph driver, which holds one image under a name", what, s.Engine),
			append(hints, "to keep it all, use --push, or --output type=oci,dest=FILE",
				`with Docker 24 or newer, switch its containerd image store on: {"features": {"containerd-snapshotter": true}} in daemon.json`)...)
	}
	if r.split || len(r.Platforms) > 1 {
		return refuse(fmt.Sprintf("an image for several platforms (%s)", platformList(r.Platforms)), "choose one with --platform")
	}
	for _, a := range r.Attests {
		if !a.Disabled {
			return refuse("an image with "+attestName(a), "leave it out: --"+a.Type+"=false")
		}
	}
	return nil
}

// LoadNames are the names that an engine gives to what an output loads, in full
// and with tags. It is false where only the daemon knows them.
func (r Request) LoadNames(o buildflag.Output) ([]string, bool) {
	var all []string
	for _, name := range r.names(o) {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, false
		}
		if _, digested := ref.(reference.Digested); digested {
			return nil, false
		}
		all = append(all, reference.TagNameOnly(ref).String())
	}
	return all, true
}
