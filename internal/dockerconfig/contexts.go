package dockerconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/berthbuild/berth/internal/hint"
)

// Contexts are the names of docker's contexts, the default one first and the
// others in alphabetical order. Their endpoints are not looked at; see Engine.
// One that cannot be read is an error, which comes with the names of the rest.
func (c *Config) Contexts() ([]string, error) {
	var names []string
	var failed []error
	root := filepath.Join(c.dir, "contexts", "meta")
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = append(failed, err)
	}
	for _, entry := range entries {
		path := filepath.Join(root, entry.Name(), "meta.json")
		switch name, err := nameOfContext(path); {
		case errors.Is(err, fs.ErrNotExist): // no context, or one that was just removed
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", path, err))
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == DefaultContext })
	return slices.Insert(names, 0, DefaultContext), hint.Wrap(errors.Join(failed...), "reading docker's contexts", "docker context ls")
}

func nameOfContext(path string) (string, error) {
	data, err := readBounded(path, maxConfig)
	if err != nil {
		return "", err
	}
	var meta struct{ Name string }
	if err := json.Unmarshal(data, &meta); err != nil {
		return "", plain(err)
	}
	if !validContext(meta.Name) {
		return "", errors.New("has a name that no context can have")
	}
	return meta.Name, nil
}

// validContext is docker's grammar of the names: what is not of it could not
// have been made with docker's command, and must not reach a terminal.
func validContext(name string) bool {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '.' && r != '+' && r != '-') {
			return false
		}
	}
	return len(name) >= 2 && len(name) <= 250
}
