package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"maps"
	"slices"
)

// nameVersion changes when what a name covers does: names are known to daemons for
// as long as they keep their cache.
const nameVersion = "berth context 1"

// fields collects what is hashed, each with its length, so that no two lists look
// the same.
type fields struct{ b []byte }

func (f *fields) text(s string) {
	f.b = binary.AppendUvarint(f.b, uint64(len(s)))
	f.b = append(f.b, s...)
}
func (f *fields) number(n uint64) { f.b = binary.AppendUvarint(f.b, n) }

func (f *fields) attributes(x map[string][]byte) {
	f.number(uint64(len(x)))
	if len(x) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(x)) {
		f.text(k)
		f.text(string(x[k]))
	}
}

// makeName is the name by content, or by what the file system tells.
func (s *Snapshot) makeName() Name {
	content := !slices.ContainsFunc(s.entries, func(e *entry) bool {
		return e.mode.IsRegular() && !e.left && !e.hashed
	})
	h := sha256.New()
	var f fields
	f.text(nameVersion)
	f.text(s.opts.Salt)
	f.number(uint64(len(s.opts.Excludes)))
	for _, x := range s.opts.Excludes {
		f.text(x)
	}
	if !content {
		f.text("metadata")
		f.text(s.opts.Machine)
		f.text(s.real)
	}
	for _, e := range s.entries {
		if e.left {
			continue
		}
		f.identify(e, content)
		if len(f.b) > 32<<10 {
			_, _ = h.Write(f.b) // a hash takes everything
			f.b = f.b[:0]
		}
	}
	_, _ = h.Write(f.b)
	return Name{ID: hex.EncodeToString(h.Sum(nil)), Content: content}
}

// identify adds an entry to a name.
func (f *fields) identify(e *entry, content bool) {
	f.text(e.path)
	f.number(uint64(e.mode))
	f.text(e.link)
	f.attributes(e.xattrs)
	if e.mode&fs.ModeDevice != 0 {
		f.number(uint64(e.major))
		f.number(uint64(e.minor))
	}
	switch {
	case e.mode.IsDir():
	case content && e.mode.IsRegular():
		f.b = append(f.b, e.hash[:]...)
	case !content:
		f.number(uint64(e.size))
		f.number(uint64(e.mtime))
		f.number(uint64(e.ctime))
		f.number(e.inode)
		f.number(e.device)
		if e.fresh && e.hashed { // the times do not tell
			f.b = append(f.b, e.hash[:]...)
		}
	}
}
