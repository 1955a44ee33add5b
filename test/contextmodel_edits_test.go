//go:build e2e && linux

package test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// variant is which of its Dockerfiles a folder has.
type variant int

const (
	copyAll   variant = iota
	copyParts         // folders, a pattern, and a link that is followed
	copyNamed         // a folder, and another build context
)

var variantText = map[variant]string{
	copyAll:   "FROM scratch\nCOPY . /\n",
	copyParts: "FROM scratch\nCOPY d0 /d0/\nCOPY w*.dat /w/\nCOPY lnk /lnk\n",
	copyNamed: "FROM scratch\nCOPY d1 /d1/\nCOPY --from=extra . /extra/\n",
}

// What is always there, so that every Dockerfile can be built: folders, a file, and
// a link to one of those.
var (
	keptFolders = []string{"d0", "d1"}
	keptFile    = "w0.dat"
	keptLink    = "lnk"
)

// folder is a build context.
type folder struct {
	h      *history
	dir    string
	made   variant
	ignore []string
	before []savedFile // files as they were
}

// savedFile is a file as it was at some time.
type savedFile struct {
	path string
	data []byte
	at   time.Time
}

func (f *folder) at(p string) string { return join(f.dir, p) }

func (f *folder) state() holding {
	t, err := treeOf(f.dir)
	if err != nil {
		f.h.fail("%v", err)
	}
	return t
}

// try ends the history when an edit cannot be made: the test is wrong then.
func (f *folder) try(errs ...error) {
	for _, err := range errs {
		if err != nil {
			f.h.fail("an edit: %v", err)
		}
	}
}

func (f *folder) say(format string, args ...any) {
	rel, _ := filepath.Rel(f.h.dir, f.dir)
	f.h.say("%s: %s", rel, fmt.Sprintf(format, args...))
}

// fill makes the folder.
func (f *folder) fill() {
	f.try(os.MkdirAll(f.dir, 0o755))
	for _, d := range keptFolders {
		f.try(os.Mkdir(f.at(d), 0o755))
	}
	f.try(os.MkdirAll(f.at("d0/sub"), 0o755), os.Mkdir(f.at("d2"), 0o755))
	f.try(os.WriteFile(f.at(keptFile), f.text(16), 0o644))
	f.try(os.Symlink(keptFile, f.at(keptLink)), os.Symlink("d1", f.at("lnk2")))
	for range 6 + f.h.rnd.IntN(14) {
		p := f.freeName()
		f.try(os.WriteFile(f.at(p), f.text(f.size()), 0o644))
		f.settle(p)
	}
	f.dockerfile(copyAll)
}

// text is content that nothing else has.
func (f *folder) text(size int) []byte {
	text := bytes.Repeat(fmt.Appendf(nil, "%08x", f.h.rnd.Uint32()), 1+size/8)
	return text[:size]
}

// size is the same for most, so that files differ by their bytes only.
func (f *folder) size() int {
	switch f.h.rnd.IntN(10) {
	case 0:
		return 0
	case 1:
		return 1 + f.h.rnd.IntN(9000)
	default:
		return 16
	}
}

// Times that files get: most share one of two, so that files differ by their bytes
// only.
var modelTimes = []time.Time{time.Unix(1_000_000_000, 0), time.Unix(1_600_000_000, 500)}

// settle may give a file a time that others have too, or one that has not come yet.
func (f *folder) settle(p string) {
	at := time.Now()
	switch n := f.h.rnd.IntN(10); {
	case n < 6:
		at = modelTimes[f.h.rnd.IntN(2)]
	case n == 6:
		at = at.Add(time.Duration(f.h.rnd.IntN(3600)) * time.Second)
	case n == 7:
		at = at.Add(-time.Duration(f.h.rnd.IntN(3600)) * time.Second)
	default:
		return
	}
	f.try(os.Chtimes(f.at(p), at, at))
}

var (
	nameFolders = []string{"", "", "d0", "d0", "d0/sub", "d1", "d1/k", "d2", "d2/sub"}
	nameNames   = []string{"f0", "f1", "f2", "f3", "keep1", "x.log", "y.tmp", "w1.dat", "w2.dat"}
)

// freeName is a path in a folder that is there, where there is nothing.
func (f *folder) freeName() string {
	for {
		dir := nameFolders[f.h.rnd.IntN(len(nameFolders))]
		if fi, err := os.Lstat(f.at(dir)); err != nil || !fi.IsDir() {
			continue
		}
		name := nameNames[f.h.rnd.IntN(len(nameNames))]
		if f.h.chance(300) {
			name = fmt.Sprintf("n%d", f.h.rnd.IntN(30))
		}
		if p := join(dir, name); !exists(f.at(p)) && (dir != "" || !strings.HasPrefix(name, "w")) {
			return p
		}
	}
}

// paths are those of a kind, sorted.
func (f *folder) paths(kind fs.FileMode) []string {
	t := f.state()
	maps.DeleteFunc(t, func(p string, n thing) bool {
		return n.kind != kind || p == "Dockerfile" || p == ".dockerignore"
	})
	return slices.Sorted(maps.Keys(t))
}

func (f *folder) pick(list []string) string { return list[f.h.rnd.IntN(len(list))] }

// movable leaves out what must stay.
func movable(list []string) []string {
	return slices.DeleteFunc(list, func(p string) bool {
		return slices.Contains(keptFolders, p) || p == keptFile || p == keptLink || p == "lnk2"
	})
}

// modelEdit is something that is done to a folder. Those that race are one call to
// the kernel, or hide what they do until the last call.
type modelEdit struct {
	often int
	races bool
	do    func(f *folder)
}

func modelEdits() []modelEdit {
	return []modelEdit{
		{30, true, (*folder).write},
		{90, false, (*folder).rewriteUnseen},
		{60, true, (*folder).replaceUnseen},
		{20, true, (*folder).appendTo},
		{25, true, (*folder).chmod},
		{25, true, (*folder).attribute},
		{25, true, (*folder).rename},
		{12, true, (*folder).renameFolder},
		{15, true, (*folder).swapLink},
		{15, false, (*folder).fileToLinkAndBack},
		{10, false, (*folder).folderToLinkAndBack},
		{20, true, (*folder).link},
		{15, false, (*folder).unlinkHard},
		{20, true, (*folder).remove},
		{10, false, (*folder).makeFolder},
		{20, false, (*folder).ignoreOther},
		{20, false, func(f *folder) { f.dockerfile(variant(f.h.rnd.IntN(3))) }},
		{15, false, (*folder).touch},
		{30, false, (*folder).twin},
		{40, false, (*folder).backInTime},
		{10, false, (*folder).swapFolders},
		{10, false, (*folder).moveHere},
	}
}

// edit does one of them.
func (f *folder) edit(racing bool) {
	total := 0
	list := modelEdits()
	if racing {
		list = slices.DeleteFunc(list, func(e modelEdit) bool { return !e.races })
	}
	for _, e := range list {
		total += e.often
	}
	n := f.h.rnd.IntN(total)
	for _, e := range list {
		if n -= e.often; n < 0 {
			e.do(f)
			return
		}
	}
}

// save remembers a file for backInTime.
func (f *folder) save(p string) (os.FileInfo, []byte) {
	fi, err := os.Stat(f.at(p))
	f.try(err)
	data, err := os.ReadFile(f.at(p))
	f.try(err)
	if err == nil && fi != nil {
		f.before = append(f.before, savedFile{p, data, fi.ModTime()})
		if len(f.before) > 20 {
			f.before = f.before[1:]
		}
	}
	return fi, data
}

// write gives a file new content, at once.
func (f *folder) write() {
	p := f.freeName()
	if files := f.paths(0); len(files) > 30 || f.h.chance(600) {
		p = f.pick(files)
		f.save(p)
	}
	f.say("write %s", p)
	f.put(p, f.text(f.size()), 0o644)
	if f.h.chance(400) {
		f.settle(p)
	}
}

// put makes a file appear with its content.
func (f *folder) put(p string, data []byte, mode fs.FileMode) {
	tmp := join(f.h.dir, "tmp")
	f.try(os.WriteFile(tmp, data, mode), os.Rename(tmp, f.at(p)))
}

// rewriteUnseen changes bytes in place, and takes the time back.
func (f *folder) rewriteUnseen() {
	p := f.pick(f.paths(0))
	fi, data := f.save(p)
	if len(data) == 0 {
		return
	}
	f.say("rewrite %s and restore its time", p)
	file, err := os.OpenFile(f.at(p), os.O_WRONLY, 0)
	if err != nil {
		f.try(err)
		return
	}
	_, err = file.WriteAt(f.text(len(data)), 0)
	f.try(err, file.Close(), os.Chtimes(f.at(p), fi.ModTime(), fi.ModTime()))
}

// replaceUnseen puts another file of the same size, time and mode into its place.
func (f *folder) replaceUnseen() {
	p := f.pick(f.paths(0))
	fi, data := f.save(p)
	f.say("replace %s by a file of the same size and time", p)
	tmp := join(f.h.dir, "tmp")
	f.try(os.WriteFile(tmp, f.text(len(data)), 0o600), os.Chmod(tmp, fi.Mode()), os.Chtimes(tmp, fi.ModTime(), fi.ModTime()), os.Rename(tmp, f.at(p)))
}

func (f *folder) appendTo() {
	p := f.pick(f.paths(0))
	f.save(p)
	f.say("append to %s", p)
	file, err := os.OpenFile(f.at(p), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		f.try(err)
		return
	}
	_, err = file.Write(f.text(8))
	f.try(err, file.Close())
}

func (f *folder) chmod() {
	list := append(f.paths(0), f.paths(fs.ModeDir)...)
	p := f.pick(list)
	mode := []fs.FileMode{0o644, 0o600, 0o755, 0o755 | fs.ModeSetuid, 0o444}[f.h.rnd.IntN(5)]
	if fi, err := os.Lstat(f.at(p)); err == nil && fi.IsDir() {
		mode = []fs.FileMode{0o755, 0o700, 0o750, 0o777 | fs.ModeSticky, 0o755 | fs.ModeSetgid}[f.h.rnd.IntN(5)]
	}
	f.say("chmod %v %s", mode, p)
	f.try(os.Chmod(f.at(p), mode))
}

func (f *folder) attribute() {
	p := f.pick(append(f.paths(0), f.paths(fs.ModeDir)...))
	name := "user." + string("ab"[f.h.rnd.IntN(2)])
	if f.h.chance(400) {
		f.say("remove attribute %s of %s", name, p)
		_ = unix.Removexattr(f.at(p), name) // it may not have it
		return
	}
	value := fmt.Sprint("v", f.h.rnd.IntN(3))
	f.say("set attribute %s of %s to %s", name, p, value)
	f.try(unix.Setxattr(f.at(p), name, []byte(value), 0))
}

func (f *folder) rename() {
	list := movable(append(f.paths(0), f.paths(fs.ModeSymlink)...))
	if len(list) == 0 {
		return
	}
	p := f.pick(list)
	to := f.freeName()
	if f.h.chance(300) {
		to = f.pick(list) // takes its place
	}
	if fi, err := os.Lstat(f.at(to)); err == nil && fi.IsDir() {
		return
	}
	f.say("rename %s %s", p, to)
	f.try(os.Rename(f.at(p), f.at(to)))
}

func (f *folder) renameFolder() {
	list := movable(f.paths(fs.ModeDir))
	if len(list) == 0 {
		return
	}
	p, to := f.pick(list), f.freeName()
	if strings.HasPrefix(to+"/", p+"/") {
		return
	}
	f.say("rename folder %s %s", p, to)
	f.try(os.Rename(f.at(p), f.at(to)))
}

// swapLink makes a link lead elsewhere, at once.
func (f *folder) swapLink() {
	p := f.pick([]string{keptLink, "lnk2", keptLink, "lnk2", "l1", "d0/l2"})
	if fi, err := os.Lstat(f.at(p)); err == nil && fi.IsDir() {
		return
	}
	to := f.pick([]string{keptFile, "d0", "d1", "/d1", "/" + keptFile})
	if p == keptLink && f.h.chance(300) {
		to = "lnk2"
	}
	f.say("link %s -> %s", p, to)
	tmp := join(f.h.dir, "tmp")
	f.try(os.Symlink(to, tmp), os.Rename(tmp, f.at(p)))
}

func (f *folder) fileToLinkAndBack() {
	list := movable(append(f.paths(0), f.paths(fs.ModeSymlink)...))
	list = append(list, keptLink)
	p := f.pick(list)
	if fi, err := os.Lstat(f.at(p)); err != nil || fi.Mode()&fs.ModeSymlink != 0 {
		f.say("a file instead of the link %s", p)
		f.try(os.Remove(f.at(p)), os.WriteFile(f.at(p), f.text(16), 0o644))
		f.settle(p)
		return
	}
	f.say("a link instead of the file %s", p)
	f.try(os.Remove(f.at(p)), os.Symlink(f.pick([]string{keptFile, "/d0", "/d1"}), f.at(p)))
}

func (f *folder) folderToLinkAndBack() {
	switch fi, err := os.Lstat(f.at("d2")); {
	case err != nil:
		f.say("make folder d2")
		f.try(os.Mkdir(f.at("d2"), 0o755))
	case fi.IsDir():
		f.say("a link instead of the folder d2")
		away := f.at(fmt.Sprint("away", f.h.rnd.IntN(1000)))
		if exists(away) {
			return
		}
		f.try(os.Rename(f.at("d2"), away), os.Symlink("d1", f.at("d2")))
	default:
		f.say("a folder instead of d2")
		f.try(os.Remove(f.at("d2")), os.Mkdir(f.at("d2"), 0o755), os.WriteFile(f.at("d2/f0"), f.text(16), 0o644))
		f.settle("d2/f0")
	}
}

func (f *folder) link() {
	p, to := f.pick(f.paths(0)), f.freeName()
	f.say("hard link %s %s", p, to)
	f.try(os.Link(f.at(p), f.at(to)))
}

// unlinkHard makes a file of its own of one that may have several names.
func (f *folder) unlinkHard() {
	p := f.pick(f.paths(0))
	fi, data := f.save(p)
	if f.h.chance(500) {
		data = f.text(len(data))
	}
	f.say("break the hard links of %s", p)
	tmp := join(f.h.dir, "tmp")
	f.try(os.WriteFile(tmp, data, 0o600), os.Chmod(tmp, fi.Mode()), os.Chtimes(tmp, fi.ModTime(), fi.ModTime()), os.Rename(tmp, f.at(p)))
}

func (f *folder) remove() {
	list := movable(append(f.paths(0), f.paths(fs.ModeSymlink)...))
	if dirs := movable(f.paths(fs.ModeDir)); len(dirs) > 0 && f.h.chance(150) {
		p := f.pick(dirs)
		f.say("remove folder %s", p)
		trash := join(f.h.dir, fmt.Sprint("trash", len(f.h.log)))
		f.try(os.Rename(f.at(p), trash), os.RemoveAll(trash))
		return
	}
	if len(list) < 8 {
		return
	}
	p := f.pick(list)
	f.say("remove %s", p)
	f.try(os.Remove(f.at(p)))
}

func (f *folder) makeFolder() {
	p := f.pick([]string{"d2", "d2/sub", "d0/sub", "d1/k", "d3"})
	if fi, err := os.Lstat(f.at(filepath.Dir(p))); err != nil || !fi.IsDir() || exists(f.at(p)) {
		return
	}
	f.say("make folder %s", p)
	f.try(os.Mkdir(f.at(p), 0o755))
}
