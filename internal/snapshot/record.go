package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// record is what is known of one folder from earlier times. The zero
// value knows nothing.
type record struct {
	generation string // 32 hexadecimal digits; empty when nothing was announced
	files      []file // sorted by path
	// announced is what was said of a path at a size and time → what it held then,
	// under this generation; both are the beginnings of hashes.
	announced map[uint64]uint64
}

// file is a known one at a path, as that of an entry.
type file struct {
	path string
	*known
}

// known is a file as it was when it was read.
type known struct {
	mode          fs.FileMode
	size          int64
	mtime         int64 // nanoseconds since 1970, as ctime
	ctime         int64 // 0 where the system does not tell
	inode, device uint64
	hash          [hashSize]byte // of a file's content
	hashed        bool
	fresh         bool // it could change again without a trace
	plain         bool // it has no extended attributes
}

// of is what is known of a file that has not changed since.
func (r *record) of(e *entry) (*known, bool) {
	if e.fresh {
		return nil, false
	}
	k, ok := r.at(e.path)
	if !ok || k.fresh || k.mode != e.mode || k.size != e.size || k.mtime != e.mtime || k.ctime != e.ctime || k.inode != e.inode || k.device != e.device {
		return nil, false
	}
	return k, true
}

// wasFresh tells whether a file was read because it could have changed again.
func (r *record) wasFresh(path string) bool {
	k, ok := r.at(path)
	return ok && k.fresh && k.hashed
}

func (r *record) at(path string) (*known, bool) {
	i, ok := slices.BinarySearchFunc(r.files, path, func(f file, path string) int { return strings.Compare(f.path, path) })
	if !ok {
		return nil, false
	}
	return r.files[i].known, true
}

// differs tells whether a folder of which nothing was read is not in all its parts
// what is known.
func (r *record) differs(entries []*entry) bool {
	seen := 0
	for _, e := range entries {
		if e.left {
			continue
		}
		seen++
		if _, ok := r.of(e); !ok {
			return true
		}
	}
	return seen != len(r.files)
}

// announce is the record that has been told of entries, which it points into. r needs
// no files.
func (r *record) announce(entries []*entry) *record {
	next := &record{generation: r.generation, files: make([]file, 0, len(entries)), announced: r.announced}
	said := make([][2]uint64, 0, len(entries))
	again := next.generation == "" || len(next.announced) > 4*len(entries)+100_000
	for _, e := range entries {
		if e.left {
			continue
		}
		next.files = append(next.files, file{e.path, &e.known})
		at, holds := e.announcement()
		said = append(said, [2]uint64{at, holds})
		if before, ok := next.announced[at]; ok && before != holds {
			again = true
		}
	}
	slices.SortFunc(next.files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	if again {
		next.generation = newGeneration()
		next.announced = make(map[uint64]uint64, len(entries))
	}
	for _, s := range said {
		next.announced[s[0]] = s[1]
	}
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
		if e.mode&fs.ModeSymlink != 0 { // not a hard one: to what is not asked for, it is sent as a file of its own
			f.text(e.link)
		}
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
	magic    = "berth context record 2\n"
	maxPath  = 64 << 10
	maxFiles = 10 << 20
)

const (
	flagHashed = 1 << iota
	flagFresh
	flagPlain
)

func (r *record) encode() []byte {
	b := append(make([]byte, 0, 112*len(r.files)+16*len(r.announced)), magic...)
	gen, _ := hex.DecodeString(r.generation) // it is ours
	b = append(b, append(gen, noGeneration[len(gen):]...)...)
	b = binary.AppendUvarint(b, uint64(len(r.files)))
	last := ""
	for _, k := range r.files {
		path, shared := k.path, 0
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

// parts of a record, which is large: who reads one rarely needs both.
type parts int

const (
	files parts = 1 << iota
	announced
)

// decode reads parts of a record. It believes nothing that has not been written whole.
func decode(data []byte, want parts) (*record, error) {
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
	most := min(n, len(d.b)/8) // each takes more than that
	var list []known           // one allocation for all
	if want&files != 0 {
		r.files, list = make([]file, 0, most), make([]known, most)
	}
	last, path := 0, ""
	for i := range n {
		shared, more := d.count(maxPath), d.count(maxPath)
		rest := d.take(more)
		if d.bad || shared > last || i >= most {
			return nil, errDamaged
		}
		last = shared + more
		k := &known{}
		if want&files != 0 {
			next := path[:shared] + string(rest)
			if i > 0 && next <= path {
				return nil, errDamaged // they are not in order
			}
			path, k = next, &list[i]
			r.files = append(r.files, file{path, k})
		}
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
	}
	n = d.count(len(d.b) / 16)
	if want&announced != 0 {
		r.announced = make(map[uint64]uint64, n)
	}
	for range n {
		pair := d.take(16)
		if d.bad {
			return nil, errDamaged
		}
		if want&announced == 0 {
			continue
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
