package build

import (
	"errors"
	"io"

	"github.com/tonistiigi/fsutil"
)

// strictFS is a folder whose files are sent as they are, or not at all. The
// library that sends them takes a file that it cannot open for an empty one,
// without a word, and waits for ever after one that it cannot read to its end.
type strictFS struct {
	fsutil.FS
	failed func(error) // ends the build
}

// Open implements fsutil.FS.
func (f strictFS) Open(path string) (io.ReadCloser, error) {
	r, err := f.FS.Open(path)
	if err != nil {
		f.failed(err)
		return nil, err
	}
	return strictFile{r, f.failed}, nil
}

type strictFile struct {
	io.ReadCloser
	failed func(error)
}

// Read implements io.Reader.
func (f strictFile) Read(b []byte) (int, error) {
	n, err := f.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		f.failed(err)
	}
	return n, err
}
