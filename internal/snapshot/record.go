package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"slices"
)

// record is what is known of one folder from earlier times. The zero
// value knows nothing.
type record struct {
	generation string // 32 hexadecimal digits; empty when nothing was announced
	files      map[string]*known
	// announced is what was said of a path at a size and time → what it held then,
	// under this generation; both are the beginnings of hashes.
	announced map[uint64]uint64
}

// known is a file as it was when it was read.
type known struct {
	mode               fs.FileMode
	size, mtime, ctime int64
	inode, device      uint64
	hash               [hashSize]byte
	hashed, fresh      bool
	plain              bool // it has no extended attributes
}

// of is what is known of a file that has not changed since.
func (r *record) of(e *entry) (*known, bool) {
	if e.fresh {
		return nil, false
	}
	k, ok := r.files[e.path]
	if !ok || k.fresh || k.mode != e.mode || k.size != e.size || k.mtime != e.mtime || k.ctime != e.ctime || k.inode != e.inode || k.device != e.device {
		return nil, false
	}
	return k, true
}

// wasFresh tells whether a file was read because it could have changed again.
func (r *record) wasFresh(path string) bool {
	k, ok := r.files[path]
	return ok && k.fresh && k.hashed
}

// differs tells whether a folder is not in all its parts what is known.
func (r *record) differs(entries []*entry) bool {
	seen := 0
	for _, e := range entries {
		if e.left {
			continue
		}
		seen++
		k, ok := r.of(e)
		if !ok || k.hashed != e.hashed {
			return true
		}
	}
	return seen != len(r.files)
}

// announce is the record that has been told of entries.
func (r *record) announce(entries []*entry) *record {
	next := &record{generation: r.generation, files: make(map[string]*known, len(entries)), announced: r.announced}
	if next.announced == nil {
		next.announced = map[uint64]uint64{}
	}
	said := make(map[uint64]uint64, len(entries))
	again := next.generation == ""
	for _, e := range entries {
		if e.left {
			continue
		}
		next.files[e.path] = &known{
			mode: e.mode, size: e.size, mtime: e.mtime, ctime: e.ctime, inode: e.inode, device: e.device,
			hash: e.hash, hashed: e.hashed, fresh: e.fresh, plain: len(e.xattrs) == 0,
		}
		at, holds := e.announcement()
		said[at] = holds
		if before, ok := next.announced[at]; ok && before != holds {
			again = true
		}
	}
	if again || len(next.announced) > 4*len(entries)+100_000 {
		next.generation = newGeneration()
		next.announced = said
		return next
	}
	maps.Copy(next.announced, said)
	return next
}

// announcement is what a daemon compares of an entry, and what it does not see.
func (e *entry) announcement() (at, holds uint64) {
	var f fields
	f.text(e.path)
	if e.mode.IsDir() {
		// A daemon gives its copy of a folder another mode without noting that what
		// it knows of the copy's content has changed.
		f.number(uint64(e.mode.Type()))
		at = short(f.b)
		f.b = f.b[:0]
		f.number(uint64(e.mode))
	} else {
		f.number(uint64(e.mode))
		f.number(uint64(e.size))
		f.number(uint64(e.mtime))
		f.text(e.link)
		at = short(f.b)
		f.b = f.b[:0]
	}
	f.attributes(e.xattrs)
	switch {
	case e.hashed:
		f.b = append(f.b, e.hash[:]...)
	case e.mode.IsRegular():
		f.number(uint64(e.ctime))
		f.number(e.inode)
		f.number(e.device)
	}
	return at, short(f.b)
}

func short(b []byte) uint64 {
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8])
}

// The form of a record: the magic, the generation, the files sorted by path, each
// with what it shares with the path before it, what was announced, and at the end
// the hash of all that.
const (
	magic    = "berth context record 1\n"
	maxPath  = 64 << 10
	maxFiles = 10 << 20
)

const (
	flagHashed = 1 << iota
	flagFresh
	flagPlain
)

func (r *record) encode() []byte {
	b := append(make([]byte, 0, 128*len(r.files)+16*len(r.announced)), magic...)
	gen, _ := hex.DecodeString(r.generation) // it is ours
	b = append(b, append(gen, noGeneration[len(gen):]...)...)
	b = binary.AppendUvarint(b, uint64(len(r.files)))
	last := ""
	for _, path := range slices.Sorted(maps.Keys(r.files)) {
		k := r.files[path]
		shared := 0
		for shared < len(last) && shared < len(path) && last[shared] == path[shared] {
			shared++
		}
		last = path
		b = binary.AppendUvarint(b, uint64(shared))
		b = binary.AppendUvarint(b, uint64(len(path)-shared))
		b = append(b, path[shared:]...)
		var flags byte
		if k.hashed {
			flags |= flagHashed
		}
		if k.fresh {
			flags |= flagFresh
		}
		if k.plain {
			flags |= flagPlain
		}
		b = append(b, flags)
		b = binary.AppendUvarint(b, uint64(k.mode))
		b = binary.AppendVarint(b, k.size)
		b = binary.AppendVarint(b, k.mtime)
		b = binary.AppendVarint(b, k.ctime)
		b = binary.AppendUvarint(b, k.inode)
		b = binary.AppendUvarint(b, k.device)
		if k.hashed {
			b = append(b, k.hash[:]...)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(r.announced)))
	for at, holds := range r.announced {
		b = binary.BigEndian.AppendUint64(b, at)
		b = binary.BigEndian.AppendUint64(b, holds)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// noGeneration is written where nothing is announced.
var noGeneration [16]byte

// errDamaged is for everything that encode has not written.
var errDamaged = errors.New("the record is damaged")

// decode reads a record. It believes nothing that has not been written whole.
func decode(data []byte) (*record, error) {
	body, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(body) < 16+hashSize {
		return nil, errDamaged
	}
	sum := sha256.Sum256(data[:len(data)-hashSize])
	if !bytes.Equal(sum[:], data[len(data)-hashSize:]) {
		return nil, errDamaged
	}
	d := &decoder{b: body[:len(body)-hashSize]}
	r := &record{}
	if gen := d.take(16); !bytes.Equal(gen, noGeneration[:]) {
		r.generation = hex.EncodeToString(gen)
	}
	n := d.count(maxFiles)
	r.files = make(map[string]*known, min(n, len(d.b)/8))
	list := make([]known, min(n, len(d.b)/8)) // each takes more than that: one allocation for all
	last := ""
	for i := range n {
		shared, more := d.count(maxPath), d.count(maxPath)
		rest := d.take(more)
		if d.bad || shared > len(last) || i >= len(list) {
			return nil, errDamaged
		}
		path := last[:shared] + string(rest)
		last = path
		k := &list[i]
		flags := d.take(1)
		if d.bad {
			return nil, errDamaged
		}
		k.hashed, k.fresh, k.plain = flags[0]&flagHashed != 0, flags[0]&flagFresh != 0, flags[0]&flagPlain != 0
		k.mode = fs.FileMode(d.uvarint()) //nolint:gosec // it was written from one
		k.size, k.mtime, k.ctime = d.varint(), d.varint(), d.varint()
		k.inode, k.device = d.uvarint(), d.uvarint()
		if k.hashed {
			copy(k.hash[:], d.take(hashSize))
		}
		r.files[path] = k
	}
	n = d.count(len(d.b) / 16)
	r.announced = make(map[uint64]uint64, n)
	for range n {
		pair := d.take(16)
		if d.bad {
			return nil, errDamaged
		}
		r.announced[binary.BigEndian.Uint64(pair)] = binary.BigEndian.Uint64(pair[8:])
	}
	if d.bad || len(d.b) > 0 {
		return nil, errDamaged
	}
	return r, nil
}

// decoder takes things off the front of b; bad is set when there was too little.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, n)
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is a number of things, which is bad when there are more than most.
func (d *decoder) count(most int) int {
	v := d.uvarint()
	if v > uint64(most) { //nolint:gosec // most is positive
		d.bad = true
		return 0
	}
	return int(v) //nolint:gosec // it is not more than most
}
