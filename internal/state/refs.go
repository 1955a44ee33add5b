package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

const (
	versionFile = "version"
	// refsVersion is the layout of the folder refs that Buildx writes today.
	refsVersion = "2"
	// refMode lets other tools read references; there is no secret in them.
	refMode = 0o644
)

// Ref says what a build was made of.
type Ref struct {
	Target         string
	LocalPath      string
	DockerfilePath string
	GroupRef       string `json:",omitempty"`
}

// SaveRef stores the reference builder/node/id. The names must be of the
// grammar of builders' names, and the builder's may not be "version"; the
// error is ErrInvalidName, or about writing.
func (s *Store) SaveRef(ctx context.Context, builder, node, id string, r Ref) error {
	for _, e := range []struct{ what, name string }{{"builder", builder}, {"node", node}, {"build", id}} {
		if err := checkElement(e.what, e.name); err != nil {
			return err
		}
	}
	if strings.EqualFold(builder, versionFile) {
		return fmt.Errorf("%w: references of a builder named %q have no place, it is the name of another file", ErrInvalidName, builder)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.writing(ctx, func() error {
		version := s.path(refsDir, versionFile)
		if _, err := os.Lstat(version); errors.Is(err, fs.ErrNotExist) {
			if err := s.writeFile(version, []byte(refsVersion), fileMode); err != nil {
				return err
			}
		}
		return s.writeFile(s.path(refsDir, builder, node, id), data, refMode)
	})
}

// groupsDir is where references of several builds are, among the builders'.
const groupsDir = "__group__"

// GroupRef says which builds were one bake.
type GroupRef struct {
	Targets []string // as they were asked for
	Refs    []string // the builds' ids
}

// SaveGroupRef stores the reference of a bake.
func (s *Store) SaveGroupRef(ctx context.Context, id string, g GroupRef) error {
	if err := checkElement("group", id); err != nil {
		return err
	}
	data, err := json.Marshal(g)
	if err != nil {
		return err
	}
	return s.writing(ctx, func() error { return s.writeFile(s.path(refsDir, groupsDir, id), data, refMode) })
}

// Ref reads the reference of a build. The error is fs.ErrNotExist when there is
// none, a *Damage, or ErrInvalidName. Files appear whole or not at all, so no lock
// is needed: a list of a thousand builds asks for each.
func (s *Store) Ref(builder, node, id string) (Ref, error) {
	for _, e := range []struct{ what, name string }{{"builder", builder}, {"node", node}, {"build", id}} {
		if err := checkElement(e.what, e.name); err != nil {
			return Ref{}, err
		}
	}
	var r Ref
	return r, readJSON(s.path(refsDir, builder, node, id), &r)
}

// Refs reads the references of a node's builds at once; those that there are not, or
// that cannot be read, are missing.
func (s *Store) Refs(builder, node string, ids []string) map[string]Ref {
	if checkElement("builder", builder) != nil || checkElement("node", node) != nil {
		return nil
	}
	dir, err := os.Open(s.path(refsDir, builder, node))
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }() // only read
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil
	}
	files := make(map[string]bool, len(entries))
	for _, e := range entries {
		files[e.Name()] = e.Type().IsRegular()
	}
	all := make(map[string]Ref, min(len(ids), len(entries)))
	buf := make([]byte, usualRef)
	for _, id := range ids {
		if !files[id] {
			continue
		}
		n, err := readSmall(dir, id, buf)
		if err != nil {
			continue
		}
		var r Ref
		if n < len(buf) {
			err = json.Unmarshal(buf[:n], &r)
		} else { // it is longer
			r, err = s.Ref(builder, node, id)
		}
		if err == nil {
			all[id] = r
		}
	}
	return all
}

// usualRef is more than references usually have, in bytes.
const usualRef = 4096

// GroupRef reads the reference of a bake, with the errors of Ref.
func (s *Store) GroupRef(id string) (GroupRef, error) {
	if err := checkElement("group", id); err != nil {
		return GroupRef{}, err
	}
	var g GroupRef
	return g, readJSON(s.path(refsDir, groupsDir, id), &g)
}

func readJSON(path string, into any) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return damaged(path, err)
	}
	return nil
}

// ImportedDir is where builds are kept that came in bundles. What is in it is
// the business of internal/history.
func (s *Store) ImportedDir() string { return s.path(importedDir) }

// Writing runs f under the lock, with the folder made. It is for file access
// only.
func (s *Store) Writing(ctx context.Context, f func() error) error { return s.writing(ctx, f) }
