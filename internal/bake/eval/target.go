package eval

// Target is one target of a definition: what its blocks say, before it takes
// anything from the targets that it inherits from. After internal/bake has
// resolved it, it is all that is known of one build.
//
// A nil pointer, slice or map was not given; what was given as empty is empty
// and not nil, and takes the place of what is inherited where the field says
// "overrides". Values are as written: nothing has been checked against what a
// build takes, but for their shape.
type Target struct {
	Name        string
	Description string
	Inherits    []string // names of targets, the later ones before the earlier ones

	Context  *string           // a folder, a URL, cwd://…; overrides
	Contexts map[string]string // by name; added, and an empty one takes away
	// ContextFile and ContextsFile tell which file said so, or has the target that
	// says nothing: local paths may be meant to be relative to it.
	ContextFile  string
	ContextsFile map[string]string

	Dockerfile       *string            // a path in the context; overrides
	DockerfileInline *string            // a Dockerfile's text; overrides
	Args             map[string]*string // added; nil leaves the value to what is inherited, or to the Dockerfile
	Labels           map[string]*string // the same
	Tags             []string           // overrides
	Target           *string            // a stage of the Dockerfile; overrides
	Platforms        []string           // overrides
	Annotations      []string           // as of --annotation; added

	CacheFrom []Cache  // added
	CacheTo   []Cache  // overrides
	Outputs   []Output // overrides
	Secrets   []Secret // added, by id
	SSH       []SSH    // added, by id
	Attest    []Attest // added, by type
	Policy    []Policy // added

	Pull          *bool              // overrides
	NoCache       *bool              // overrides
	NoCacheFilter []string           // stages; added
	Network       *string            // default, host, none; overrides
	ShmSize       *string            // 128m; overrides
	Ulimits       []string           // nofile=1024:2048; added
	Resources     *Resources         // overrides one by one
	Call          *string            // check, outline, targets; overrides
	Entitlements  []string           // network.host, …; added
	ExtraHosts    map[string]*string // added
}

// Cache is where a build takes cache from, or writes it to.
type Cache struct {
	Type  string            // registry, local, gha, …
	Attrs map[string]string // all but the type
}

// Output is what becomes of a build's result.
type Output struct {
	Type  string            // image, local, …
	Dest  string            // "" where none is given; "-" is the standard output
	Attrs map[string]string // all but type and dest
}

// Secret is a secret that a build may ask for. With neither Src nor Env it is
// the environment variable of that ID if there is one, else the file.
type Secret struct {
	ID  string
	Src string // a path
	Env string // the name of a variable
}

// SSH is an agent or keys that a build may ask for.
type SSH struct {
	ID    string   // "" is default
	Paths []string // sockets or keys; none is the agent of SSH_AUTH_SOCK
}

// Attest is an attestation that is asked for, or that is not wanted.
type Attest struct {
	Type     string // provenance, sbom
	Disabled bool
	Attrs    map[string]string // all but the type and disabled
}

// Policy is a policy that a build's sources are held against.
type Policy struct {
	Files    []string
	Reset    bool
	Disabled bool
	Strict   *bool
	LogLevel string
}

// Resources bound the containers of a build. A nil field is not given.
type Resources struct {
	Memory     *string // 2g
	MemorySwap *string
	CPUShares  *int64
	CPUPeriod  *int64 // microseconds
	CPUQuota   *int64 // microseconds
	CpusetCPUs *string
	CpusetMems *string
}
