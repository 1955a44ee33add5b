package history

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/state"
	"github.com/containerd/containerd/v2/core/content"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Imported is the builder whose records came in bundles. No stored builder can
// have the name. Its one node is importedNode.
const (
	Imported     = ".imported"
	importedNode = "_"
)

// The folder of the imported records has a folder for each, called by its
// reference: record.json, which is the record as the bundle has it, and the blobs
// that it points to, by their digests.
const (
	recordFile = "record.json"
	blobsDir   = "blobs"
	stagingPat = ".staging-*"
)

// Import reads a bundle and keeps its records. One that is there already is
// replaced. The records are in the order of the bundle. Either all of them are
// kept or, with an error about the bundle, none.
func Import(ctx context.Context, store *state.Store, in io.Reader) ([]*Record, error) {
	return importWithin(ctx, store, in, defaultBounds())
}

func importWithin(ctx context.Context, store *state.Store, in io.Reader, limit bounds) (_ []*Record, err error) {
	dir := store.ImportedDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, hint.Wrap(err, "writing to the state folder "+store.Dir(), "another folder is chosen with BUILDX_CONFIG=DIR")
	}
	staging, err := os.MkdirTemp(dir, stagingPat)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	raw, ready := filepath.Join(staging, "raw"), filepath.Join(staging, "ready")
	for _, d := range []string{raw, ready} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	u, err := unpack(readUntilDone(ctx, in), raw, limit)
	if err != nil {
		return nil, err
	}
	found, err := u.records(ctx, limit)
	if err != nil {
		return nil, err
	}
	f := &folder{store: store}
	var all []*Record
	seen := map[string]bool{}
	for _, r := range found {
		if seen[r.Ref] {
			continue
		}
		seen[r.Ref] = true
		if err := u.lay(r, filepath.Join(ready, r.Ref)); err != nil {
			return nil, err
		}
		all = append(all, f.record(r.bundledRecord))
	}
	return all, store.Writing(ctx, func() error {
		for _, r := range all {
			if err := replace(filepath.Join(ready, r.Ref), filepath.Join(dir, r.Ref), filepath.Join(staging, "old-"+r.Ref)); err != nil {
				return err
			}
		}
		return nil
	})
}

// untilDone reads until the context ends, even where what is read from is a pipe or a
// terminal that gives nothing.
type untilDone struct {
	ctx     context.Context //nolint:containedctx // it lives as long as the one call that reads
	from    io.Reader
	piece   []byte // of the reading goroutine while it reads
	left    []byte // read, and not given yet
	err     error  // after left
	answers chan answered
}

// answered is what one read gave.
type answered struct {
	n   int
	err error
}

func readUntilDone(ctx context.Context, from io.Reader) *untilDone {
	return &untilDone{ctx: ctx, from: from, piece: make([]byte, 64<<10), answers: make(chan answered, 1)}
}

// Read implements io.Reader. After the context has ended, nothing more is to be read.
func (u *untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	if len(u.left) == 0 && u.err == nil {
		go func() {
			n, err := u.from.Read(u.piece)
			u.answers <- answered{n, err}
		}()
		select {
		case got := <-u.answers:
			u.left, u.err = u.piece[:got.n], got.err
		case <-u.ctx.Done():
			return 0, context.Cause(u.ctx)
		}
	}
	n := copy(p, u.left)
	u.left = u.left[n:]
	if len(u.left) > 0 {
		return n, nil
	}
	return n, u.err
}

// lay makes the folder of one record. Blobs may be shared by several.
func (u *unpacked) lay(r bundled, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, blobsDir), 0o700); err != nil {
		return err
	}
	if err := putFile(filepath.Join(u.dir, r.config.Encoded()), filepath.Join(dir, recordFile)); err != nil {
		return err
	}
	for _, l := range r.layers {
		to := filepath.Join(dir, blobsDir, l.Digest.Encoded())
		if err := putFile(filepath.Join(u.dir, l.Digest.Encoded()), to); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// putFile puts a file into another folder: as a second name where that can be, and
// else as a copy.
func putFile(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// replace puts a folder in the place of another, which goes to old.
func replace(from, to, old string) error {
	if err := os.Rename(to, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(from, to)
}

// folder is the place of the imported records.
type folder struct{ store *state.Store }

func (f *folder) builder() string         { return Imported }
func (f *folder) node() string            { return importedNode }
func (f *folder) name() string            { return importedNode }
func (f *folder) close()                  {}
func (f *folder) explain(err error) error { return err }

func (f *folder) path(elem ...string) string {
	return filepath.Join(append([]string{f.store.ImportedDir()}, elem...)...)
}

func (f *folder) record(b bundledRecord) *Record {
	return &Record{
		BuildHistoryRecord: b.BuildHistoryRecord, Builder: Imported, Node: importedNode,
		Local: b.LocalState, Group: b.StateGroup, place: f, defaultPlatform: b.DefaultPlatform,
	}
}

func (f *folder) records(_ context.Context, q Query) ([]*Record, error) {
	entries, err := os.ReadDir(f.path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []*Record
	var failed []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || q.ID != "" && e.Name() != q.ID {
			continue
		}
		b, err := readRecord(f.path(e.Name(), recordFile), e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has just been removed
		case err != nil:
			failed = append(failed, hint.Wrap(err, "imported record "+e.Name(), "import it again, or remove it: rm -r "+hint.Quote(f.path(e.Name()))))
		default:
			all = append(all, f.record(b))
		}
	}
	return all, errors.Join(failed...)
}

func readRecord(file, id string) (bundledRecord, error) {
	b := bundledRecord{BuildHistoryRecord: &controlapi.BuildHistoryRecord{}}
	in, err := os.Open(file)
	if err != nil {
		return b, err
	}
	defer in.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(in, maxDocument+1))
	switch {
	case err != nil:
		return b, err
	case len(data) > maxDocument:
		return b, fmt.Errorf("%s has more than %d bytes", file, maxDocument)
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return b, hint.Wrap(err, file)
	}
	if b.BuildHistoryRecord != nil && b.Ref != id {
		return b, fmt.Errorf("%s is of another record: %q", file, b.Ref)
	}
	return b, checkRecord(b)
}

func (f *folder) reading(ctx context.Context, r *Record, read func(context.Context, content.Provider) error) error {
	return read(ctx, files(f.path(r.Ref, blobsDir)))
}

func (f *folder) remove(ctx context.Context, id string) error {
	return f.store.Writing(ctx, func() error {
		old, err := os.MkdirTemp(f.path(), stagingPat)
		if err != nil {
			return err
		}
		err = os.Rename(f.path(id), filepath.Join(old, id))
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrGone
		}
		return errors.Join(err, os.RemoveAll(old))
	})
}

func (f *folder) finalize(context.Context, string) error   { return nil } // it is complete
func (f *folder) platform(context.Context) (string, error) { return "", nil }

// status reads the log that came with the record.
func (f *folder) status(ctx context.Context, r *Record, send func(*client.SolveStatus)) error {
	if r.Logs == nil {
		return nil
	}
	desc, err := descriptor(r.Logs)
	if err != nil {
		return err
	}
	ra, err := files(f.path(r.Ref, blobsDir)).ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close() //nolint:errcheck // only read
	return readStatus(ctx, io.NewSectionReader(ra, 0, ra.Size()), send)
}

// maxStatus bounds one message of a log. Daemons cut what steps print into pieces
// that fit into a message of gRPC.
const maxStatus = 64 << 20

// readStatus reads a log as daemons keep it: messages, each behind its length.
func readStatus(ctx context.Context, in io.Reader, send func(*client.SolveStatus)) error {
	buffered := bufio.NewReader(in)
	var head [4]byte
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := io.ReadFull(buffered, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the log is cut off: %w", err)
		}
		size := binary.LittleEndian.Uint32(head[:])
		if size > maxStatus {
			return fmt.Errorf("the log has a message of %d bytes; at most %d are read", size, maxStatus)
		}
		data, err := io.ReadAll(io.LimitReader(buffered, int64(size))) // grows with what is there
		if err == nil && len(data) < int(size) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("the log is cut off: %w", err)
		}
		var s controlapi.StatusResponse
		if err := s.UnmarshalVT(data); err != nil {
			return fmt.Errorf("the log is damaged: %w", err)
		}
		send(client.NewSolveStatus(&s))
	}
}

// files is a folder of blobs.
type files string

// ReaderAt implements content.Provider.
func (f files) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if err := d.Digest.Validate(); err != nil || d.Digest.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("invalid digest %q", d.Digest)
	}
	file, err := os.Open(filepath.Join(string(f), d.Digest.Encoded()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.Wrap(fmt.Errorf("%w%w", errNotInBundle, hint.Quietly(err)), d.Digest.String())
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &blobFile{file, info.Size()}, nil
}

// errNotInBundle is something that a record speaks of, and that did not come with
// it.
var errNotInBundle = errors.New("it is not in the bundle that the record came in")

// blobFile is a blob that is read.
type blobFile struct {
	*os.File
	size int64
}

// Size implements content.ReaderAt.
func (b *blobFile) Size() int64 { return b.size }
