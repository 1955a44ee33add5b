package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake/compose"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/platforms"
)

// maxDefinition bounds one file of a definition.
const maxDefinition = 16 << 20

// defaultBakeFiles are read where no file is named: all that exist, in this
// order, in which the later ones override the earlier ones.
func defaultBakeFiles() []string {
	return []string{
		"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
		"docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl",
	}
}

// cwdScheme marks a path as one of this machine, in a definition from elsewhere.
const cwdScheme = "cwd://"

// bakeFiles reads the definition's files. With a URL, what is named is read there,
// but for standard input and cwd://.
func (a *app) bakeFiles(ctx context.Context, url string, o bakeOptions, d *bakeDisplay) (bakeOrigin, []eval.File, error) {
	named := o.files
	if len(named) == 0 {
		named = a.bakeFilesFromEnv()
	}
	var from bakeOrigin
	var files []eval.File
	if url != "" {
		here := func(name string) bool { return name == "-" || strings.HasPrefix(name, cwdScheme) }
		var err error
		if from, files, err = a.fetchBake(ctx, url, slices.DeleteFunc(slices.Clone(named), here), o, d); err != nil {
			return from, nil, err
		}
		named = slices.DeleteFunc(slices.Clone(named), func(name string) bool { return !here(name) })
	} else if len(named) == 0 {
		files, err := a.defaultBakeFiles()
		return from, files, err
	}
	local, err := a.localBakeFiles(ctx, named)
	if err != nil {
		return from, nil, err
	}
	files, err = definitionFiles(url, files, local)
	return from, files, err
}

// definitionFiles are those of a repository or an archive, and those of this
// machine, which override them, or do without.
func definitionFiles(url string, there, here []eval.File) ([]eval.File, error) {
	files := slices.Concat(there, here)
	if len(files) == 0 {
		return nil, hint.New(fmt.Sprintf("couldn't find a bake definition in %s", buildflag.RedactURL(url)),
			"name one with --file, by its path there", "the files that are looked for: "+strings.Join(defaultBakeFiles(), ", "))
	}
	return files, nil
}

func (a *app) localBakeFiles(ctx context.Context, named []string) ([]eval.File, error) {
	var files []eval.File
	stdin := false
	for _, name := range named {
		if name == "-" {
			if stdin {
				return nil, hint.New("--file - is given twice, and there is one standard input", "leave one out")
			}
			stdin = true
			a.interruptible(ctx, buildOptions{file: "-"})
			data, err := readAllLimited(a.io.In, maxDefinition, "the definition from standard input")
			if err != nil {
				return nil, err
			}
			files = append(files, eval.File{Name: "-", Data: data})
			continue
		}
		file, err := a.bakeFile(strings.TrimPrefix(name, cwdScheme))
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// bakeFilesFromEnv is what BUILDX_BAKE_FILE names, with the system's separator
// of paths between them, or that of BUILDX_BAKE_PATH_SEPARATOR.
func (a *app) bakeFilesFromEnv() []string {
	list := a.env("BUILDX_BAKE_FILE")
	if list == "" {
		return nil
	}
	separator := string(os.PathListSeparator)
	if s := a.env("BUILDX_BAKE_PATH_SEPARATOR"); s != "" {
		separator = s
	}
	var names []string
	for name := range strings.SplitSeq(list, separator) {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (a *app) defaultBakeFiles() ([]eval.File, error) {
	var files []eval.File
	for _, name := range defaultBakeFiles() {
		file, err := a.bakeFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	if len(files) > 0 {
		return files, nil
	}
	return nil, hint.New("couldn't find a bake definition", "name one with --file", "the files that are looked for: "+strings.Join(defaultBakeFiles(), ", "))
}

func (a *app) bakeFile(name string) (eval.File, error) {
	f, err := os.Open(a.abs(name))
	if err != nil {
		return eval.File{}, hint.Wrap(err, "--file "+name)
	}
	defer f.Close() //nolint:errcheck // it was only read
	if fi, err := f.Stat(); err == nil && fi.IsDir() {
		return eval.File{}, hint.New(fmt.Sprintf("--file %s: is a directory", name))
	}
	data, err := readAllLimited(f, maxDefinition, name)
	return eval.File{Name: name, Data: data}, err
}

// localPlatform is what images for this machine are built for.
func localPlatform() string {
	p := platforms.DefaultSpec()
	if runtime.GOOS == "darwin" {
		p.OS = "linux"
	}
	return platforms.Format(platforms.Normalize(p))
}

// bakeEnviron is what Compose files may know of the environment: all of it, and
// for a definition of this machine what .env in the working directory has besides.
// Where that is a link, what it leads to is asked for as any other file.
func (a *app) bakeEnviron(from bakeOrigin, lookup bool, rights bakeRights) (map[string]string, error) {
	env := map[string]string{}
	if lookup && a.environ != nil {
		for _, kv := range a.environ() {
			if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
				env[name] = value
			}
		}
	}
	if from.elsewhere() {
		return env, nil
	}
	const name = ".env"
	if fi, err := os.Stat(a.abs(name)); err != nil || fi.IsDir() {
		return env, nil //nolint:nilerr // there is none
	}
	if err := a.mayRead(name, rights); err != nil {
		return nil, hint.Wrap(err, name)
	}
	data, err := a.bakeRead(name)
	if err != nil {
		return nil, hint.Wrap(err, name)
	}
	more, err := compose.DotEnv(data, env)
	if err != nil {
		return nil, hint.Wrap(err, name)
	}
	for k, v := range more {
		if _, set := env[k]; !set {
			env[k] = v
		}
	}
	return env, nil
}

// bakeRead reads a file that a Compose file refers to.
func (a *app) bakeRead(name string) ([]byte, error) {
	file, err := a.bakeFile(name)
	return file.Data, err
}
