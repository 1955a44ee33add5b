package request

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	digest "github.com/opencontainers/go-digest"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// What a frontend must know of. One that does not refuses the build, rather
// than to build something else; with +forward it may hand the build to the
// frontend that the Dockerfile's # syntax line names.
const (
	capContexts = "moby.buildkit.frontend.contexts+forward"
	capGitQuery = "moby.buildkit.frontend.gitquerystring"
)

// uploadURL is where the daemon asks the session for an archive: BuildKit's
// HTTP source knows the host.
const uploadURL = "http://buildkit-session/"

// sources are the contexts of a build on their way into a solve.
type sources struct {
	attrs  map[string]string
	inputs map[string]llb.State // sources that the frontend is given ready-made
	caps   Capabilities
}

// addSources tells the frontend where the contexts and the Dockerfile are.
func (r Request) addSources(attrs map[string]string, c Capabilities) (map[string]llb.State, error) {
	s := &sources{attrs: attrs, inputs: map[string]llb.State{}, caps: c}
	if err := s.addMain(r); err != nil {
		return nil, err
	}
	for _, named := range r.Contexts {
		if err := s.addNamed(named); err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("build context %q", named.Name))
		}
	}
	if len(s.inputs) == 0 {
		return nil, nil
	}
	return s.inputs, nil
}

func (s *sources) addMain(r Request) error {
	if r.Context.Upload != "" {
		s.attrs["context"] = uploadURL + r.Context.Upload
	}
	if r.Context.URL != "" {
		if err := s.addMainURL(r); err != nil {
			return err
		}
	}
	git, ready := s.inputs[LocalContext]
	switch fromHere := r.Dockerfile.Dir != "" || r.Dockerfile.Inline != nil; {
	case r.Dockerfile.URL != "":
		s.inputs[LocalDockerfile] = llb.HTTP(r.Dockerfile.URL, llb.Filename(r.DockerfileName()),
			llb.WithCustomName("[internal] load build definition from "+buildflag.RedactURL(r.Dockerfile.URL)))
	case fromHere && r.Context.remote():
		s.attrs["dockerfilekey"] = LocalDockerfile // else it is read out of the context
	case ready && !fromHere:
		s.inputs[LocalDockerfile] = git
	}
	return nil
}

func (s *sources) addMainURL(r Request) error {
	ref, err := buildflag.ParseGit(r.Context.URL)
	if err != nil {
		return err
	}
	// A frontend reads no Dockerfile of its own while it is told a URL.
	if ref == nil && r.Context.Sub != "" {
		s.inputs[LocalContext] = folderOf(r.Context.URL, r.Context.Sub)
		return nil
	}
	ready := ref != nil && (r.Dockerfile.URL != "" || r.GitAsInput && hasQuery(r.Context.URL))
	if !ready {
		s.attrs["context"], err = s.url(r.Context.URL, ref)
		return err
	}
	s.inputs[LocalContext] = gitInput(ref, "[internal] load git source "+buildflag.RedactURL(r.Context.URL))
	return nil
}

// url is a URL in the form that every frontend understands, if there is one.
func (s *sources) url(u string, ref *dfgitutil.GitRef) (string, error) {
	if ref == nil || !hasQuery(u) {
		return u, nil
	}
	if plain, ok := gitFragment(u, ref); ok {
		return plain, nil
	}
	if !s.caps.GitQuery {
		return "", hint.New(fmt.Sprintf("%s: more than a ref and a folder (?checksum=, ?submodules= and the like) needs BuildKit v0.24 or newer, and the daemon is %s",
			buildflag.RedactURL(u), s.caps.name()),
			"write URL#REF:FOLDER", "or have berth make the source itself: BUILDX_SEND_GIT_QUERY_AS_INPUT=1")
	}
	s.require(capGitQuery)
	return u, nil
}

func (s *sources) addNamed(c buildflag.NamedContext) error {
	key := "context:" + c.Name
	s.require(capContexts)
	switch c.Kind {
	case buildflag.ContextFolder:
		s.attrs[key] = "local:" + NamedLocal(c.Name)
	case buildflag.ContextImage:
		s.attrs[key] = "docker-image://" + c.Value
	case buildflag.ContextLayout:
		s.attrs[key] = "oci-layout://" + LayoutStore(c.Digest) + "@" + c.Digest
	case buildflag.ContextHTTP:
		if c.Sub != "" {
			s.attrs[key] = "input:" + NamedLocal(c.Name)
			s.inputs[NamedLocal(c.Name)] = folderOf(c.Value, c.Sub)
			return nil
		}
		s.attrs[key] = c.Value
	case buildflag.ContextGit:
		ref, err := buildflag.ParseGit(c.Value)
		if err != nil || ref == nil {
			return err
		}
		if !namedGitIsKnown(c.Value) {
			s.attrs[key] = "input:" + NamedLocal(c.Name)
			s.inputs[NamedLocal(c.Name)] = gitInput(ref, fmt.Sprintf("[context %s] load git source %s", c.Name, buildflag.RedactURL(c.Value)))
			return nil
		}
		s.attrs[key], err = s.url(c.Value, ref)
		return err
	}
	return nil
}

// namedGitIsKnown tells whether frontends take this form of a Git URL for a
// named context. They take fewer than for the main one.
func namedGitIsKnown(u string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "git@"} {
		if strings.HasPrefix(u, prefix) {
			return true
		}
	}
	return false
}

// require adds to what the frontend must know of.
func (s *sources) require(what string) {
	const key = "frontend.caps"
	all := strings.Split(s.attrs[key], ",")
	switch {
	case s.attrs[key] == "":
		s.attrs[key] = what
	case !slices.Contains(all, what):
		s.attrs[key] += "," + what
	}
}

// NamedLocal is the name under which the daemon asks the session for the folder
// of a named context. It is never that of the main context or of the
// Dockerfile's folder, whatever the user called it.
func NamedLocal(name string) string {
	if name == LocalContext || name == LocalDockerfile {
		return "named/" + name
	}
	return name
}

// LayoutStore is the name under which the daemon asks the session for the
// content of an OCI layout: the key for client.SolveOpt.OCIStores. It says what
// is in the store, so that whoever has a store of that name has the content.
func LayoutStore(dgst string) string {
	return "layout-" + digest.Digest(dgst).Encoded()[:32]
}

// WithDigests is the same build with the digests of its layouts, by the names
// of their contexts.
func (r Request) WithDigests(digests map[string]string) Request {
	out := r.clone()
	for i, c := range out.Contexts {
		if d, ok := digests[c.Name]; ok {
			out.Contexts[i].Digest = d
		}
	}
	return out
}
