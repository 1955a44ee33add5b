package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Clash is one path in two trees.
type Clash struct {
	Path          string
	First, Second string // who sent it; empty, or the same, for one sender
}

// Error says who sent it, where that makes a difference: in the order of their
// names, for who came first is chance.
func (c *Clash) Error() string {
	if c.First == c.Second {
		return fmt.Sprintf("%s was sent twice", c.Path)
	}
	return fmt.Sprintf("%s was sent by %s and by %s", c.Path, min(c.First, c.Second), max(c.First, c.Second))
}

// How says what several trees may have in common.
type How int

// What they may have in common.
const (
	Together How = iota // folders; anything else may be in one tree only
	Apart               // nothing: a name at the top comes from one sender only
	Blobs               // files that are the same when their names are
)

// Join makes one tree of all that there are, and gives it. What they may not have in
// common is a *Clash. Nothing that the folder had is touched, and when it fails only
// Abort is left.
func (d *Dir) Join(how How) (Tree, error) {
	if len(d.trees) == 0 {
		return Tree{}, nil
	}
	staged, err := d.base.open(d.temp)
	if err != nil {
		return Tree{}, err
	}
	defer staged.close()
	top := map[string]string{}
	for i, t := range d.trees {
		if err := d.joinTree(staged, i, t, top, how); err != nil {
			return Tree{}, err
		}
	}
	d.trees = d.trees[:1]
	return d.trees[0], nil
}

// joinTree moves a tree into the first one. top says whose the names at the top
// are.
func (d *Dir) joinTree(staged *folder, i int, t Tree, top map[string]string, how How) error {
	src, err := staged.open(t.name)
	if err != nil {
		return err
	}
	defer src.close()
	entries, err := src.list()
	if err != nil {
		return err
	}
	for _, e := range entries {
		owner, there := top[e.Name()]
		if how == Apart && there && owner != t.From {
			return &Clash{e.Name(), owner, t.From}
		}
		if !there {
			top[e.Name()] = t.From
		}
	}
	if i == 0 {
		return nil
	}
	dst, err := staged.open(d.trees[0].name)
	if err != nil {
		return err
	}
	defer dst.close()
	m := &merge{base: d.base, first: how == Blobs}
	err = m.folder(src, dst)
	var clash *Clash
	if errors.As(err, &clash) {
		if clash.Path, err = filepath.Rel(dst.path, clash.Path); err != nil {
			return err
		}
		// Which of those before it was, is known for the top only.
		first, _, _ := cutPath(clash.Path)
		clash.First, clash.Second = top[first], t.From
		return clash
	}
	return err
}

// Options are what else Commit does.
type Options struct {
	Delete bool   // what is not in the new content goes
	Blobs  string // a folder at the top; a file in it that somebody else puts there first stays
}

// Commit joins the trees, as Join(Together) does, and brings them into the folder:
// folders are merged, anything else replaces what stands under its name, and what
// has another name stays, unless Options.Delete. After an error the folder is as it
// was and the new content is gone; if it cannot be made so, the error says where the
// rest of what it had is. Nobody may write to the trees any more.
func (d *Dir) Commit(o Options) error {
	if d.done {
		return fs.ErrClosed
	}
	err := d.commit(o)
	_ = d.Abort() // a hidden folder with what was replaced is all that could be left
	return err
}

func (d *Dir) commit(o Options) error {
	if len(d.trees) > 1 {
		if _, err := d.Join(Together); err != nil {
			return err
		}
	}
	if len(d.trees) == 0 {
		return nil
	}
	staged, err := d.base.open(d.temp)
	if err != nil {
		return err
	}
	defer staged.close()
	if d.final != "" {
		err := rename(staged, d.trees[0].name, d.base, d.final)
		if !errors.Is(err, fs.ErrExist) {
			return d.named(err)
		}
	} // somebody else has made it since, or it was there
	return d.merge(staged, o)
}

// merge brings the tree into a folder that exists.
func (d *Dir) merge(staged *folder, o Options) error {
	src, err := staged.open(d.trees[0].name)
	if err != nil {
		return err
	}
	defer src.close()
	dst := d.base
	if d.final != "" {
		if dst, err = d.base.open(d.final); err != nil {
			return err
		}
		defer dst.close()
	}
	m := &merge{base: d.base, staged: staged, replace: true, remove: o.Delete, ours: map[string]bool{d.temp: d.final == ""}}
	if o.Blobs != "" {
		m.blobs = filepath.Join(dst.rel, o.Blobs)
	}
	if err := m.folder(src, dst); err != nil {
		return d.giveBack(m, err)
	}
	m.tidy()
	return nil
}

// giveBack undoes a merge that failed. Where that fails, too, what is staged has the
// only copy of what the folder had, and stays.
func (d *Dir) giveBack(m *merge, failed error) error {
	lost := m.takeBack()
	if lost == nil {
		m.tidy()
		return d.named(failed)
	}
	m.close()
	d.kept = true
	where := []string{filepath.Join(d.base.path, d.temp)}
	for _, l := range m.local {
		where = append(where, l.path)
	}
	return d.named(fmt.Errorf("%w; not all that was done could be undone (%w): what the folder lacks now is in %s",
		failed, lost, strings.Join(where, " and ")))
}

// named makes an error one about the folder, not about where things are staged.
func (d *Dir) named(err error) error {
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return err
	}
	return &fs.PathError{Op: "write", Path: d.path, Err: cause(err)}
}
