package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/spf13/cobra"
)

// The modes of files for everybody, and of those with secrets.
const (
	plainFile  fs.FileMode = 0o644
	secretFile fs.FileMode = 0o600
)

// checkFrom refuses flags that say what the file says.
func checkFrom(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return hint.New("--from and an endpoint exclude each other: the file says where the daemons are", "leave one out")
	}
	for _, name := range []string{"append", "leave", "node", "platform", "driver-opt", "buildkitd-flags", "buildkitd-config", "config"} {
		if cmd.Flags().Changed(name) {
			return hint.New(fmt.Sprintf("--from and --%s exclude each other", name), "write it into the file, or leave --from out")
		}
	}
	return nil
}

// runCreateFrom makes the builders of a definition file.
func (a *app) runCreateFrom(ctx context.Context, o createOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	file, dir, err := a.readFrom(o.from)
	if err != nil {
		return err
	}
	if o.Name != "" {
		if len(file.Builders) != 1 {
			return hint.New(fmt.Sprintf("--name names one builder, and the file has %d", len(file.Builders)), "leave --name out")
		}
		if err := rename(&file.Builders[0], o.Name); err != nil {
			return err
		}
	}
	s := a.service()
	names, err := s.Import(ctx, file, builder.ImportOptions{Dir: dir, Use: o.Use})
	if err != nil {
		return err
	}
	for _, name := range names {
		if o.bootstrap {
			b, err := s.Find(ctx, name)
			if err != nil {
				return err
			}
			if _, err := a.bootstrap(ctx, s, b, o.timeout); err != nil {
				return err
			}
		}
		if err := a.printName(name, nil); err != nil {
			return err
		}
	}
	return nil
}

// readFrom reads a definition file, or standard input, and gives what paths in
// it are relative to.
func (a *app) readFrom(from string) (builderfile.File, string, error) {
	if from == "-" {
		data, err := readAllLimited(a.io.In, builderfile.MaxSize, "the builders from standard input")
		if err != nil {
			return builderfile.File{}, "", err
		}
		file, err := builderfile.Parse(data, builderfile.Place{File: "standard input", Dir: a.dir})
		return file, a.dir, err
	}
	path := a.abs(from)
	f, err := os.Open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return builderfile.File{}, "", hint.Wrap(err, "--from "+from)
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, builderfile.MaxSize+1))
	if err != nil {
		return builderfile.File{}, "", hint.Wrap(err, "--from "+from)
	}
	dir := filepath.Dir(path)
	file, err := builderfile.Parse(data, builderfile.Place{File: from, Dir: dir})
	return file, dir, err
}

// rename gives a builder another name, and its nodes those that follow from it.
func rename(b *builderfile.Builder, name string) error {
	if err := builderfile.ValidName(name); err != nil {
		return fmt.Errorf("--name: %w", err)
	}
	for i := range b.Nodes {
		if b.Nodes[i].Name == fmt.Sprintf("%s%d", b.Name, i) {
			b.Nodes[i].Name = fmt.Sprintf("%s%d", name, i)
		}
	}
	b.Name = name
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// splitURL takes the driver options out of the endpoint's URL.
func (o *createOptions) splitURL() error {
	if !strings.Contains(o.Endpoint, "?") {
		return nil
	}
	e, kv, err := endpoint.Locate(o.Endpoint)
	if err != nil {
		return err
	}
	o.Endpoint = e.String()
	for _, k := range slices.Sorted(maps.Keys(kv)) {
		field := strings.ReplaceAll(k+"="+kv[k], `"`, `""`)
		o.DriverOpts = append(o.DriverOpts, `"`+field+`"`)
	}
	return nil
}
