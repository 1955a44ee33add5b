package cli

import (
	"encoding/json"
	"fmt"

	"github.com/berthbuild/berth/internal/atomicfile"
	"github.com/berthbuild/berth/internal/hint"
)

// resultFiles are --iidfile and --metadata-file. They are opened before the
// build, so that one that cannot be written is refused before any work, and
// get their names only when the build has succeeded.
type resultFiles struct {
	iid, metadata *atomicfile.File
}

func openResultFiles(o buildOptions) (*resultFiles, error) {
	f := &resultFiles{}
	for _, want := range []struct {
		flag, path string
		file       **atomicfile.File
	}{{"--iidfile", o.iidFile, &f.iid}, {"--metadata-file", o.metadataFile, &f.metadata}} {
		if want.path == "" {
			continue
		}
		w, err := atomicfile.Create(want.path, 0o644)
		if err != nil {
			f.abort()
			return nil, hint.Wrap(err, want.flag)
		}
		*want.file = w
	}
	return f, nil
}

// outcome is what the files are about: what a build made, or what a call was
// answered.
type outcome interface {
	ImageID() string
	Metadata() map[string]any
}

func (f *resultFiles) commit(res outcome) error {
	if f.iid != nil {
		if err := finishFile(f.iid, []byte(res.ImageID())); err != nil {
			return hint.Wrap(err, "--iidfile")
		}
	}
	if f.metadata != nil {
		data, err := json.MarshalIndent(res.Metadata(), "", "  ")
		if err == nil {
			err = finishFile(f.metadata, data)
		}
		if err != nil {
			return hint.Wrap(err, "--metadata-file")
		}
	}
	return nil
}

func finishFile(w *atomicfile.File, data []byte) error {
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("writing %s: %w", w.Path(), err)
	}
	return w.Commit()
}

// abort removes what is still staged; after commit it does nothing.
func (f *resultFiles) abort() {
	for _, w := range []*atomicfile.File{f.iid, f.metadata} {
		if w != nil {
			_ = w.Abort() // a hidden temporary file is all that could be left
		}
	}
}
