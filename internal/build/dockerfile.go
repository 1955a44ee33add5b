package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/util/staticfs"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// maxDockerfile bounds a Dockerfile that is sent by itself. BuildKit takes no
// more than a gRPC message of 16 MiB.
const maxDockerfile = 16 << 20

// openDockerfile offers the daemon the Dockerfile and its .dockerignore, by
// themselves: what else is in its folder was never meant to be read. They are
// sent anew by every build. The daemon compares a file with its copy by size and
// time only, and a copy may be from another folder (-f a/Dockerfile, then
// -f b/Dockerfile of the same length, both from one checkout).
func (in *inputs) openDockerfile(req request.Request) error {
	d := req.Dockerfile
	switch {
	case d.Inline != nil:
		in.offerDockerfile(map[string][]byte{req.DockerfileName(): d.Inline})
		return nil
	case d.Dir == "":
		return nil // inside a remote context, or downloaded
	}
	name, err := findDockerfile(req)
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	for _, n := range []string{name, name + ".dockerignore"} {
		data, err := readDockerfile(filepath.Join(d.Dir, n)) // may be a pipe, which can be read once
		if errors.Is(err, fs.ErrNotExist) && n != name {
			continue
		}
		if err != nil {
			return hint.Wrap(err, "failed to read dockerfile")
		}
		files[n] = data
		if n != name {
			in.ignoreFile = data
		}
	}
	in.offerDockerfile(files)
	return nil
}

// offerDockerfile makes the folder that the frontend reads.
func (in *inputs) offerDockerfile(files map[string][]byte) {
	folder := staticfs.NewFS()
	content := []string{"dockerfile"}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content = append(content, name, string(files[name]))
	}
	in.dockerfile = folderKey("", content...)
	for name, data := range files {
		folder.Add(name, &fstypes.Stat{Mode: 0o600, ModTime: time.Now().UnixNano()}, data)
	}
	in.mounts[request.LocalDockerfile] = folder
}

// findDockerfile gives the name under which the file really is.
func findDockerfile(req request.Request) (string, error) {
	d, name := req.Dockerfile, req.DockerfileName()
	path := filepath.Join(d.Dir, name)
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && d.Name == request.DefaultDockerfile {
		lower := strings.ToLower(d.Name) // the frontend takes this spelling too
		if other, lerr := os.Stat(filepath.Join(d.Dir, lower)); lerr == nil {
			name, fi, err = lower, other, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", hint.Wrap(fmt.Errorf("no such file: %s%w", path, hint.Quietly(err)), "failed to read dockerfile",
			"name another Dockerfile: berth build -f FILE …")
	case err != nil:
		return "", hint.Wrap(err, "failed to read dockerfile")
	case fi.IsDir():
		path = filepath.Join(d.Dir, name)
		return "", hint.New(fmt.Sprintf("failed to read dockerfile: %s is a directory", path), "name the file in it: -f "+filepath.Join(path, "Dockerfile"))
	}
	return name, nil
}

func readDockerfile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxDockerfile+1))
	if err == nil && len(data) > maxDockerfile {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxDockerfile>>20)
	}
	return data, err
}
