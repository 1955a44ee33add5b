package builder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/state"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// service works on an empty state folder.
func service(t *testing.T) (*Service, string) {
	t.Helper()
	dir := t.TempDir()
	return &Service{
		Store: state.Open(dir), Schemes: schemes.All(dial.Env{}),
		Key: func() (string, error) { return "unix:///var/run/docker.sock", nil },
	}, dir
}

// create makes what the test needs to begin with.
func create(t *testing.T, s *Service, all ...CreateOptions) {
	t.Helper()
	for _, o := range all {
		if _, err := s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// find gives a builder that must be there.
func find(t *testing.T, s *Service, name string) *Builder {
	t.Helper()
	b, err := s.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nodeNames(b *Builder) []string {
	var all []string
	for _, n := range b.Nodes {
		all = append(all, n.Name)
	}
	return all
}

// files is the state folder's content by path, without the lock.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == ".lock" {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func plats(names ...string) []ocispecs.Platform {
	var all []ocispecs.Platform
	for _, n := range names {
		all = append(all, platforms.Normalize(platforms.MustParse(n)))
	}
	return all
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
