package load

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berthbuild/berth/internal/atomicfile"
)

// Memory is a file that remembers of which layers the images consist that were
// sent to engines with containerd's store. What it says follows from an image's
// digest, so that it holds for every engine and for ever; whether an engine has
// the image is asked of the engine each time.
//
// It is a help only: a file that is missing, damaged, or cannot be written costs
// sending again. Of two programs that write at once, one is forgotten.
type Memory struct {
	path string
	once sync.Once

	mu     sync.Mutex
	images []remembered // the newest first
}

// The bounds of the file.
const (
	maxRemembered  = 128
	maxLayersOf    = 1024
	maxMemoryBytes = 1 << 20
	memoryVersion  = 1
)

// remembered is one image, by the digest of its index or manifest.
type remembered struct {
	Root   digest.Digest   `json:"root"`
	Layers []digest.Digest `json:"layers"`
}

type memoryFile struct {
	Version int          `json:"version"`
	Images  []remembered `json:"images"`
}

// Remember opens a memory at path; nothing is read before it is needed.
func Remember(path string) *Memory { return &Memory{path: path} }

// Layers are those of an image, nil when it is not remembered. A nil Memory
// remembers nothing.
func (m *Memory) Layers(root digest.Digest) []digest.Digest {
	if m == nil {
		return nil
	}
	m.open()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range m.images {
		if i.Root == root {
			return slices.Clone(i.Layers)
		}
	}
	return nil
}

// having are images that have layers which are missing, those first that have
// most of what the ones before have not.
func (m *Memory) having(missing []layer, most int) []string {
	if m == nil {
		return nil
	}
	m.open()
	m.mu.Lock()
	defer m.mu.Unlock()
	want := map[digest.Digest]int64{}
	for _, l := range missing {
		want[l.digest] = l.size
	}
	var roots []string
	for len(roots) < most {
		best, gain := -1, int64(0)
		for n, i := range m.images {
			if has := covers(i, want); has > gain {
				best, gain = n, has
			}
		}
		if best < 0 {
			break
		}
		roots = append(roots, m.images[best].Root.String())
		for _, d := range m.images[best].Layers {
			delete(want, d)
		}
	}
	return roots
}

func covers(i remembered, want map[digest.Digest]int64) int64 {
	var n int64
	for _, d := range i.Layers {
		n += want[d]
	}
	return n
}

// Put remembers an image, and forgets the oldest where there are too many.
func (m *Memory) Put(root digest.Digest, layers []digest.Digest) error {
	if m == nil || len(layers) > maxLayersOf {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.images = readMemory(m.path) // others have written meanwhile
	if len(m.images) > 0 && m.images[0].Root == root && slices.Equal(m.images[0].Layers, layers) {
		return nil
	}
	m.images = slices.DeleteFunc(m.images, func(i remembered) bool { return i.Root == root })
	m.images = append([]remembered{{root, slices.Clone(layers)}}, m.images...)
	return m.write()
}

// write stores as many of the newest as fit.
func (m *Memory) write() error {
	m.images = m.images[:min(len(m.images), maxRemembered)]
	data, err := json.Marshal(memoryFile{memoryVersion, m.images})
	for err == nil && len(data) > maxMemoryBytes && len(m.images) > 0 {
		m.images = m.images[:len(m.images)/2]
		data, err = json.Marshal(memoryFile{memoryVersion, m.images})
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.path), 0o700); err != nil {
		return err
	}
	f, err := atomicfile.Create(m.path, 0o600)
	if err != nil {
		return err
	}
	defer f.Abort() //nolint:errcheck // after Commit it does nothing
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

func (m *Memory) open() {
	m.once.Do(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.images == nil {
			m.images = readMemory(m.path)
		}
	})
}

// readMemory gives what of the file can be used.
func readMemory(path string) []remembered {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // it was only read
	return parseMemory(f)
}

func parseMemory(r io.Reader) []remembered {
	data, err := io.ReadAll(io.LimitReader(r, maxMemoryBytes+1))
	if err != nil || len(data) > maxMemoryBytes {
		return nil
	}
	var file memoryFile
	if json.Unmarshal(data, &file) != nil || file.Version != memoryVersion {
		return nil
	}
	bad := func(d digest.Digest) bool { return d.Validate() != nil }
	file.Images = slices.DeleteFunc(file.Images, func(i remembered) bool {
		return bad(i.Root) || len(i.Layers) > maxLayersOf || slices.ContainsFunc(i.Layers, bad)
	})
	return file.Images[:min(len(file.Images), maxRemembered)]
}
