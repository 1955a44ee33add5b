package cli

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/termtext"
)

// envBakeFS turns the guard of this machine's files off, as in buildx.
const envBakeFS = "BUILDX_BAKE_ENTITLEMENTS_FS"

// bakeRights are what --allow grants to a bake: a definition may come from
// somebody else, and must not read or write just anything here.
type bakeRights struct {
	read, write []string // folders and files; "*" is everything
	env         []string // variables that secrets are made of; "*" is every one
	ssh         bool
	daemon      []string // as of build --allow
}

// guardsFS tells whether this machine's files are guarded.
func (a *app) guardsFS() (bool, error) {
	if a.env(envBakeFS) == "" {
		return true, nil
	}
	return a.envBool(envBakeFS)
}

func parseBakeAllow(vals []string) (bakeRights, error) {
	var r bakeRights
	for _, v := range vals {
		key, path, has := strings.Cut(v, "=")
		switch key {
		case "fs", "fs.read", "fs.write":
			if path == "" {
				return r, hint.New(fmt.Sprintf("--allow %s names no path", key), "write --allow "+key+"=PATH, or "+key+"=* for every path")
			}
			if key != "fs.write" {
				r.read = append(r.read, path)
			}
			if key != "fs.read" {
				r.write = append(r.write, path)
			}
		case "env":
			if path == "" {
				return r, hint.New("--allow env names no variable", "write --allow env=NAME, or env=* for every one")
			}
			r.env = append(r.env, path)
		case "ssh":
			if has && path == "" {
				return r, hint.New("--allow ssh= names no id", "write --allow ssh")
			}
			r.ssh = true
		default:
			if _, err := buildflag.ParseAllow([]string{v}); err != nil {
				return r, hint.New(fmt.Sprintf("--allow %s: there is no such right", termtext.Line(v, 80)),
					"the rights are fs=PATH, fs.read=PATH, fs.write=PATH, env=NAME, ssh, network.host, security.insecure, device[=NAME], buildx.local.delete")
			}
			r.daemon = append(r.daemon, v)
		}
	}
	return r, nil
}

// want is one thing that a target asks of this machine.
type want struct {
	allow string // what grants it, as a value of --allow
	what  string // for a sentence
}

// grant refuses what the targets ask for and nobody granted, or asks the person
// at the terminal. Nothing has been opened or contacted by then.
func (a *app) grant(ctx context.Context, plan *bake.Plan, targets []build.Target, sources map[string]buildOptions, from bakeOrigin, rights bakeRights, d *bakeDisplay) error {
	var wants []want
	guardFS, err := a.guardsFS()
	if err != nil {
		return err
	}
	for i, t := range targets {
		if guardFS {
			wants = append(wants, a.pathWants(t.Request, rights, a.trusted(from))...)
		}
		if !a.trusted(from) {
			wants = append(wants, a.envWants(t.Request, sources[t.Name].gitSecrets, rights)...)
			wants = append(wants, a.cacheWants(plan.Targets[i], rights)...)
		}
		wants = append(wants, a.sshWants(t.Request, sources[t.Name].gitSSH, rights, a.trusted(from), guardFS)...)
		for _, e := range plan.Targets[i].Entitlements {
			if !slices.Contains(rights.daemon, e) && !slices.Contains(plan.Targets[i].Set["entitlement"], e) {
				wants = append(wants, want{e, "running build containers with " + e})
			}
		}
	}
	wants = distinct(wants)
	if len(wants) == 0 {
		return nil
	}
	if a.io.InTTY && a.io.ErrTTY {
		d.close()
		yes, err := a.askGrant(ctx, wants)
		if yes || err != nil {
			return err
		}
	}
	hints := []string{"the definition asks for what it was not granted; if you trust it:"}
	var missing []string
	for _, w := range wants {
		hints = append(hints, " - "+w.what)
		missing = append(missing, w.allow)
	}
	return hint.New("additional privileges requested", append(hints, a.grantLine(missing...)...)...)
}

func distinct(list []want) []want {
	var out []want
	for _, w := range list {
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(x, y want) int { return strings.Compare(x.allow, y.allow) })
	return out
}

// askGrant asks; anything but yes is no.
func (a *app) askGrant(ctx context.Context, wants []want) (bool, error) {
	fmt.Fprintln(a.io.Err, "Your build is requesting privileges for following possibly insecure capabilities:")
	for _, w := range wants {
		fmt.Fprintf(a.io.Err, " - %s (--allow %s)\n", termtext.Clean(w.what), termtext.Clean(w.allow))
	}
	fmt.Fprint(a.io.Err, "Do you want to grant requested privileges and continue? [y/N] ")
	in := bufio.NewReader(&ctxReader{ctx: ctx, in: a.io.In})
	line, err := in.ReadString('\n')
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil && line == "" {
		return false, nil
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// pathWants are the paths outside of the working directory that a target reads
// or writes, and was not granted. A definition from elsewhere that is not trusted
// reads nothing in the working directory either: that may be somebody's home.
func (a *app) pathWants(r request.Request, rights bakeRights, trusted bool) []want {
	var wants []want
	readable := rights.read
	if trusted {
		readable = withWorkDir(readable)
	}
	read := func(path string) {
		if path != "" && !a.granted(path, readable) {
			wants = append(wants, want{"fs.read=" + path, "read access to " + path})
		}
	}
	write := func(path string) {
		if path != "" && path != buildflag.Stdout && !a.granted(path, withWorkDir(rights.write)) {
			wants = append(wants, want{"fs.write=" + path, "write access to " + path})
		}
	}
	read(r.Context.Dir)
	for _, path := range dockerfiles(r.Dockerfile) {
		if r.Context.Dir == "" || !a.granted(path, []string{r.Context.Dir}) { // what is in the context is read with it
			read(path)
		}
	}
	for _, c := range r.Contexts {
		if c.Kind == buildflag.ContextFolder || c.Kind == buildflag.ContextLayout {
			read(c.Value)
		}
	}
	for _, s := range r.Secrets {
		if _, set := a.lookupEnv(s.ID); s.File == "" && s.Env == "" && !set {
			s.File = a.abs(s.ID) // what is looked for next
		}
		read(s.File)
	}
	for _, c := range r.CacheFrom {
		read(c.Dir(buildflag.FlagCacheFrom))
	}
	for _, c := range r.CacheTo {
		write(c.Dir(buildflag.FlagCacheTo))
	}
	for _, o := range r.Outputs {
		write(o.Dest)
	}
	return wants
}

// dockerfiles are the files of this machine that a Dockerfile may be read from, and
// the lists of what it ignores: where they are links, what they lead to.
func dockerfiles(d request.Dockerfile) []string {
	if d.Dir == "" || d.Inline != nil {
		return nil
	}
	names := []string{d.Name}
	if d.Name == request.DefaultDockerfile {
		names = append(names, strings.ToLower(d.Name))
	}
	var out []string
	for _, name := range names {
		for i, path := range []string{filepath.Join(d.Dir, name), filepath.Join(d.Dir, name+".dockerignore")} {
			if _, err := os.Lstat(path); err != nil && (i > 0 || name != d.Name) {
				continue
			}
			if led, err := filepath.EvalSymlinks(path); err == nil {
				path = led
			}
			out = append(out, path)
		}
	}
	return out
}

// sshWants are the agent and the keys that a target uses, and was not granted. A
// key is a file like any other, but for the one that berth added itself to fetch
// the definition's repository (own). One from elsewhere that is not trusted needs
// the right to use either, however the guard of files is set.
func (a *app) sshWants(r request.Request, own bool, rights bakeRights, trusted, guardFS bool) []want {
	var wants []want
	readable := rights.read
	if trusted {
		readable = withWorkDir(readable)
	}
	for _, s := range r.SSH {
		isOwn := own && s.ID == "default"
		if (len(s.Paths) == 0 && guardFS || isOwn || !trusted) && !rights.ssh {
			wants = append(wants, want{"ssh", "forwarding your ssh agent or keys"})
		}
		for _, path := range s.Paths {
			if guardFS && !isOwn && !a.granted(path, readable) {
				wants = append(wants, want{"fs.read=" + path, "read access to " + path})
			}
		}
	}
	return wants
}

// envWants are the variables that a target makes secrets of, and was not granted.
// What berth added itself to fetch the definition's repository, the secrets with
// the ids of own, was given for that.
func (a *app) envWants(r request.Request, own []string, rights bakeRights) []want {
	var wants []want
	for _, s := range r.Secrets {
		name := s.Env
		if _, set := a.lookupEnv(s.ID); name == "" && s.File == "" && set {
			name = s.ID
		}
		if name == "" || slices.Contains(own, s.ID) || slices.Contains(rights.env, name) || slices.Contains(rights.env, "*") {
			continue
		}
		wants = append(wants, want{"env=" + name, "the environment variable " + name + " as a secret"})
	}
	return wants
}

// cacheWants are the credentials of the environment that a target's caches would
// get, and were not granted. A cache that the user names with --set may have them.
func (a *app) cacheWants(t bake.Target, rights bakeRights) []want {
	var wants []want
	for key, list := range map[string][]eval.Cache{"cache-from": t.CacheFrom, "cache-to": t.CacheTo} {
		for _, c := range list {
			if setCache(t.Set[key], c) {
				continue
			}
			env, file := a.cacheCredentials("--"+key, written(c.Type, c.Attrs))
			if env != "" && !slices.Contains(rights.env, env) && !slices.Contains(rights.env, "*") {
				wants = append(wants, want{"env=" + env, "the environment variable " + env + " for a cache"})
			}
			if file != "" && !a.granted(file, rights.read) {
				wants = append(wants, want{"fs.read=" + file, "the credentials in " + file + " for a cache"})
			}
		}
	}
	return wants
}

// setCache tells whether one of --set's values is this cache.
func setCache(values []string, c eval.Cache) bool {
	for _, v := range values {
		list, err := eval.ParseCache(v)
		same := func(s eval.Cache) bool { return s.Type == c.Type && maps.Equal(s.Attrs, c.Attrs) }
		if err == nil && slices.ContainsFunc(list, same) {
			return true
		}
	}
	return false
}

// cacheCredentials is where the credentials come from that a foreign cache would
// get: a variable or a file, and neither where it gets none.
func (a *app) cacheCredentials(flag, value string) (env, file string) {
	parsed, err := buildflag.ParseCaches(flag, []string{value}) // as it was parsed for the request
	if err != nil || len(parsed) != 1 {
		return "", ""
	}
	switch attrs := parsed[0].Attrs; parsed[0].Type {
	case buildflag.CacheGHA:
		filled := map[string]string{}
		maps.Copy(filled, attrs)
		if a.fillGHA(filled, true); filled["token"] != attrs["token"] {
			return envGHAToken, ""
		}
	case buildflag.CacheS3:
		_, ownID := attrs["access_key_id"]
		_, ownSecret := attrs["secret_access_key"]
		keys, err := a.awsKeys()
		if err == nil && keys.id != "" && keys.secret != "" && (!ownID || !ownSecret) {
			return a.awsSource()
		}
	}
	return "", ""
}

// mayRead refuses a file that a Compose file of this machine refers to, where it
// lies outside of the working directory and was not granted.
func (a *app) mayRead(name string, rights bakeRights) error {
	path := a.abs(name)
	if guardFS, err := a.guardsFS(); err != nil || !guardFS || a.granted(path, withWorkDir(rights.read)) {
		return err
	}
	what := path
	rel, err := filepath.Rel(a.abs("."), path)
	if led := realPath(path); err == nil && filepath.IsLocal(rel) && led != string(filepath.Separator) {
		what, path = path+" leads to "+led+", which", led
	}
	return hint.New(what+" lies outside of the working directory", append([]string{"if you trust the definition:"}, a.grantLine("fs.read="+path)...)...)
}

func withWorkDir(list []string) []string { return append([]string{"."}, list...) }

// granted tells whether a path lies in what was granted, wherever symbolic links
// lead.
func (a *app) granted(path string, list []string) bool {
	if slices.Contains(list, "*") {
		return true
	}
	led := realPath(path)
	for _, root := range list {
		to := realPath(a.abs(root))
		if to == string(filepath.Separator) && a.abs(root) != to {
			continue // a link that leads nowhere is no grant of everything
		}
		rel, err := filepath.Rel(to, led)
		if err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}
