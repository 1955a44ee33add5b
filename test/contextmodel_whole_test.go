//go:build e2e && linux

package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func (f *folder) ignoreOther() {
	sets := [][]string{
		nil, {"*.log"}, {"**/*.tmp"}, {"d0/sub"}, {"d0/sub", "!d0/sub/keep*"}, {"d1/*", "!d1/k*"}, {"*.log", "**/*.tmp", "!**/y.tmp"},
		{".dockerignore", "Dockerfile"}, {"d0/*", "!d0/f1", "!d0/sub/f2"}, {"d2"}, {"d2", "!d2/sub"}, {"away*"}, {"n1*"}, {"n2*"},
	}
	f.ignore = sets[f.h.rnd.IntN(len(sets))]
	f.say(".dockerignore: %q", f.ignore)
	if f.ignore == nil {
		_ = os.Remove(f.at(".dockerignore")) // it may not be there
		return
	}
	f.try(os.WriteFile(f.at(".dockerignore"), []byte(strings.Join(f.ignore, "\n")+"\n"), 0o644))
	if f.h.chance(500) {
		f.try(os.Chtimes(f.at(".dockerignore"), modelTimes[0], modelTimes[0]))
	}
}

func (f *folder) dockerfile(v variant) {
	f.made = v
	f.say("Dockerfile %d", v)
	text := fmt.Sprintf("# %04d\n%s", f.h.rnd.IntN(10000), variantText[v])
	f.try(os.WriteFile(f.at("Dockerfile"), []byte(text), 0o644), os.Chtimes(f.at("Dockerfile"), modelTimes[0], modelTimes[0]))
}

func (f *folder) touch() {
	p := f.pick(f.paths(0))
	f.say("touch %s", p)
	f.settle(p)
}

// twin writes a file of the same path, size and time and of other bytes in another
// folder.
func (f *folder) twin() {
	p := f.pick(f.paths(0))
	other := f.h.folder()
	if other == f || !isFolder(other.at(filepath.Dir(p))) || isFolder(other.at(p)) || filepath.Dir(p) == "." && p != keptFile {
		return
	}
	fi, data := f.save(p)
	other.say("%s is a twin of that of %s", p, filepath.Base(filepath.Dir(f.dir)))
	_ = os.Remove(other.at(p)) // it may not be there
	f.try(os.WriteFile(other.at(p), f.text(len(data)), 0o600), os.Chmod(other.at(p), fi.Mode()), os.Chtimes(other.at(p), fi.ModTime(), fi.ModTime()))
}

func isFolder(p string) bool {
	fi, err := os.Lstat(p)
	return err == nil && fi.IsDir()
}

// backInTime makes a file what it was.
func (f *folder) backInTime() {
	if len(f.before) == 0 {
		return
	}
	s := f.before[f.h.rnd.IntN(len(f.before))]
	if !isFolder(f.at(filepath.Dir(s.path))) || isFolder(f.at(s.path)) {
		return
	}
	if fi, err := os.Lstat(f.at(s.path)); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return
	}
	f.say("%s is again as it was", s.path)
	f.try(os.WriteFile(f.at(s.path), s.data, 0o644), os.Chtimes(f.at(s.path), s.at, s.at))
}

// swapFolders gives two folders each other's path.
func (f *folder) swapFolders() {
	other := f.h.folder()
	if other == f {
		return
	}
	f.say("swap with %s", other.dir)
	tmp := join(f.h.dir, "swap")
	f.try(os.Rename(f.dir, tmp), os.Rename(other.dir, f.dir), os.Rename(tmp, other.dir))
	f.made, other.made = other.made, f.made
	f.ignore, other.ignore = other.ignore, f.ignore
}

// moveHere takes a file of another folder, with its inode and its times.
func (f *folder) moveHere() {
	other := f.h.folder()
	list := movable(other.paths(0))
	if other == f || len(list) < 10 {
		return
	}
	p, to := f.pick(list), f.freeName()
	f.say("move %s of %s to %s", p, other.dir, to)
	f.try(os.Rename(other.at(p), f.at(to)))
}

// freshen gives the daemons something to fetch.
func (f *folder) freshen() {
	f.say("write many files")
	for _, p := range f.paths(0) {
		if f.h.chance(700) {
			f.put(p, f.text(16), 0o644)
		}
	}
	for i := range f.h.rnd.IntN(25) {
		f.put(fmt.Sprintf("d1/m%02d", i), f.text(f.size()), 0o644)
	}
}
