package builder

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/state"
)

// Definition is a definition file as it was read. It was read once, so that
// what is agreed to is what is used.
type Definition struct {
	Path   string // the real one: no link on it
	Digest string // of all that an agreement is about: "sha256:…"
	Owner  string // whose the file is, where it is neither ours nor root's; else ""
	File   builderfile.File
}

// Dir is what relative paths in the file are relative to.
func (d *Definition) Dir() string { return filepath.Dir(d.Path) }

// FindDefinition looks for a berth.yaml in dir and in the folders above it, up
// to home where dir is below it. It gives "" where there is none. Nothing is
// read.
func FindDefinition(dir, home string) string {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		path := filepath.Join(at, builderfile.Name)
		if _, err := os.Lstat(path); err == nil {
			return path
		}
		if at == filepath.Dir(at) || home != "" && at == filepath.Clean(home) {
			return ""
		}
	}
}

// ReadDefinition reads and checks a file. The error names it.
func ReadDefinition(path string) (*Definition, error) {
	resolved, err := RealPath(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	data, info, err := readBounded(resolved)
	if err != nil {
		return nil, fileError(path, err)
	}
	d := &Definition{Path: resolved, Owner: otherOwner(info)}
	if d.File, err = builderfile.Parse(data, builderfile.Place{File: path, Dir: d.Dir()}); err != nil {
		return nil, err
	}
	d.Digest = d.digest(data)
	return d, nil
}

// RealPath is the absolute path without links. A file that is not there has
// the one that it would have.
func RealPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if dir, derr := filepath.EvalSymlinks(filepath.Dir(path)); derr == nil {
			return filepath.Join(dir, filepath.Base(path)), err
		}
		return path, err
	}
	return resolved, err
}

func fileError(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return hint.Wrap(err, path)
}

// readBounded reads a regular file of a size that a definition can have.
func readBounded(path string) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path) // before opening, which would block on a pipe
	switch {
	case err != nil:
		return nil, nil, err
	case info.IsDir():
		return nil, nil, errors.New("is a directory, not a file")
	case !info.Mode().IsRegular():
		return nil, nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, builderfile.MaxSize+1))
	return data, info, err
}

// digest is over the file, and over the kubeconfigs that it names in its own
// folder: they say as much as the file does where a build goes and what is run.
// A file without any has the digest that sha256sum prints.
func (d *Definition) digest(data []byte) string {
	h := sha256.New()
	h.Write(data)
	for _, b := range d.File.Builders {
		for _, n := range b.Nodes {
			path := kubeconfigOf(n)
			if _, inside := builderfile.Within(d.Dir(), path); !inside {
				continue
			}
			config, _, err := readBounded(path)
			size := int64(len(config))
			if err != nil {
				size = -1 // it may come later
			}
			h.Write([]byte("\x00" + path + "\x00"))
			_ = binary.Write(h, binary.BigEndian, size) // a hash takes everything
			h.Write(config)
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func kubeconfigOf(n builderfile.Node) string {
	if !strings.HasPrefix(n.Endpoint.Scheme, "kube-") {
		return ""
	}
	return n.Endpoint.Param(endpoint.KubeConfig)
}

// Consent is how the user stands to a definition file.
type Consent int

// A file is asked about unless it is agreed to as it is now.
const (
	Unknown Consent = iota
	Changed         // it was agreed to, and has another content now
	Agreed
)

// Consent looks up whether the user has agreed to d. A record that cannot be
// read is an error, and no agreement.
func (s *Service) Consent(ctx context.Context, d *Definition) (Consent, error) {
	a, err := s.Store.Agreement(ctx, d.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Unknown, nil
	case err != nil:
		return Unknown, err
	case a.Digest != d.Digest:
		return Changed, nil
	}
	return Agreed, nil
}

// Trust records that the user agrees to d.
func (s *Service) Trust(ctx context.Context, d *Definition) error {
	return s.Store.Agree(ctx, state.Agreement{Path: d.Path, Digest: d.Digest, At: time.Now()})
}

// NotAgreed is the error of a definition file that nobody agreed to.
type NotAgreed struct {
	Path    string
	Changed bool // since it was agreed to
}

// Error says which file, and why.
func (e *NotAgreed) Error() string {
	if e.Changed {
		return fmt.Sprintf("%s has changed since you agreed to it, and nothing in it is used until you agree again", e.Path)
	}
	return fmt.Sprintf("nobody has agreed yet to use the builders of %s, which may come from a stranger", e.Path)
}

// Hints implements hint.Hinter.
func (e *NotAgreed) Hints() []string {
	return []string{"read it, and agree to what it says now: berth trust " + hint.Quote(e.Path)}
}

// agreed returns when d may be used: because the user agreed to it before, or
// does now.
func (s *Service) agreed(ctx context.Context, d *Definition) error {
	c, err := s.Consent(ctx, d)
	if err != nil || c == Agreed {
		return err
	}
	refused := &NotAgreed{Path: d.Path, Changed: c == Changed}
	if s.Ask == nil {
		return refused
	}
	yes, err := s.Ask(ctx, d, c)
	switch {
	case err != nil:
		return err
	case !yes:
		return refused
	}
	if err := s.Trust(ctx, d); err != nil {
		s.note(fmt.Sprintf("the agreement to %s could not be kept, and will be asked for again: %v", d.Path, err))
	}
	return nil
}

func (s *Service) note(text string) {
	if s.Note != nil {
		s.Note(text)
	}
}

// definition is the file in force, nil where there is none.
func (s *Service) definition() (*Definition, error) {
	if s.Definition == nil {
		return nil, nil
	}
	return s.Definition()
}

// fromFile gives the builder called name of the definition file in force, once
// the user has agreed to the file; nil where the file has none.
func (s *Service) fromFile(ctx context.Context, name string) (*Builder, error) {
	d, err := s.definition()
	if d == nil || err != nil {
		return nil, err
	}
	b, ok := d.File.Find(name)
	if !ok {
		return nil, nil
	}
	if err := s.agreed(ctx, d); err != nil {
		return nil, hint.Wrap(err, fmt.Sprintf("builder %q", b.Name))
	}
	return s.defined(d, b), nil
}

// defined makes a builder of a file's. What is wrong with a node is the node's
// to tell, when it is used.
func (s *Service) defined(d *Definition, def builderfile.Builder) *Builder {
	b := &Builder{Name: def.Name, Driver: DriverRemote, Source: OfFile, File: d.Path}
	for _, n := range def.Nodes {
		node, err := s.nodeOf(n, d.Dir())
		node.Builder, node.source, node.err = def.Name, OfFile, err
		b.Nodes = append(b.Nodes, node)
	}
	return b
}

// nodeOf makes a node of a file's; dir is what paths in it are relative to.
func (s *Service) nodeOf(n builderfile.Node, dir string) (Node, error) {
	node := Node{
		Driver: DriverRemote, Name: n.Name, Endpoint: n.Endpoint.String(), Platforms: n.Platforms,
		DriverOpts: endpoint.Absolute(n.Options, dir, s.Home),
	}
	o, err := endpoint.ParseOptions(n.Endpoint, node.DriverOpts)
	if err != nil {
		return node, err
	}
	if n.Certs.CACert != "" {
		o.Inline.CACert = endpoint.NewSecret(n.Certs.CACert)
	}
	o.Inline.Cert, o.Inline.Key = endpoint.NewSecret(n.Certs.Cert), n.Certs.Key
	node.reach, node.options = n.Endpoint, o
	return node, nil
}

// unchangeable says why a builder is none of the state folder, where there is
// more to say than that it is not found. cannot is "cannot be chosen", …
func (s *Service) unchangeable(name, cannot string, missing error) error {
	if !errors.Is(missing, state.ErrNotFound) && !errors.Is(missing, state.ErrInvalidName) {
		return missing
	}
	if endpoint.IsURL(name) {
		return notStoredURL(cannot, name)
	}
	d, err := s.definition()
	if d == nil || err != nil {
		return missing
	}
	if b, ok := d.File.Find(name); ok {
		return hint.New(fmt.Sprintf("builder %s is of the file %s and %s: its builders are used only when they are named", b.Name, d.Path, cannot),
			"name it: --builder "+b.Name, "or make it one of your own: berth create --from "+hint.Quote(d.Path))
	}
	return missing
}

// hides notes that b is used and not the file's builder of that name, unless
// both are the same daemons.
func (s *Service) hides(b *Builder, what string) {
	d, err := s.definition()
	if d == nil || err != nil {
		return // whoever wants something of it is told
	}
	def, ok := d.File.Find(b.Name)
	if !ok {
		return
	}
	sameNode := func(a, b Node) bool { return a.Endpoint == b.Endpoint && maps.Equal(a.DriverOpts, b.DriverOpts) }
	if !slices.EqualFunc(b.Nodes, s.defined(d, def).Nodes, sameNode) {
		s.note(fmt.Sprintf("%s has a builder %s, too; %s of that name is used", d.Path, def.Name, what))
	}
}

// withDefined adds the builders of the definition file that stand behind no
// other, without anything to contact unless the user agreed to them.
func (s *Service) withDefined(ctx context.Context, all []*Builder) []*Builder {
	d, err := s.definition()
	if d == nil && err == nil {
		return all
	}
	if err != nil {
		return append(all, &Builder{Name: builderfile.Name, Driver: DriverRemote, Source: OfFile, Err: err})
	}
	c, err := s.Consent(ctx, d)
	if err == nil && c != Agreed {
		err = &NotAgreed{Path: d.Path, Changed: c == Changed}
	}
	taken := map[string]bool{}
	for _, b := range all {
		taken[strings.ToLower(b.Name)] = true
	}
	for _, def := range d.File.Builders {
		switch {
		case taken[strings.ToLower(def.Name)]:
		case err != nil:
			all = append(all, &Builder{Name: def.Name, Driver: DriverRemote, Source: OfFile, File: d.Path, Err: err})
		default:
			all = append(all, s.defined(d, def))
		}
	}
	return all
}
