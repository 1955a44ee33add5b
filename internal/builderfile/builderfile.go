// Package builderfile is the grammar of berth.yaml, the file in which builders
// travel: it reads one, checks it, and writes one.
//
// It is pure: it opens no file and asks no daemon. Finding a file, agreeing to
// it and making builders of it are the business of internal/builder.
//
// Rules: every refusal names the file and the line. Nothing is guessed: unknown
// keys, aliases, second documents and keys given twice are refused. What a file
// says is not to be trusted: its texts may be shown only after Parse has taken
// them, and then as package fmt's %q would, where they are not bound to a
// grammar.
package builderfile

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berthbuild/berth/internal/endpoint"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// Name is what a file is called that is found without being named.
	Name = "berth.yaml"
	// MaxSize bounds a file, in bytes.
	MaxSize = 1 << 20
	// Version is the version of the format.
	Version = "1"
	// SchemaURL is where the format's JSON Schema is published.
	SchemaURL = "https://raw.githubusercontent.com/berthbuild/berth/main/docs/schema/berth.schema.json"

	// maxNodes bounds the nodes of a file: more could not be looked over by
	// whoever is asked to agree to them.
	maxNodes = 256
)

// File is a definition file.
type File struct {
	Builders []Builder // at least one, with different names
}

// Builder is one builder of a file.
type Builder struct {
	Name  string
	Nodes []Node // at least one
	Line  int    // where it stands, from 1 on
}

// Node is one daemon of a builder.
type Node struct {
	Name      string // as given, or NAME0, NAME1, …
	Endpoint  endpoint.Endpoint
	Platforms []ocispecs.Platform // normalised; nil for what the daemon offers
	// Options are driver options as typed; relative paths in them are relative
	// to the file. They have been checked for the endpoint, and do not name the
	// certificates that Certs has.
	Options map[string]string
	Certs   Certs
	Line    int
}

// Certs are certificates within the file, in PEM. Key is a secret.
type Certs struct {
	CACert, Cert string
	Key          endpoint.Secret
}

// IsZero tells whether there are none.
func (c Certs) IsZero() bool { return c.CACert == "" && c.Cert == "" && c.Key.IsZero() }

// Find gives the builder called name, in any case.
func (f File) Find(name string) (Builder, bool) {
	for _, b := range f.Builders {
		if strings.EqualFold(b.Name, name) {
			return b, true
		}
	}
	return Builder{}, false
}

// Place is where a file comes from.
type Place struct {
	File string // its name in messages
	Dir  string // its folder, which relative paths are relative to
}

// Error is what is wrong with a file, and where.
type Error struct {
	File string
	Line int // 0 where it is the whole file
	Err  error
}

// Error is FILE:LINE: what is wrong.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

// Unwrap gives what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// PathOptions are the driver options that name files or folders.
func PathOptions() []string {
	return []string{endpoint.OptCACert, endpoint.OptCert, endpoint.OptKey, endpoint.OptTLSDir}
}

var errEmpty = errors.New("holds no builders")
