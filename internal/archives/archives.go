// Package archives makes one archive out of those that several nodes wrote, of one
// build for several platforms, as one daemon that builds all would write it.
//
// It is not for images in registries (internal/imageindex, which makes the index
// here too), nor for reading archives that users have.
//
// Rules: the nodes are not trusted, least of all by each other. What is wrong with
// an archive is found by Open…, before the first byte is written. The same
// archives make the same bytes. Nothing is read whole but what is JSON.
package archives

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// Part is the archive that one node wrote.
type Part struct {
	Node string // for errors
	Data io.ReaderAt
	Size int64
}

// reader reads a part from its beginning. at gives where the data of the current
// entry begins.
func (p Part) reader() (r *tar.Reader, at func() int64) {
	section := io.NewSectionReader(p.Data, 0, p.Size)
	return tar.NewReader(section), func() int64 {
		n, _ := section.Seek(0, io.SeekCurrent) // a section's cannot fail; a tar.Reader does not read ahead
		return n
	}
}

// wrong says what is wrong with a part.
func (p Part) wrong(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the archive of node %s: %w", p.Node, err)
}

// Tar is several archives of files, each with a folder for each platform.
type Tar struct {
	owner map[string]*owned // by the names at the top
}

// owned is where in a part the entries below a name are.
type owned struct {
	part Part
	rows []row
}

// row is some entries that follow each other: from the beginning of the first one's
// header to the end of the last one's data.
type row struct{ from, to int64 }

// OpenTar reads what is in the parts. A name at the top may be in one of them
// only.
func OpenTar(parts []Part) (*Tar, error) {
	t := &Tar{owner: map[string]*owned{}}
	for _, p := range parts {
		if err := t.add(p); err != nil {
			return nil, p.wrong(err)
		}
	}
	return t, nil
}

// add notes where the entries of a part are.
func (t *Tar) add(p Part) error {
	mine := map[string]*owned{}
	rows := 0
	return p.each(func(top string, at row) error {
		o := mine[top]
		if o == nil {
			if first, there := t.owner[top]; there {
				return fmt.Errorf("%s is also in that of node %s", top, first.part.Node)
			}
			o = &owned{part: p}
			mine[top], t.owner[top] = o, o
		}
		if last := len(o.rows) - 1; last >= 0 && o.rows[last].to == at.from {
			o.rows[last].to = at.to
			return nil
		}
		if rows++; rows > maxEntries {
			return fmt.Errorf("its folders alternate more than %d times", maxEntries)
		}
		o.rows = append(o.rows, at)
		return nil
	})
}

// each reads the entries of an archive of files, each with its first folder and where
// it is.
func (p Part) each(do func(top string, at row) error) error {
	r, at := p.reader()
	from := int64(0)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(h.Name, "/")
		switch {
		case !fs.ValidPath(name) || name == ".":
			return fmt.Errorf("%q is no path in an archive", h.Name)
		case isSparse(h):
			// No daemon writes such. A few bytes could be a file without end.
			return fmt.Errorf("%q is no plain file", h.Name)
		}
		top, _, _ := strings.Cut(name, "/")
		to := ended(at(), h)
		if err := do(top, row{from, to}); err != nil {
			return err
		}
		from = to
	}
}

// ended is where the next header begins, after an entry whose data begin at a
// position.
func ended(data int64, h *tar.Header) int64 {
	switch h.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo: // have none, whatever size they claim
	default:
		data += h.Size
	}
	const block = 512
	return (data + block - 1) / block * block
}

// Write writes the one archive.
func (t *Tar) Write(w io.Writer) error {
	out := tar.NewWriter(w)
	for _, top := range slices.Sorted(maps.Keys(t.owner)) {
		o := t.owner[top]
		for _, at := range o.rows {
			if err := o.part.copy(out, at); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// copy writes some entries.
func (p Part) copy(out *tar.Writer, at row) error {
	r := tar.NewReader(io.NewSectionReader(p.Data, at.from, at.to-at.from))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return p.wrong(err)
		}
		if err := out.WriteHeader(h); err != nil {
			return p.wrong(err)
		}
		if _, err := io.Copy(out, r); err != nil {
			return err
		}
	}
}
