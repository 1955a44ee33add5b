package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
)

// maxDockerfile bounds a Dockerfile from standard input. BuildKit itself takes
// no more than a gRPC message of 16 MiB.
const maxDockerfile = 16 << 20

// newRequest turns the flags into a request, and refuses what cannot be meant.
// Nothing is contacted, and nothing but standard input is read.
func (a *app) newRequest(o buildOptions) (request.Request, error) {
	if o.timeout < 0 {
		return request.Request{}, hint.New(fmt.Sprintf("--timeout %s is negative", o.timeout), "give a time such as 20s")
	}
	r := request.Request{Target: o.target, NoCache: o.noCache, Pull: o.pull}
	steps := []func(*request.Request, buildOptions) error{
		a.setLists, a.setOutputs, a.setContext, a.setDockerfile, a.setAttestations,
	}
	for _, step := range steps {
		if err := step(&r, o); err != nil {
			return request.Request{}, err
		}
	}
	return r, r.Validate()
}

// setLists reads the flags that have a grammar of their own.
func (a *app) setLists(r *request.Request, o buildOptions) (err error) {
	if r.Tags, err = buildflag.ParseTags(o.tags); err != nil {
		return err
	}
	if r.Platforms, err = buildflag.ParsePlatforms(o.platforms); err != nil {
		return err
	}
	if r.Secrets, err = buildflag.ParseSecrets(o.secrets); err != nil {
		return err
	}
	for i, s := range r.Secrets {
		if s.File != "" {
			r.Secrets[i].File = a.abs(s.File)
		}
	}
	if r.SSH, err = buildflag.ParseSSH(o.ssh); err != nil {
		return err
	}
	for _, s := range r.SSH {
		for i, p := range s.Paths {
			s.Paths[i] = a.abs(p)
		}
	}
	if r.Labels, err = buildflag.ParseKVs("--label", o.labels); err != nil {
		return err
	}
	args, err := buildflag.ParseKVs("--build-arg", o.buildArgs)
	if err != nil {
		return err
	}
	r.BuildArgs = a.resolveArgs(args)
	return nil
}

// resolveArgs takes the value of a bare name from the environment, and drops
// the argument where it has none, as docker does. SOURCE_DATE_EPOCH is passed
// on by itself, for reproducible builds.
func (a *app) resolveArgs(args []buildflag.KV) []buildflag.KV {
	var all []buildflag.KV
	epoch := false
	for _, kv := range args {
		if !kv.HasValue {
			if kv.Value, kv.HasValue = a.lookupEnv(kv.Key); !kv.HasValue {
				continue
			}
		}
		epoch = epoch || kv.Key == "SOURCE_DATE_EPOCH"
		all = append(all, kv)
	}
	if v := a.env("SOURCE_DATE_EPOCH"); v != "" && !epoch {
		all = append(all, buildflag.KV{Key: "SOURCE_DATE_EPOCH", Value: v, HasValue: true})
	}
	return all
}

// setOutputs reads --output and its two shorthands.
func (a *app) setOutputs(r *request.Request, o buildOptions) error {
	outs, err := buildflag.ParseOutputs(o.outputs)
	if err != nil {
		return err
	}
	if o.push {
		outs = withPush(outs)
	}
	if o.load && !slices.ContainsFunc(outs, isLoad) {
		outs = append(outs, buildflag.Output{Type: buildflag.OutputDocker, Attrs: map[string]string{}})
	}
	for i, out := range outs {
		toStdout := out.Dest == buildflag.Stdout || out.Dest == "" && (out.Type == buildflag.OutputTar || out.Type == buildflag.OutputOCI)
		if toStdout && a.io.OutTTY {
			return hint.New(fmt.Sprintf("dest file is required for %s exporter. refusing to write to console", out.Type),
				fmt.Sprintf("name a file: --output type=%s,dest=FILE", out.Type), "or redirect standard output")
		}
		if out.Dest != "" && out.Dest != buildflag.Stdout {
			outs[i].Dest = a.abs(out.Dest)
		}
	}
	r.Outputs = outs
	return nil
}

// isLoad says that an output goes into a Docker engine.
func isLoad(out buildflag.Output) bool { return out.Type == buildflag.OutputDocker && out.Dest == "" }

// withPush makes an image output push, or adds one that does.
func withPush(outs []buildflag.Output) []buildflag.Output {
	found := false
	for i, out := range outs {
		switch out.Type {
		case buildflag.OutputImage:
			outs[i].Attrs["push"], found = "true", true
		case buildflag.OutputRegistry:
			found = true
		}
	}
	if !found {
		outs = append(outs, buildflag.Output{Type: buildflag.OutputRegistry, Attrs: map[string]string{}})
	}
	return outs
}

// withDefaultLoad adds the output that the builder's owner asked for, when the
// user named none.
func (a *app) withDefaultLoad(r request.Request, b *builder.Builder) request.Request {
	if len(r.Outputs) > 0 || len(b.Nodes) == 0 {
		return r
	}
	if b.Driver == builder.DriverDocker { // its engine keeps the image, as docker build does
		return r.WithOutputs([]buildflag.Output{{Type: buildflag.OutputImage, Attrs: map[string]string{}}})
	}
	for _, n := range b.Nodes {
		if on, _ := strconv.ParseBool(n.DriverOpts["default-load"]); !on {
			return r
		}
	}
	return r.WithOutputs([]buildflag.Output{{Type: buildflag.OutputDocker, Attrs: map[string]string{}}})
}

// setContext tells a folder from a URL.
func (a *app) setContext(r *request.Request, o buildOptions) error {
	if o.context == "-" {
		return hint.New("a context from standard input is not supported by this version of berth",
			"unpack it and build the folder", "or give the Dockerfile alone: berth build -f - FOLDER")
	}
	dir := a.abs(o.context)
	if _, err := os.Stat(dir); err != nil && isURL(o.context) {
		r.Context.URL = o.context
		return nil
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved // one folder, one name, whichever way it was reached
	}
	r.Context.Dir = dir
	return nil
}

// isURL says that a context is fetched by the daemon.
func isURL(s string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// setDockerfile finds the Dockerfile: standard input, a file anywhere, or the
// default one.
func (a *app) setDockerfile(r *request.Request, o buildOptions) error {
	switch {
	case o.file == "-":
		data, err := readAllLimited(a.io.In, maxDockerfile, "the Dockerfile from standard input")
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return hint.New("the Dockerfile from standard input is empty", "berth build -f - . < Dockerfile")
		}
		r.Dockerfile = request.Dockerfile{Name: request.DefaultDockerfile, Inline: data}
	case r.Context.URL != "":
		r.Dockerfile.Name = o.file // inside what the daemon fetches
		if o.file == "" {
			r.Dockerfile.Name = request.DefaultDockerfile
		}
	case o.file == "":
		r.Dockerfile = request.Dockerfile{Dir: r.Context.Dir, Name: request.DefaultDockerfile}
	default:
		path := a.abs(o.file)
		r.Dockerfile = request.Dockerfile{Dir: filepath.Dir(path), Name: filepath.Base(path)}
	}
	return nil
}

// setAttestations turns off what is attested by default where the environment
// says so.
func (a *app) setAttestations(r *request.Request, _ buildOptions) error {
	v := a.env("BUILDX_NO_DEFAULT_ATTESTATIONS")
	if v == "" {
		return nil
	}
	off, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Errorf("BUILDX_NO_DEFAULT_ATTESTATIONS=%q is neither true nor false", v)
	}
	if off {
		r.Provenance = request.ProvenanceOff
	}
	return nil
}

func (a *app) abs(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(a.dir, path)
}

// localPath and dockerfilePath are what history shows of a build's sources.
func localPath(r request.Request) string {
	if r.Context.URL != "" {
		return r.Context.URL
	}
	return r.Context.Dir
}

func dockerfilePath(r request.Request) string {
	switch {
	case r.Dockerfile.Inline != nil:
		return "-"
	case r.Dockerfile.Dir == "" || r.Dockerfile.Dir == r.Context.Dir && r.Dockerfile.Name == request.DefaultDockerfile:
		return ""
	}
	return filepath.Join(r.Dockerfile.Dir, r.Dockerfile.Name)
}
