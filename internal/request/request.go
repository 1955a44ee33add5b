// Package request is one build as a value, and its translation, with what a
// daemon can do, into what BuildKit's client is asked to solve.
//
// It is not for opening anything: local folders, secrets, agents, credentials
// and the places where results go are added by internal/build. Neither is it
// the grammar of flags, which is internal/buildflag.
//
// Rules: a Request is immutable. Whoever wants another one calls a method that
// returns a new value (With…, ForNode); no slice or map is shared between the
// two. Nothing here does I/O, looks at the clock or reads the environment.
package request

import (
	"maps"
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
)

// The names under which BuildKit's Dockerfile frontend asks the session for
// local folders: the keys for client.SolveOpt.LocalMounts.
const (
	LocalContext    = "context"
	LocalDockerfile = "dockerfile"
)

// DefaultDockerfile is the file that is built when none is named.
const DefaultDockerfile = "Dockerfile"

// Context is what COPY and ADD see. Exactly one of the fields is set, besides Sub.
type Context struct {
	Dir    string // a local folder: absolute, symbolic links resolved
	URL    string // a Git or HTTP URL that the daemon fetches
	Upload string // the id of an archive that the session has; new for every build, or builds would share it
	Empty  bool   // nothing: there is a Dockerfile alone

	Sub string // of an archive that URL is, a folder in it; "" is all of it
}

// remote tells whether the daemon gets the context as a whole, without the
// session's folders.
func (c Context) remote() bool { return c.URL != "" || c.Upload != "" }

// Dockerfile says where the build's instructions are. Dir, Inline or URL is set
// for a local context; with none of them, Name is a path inside a remote
// context.
type Dockerfile struct {
	Dir    string // the local folder that has it
	Name   string // its name in Dir
	Inline []byte // the text itself, from standard input; nil when there is a file
	URL    string // where the daemon downloads it
}

// Request is one build. The zero value is not valid; see Validate.
type Request struct {
	Context    Context
	Dockerfile Dockerfile
	Tags       []string // references as typed, from buildflag.ParseTags
	Target     string   // the stage to build; "" is the last
	BuildArgs  []buildflag.KV
	Labels     []buildflag.KV
	Platforms  []ocispecs.Platform // none: the daemon's own
	NoCache    bool
	Pull       bool // look for newer base images
	Secrets    []buildflag.Secret
	SSH        []buildflag.SSH
	Outputs    []buildflag.Output

	Contexts      []buildflag.NamedContext // besides the main one
	GitAsInput    bool                     // make the source of a Git URL with a query here, for daemons that cannot read it
	Annotations   []buildflag.Annotation
	Attests       []buildflag.Attest // what was asked for; each type once
	NoProvenance  bool               // do not attest it by default
	NoArtifacts   bool               // attest by plain manifests where nothing else is said
	VCS           VCS                // what Git says of a local context
	CacheFrom     []buildflag.Cache
	CacheTo       []buildflag.Cache
	NoCacheFilter []string // stages that the cache is not used for
	Hosts         []buildflag.Host
	Network       string // of RUN; "" is the daemon's default
	ShmSize       int64  // bytes; 0 is the daemon's default
	Ulimits       []buildflag.Ulimit
	CgroupParent  string
	Resources     []buildflag.Resource
	Entitlements  []string       // rights that the daemon is asked for, such as network.host
	Call          buildflag.Call // what is asked in place of a build

	split bool // one node's part of a build that runs on several
}

// WithPlatforms is the same build for other platforms.
func (r Request) WithPlatforms(p []ocispecs.Platform) Request {
	out := r.clone()
	out.Platforms = clonePlatforms(p)
	return out
}

// WithOutputs is the same build with other outputs.
func (r Request) WithOutputs(o []buildflag.Output) Request {
	out := r.clone()
	out.Outputs = cloneOutputs(o)
	return out
}

// Exported are the outputs that BuildKit is asked for, in the order of the
// Exports of Solve: every output but type=cacheonly.
func (r Request) Exported() []buildflag.Output {
	var out []buildflag.Output
	for _, o := range r.Outputs {
		if o.Type != buildflag.OutputCacheOnly {
			out = append(out, cloneOutput(o))
		}
	}
	return out
}

func (r Request) clone() Request {
	r.Dockerfile.Inline = slices.Clone(r.Dockerfile.Inline)
	r.Tags = slices.Clone(r.Tags)
	r.BuildArgs = slices.Clone(r.BuildArgs)
	r.Labels = slices.Clone(r.Labels)
	r.Platforms = clonePlatforms(r.Platforms)
	r.Secrets = slices.Clone(r.Secrets)
	r.SSH = slices.Clone(r.SSH)
	for i := range r.SSH {
		r.SSH[i].Paths = slices.Clone(r.SSH[i].Paths)
	}
	r.Outputs = cloneOutputs(r.Outputs)
	r.Contexts = slices.Clone(r.Contexts)
	r.Annotations = cloneAnnotations(r.Annotations)
	r.Attests = cloneAttests(r.Attests)
	r.VCS.Labels = slices.Clone(r.VCS.Labels)
	r.CacheFrom = cloneCaches(r.CacheFrom)
	r.CacheTo = cloneCaches(r.CacheTo)
	r.NoCacheFilter = slices.Clone(r.NoCacheFilter)
	r.Hosts = slices.Clone(r.Hosts)
	r.Ulimits = slices.Clone(r.Ulimits)
	r.Resources = slices.Clone(r.Resources)
	r.Entitlements = slices.Clone(r.Entitlements)
	return r
}

func cloneAttests(in []buildflag.Attest) []buildflag.Attest {
	out := slices.Clone(in)
	for i := range out {
		out[i].Attrs = maps.Clone(out[i].Attrs)
	}
	return out
}

func cloneCaches(in []buildflag.Cache) []buildflag.Cache {
	out := slices.Clone(in)
	for i := range out {
		out[i].Attrs = maps.Clone(out[i].Attrs)
	}
	return out
}

func clonePlatforms(in []ocispecs.Platform) []ocispecs.Platform {
	out := slices.Clone(in)
	for i := range out {
		out[i].OSFeatures = slices.Clone(out[i].OSFeatures)
	}
	return out
}

func cloneOutput(o buildflag.Output) buildflag.Output {
	o.Attrs = maps.Clone(o.Attrs)
	if o.Attrs == nil {
		o.Attrs = map[string]string{}
	}
	return o
}

func cloneOutputs(in []buildflag.Output) []buildflag.Output {
	out := slices.Clone(in)
	for i := range out {
		out[i] = cloneOutput(out[i])
	}
	return out
}
