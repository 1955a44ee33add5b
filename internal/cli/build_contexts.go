package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
)

// envGitAsInput asks for the source of a Git URL with a query to be made here.
const envGitAsInput = "BUILDX_SEND_GIT_QUERY_AS_INPUT"

// setContext finds out what the main context is: standard input, a folder, or
// something that the daemon fetches.
func (a *app) setContext(r *request.Request, o buildOptions) (err error) {
	if v := a.env(envGitAsInput); v != "" {
		if r.GitAsInput, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("%s=%q is neither true nor false", envGitAsInput, v)
		}
	}
	if o.context == "-" {
		return a.setStdinContext(r, o)
	}
	kind, value, err := a.locate(o.context)
	switch {
	case err != nil:
		return hint.Wrap(err, "build context "+buildflag.RedactURL(o.context))
	case kind == buildflag.ContextFolder:
		r.Context.Dir = value
		if _, err := os.Stat(value); errors.Is(err, os.ErrNotExist) {
			return hint.New(fmt.Sprintf("unable to prepare context: path %q not found", buildflag.RedactURL(o.context)), contextShape)
		}
		return nil
	}
	r.Context.URL = value
	return a.grantAgent(r, kind, value)
}

const contextShape = "a context is a folder, a Git or HTTP URL, or - for standard input"

// locate tells a folder from a URL. A folder that is there wins: the short
// github.com/… could be either.
func (a *app) locate(s string) (buildflag.ContextKind, string, error) {
	dir := a.abs(s)
	kind, err := buildflag.RemoteContext(s)
	if kind != buildflag.ContextFolder {
		if _, statErr := os.Stat(dir); statErr != nil {
			return kind, s, err
		}
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved // one folder, one name, whichever way it was reached
	}
	return buildflag.ContextFolder, dir, nil
}

// grantAgent lets a build use the user's ssh agent when the daemon fetches a
// context over ssh, as buildx does; --ssh default=… says what is used instead.
func (a *app) grantAgent(r *request.Request, kind buildflag.ContextKind, url string) error {
	if kind != buildflag.ContextGit || !buildflag.GitOverSSH(url) ||
		slices.ContainsFunc(r.SSH, func(s buildflag.SSH) bool { return s.ID == "default" }) {
		return nil
	}
	if a.env("SSH_AUTH_SOCK") == "" {
		return hint.New(fmt.Sprintf("build context %s: the daemon fetches it over ssh with your agent, and none is running (SSH_AUTH_SOCK is not set)", buildflag.RedactURL(url)),
			"start one: eval $(ssh-agent) && ssh-add", "or give a key: --ssh default=FILE")
	}
	r.SSH = append(r.SSH, buildflag.SSH{ID: "default"})
	return nil
}

// setDockerfile finds the Dockerfile: standard input, a file anywhere, inside
// of what the daemon fetches, or the default one.
func (a *app) setDockerfile(r *request.Request, o buildOptions) error {
	remote := r.Context.URL != "" || r.Context.Upload != ""
	switch {
	case o.file == "-" || r.Context.Empty:
		data, err := readAllLimited(a.io.In, maxDockerfile, "the Dockerfile from standard input")
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return hint.New("the Dockerfile from standard input is empty", "berth build -f - . < Dockerfile")
		}
		r.Dockerfile = request.Dockerfile{Name: request.DefaultDockerfile, Inline: data}
	case strings.HasPrefix(o.file, "http://"), strings.HasPrefix(o.file, "https://"):
		if kind, err := buildflag.RemoteContext(o.file); err != nil || kind != buildflag.ContextHTTP {
			return hint.Wrap(cmp.Or(err, errors.New("that is a repository, not a file")), "--file "+buildflag.RedactURL(o.file))
		}
		r.Dockerfile = request.Dockerfile{Name: request.DefaultDockerfile, URL: o.file}
	case remote && o.file == "":
		r.Dockerfile.Name = request.DefaultDockerfile
	case remote && !filepath.IsAbs(o.file):
		r.Dockerfile.Name = filepath.ToSlash(o.file) // inside of what the daemon fetches
	case o.file == "":
		r.Dockerfile = request.Dockerfile{Dir: r.Context.Dir, Name: request.DefaultDockerfile}
	default:
		path := a.abs(o.file)
		r.Dockerfile = request.Dockerfile{Dir: filepath.Dir(path), Name: filepath.Base(path)}
	}
	return nil
}

// setNamedContexts reads --build-context.
func (a *app) setNamedContexts(r *request.Request, o buildOptions) error {
	all, err := buildflag.ParseContexts(o.contexts)
	if err != nil {
		return err
	}
	for i, c := range all {
		switch c.Kind {
		case buildflag.ContextFolder, buildflag.ContextGit, buildflag.ContextHTTP:
			if all[i].Kind, all[i].Value, err = a.locate(c.Value); err != nil {
				return hint.Wrap(err, fmt.Sprintf("--build-context %s", c.Name))
			}
			if err := a.grantAgent(r, all[i].Kind, all[i].Value); err != nil {
				return err
			}
		case buildflag.ContextLayout:
			all[i].Value = a.abs(c.Value)
		}
	}
	r.Contexts = all
	return nil
}
