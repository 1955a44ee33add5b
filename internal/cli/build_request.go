package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

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
		a.setLists, a.setOutputs, a.setContext, a.setDockerfile, a.setNamedContexts, a.setAttestations,
		a.setCaches, a.setContainers, a.setAnnotations, a.setEntitlements, a.setCall,
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
	if r.Labels, err = buildflag.ParseKVs("label", o.labels); err != nil {
		return err
	}
	args, err := buildflag.ParseKVs("build-arg", o.buildArgs)
	if err != nil {
		return err
	}
	r.BuildArgs, err = a.resolveArgs(args)
	return err
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
	if o.load && !slices.ContainsFunc(outs, buildflag.Output.Loads) {
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
	// BuildKit tells one digest of all that it exports, that of the last one. What
	// scripts take out of the metadata is what they pushed.
	slices.SortStableFunc(outs, func(a, b buildflag.Output) int { return isPush(a) - isPush(b) })
	r.Outputs = outs
	return nil
}

// isPush is 1 for an output that goes to a registry, and 0 for others.
func isPush(out buildflag.Output) int {
	if out.Type == buildflag.OutputRegistry || out.Type == buildflag.OutputImage && out.Bool("push", false) {
		return 1
	}
	return 0
}

// withPush makes an image output push, or adds one that does.
func withPush(outs []buildflag.Output) []buildflag.Output {
	found := false
	for i, out := range outs {
		switch out.Type {
		case buildflag.OutputImage:
			outs[i].Attrs["push"], found = "true", true
			if _, told := out.Attrs["unpack"]; !told { // it is for a registry, not for containers of the daemon's own
				outs[i].Attrs["unpack"] = "false"
			}
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
	if len(r.Outputs) > 0 || len(b.Nodes) == 0 || !r.Call.IsBuild() {
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

func (a *app) abs(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(a.dir, path)
}
