package receive

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

type kind int

const (
	kindFile kind = iota
	kindFolder
	kindSymlink
	kindHardlink
)

// kept are the bits of a mode that a file keeps.
const kept = os.ModePerm | os.ModeSetuid | os.ModeSetgid | os.ModeSticky

// entry is one thing of the list, checked.
type entry struct {
	kind   kind
	sent   string // the path as it came
	path   string // as this system writes it
	target string // of a link: as it came for a symbolic one, else a path
	mode   os.FileMode
	mtime  time.Time
	length int64
	xattrs map[string][]byte
}

// xattrSize is about what an extended attribute takes besides its text: most of what
// a short one does.
const xattrSize = 64

// size is about what the entry takes in memory.
func (e *entry) size() int64 {
	n := 300 + len(e.path) + len(e.target)
	for k, v := range e.xattrs {
		n += xattrSize + len(k) + len(v)
	}
	return int64(n)
}

// orders holds the list against its rules: sorted, nothing twice, nothing outside,
// and each thing below a folder that was listed as one.
type orders struct{ validator fsutil.Validator }

func (o *orders) check(st *types.Stat, listed bool) (entry, error) {
	mode := os.FileMode(st.Mode)
	e := entry{
		sent: st.Path, path: filepath.FromSlash(st.Path), mode: mode & kept,
		mtime: time.Unix(0, st.ModTime), length: st.Size, xattrs: st.Xattrs,
	}
	refuse := func(why string) (entry, error) { return entry{}, &Refused{Path: st.Path, Why: why} }
	switch {
	case listed:
		return refuse("comes after the end of its list")
	case e.path == "." || filepath.ToSlash(e.path) != st.Path || !filepath.IsLocal(e.path):
		return refuse("is no path below a folder on this system")
	}
	var pe *os.PathError
	switch err := o.validator.HandleChange(fsutil.ChangeKindAdd, e.path, &fsutil.StatInfo{Stat: st}, nil); {
	case errors.As(err, &pe):
		return refuse("is no clean path (" + pe.Op + ")")
	case err != nil:
		return refuse("came twice, out of order, or without a folder to be in")
	}
	switch {
	case mode.IsDir():
		e.kind = kindFolder
	case mode&os.ModeSymlink != 0:
		e.kind, e.target = kindSymlink, filepath.FromSlash(st.Linkname)
	case mode&os.ModeType != 0:
		return entry{}, &Refused{Path: st.Path, Why: "is " + special(mode) + ", not a file, a folder or a link", Special: true}
	case st.Linkname != "":
		e.kind, e.target = kindHardlink, filepath.FromSlash(st.Linkname)
		if !filepath.IsLocal(e.target) || filepath.Clean(e.target) != e.target {
			return refuse("is a hard link to something outside")
		}
	case st.Size < 0:
		return refuse("has a negative size")
	}
	return e, nil
}

// special names what no export makes: as root, a device would be a way to this
// machine's own.
func special(mode os.FileMode) string {
	switch {
	case mode&os.ModeDevice != 0:
		return "a device"
	case mode&os.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&os.ModeSocket != 0:
		return "a socket"
	}
	return "something special"
}
