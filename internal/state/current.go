package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// current is the file of that name: which builder was chosen, and where.
type current struct {
	Key    string
	Name   string
	Global bool
}

// parseCurrent reads that file. An empty name means the default builder.
func parseCurrent(data []byte) (current, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return current{}, errors.New("is empty")
	}
	var c *current
	if err := json.Unmarshal(data, &c); err != nil {
		return current{}, fmt.Errorf("does not say which builder is current: %w", err)
	}
	if c == nil {
		return current{}, errors.New("does not say which builder is current")
	}
	if c.Name != "" {
		if _, err := ValidName(c.Name); err != nil {
			return current{}, err
		}
	}
	return *c, nil
}

// Current is the name of the builder chosen for key, which is the docker
// context, or the engine's host for the default one. It is "" when none was
// chosen, or when the chosen one is gone. The error is a *Damage, or about
// the lock.
func (s *Store) Current(ctx context.Context, key string) (string, error) {
	var name string
	err := s.reading(ctx, func() error {
		var err error
		name, err = s.readCurrent(key)
		return err
	})
	return name, err
}

func (s *Store) readCurrent(key string) (string, error) {
	path := s.path(currentFile)
	data, err := readFile(path)
	if err == nil {
		c, err := parseCurrent(data)
		if err != nil {
			return "", damaged(path, err)
		}
		if (c.Global || c.Key == key) && c.Name != "" && s.exists(strings.ToLower(c.Name)) {
			return c.Name, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}

	path = s.defaultPath(key)
	data, err = readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(data))
	if name == "" {
		return "", nil
	}
	lower, err := ValidName(name)
	if err != nil {
		return "", damaged(path, err)
	}
	if !s.exists(lower) {
		return "", nil
	}
	return name, nil
}

// defaultPath is the file that holds the lasting choice for key.
func (s *Store) defaultPath(key string) string {
	sum := sha256.Sum256([]byte(key))
	return s.path(defaultsDir, hex.EncodeToString(sum[:])[:20])
}

// SetCurrent chooses the builder for key, or with global for every key; with
// def the choice for key outlives that another key's is chosen. An empty name
// goes back to the default builder. The error is ErrNotFound, ErrInvalidName,
// or about writing.
func (s *Store) SetCurrent(ctx context.Context, key, name string, global, def bool) error {
	lower := ""
	if name != "" {
		var err error
		if lower, err = ValidName(name); err != nil {
			return err
		}
	}
	return s.writing(ctx, func() error {
		if name != "" && !s.exists(lower) {
			return fmt.Errorf("%w: %q", ErrNotFound, name)
		}
		data, err := json.Marshal(current{Key: key, Name: name, Global: global})
		if err != nil {
			return err
		}
		if err := s.writeFile(s.path(currentFile), data, fileMode); err != nil {
			return err
		}
		if def && name != "" {
			return s.writeFile(s.defaultPath(key), []byte(name), fileMode)
		}
		return s.remove(s.defaultPath(key))
	})
}

// NodeID is this machine's identity towards daemons, 16 hex digits, made at
// the first use. Where nothing can be written it lasts for this call only,
// which costs a daemon some reuse and nobody a build.
func (s *Store) NodeID(ctx context.Context) (string, error) {
	var id string
	err := s.reading(ctx, func() error {
		var err error
		id, err = s.readNodeID()
		return err
	})
	if err != nil || id != "" {
		return id, err
	}
	fresh := freshNodeID()
	err = s.writing(ctx, func() error {
		var err error
		if id, err = s.readNodeID(); err != nil || id != "" { // another was quicker
			return err
		}
		id = fresh
		return s.writeFile(s.path(nodeIDFile), []byte(id), fileMode)
	})
	if err != nil && unwritable(err) {
		return fresh, nil
	}
	return id, err
}

func freshNodeID() string {
	id := make([]byte, 8)
	rand.Read(id)
	return hex.EncodeToString(id)
}

// readNodeID gives "" for a file that is not there or holds no identity: a
// new one does no harm.
func (s *Store) readNodeID() (string, error) {
	data, err := readFile(s.path(nodeIDFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(data))
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 8 {
		return "", nil
	}
	return id, nil
}
