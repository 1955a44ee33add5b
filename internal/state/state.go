// Package state keeps builders on disk, in the format that Buildx uses, so
// that both read and write one folder: instances, the time of last use, which
// builder is current, and references to past builds.
//
// It is not for meaning: whether an endpoint is well formed, whether a name is
// reserved, or whether a daemon lives is decided by internal/builder. It reads
// no environment; the folder is given to Open.
//
// Rules: every access holds an exclusive lock on the file .lock, for file
// access only, and waits for it no longer than a budget. Files are written
// whole (internal/atomicfile), so that a process killed at any instant leaves
// what the next one can read. Fields that we do not know are kept. A file that
// cannot be read is a Damage that names it, and hides no other builder.
package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/hint"
)

var (
	// ErrNotFound is the cause when there is no builder of that name.
	ErrNotFound = errors.New("no such builder")
	// ErrInvalidName is the cause when a name cannot be a builder's.
	ErrInvalidName = errors.New("invalid name")
	// ErrLocked is the cause when another process did not release the lock
	// within the budget.
	ErrLocked = errors.New("held by another process")
)

const (
	instancesDir = "instances"
	activityDir  = "activity"
	defaultsDir  = "defaults"
	refsDir      = "refs"
	trustDir     = "trust"    // ours
	certsDir     = "certs"    // ours
	importedDir  = "imported" // ours
	currentFile  = "current"
	nodeIDFile   = ".buildNodeID"
	lockFile     = ".lock"

	// maxFile bounds in bytes every file that is read: real ones have some
	// hundreds, with certificates inside some thousands.
	maxFile = 1 << 20
	// maxName bounds a name in bytes; file systems allow 255 with room for
	// nothing else.
	maxName = 128

	// defaultLockBudget is how long to wait for another process. File access
	// under the lock takes milliseconds, and up to a second where a slow disk is
	// flushed; one that takes longer hangs. Many may be waiting.
	defaultLockBudget = 30 * time.Second

	dirMode  = 0o700
	fileMode = 0o600
)

// Store is one state folder. It holds no open files and can be used by
// several goroutines.
type Store struct {
	dir        string
	lockBudget time.Duration
}

// Open gives the store in dir. Nothing is touched before the first use; the
// folder is made by the first write.
func Open(dir string) *Store {
	return &Store{dir: dir, lockBudget: defaultLockBudget}
}

// Dir is the folder given to Open.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// ValidName checks a builder's name and gives its lower-case form, which is
// the name of its file. Whether a name is reserved is not asked here. The
// error is ErrInvalidName.
func ValidName(name string) (string, error) {
	if err := checkElement("builder", name); err != nil {
		return "", err
	}
	return strings.ToLower(name), nil
}

// checkElement holds a name that becomes part of a path against the grammar
// of builders' names.
func checkElement(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the %s's name is empty", ErrInvalidName, what)
	case len(name) > maxName:
		return fmt.Errorf("%w: the %s's name is %d bytes long; at most %d are allowed", ErrInvalidName, what, len(name), maxName)
	case !nameSyntax(name):
		return fmt.Errorf("%w: the %s's name %q must begin with a letter or digit and have only letters, digits and . _ - in it", ErrInvalidName, what, name)
	}
	return nil
}

// nameSyntax tells whether name is [a-zA-Z0-9][a-zA-Z0-9._-]*.
func nameSyntax(name string) bool {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '.' && r != '_' && r != '-') {
			return false
		}
	}
	return name != ""
}

// Damage is a file of the state that cannot be read. It is an error.
type Damage struct {
	Path string
	Err  error
}

// Error names the file and what is wrong with it.
func (d Damage) Error() string { return fmt.Sprintf("%s: %v", d.Path, d.Err) }

// Unwrap gives what is wrong with the file.
func (d Damage) Unwrap() error { return d.Err }

// Hints implements hint.Hinter.
func (d Damage) Hints() []string {
	return []string{"repair the file, or remove it to forget what it says: rm '" + d.Path + "'"}
}

// damaged makes a Damage whose text names the path once.
func damaged(path string, err error) *Damage {
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Path == path {
		err = pe.Err
	}
	return &Damage{Path: path, Err: err}
}

// readFile reads a small regular file. What is there but cannot be read is a
// *Damage; what is not there is fs.ErrNotExist.
func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path) // before opening, which would block on a pipe
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, lerr := os.Lstat(path); lerr == nil {
			return nil, damaged(path, errors.New("is a symbolic link to nothing"))
		}
		return nil, err
	case err != nil:
		return nil, damaged(path, err)
	case fi.IsDir():
		return nil, damaged(path, errors.New("is a directory, not a file"))
	case !fi.Mode().IsRegular():
		return nil, damaged(path, errors.New("is not a regular file"))
	case fi.Size() > maxFile:
		return nil, damaged(path, fmt.Errorf("is %d bytes long; at most %d are read", fi.Size(), maxFile))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, damaged(path, err)
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("is longer than %d bytes", maxFile)
	}
	if err != nil {
		return nil, damaged(path, err)
	}
	return data, nil
}

// writeFile writes a file of the state, making its folder. The lock is held
// by the caller.
func (s *Store) writeFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return s.cannotWrite(err)
	}
	sweep(dir)
	if err := atomicfile.Write(path, data, mode); err != nil {
		return s.cannotWrite(err)
	}
	return nil
}

func (s *Store) cannotWrite(err error) error {
	return hint.Wrap(err, "writing to the state folder "+s.dir,
		"another folder is chosen with BUILDX_CONFIG=DIR")
}

// staleAfter is the age of a staging file whose writer surely died: nobody
// holds the lock that long.
const staleAfter = time.Hour

// sweep removes staging files that killed processes left behind. Failing is
// no harm: they are ignored when reading.
func sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, ".berth-*.tmp"))
	for _, path := range left {
		if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() && time.Since(fi.ModTime()) > staleAfter {
			_ = os.Remove(path)
		}
	}
}

// remove deletes a file; one that is not there is fine.
func (s *Store) remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.cannotWrite(err)
	}
	return nil
}

// reading runs fn under the lock, or without it where that cannot be had
// because nothing can be written there: then nobody else writes either.
func (s *Store) reading(ctx context.Context, fn func() error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return fn() // nothing to read, and reading makes no folder
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		if !unwritable(err) {
			return err
		}
		return fn()
	}
	defer unlock()
	return fn()
}

// writing runs fn under the lock, making the folder when it is not there.
func (s *Store) writing(ctx context.Context, fn func() error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, dirMode); err != nil {
		return s.cannotWrite(err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		if unwritable(err) {
			return s.cannotWrite(err)
		}
		return err
	}
	defer unlock()
	return fn()
}
