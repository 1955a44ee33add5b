package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/hint"
)

// plan is files that are to be written, all or none.
type plan struct {
	files []planned

	// commit gives a staged file its name; a test makes it fail.
	commit func(*atomicfile.File) error
}

type planned struct {
	path string
	data []byte
	mode fs.FileMode
}

func (p *plan) add(path string, data []byte, mode fs.FileMode) {
	p.files = append(p.files, planned{path, data, mode})
}

// mayWrite refuses to overwrite: the first file that is there is named, and how
// many more. force lets files be replaced, but nothing that is not one.
func (p *plan) mayWrite(force bool, hints ...string) error {
	first, more := "", 0
	for _, f := range p.files {
		fi, err := os.Lstat(f.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0:
			return fmt.Errorf("%s is there already and is not a file", f.path)
		case first == "":
			first = f.path
		default:
			more++
		}
	}
	switch {
	case first == "" || force:
		return nil
	case more > 0:
		return hint.New(fmt.Sprintf("%s is there already, and %d more; nothing is overwritten", first, more), hints...)
	}
	return hint.New(first+" is there already; nothing is overwritten", hints...)
}

// apply writes the files. After an error all is as it was, folders included,
// or the error says what is not.
func (p *plan) apply() (err error) {
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for i := len(undo) - 1; i >= 0; i-- {
			if uerr := undo[i](); uerr != nil {
				err = fmt.Errorf("%w; undoing it failed, too: %w", err, uerr)
			}
		}
	}()
	var staged []*atomicfile.File
	for _, f := range p.files {
		made, err := mkdirs(filepath.Dir(f.path))
		for _, dir := range made {
			undo = append(undo, func() error { return os.Remove(dir) })
		}
		if err != nil {
			return err
		}
		w, err := stage(f)
		if err != nil {
			return err
		}
		undo = append(undo, w.Abort) // does nothing once it has its name
		staged = append(staged, w)
	}
	commit := p.commit
	if commit == nil {
		commit = (*atomicfile.File).Commit
	}
	for i, w := range staged {
		back, err := wayBack(p.files[i])
		if err != nil {
			return err
		}
		if err := commit(w); err != nil {
			return err
		}
		undo = append(undo, back)
	}
	return nil
}

func stage(f planned) (*atomicfile.File, error) {
	w, err := atomicfile.Create(f.path, f.mode)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(f.data); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

// wayBack is how to undo that f was written: what was there before is put
// back.
func wayBack(f planned) (func() error, error) {
	fi, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return os.Remove(f.path) }, nil
	}
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(f.path)
	if err != nil {
		return nil, err
	}
	return func() error { return atomicfile.Write(f.path, old, fi.Mode().Perm()) }, nil
}

// mkdirs makes dir and what is missing above it, and gives the folders that it
// made, the outermost first, also with an error.
func mkdirs(dir string) (made []string, err error) {
	if isDir(dir) {
		return nil, nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if made, err = mkdirs(parent); err != nil {
			return made, err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil {
		return made, err
	}
	return append(made, dir), nil
}
