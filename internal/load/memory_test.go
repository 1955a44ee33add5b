package load

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

func digests(names ...string) []digest.Digest {
	var all []digest.Digest
	for _, n := range names {
		all = append(all, digest.FromString(n))
	}
	return all
}

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "loaded.json")
	m := Remember(path)
	root := digest.FromString("root")
	if m.Layers(root) != nil {
		t.Error("it knows something")
	}
	if err := m.Put(root, digests("x", "y")); err != nil {
		t.Fatal(err)
	}
	for _, again := range []*Memory{m, Remember(path)} {
		if got := again.Layers(root); !slices.Equal(got, digests("x", "y")) {
			t.Errorf("it has %v", got)
		}
	}
	fill := func(n int, layers []digest.Digest) {
		t.Helper()
		m.images = nil
		for i := range n {
			m.images = append(m.images, remembered{digest.FromString(fmt.Sprint(i)), layers})
		}
		if err := m.write(); err != nil {
			t.Fatal(err)
		}
	}
	fill(maxRemembered, digests("z"))
	if err := m.Put(root, digests("x")); err != nil {
		t.Fatal(err)
	}
	if m = Remember(path); m.Layers(root) == nil || m.Layers(digest.FromString(fmt.Sprint(maxRemembered-1))) != nil || m.Layers(digest.FromString("0")) == nil {
		t.Error("it forgets the wrong ones")
	}
	var many []digest.Digest
	for i := range maxLayersOf {
		many = append(many, digest.FromString(fmt.Sprint("layer", i)))
	}
	fill(40, many)
	if fi, err := os.Stat(path); err != nil || fi.Size() > maxMemoryBytes {
		t.Errorf("%d bytes, %v", fi.Size(), err)
	}
	if Remember(path).Layers(digest.FromString("0")) == nil {
		t.Error("the newest one was forgotten")
	}
}

func TestMemoryDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loaded.json")
	for _, text := range []string{"", "{", "[]", `{"version":2,"images":[]}`, `{"version":1,"images":[{"root":"../x","layers":null}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m := Remember(path)
		if m.Layers("../x") != nil || len(m.having([]layer{{digest: "y", size: 1}}, 8)) > 0 {
			t.Errorf("%q: something is known", text)
		}
		if err := m.Put(digest.FromString("a"), digests("b")); err != nil || Remember(path).Layers(digest.FromString("a")) == nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	// Where nothing can be written, nothing is remembered, and that is all.
	if err := Remember(filepath.Join(path, "below", "a file")).Put(digest.FromString("a"), nil); err == nil {
		t.Error("written below a file")
	}
	var none *Memory
	if none.Put("a", nil) != nil || none.Layers("a") != nil || none.having(nil, 1) != nil {
		t.Error("a memory that is not there")
	}
}

func TestMemoryAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loaded.json")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			m := Remember(path)
			root := digest.FromString(fmt.Sprint(i))
			if err := m.Put(root, digests("x")); err != nil {
				t.Error(err)
			}
			_ = m.Layers(root)
			_ = m.having([]layer{{digest: digest.FromString("x"), size: 1}}, 3)
		})
	}
	wg.Wait()
	if len(readMemory(path)) == 0 {
		t.Error("nothing is left")
	}
}

func TestMemoryHaving(t *testing.T) {
	m := Remember(filepath.Join(t.TempDir(), "loaded.json"))
	for root, layers := range map[string][]digest.Digest{"ab": digests("a", "b"), "c": digests("c"), "b": digests("b"), "other": digests("z")} {
		if err := m.Put(digest.FromString(root), layers); err != nil {
			t.Fatal(err)
		}
	}
	missing := []layer{{digest: digest.FromString("a"), size: 10}, {digest: digest.FromString("b"), size: 5}, {digest: digest.FromString("c"), size: 1}}
	want := []string{digest.FromString("ab").String(), digest.FromString("c").String()}
	if got := m.having(missing, 8); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := m.having(missing, 1); len(got) != 1 {
		t.Errorf("%v", got)
	}
}
