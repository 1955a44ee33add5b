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
