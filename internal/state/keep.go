package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrExists is the cause when a builder of that name is there already.
var ErrExists = errors.New("there is a builder of that name")

// CertFile is a certificate or key that came with a builder and is kept with it.
type CertFile struct {
	Node string // whose it is
	Name string // the file's name: "ca.pem"
	Data []byte
}

// CertPath is where Add keeps a certificate of a builder.
func (s *Store) CertPath(builder, node, name string) string {
	return s.path(certsDir, strings.ToLower(builder), node, name)
}

// Add stores a builder that is new, with certificates of its own at CertPath,
// readable by the user alone. Either all of it is there afterwards or nothing.
// Remove removes the certificates, too. The error is ErrExists, ErrInvalidName,
// or about writing.
func (s *Store) Add(ctx context.Context, g *Group, certs []CertFile) error {
	lower, err := ValidName(g.Name)
	if err != nil {
		return err
	}
	for _, c := range certs {
		for _, e := range []struct{ what, name string }{{"node", c.Node}, {"certificate", c.Name}} {
			if err := checkElement(e.what, e.name); err != nil {
				return err
			}
		}
	}
	return s.writing(ctx, func() error {
		if s.exists(lower) {
			return fmt.Errorf("%w: %q", ErrExists, g.Name)
		}
		dir := s.path(certsDir, lower)
		if err := os.RemoveAll(dir); err != nil { // of a builder that buildx removed
			return s.cannotWrite(err)
		}
		err := s.writeCerts(g.Name, certs)
		if err == nil {
			err = s.writeGroup(lower, g)
		}
		if err != nil {
			return errors.Join(err, os.RemoveAll(dir))
		}
		return nil
	})
}

func (s *Store) writeCerts(builder string, certs []CertFile) error {
	for _, c := range certs {
		if err := s.writeFile(s.CertPath(builder, c.Node, c.Name), c.Data, fileMode); err != nil {
			return err
		}
	}
	return nil
}

// removeCerts deletes the certificates that came with a builder.
func (s *Store) removeCerts(lower string) error {
	dir := s.path(certsDir, lower)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return s.cannotWrite(err)
	}
	_ = os.Remove(filepath.Dir(dir)) // where it was the last
	return nil
}

// PeekNodeID is NodeID for a build that stores nothing: an identity that is not
// there is made for this call only, and nothing is written.
func (s *Store) PeekNodeID() (string, error) {
	id, err := s.readNodeID()
	if err != nil || id != "" {
		return id, err
	}
	return freshNodeID(), nil
}
