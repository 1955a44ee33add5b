package compose

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// FuzzLoad has two files of one definition, and an .env file: whatever they say,
// there is a definition or an error, soon, and nothing is read.
func FuzzLoad(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "seeds", "*.yaml"))
	if err != nil || len(seeds) == 0 {
		f.Fatal(seeds, err)
	}
	for _, path := range seeds {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, []byte("services: {web: {build: {args: {MORE: 1}}}}"), []byte("A=1\nB=$A"))
	}
	for _, text := range bombs() {
		if len(text) < 10_000 {
			f.Add([]byte(text), []byte{}, []byte{})
		}
	}
	f.Fuzz(func(t *testing.T, first, second, dot []byte) {
		start := time.Now()
		in := Input{
			Files: []eval.File{{Name: "compose.yaml", Data: first}},
			Read:  func(string) ([]byte, error) { return nil, errors.New("read") },
		}
		if len(second) > 0 {
			in.Files = append(in.Files, eval.File{Name: "second.yaml", Data: second})
		}
		in.Env, _ = DotEnv(dot, map[string]string{"HOME": "/home/user"})
		def, err := Load(t.Context(), in)
		if (def == nil) == (err == nil) {
			t.Error(def, err)
		}
		Is("-", first)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}
