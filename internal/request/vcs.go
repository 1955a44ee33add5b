package request

import "github.com/berthbuild/berth/internal/buildflag"

// VCS is the origin of a local context in a version control system. The zero
// value is one that has none.
type VCS struct {
	Source     string         // the URL that it was cloned from, without credentials; may be empty
	Revision   string         // the commit, with "-dirty" where that was looked for; empty before the first
	Context    string         // the context's folder in the repository, with slashes; "." is its root
	Dockerfile string         // the same of the Dockerfile's folder; empty when it lies elsewhere
	Labels     []buildflag.KV // for the image, unless the user gave them other values
}

// WithVCS is the same build with its context's origin.
func (r Request) WithVCS(v VCS) Request {
	out := r.clone()
	out.VCS = v
	out.VCS.Labels = append([]buildflag.KV(nil), v.Labels...)
	return out
}

// addVCS tells the frontend, which puts it into the provenance. Frontends that
// do not know these names pass over them.
func (r Request) addVCS(attrs map[string]string) {
	for name, value := range map[string]string{
		"vcs:source": r.VCS.Source, "vcs:revision": r.VCS.Revision,
		"vcs:localdir:context": r.VCS.Context, "vcs:localdir:dockerfile": r.VCS.Dockerfile,
	} {
		if value != "" {
			attrs[name] = value
		}
	}
	for _, kv := range r.VCS.Labels {
		attrs["label:"+kv.Key] = kv.Value
	}
}
