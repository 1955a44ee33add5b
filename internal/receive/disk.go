package receive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// file is one that is on its way.
type file struct {
	entry
	id  uint32
	got int64    // bytes, as far as they have been passed on
	out *os.File // its writer's
}

// piece is what a writer is given: some of a file, or with no data its end.
type piece struct {
	file   *file
	packet *types.Packet
}

// writer writes files: always the same ones, so that their pieces stay in order.
type writer struct {
	*transfer
	in chan piece
	at cursor
}

func (w *writer) run() error {
	defer w.at.close()
	open := map[*file]bool{} // a sender may begin many
	defer func() {
		for f := range open {
			_ = f.out.Close() // the transfer has failed already
		}
	}()
	for p := range w.in {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		end := len(p.packet.Data) == 0
		err := w.write(p.file, p.packet.Data)
		p.packet.ReturnToVTPool()
		if p.file.out != nil {
			open[p.file] = true
		}
		if err != nil {
			return failed(p.file.path, err)
		}
		if end {
			delete(open, p.file)
			if err := w.end(p.file); err != nil {
				return failed(p.file.path, err)
			}
			w.asks.came()
			w.done(1)
		}
	}
	return nil
}

// write appends to a file, which it makes first.
func (w *writer) write(f *file, data []byte) error {
	if f.out == nil {
		root, name, err := w.at.folder(f.path)
		if err != nil {
			return err
		}
		if f.out, err = root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return clash(f.sent, err)
		}
	}
	if len(data) == 0 {
		return nil
	}
	_, err := f.out.Write(data)
	return err
}

// end closes a file that is complete.
func (w *writer) end(f *file) error {
	root, name, err := w.at.folder(f.path)
	if err == nil {
		err = setXattrs(root, name, f.xattrs)
	}
	if err == nil {
		err = setFileMode(f.out, f.mode)
	}
	if cerr := f.out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return root.Chtimes(name, f.mtime, f.mtime)
}

// failed names what could not be written, by its path in the tree.
func failed(path string, err error) error {
	var refused *Refused
	var pe *os.PathError
	var le *os.LinkError
	switch {
	case err == nil || errors.As(err, &refused):
		return err
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	}
	return &os.PathError{Op: "write", Path: path, Err: err}
}

// clash explains a name that exists where none can: two names that this file
// system does not tell apart.
func clash(sent string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return &Refused{Path: sent, Why: "this file system takes for the same name as one before"}
	}
	return err
}

// cursor is a folder that is held open, since the next file is mostly in the
// same one.
type cursor struct {
	root *os.Root
	dir  string
	open *os.Root
}

// folder gives the folder that path is in, and path's name there. It is valid
// until the next call.
func (c *cursor) folder(path string) (*os.Root, string, error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		return c.root, name, nil
	}
	if c.open != nil && c.dir == dir {
		return c.open, name, nil
	}
	c.close()
	var err error
	if c.open, err = c.root.OpenRoot(dir[:len(dir)-1]); err != nil {
		return nil, "", err
	}
	c.dir = dir
	return c.open, name, nil
}

func (c *cursor) close() {
	if c.open != nil {
		_ = c.open.Close() // a folder that was only read
		c.open = nil
	}
}

type link struct{ path, target string }

// disk makes what is no file.
type disk struct {
	root    *os.Root
	at      cursor
	folders []entry // all, each before what is in it
	links   []link  // hard ones: their files come later than the list
}

func (d *disk) close() { d.at.close() }

// folder makes one that only we can use until finish.
func (d *disk) folder(e entry) error {
	root, name, err := d.at.folder(e.path)
	if err == nil {
		err = root.Mkdir(name, 0o700)
	}
	if err != nil {
		return failed(e.path, clash(e.sent, err))
	}
	d.folders = append(d.folders, e)
	return nil
}

func (d *disk) symlink(e entry) error {
	root, name, err := d.at.folder(e.path)
	if err == nil {
		err = root.Symlink(e.target, name)
	}
	if err != nil {
		return failed(e.path, clash(e.sent, err))
	}
	return failed(e.path, withRoot(root, func(r fsutil.Root) error { return r.LChtimes(name, e.mtime) }))
}

// finish makes the hard links, and gives the folders their modes and times, which
// would have been in the way, or overwritten, before.
func (d *disk) finish() error {
	for _, l := range d.links {
		if err := d.hardlink(l); err != nil {
			return failed(l.path, err)
		}
	}
	for _, e := range slices.Backward(d.folders) {
		if err := d.endFolder(e); err != nil {
			return failed(e.path, err)
		}
	}
	return nil
}

func (d *disk) hardlink(l link) error {
	if err := d.checkTarget(l); err != nil {
		return err
	}
	return clash(filepath.ToSlash(l.path), d.root.Link(l.target, l.path))
}

func (d *disk) endFolder(e entry) error {
	if err := setXattrs(d.root, e.path, e.xattrs); err != nil {
		return err
	}
	if err := d.root.Chtimes(e.path, e.mtime, e.mtime); err != nil {
		return err
	}
	return setFolderMode(d.root, e.path, e.mode)
}

// checkTarget refuses a hard link to anything but a file of this tree. Symbolic
// links on the way there would lead elsewhere, if only in the tree.
func (d *disk) checkTarget(l link) error {
	refused := &Refused{Path: filepath.ToSlash(l.path), Why: "is a hard link to what is no file of the export"}
	for i, c := range l.target + string(filepath.Separator) {
		if c != filepath.Separator {
			continue
		}
		fi, err := d.root.Lstat(l.target[:i])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return refused
		case err != nil:
			return err
		case i == len(l.target) && !fi.Mode().IsRegular(), i < len(l.target) && !fi.IsDir():
			return refused
		}
	}
	return nil
}

// setXattrs sets what the file system takes of them, as BuildKit's client does.
func setXattrs(root *os.Root, name string, attrs map[string][]byte) error {
	if len(attrs) == 0 {
		return nil
	}
	return withRoot(root, func(r fsutil.Root) error {
		for k, v := range attrs {
			if !strings.ContainsRune(k, 0) {
				_ = r.LSetxattr(name, k, v, 0) // most are for the system that the image is made for
			}
		}
		return nil
	})
}

// withRoot lends fsutil's view of a folder, with what os.Root has not.
func withRoot(root *os.Root, f func(fsutil.Root) error) error {
	same, err := root.OpenRoot(".")
	if err != nil {
		return err
	}
	r := fsutil.NewRoot(same)
	defer r.Close() //nolint:errcheck // a folder that was only read
	return f(r)
}
