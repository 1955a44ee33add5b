package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// List gives all builders, sorted by name, and the files that could not be
// read, sorted by path. The error is for what stops the whole listing: the
// lock, or the folder itself.
func (s *Store) List(ctx context.Context) (groups []Group, damages []Damage, err error) {
	err = s.reading(ctx, func() error {
		entries, err := os.ReadDir(s.path(instancesDir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return hint.Wrap(err, "listing builders")
		}
		for _, entry := range entries {
			name := entry.Name()
			if strings.HasPrefix(name, ".") {
				continue // staging files of ours and of others
			}
			g, err := s.readEntry(name)
			var d *Damage
			switch {
			case errors.As(err, &d):
				damages = append(damages, *d)
			case errors.Is(err, fs.ErrNotExist): // without a lock it may go meanwhile
			case err != nil:
				return err
			default:
				groups = append(groups, g)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(groups, func(a, b Group) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return groups, damages, nil
}

// readEntry reads a file that was found, whose name nobody checked.
func (s *Store) readEntry(name string) (Group, error) {
	if lower, err := ValidName(name); err != nil || lower != name {
		return Group{}, damaged(s.path(instancesDir, name), errors.New("has a name that no builder can have"))
	}
	return s.readGroup(name)
}

// readGroup reads the builder with the lower-case name. The error is
// fs.ErrNotExist or a *Damage.
func (s *Store) readGroup(name string) (Group, error) {
	path := s.path(instancesDir, name)
	data, err := readFile(path)
	if err != nil {
		return Group{}, err
	}
	g, err := parseGroup(data)
	if err != nil {
		return Group{}, damaged(path, err)
	}
	if strings.ToLower(g.Name) != name {
		return Group{}, damaged(path, fmt.Errorf("holds a builder named %q, which belongs into another file", g.Name))
	}
	g.LastActivity = s.lastActivity(g.Name)
	return g, nil
}

// lastActivity is zero for everything that is not a time: it is only shown.
func (s *Store) lastActivity(name string) time.Time {
	var last time.Time
	for _, n := range []string{name, strings.ToLower(name)} {
		data, err := readFile(s.path(activityDir, n))
		if err != nil {
			continue
		}
		if at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(data))); err == nil && at.After(last) {
			last = at.UTC()
		}
	}
	return last
}

// Get reads one builder. The error is ErrNotFound, ErrInvalidName, a *Damage
// when its file cannot be read, or about the lock.
func (s *Store) Get(ctx context.Context, name string) (Group, error) {
	lower, err := ValidName(name)
	if err != nil {
		return Group{}, err
	}
	var g Group
	err = s.reading(ctx, func() error {
		var err error
		g, err = s.readGroup(lower)
		return named(err, name)
	})
	return g, err
}

// named turns the absence of a file into the absence of a builder.
func named(err error, name string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return err
}

// Change reads a builder, lets fn decide what becomes of it, and stores that,
// all under one lock. fn gets nil when there is none; it may change what it
// got and return it. When it returns nil the builder is removed with its
// activity and references. fn must not do I/O: while it runs, every other
// berth and buildx waits.
//
// The error is fn's own, unchanged; *Damage when the stored one cannot be
// read (fn is not called; see Remove); ErrInvalidName; or about writing.
func (s *Store) Change(ctx context.Context, name string, fn func(old *Group) (*Group, error)) error {
	lower, err := ValidName(name)
	if err != nil {
		return err
	}
	return s.writing(ctx, func() error {
		var old *Group
		switch g, err := s.readGroup(lower); {
		case err == nil:
			old = &g
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		existed := old != nil
		next, err := fn(old)
		switch {
		case err != nil:
			return err
		case next != nil:
			return s.writeGroup(lower, next)
		case existed:
			return s.removeGroup(lower)
		}
		return nil
	})
}

func (s *Store) writeGroup(lower string, g *Group) error {
	if n, err := ValidName(g.Name); err != nil {
		return err
	} else if n != lower {
		return fmt.Errorf("%w: builder %q cannot be stored as %q", ErrInvalidName, g.Name, lower)
	}
	data, err := json.Marshal(g)
	if err != nil {
		return hint.Wrap(err, fmt.Sprintf("storing builder %q", g.Name))
	}
	if len(data) > maxFile {
		return fmt.Errorf("storing builder %q: it is %d bytes long; at most %d can be read again", g.Name, len(data), maxFile)
	}
	return s.writeFile(s.path(instancesDir, lower), data, fileMode)
}

// Remove deletes a builder with its activity, references and certificates, also
// one whose file cannot be read. The error is ErrNotFound, ErrInvalidName, or about
// writing.
func (s *Store) Remove(ctx context.Context, name string) error {
	lower, err := ValidName(name)
	if err != nil {
		return err
	}
	return s.writing(ctx, func() error {
		if !s.exists(lower) {
			return fmt.Errorf("%w: %q", ErrNotFound, name)
		}
		return s.removeGroup(lower)
	})
}

func (s *Store) exists(lower string) bool {
	_, err := os.Lstat(s.path(instancesDir, lower))
	return err == nil
}

// removeGroup deletes what hangs on the builder before the builder, so that
// after a crash in between it can be removed again.
func (s *Store) removeGroup(lower string) error {
	for _, dir := range []string{activityDir, refsDir} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.cannotWrite(err)
		}
		for _, entry := range entries {
			// Buildx names these after the name as given, not in lower case.
			if n, err := ValidName(entry.Name()); err != nil || n != lower || n == versionFile && dir == refsDir && !entry.IsDir() {
				continue
			}
			if err := os.RemoveAll(filepath.Join(s.path(dir), entry.Name())); err != nil {
				return s.cannotWrite(err)
			}
		}
	}
	if err := s.removeCerts(lower); err != nil {
		return err
	}
	return s.remove(s.path(instancesDir, lower))
}

// Touch notes that the builder built at that time. The error is ErrNotFound,
// ErrInvalidName, or about writing.
func (s *Store) Touch(ctx context.Context, name string, at time.Time) error {
	lower, err := ValidName(name)
	if err != nil {
		return err
	}
	return s.writing(ctx, func() error {
		file := lower
		switch g, err := s.readGroup(lower); {
		case err == nil:
			file = g.Name // where Buildx looks
		case errors.Is(err, fs.ErrNotExist):
			return named(err, name)
		}
		return s.writeFile(s.path(activityDir, file), []byte(at.UTC().Format(time.RFC3339)), fileMode)
	})
}
