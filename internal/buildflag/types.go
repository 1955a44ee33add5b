package buildflag

import ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

// Cache is one --cache-from or --cache-to, as BuildKit takes it.
type Cache struct {
	Type  string            // registry, local, inline, gha, s3, azblob, or what the daemon knows besides
	Attrs map[string]string // everything but type; never nil
}

// Attest is one --attest, or one of its shorthands.
type Attest struct {
	Type     string            // AttestProvenance or AttestSBOM
	Disabled bool              // asked to be left out
	Attrs    map[string]string // everything but type and disabled; never nil
}

// AnnotationLevel is what an annotation is written on.
type AnnotationLevel string

// The levels, as they are written before an annotation's name.
const (
	OnManifest           AnnotationLevel = "manifest"
	OnIndex              AnnotationLevel = "index"
	OnManifestDescriptor AnnotationLevel = "manifest-descriptor"
	OnIndexDescriptor    AnnotationLevel = "index-descriptor"
)

// Annotation is one --annotation on one level.
type Annotation struct {
	Level    AnnotationLevel
	Platform *ocispecs.Platform // nil: of every platform
	Key      string
	Value    string
}

// Host is one --add-host.
type Host struct {
	Name string
	IP   string
}

// Ulimit is one --ulimit, as docker writes it: type=soft:hard.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Resource is one --resource, under the name that the frontend knows it by.
type Resource struct {
	Key   string
	Value string
}

// Call is --call: what is asked of the frontend in place of a build. The zero
// value is a build.
type Call struct {
	Method       string // "" is a build; else check, outline, targets, or a name that the frontend knows
	JSON         bool   // print the frontend's JSON
	IgnoreStatus bool   // do not fail for what a check finds
}

// IsBuild says that nothing but a build is asked for.
func (c Call) IsBuild() bool { return c.Method == "" }
