package cli

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client/llb"
)

// What a definition from a repository that is not public is fetched with, as in
// buildx.
const (
	envBakeGitToken  = "BUILDX_BAKE_GIT_AUTH_TOKEN"
	envBakeGitHeader = "BUILDX_BAKE_GIT_AUTH_HEADER"
	envBakeGitSSH    = "BUILDX_BAKE_GIT_SSH"
)

// envBakeRemoteFS gives a definition from elsewhere the rights of a local one.
const envBakeRemoteFS = "BAKE_ALLOW_REMOTE_FS_ACCESS"

// bakeOrigin is where a definition comes from; the zero value is this machine.
type bakeOrigin struct {
	url     string
	archive bool // url is one, and else a Git repository
	single  bool // url is the definition alone: paths in it are of this machine
}

// elsewhere tells whether the definition is somebody else's, for what it may do.
func (b bakeOrigin) elsewhere() bool { return b.url != "" }

// placed tells whether the paths in the definition are of where it comes from.
func (b bakeOrigin) placed() bool { return b.url != "" && !b.single }

// within is bake.Selection's: a folder of a repository has a URL, one of an
// archive has not.
func (b bakeOrigin) within() func(string) (string, error) {
	switch {
	case !b.placed():
		return nil
	case b.archive:
		return func(p string) (string, error) {
			if p == "." || p == "/" {
				return b.url, nil
			}
			return p, nil
		}
	}
	return func(p string) (string, error) { return buildflag.GitInside(b.url, p) }
}

// locate is a context of a target that is a path there: its URL, and in an
// archive the folder. What says itself where it is stays what it is.
func (b bakeOrigin) locate(context string) (url, sub string, err error) {
	if !b.placed() || strings.HasPrefix(context, cwdScheme) || strings.HasPrefix(context, "docker-image:") || isElsewhere(context) {
		return context, "", nil
	}
	if b.archive {
		return b.url, strings.TrimPrefix(path.Join("/", context), "/"), nil
	}
	url, err = buildflag.GitInside(b.url, context)
	return url, "", err
}

// takeURLs takes the URLs off the arguments: the definition's, and that of the
// command's context.
func (o *bakeOptions) takeURLs() (definition, command string) {
	isURL := func() bool {
		if len(o.names) == 0 {
			return false
		}
		kind, err := buildflag.RemoteContext(o.names[0])
		return err != nil || kind != buildflag.ContextFolder
	}
	if !isURL() {
		return "", ""
	}
	definition, o.names = o.names[0], o.names[1:]
	if isURL() {
		command, o.names = o.names[0], o.names[1:]
	}
	return definition, command
}

// fetchBake has the builder's daemon fetch the definition.
func (a *app) fetchBake(ctx context.Context, url string, names []string, o bakeOptions, d *bakeDisplay) (bakeOrigin, []eval.File, error) {
	from := bakeOrigin{url: url}
	if _, err := buildflag.RemoteContext(url); err != nil {
		return from, nil, err
	}
	source := build.Source{URL: url, Names: names, Defaults: defaultBakeFiles(), MaxFile: maxDefinition}
	var err error
	if source.SSH, err = a.bakeGitSSH(url); err != nil {
		return from, nil, err
	}
	if kind, _ := buildflag.RemoteContext(url); kind == buildflag.ContextGit {
		source.Secrets = a.bakeGitSecrets()
	}
	s := a.service()
	b, err := s.Find(ctx, a.builderName(nil))
	if err != nil {
		return from, nil, err
	}
	if err := d.open(b); err != nil {
		return from, nil, err
	}
	opts, err := a.solveOptions(ctx, s, b, request.Request{}, buildOptions{timeout: o.timeout, contextSync: o.contextSync, affinity: o.affinity}, d.printer)
	var got *build.Fetched
	if err == nil {
		got, err = build.Fetch(ctx, b, source, opts)
	}
	if err != nil {
		if d.close(); ctx.Err() == nil {
			a.printFailedSteps(d.printer)
		}
		return from, nil, err
	}
	from.archive, from.single = got.Archive, got.Single
	var files []eval.File
	for _, f := range got.Files {
		files = append(files, eval.File{Name: f.Name, Data: f.Data})
	}
	return from, files, nil
}

// bakeGitSecrets are what the daemon may ask for when it fetches a definition's
// repository over HTTP.
func (a *app) bakeGitSecrets() []buildflag.Secret {
	var out []buildflag.Secret
	for _, s := range []buildflag.Secret{{ID: llb.GitAuthTokenKey, Env: envBakeGitToken}, {ID: llb.GitAuthHeaderKey, Env: envBakeGitHeader}} {
		if a.env(s.Env) != "" {
			out = append(out, s)
		}
	}
	return out
}

// bakeGitSSH is the agent, or the keys, that a repository is fetched with over
// ssh.
func (a *app) bakeGitSSH(url string) ([]buildflag.SSH, error) {
	if !buildflag.GitOverSSH(url) {
		return nil, nil
	}
	ssh := buildflag.SSH{ID: "default"}
	if list := a.env(envBakeGitSSH); list != "" {
		for p := range strings.SplitSeq(list, ",") {
			ssh.Paths = append(ssh.Paths, a.abs(p))
		}
		return []buildflag.SSH{ssh}, nil
	}
	if a.env("SSH_AUTH_SOCK") == "" {
		return nil, hint.New(fmt.Sprintf("definition %s: the daemon fetches it over ssh with your agent, and none is running (SSH_AUTH_SOCK is not set)", buildflag.RedactURL(url)),
			"start one: eval $(ssh-agent) && ssh-add", "or name a key: "+envBakeGitSSH+"=FILE")
	}
	return []buildflag.SSH{ssh}, nil
}

// remoteOptions has a target's flags name what is there, where the definition
// comes from. The build's daemon fetches it with what the definition was fetched
// with; an agent is a right of its own (grant).
func (a *app) remoteOptions(t bake.Target, from bakeOrigin, out *buildOptions) error {
	if !from.placed() {
		return nil
	}
	main := value(t.Context, ".")
	if strings.HasPrefix(main, cwdScheme) && t.DockerfileInline == nil && !strings.HasPrefix(value(t.Dockerfile, ""), cwdScheme) {
		return hint.New(fmt.Sprintf("reading a dockerfile for a remote build invocation is currently not supported: the context is %s", main),
			"write it into the definition: dockerfile-inline", "or name one of this machine: dockerfile = \"cwd://Dockerfile\"")
	}
	url, _, err := from.locate(main)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(main, cwdScheme) {
		out.context = url
	}
	out.file = ""
	if t.DockerfileInline == nil {
		file := value(t.Dockerfile, "")
		if local, ok := strings.CutPrefix(file, cwdScheme); ok {
			file = a.abs(local)
		}
		out.file = file
	}
	repository := out.context
	out.contexts = nil
	for name, v := range t.Contexts {
		if _, linked := t.Links[name]; linked {
			continue
		}
		url, _, err := from.locate(v)
		if err != nil {
			return err
		}
		out.contexts = append(out.contexts, name+"="+strings.TrimPrefix(url, cwdScheme))
		if sameRepository(url, from.url) {
			repository = url
		}
	}
	slices.Sort(out.contexts)
	return a.remoteCredentials(from, repository, out)
}

// remoteCredentials are for fetching the definition's repository again.
func (a *app) remoteCredentials(from bakeOrigin, repository string, out *buildOptions) error {
	if from.archive || !sameRepository(repository, from.url) {
		return nil
	}
	for _, s := range a.bakeGitSecrets() {
		has := func(flag string) bool { return strings.Contains(","+flag+",", ",id="+s.ID+",") }
		if !slices.ContainsFunc(out.secrets, has) {
			out.secrets = append(out.secrets, written("", nil, "id", s.ID, "env", s.Env))
			out.gitSecrets = append(out.gitSecrets, s.ID)
		}
	}
	isDefault := func(flag string) bool { return flag == "default" || strings.HasPrefix(flag, "default=") }
	if keys := a.env(envBakeGitSSH); keys != "" && buildflag.GitOverSSH(from.url) && !slices.ContainsFunc(out.ssh, isDefault) {
		out.ssh, out.gitSSH = append(out.ssh, "default="+keys), true
	}
	return nil
}

// sameRepository tells whether two URLs are of one repository.
func sameRepository(x, y string) bool {
	a, errA := buildflag.ParseGit(x)
	b, errB := buildflag.ParseGit(y)
	return errA == nil && errB == nil && a != nil && b != nil && a.Remote == b.Remote
}

// remoteFolders sets the folders in an archive, which no flag can say.
func remoteFolders(t bake.Target, from bakeOrigin, r *request.Request) error {
	if !from.placed() || !from.archive {
		return nil
	}
	if main := value(t.Context, "."); main != from.url {
		_, sub, err := from.locate(main)
		if err != nil {
			return err
		}
		r.Context.Sub = sub
	}
	for i, c := range r.Contexts {
		if c.Kind == buildflag.ContextHTTP && c.Value == from.url && t.Contexts[c.Name] != from.url {
			_, sub, err := from.locate(t.Contexts[c.Name])
			if err != nil {
				return err
			}
			r.Contexts[i].Sub = valueOr(sub, ".") // a frontend unpacks no named context by itself
		}
	}
	return nil
}

// trusted tells whether a definition from elsewhere has been given the rights of
// one of this machine.
func (a *app) trusted(from bakeOrigin) bool {
	if !from.elsewhere() {
		return true
	}
	yes, err := strconv.ParseBool(a.env(envBakeRemoteFS))
	return err == nil && yes
}
