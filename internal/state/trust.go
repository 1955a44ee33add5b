package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// Agreement says that the user agreed to a definition file's builders, as the
// file was then.
type Agreement struct {
	Path   string    // the file's real path
	Digest string    // of what was agreed to: "sha256:…"
	At     time.Time // UTC
}

// parseAgreement reads a record. What says nothing useful is no agreement.
func parseAgreement(data []byte) (Agreement, error) {
	var a Agreement
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("is not a record of an agreement: %w", err)
	}
	if a.Path == "" || !strings.HasPrefix(a.Digest, "sha256:") {
		return a, errors.New("is not a record of an agreement: path or digest is missing")
	}
	return a, nil
}

// trustPath is the file that holds the agreement about the file at path.
func (s *Store) trustPath(path string) string {
	sum := sha256.Sum256([]byte(path))
	return s.path(trustDir, hex.EncodeToString(sum[:])[:32])
}

// Agreement is what was agreed about the file at path. The error is
// fs.ErrNotExist when nothing was, a *Damage, or about the lock. Reading leaves
// no trace in the folder.
func (s *Store) Agreement(_ context.Context, path string) (Agreement, error) {
	file := s.trustPath(path)
	data, err := readFile(file) // appears whole or not at all, so no lock is needed
	if err != nil {
		return Agreement{}, err
	}
	a, err := parseAgreement(data)
	switch {
	case err != nil:
		return Agreement{}, damaged(file, err)
	case a.Path != path:
		return Agreement{}, damaged(file, fmt.Errorf("is about another file: %q", a.Path))
	}
	return a, nil
}

// Agree records an agreement, in place of an older one about the same file.
func (s *Store) Agree(ctx context.Context, a Agreement) error {
	a.At = a.At.UTC()
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.writing(ctx, func() error {
		return s.writeFile(s.trustPath(a.Path), data, fileMode)
	})
}

// Revoke forgets the agreement about the file at path, also one that cannot be
// read. The error is fs.ErrNotExist when there is none, or about writing.
func (s *Store) Revoke(ctx context.Context, path string) error {
	if _, err := os.Lstat(s.trustPath(path)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fs.ErrNotExist
		}
		return hint.Wrap(err, "reading the state folder")
	}
	return s.writing(ctx, func() error { return s.remove(s.trustPath(path)) })
}

// Agreements gives all agreements, sorted by path, and the records that could
// not be read.
func (s *Store) Agreements(_ context.Context) (all []Agreement, damages []Damage, err error) {
	entries, err := os.ReadDir(s.path(trustDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, hint.Wrap(err, "listing agreements")
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue // staging files
		}
		file := s.path(trustDir, entry.Name())
		data, err := readFile(file)
		var a Agreement
		if err == nil {
			a, err = parseAgreement(data)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone meanwhile
		case err != nil:
			damages = append(damages, *damaged(file, err))
		default:
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b Agreement) int { return strings.Compare(a.Path, b.Path) })
	return all, damages, nil
}
