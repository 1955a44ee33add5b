package cli

import (
	"encoding/csv"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
)

// bakeTargets makes a build of each target. What a target says is written as the
// flags of build, which have one meaning; sources are those, by target.
func (a *app) bakeTargets(plan *bake.Plan, from bakeOrigin, o bakeOptions, asked bakeFlags) (targets []build.Target, sources map[string]buildOptions, err error) {
	sources = map[string]buildOptions{}
	for _, t := range plan.Targets {
		opts, err := buildOptionsOf(t, o, asked)
		if err != nil {
			return nil, nil, hint.Wrap(err, "target "+t.Name)
		}
		opts.foreign = !a.trusted(from)
		if err := a.remoteOptions(t, from, &opts); err != nil {
			return nil, nil, hint.Wrap(err, "target "+t.Name)
		}
		req, err := a.newRequest(opts)
		if err == nil {
			err = remoteFolders(t, from, &req)
		}
		if err != nil {
			return nil, nil, hint.Wrap(err, "target "+t.Name)
		}
		if t.DockerfileInline != nil {
			req.Dockerfile = request.Dockerfile{Name: request.DefaultDockerfile, Inline: []byte(*t.DockerfileInline)}
			opts.file = dockerfilePath(t) // not read, and kept in the build's reference
		}
		if err := req.Validate(); err != nil {
			return nil, nil, hint.Wrap(err, "target "+t.Name)
		}
		sources[t.Name] = opts
		targets = append(targets, build.Target{Name: t.Name, Request: req, Links: t.Links})
	}
	return targets, sources, nil
}

// buildOptionsOf writes a target as build's flags.
func buildOptionsOf(t bake.Target, o bakeOptions, asked bakeFlags) (buildOptions, error) {
	out := buildOptions{
		context: strings.TrimPrefix(value(t.Context, "."), cwdScheme), file: bakeDockerfile(t), tags: t.Tags,
		buildArgs: pairs(t.Args), labels: pairs(t.Labels), annotations: t.Annotations, target: value(t.Target.Target, ""),
		platforms: t.Platforms, noCache: value(t.NoCache, false), noCacheFilter: t.NoCacheFilter, pull: value(t.Pull, false),
		network: valueOr(value(t.Network, ""), "default"), shmSize: value(t.ShmSize, ""), ulimits: t.Ulimits, call: value(t.Call, ""),
		progress: o.progress, timeout: o.timeout, given: map[string]bool{"shm-size": t.ShmSize != nil},
	}
	if !asked.call.IsBuild() {
		out.call = asked.call.String() // the method of every target, and what is to be done with the answers
	}
	if slices.ContainsFunc(t.Policy, func(p eval.Policy) bool { return !p.Disabled }) {
		return out, hint.New("it has a policy, and this version of berth evaluates none", "if it may be built without: policy = [{disabled = true}], or --policy disabled=true")
	}
	if out.context == "" {
		out.context = "."
	}
	if out.context == "-" {
		return out, hint.New("a context from standard input cannot be one of a target's", "name a folder")
	}
	if out.file == "-" {
		return out, hint.New("a Dockerfile from standard input cannot be one of a target's", "name a file")
	}
	for name, v := range t.Contexts {
		if _, linked := t.Links[name]; !linked {
			out.contexts = append(out.contexts, name+"="+strings.TrimPrefix(v, cwdScheme))
		}
	}
	slices.Sort(out.contexts)
	if !t.Linked {
		for _, e := range t.Outputs {
			out.outputs = append(out.outputs, written(e.Type, e.Attrs, "dest", e.Dest))
		}
	}
	for _, c := range t.CacheFrom {
		out.cacheFrom = append(out.cacheFrom, written(c.Type, c.Attrs))
	}
	for _, c := range t.CacheTo {
		out.cacheTo = append(out.cacheTo, written(c.Type, c.Attrs))
	}
	for _, s := range t.Secrets {
		out.secrets = append(out.secrets, written("", nil, "id", s.ID, "src", s.Src, "env", s.Env))
	}
	for _, s := range t.SSH {
		out.ssh = append(out.ssh, strings.TrimSuffix(valueOr(s.ID, "default")+"="+strings.Join(s.Paths, ","), "="))
	}
	for _, at := range t.Attest {
		attrs := maps.Clone(at.Attrs)
		if at.Disabled {
			attrs = map[string]string{"disabled": "true"}
		}
		out.attests = append(out.attests, written(at.Type, attrs))
	}
	for name, ip := range t.ExtraHosts {
		if ip == nil {
			continue
		}
		for one := range strings.SplitSeq(*ip, ",") { // a host may have several
			out.addHosts = append(out.addHosts, name+"="+one)
		}
	}
	slices.Sort(out.addHosts)
	out.resources = resourceFlags(t.Resources)
	// What it asks for is granted, or nothing is built; what it does not ask for it does not get.
	out.allow = slices.Clone(t.Entitlements)
	if slices.Contains(asked.rights.daemon, buildflag.AllowLocalDelete) {
		out.allow = append(out.allow, buildflag.AllowLocalDelete)
	}
	return out, nil
}

// bakeDockerfile is the target's Dockerfile, which is a path in its context.
func bakeDockerfile(t bake.Target) string {
	if t.DockerfileInline != nil {
		return ""
	}
	return dockerfilePath(t)
}

// dockerfilePath is where it is, or would be without an inline one.
func dockerfilePath(t bake.Target) string {
	file := value(t.Dockerfile, "")
	if path, ok := strings.CutPrefix(file, cwdScheme); ok || file == "" {
		return path
	}
	return inContext(value(t.Context, "."), file)
}

// inContext is a file of a folder, unless it says itself where it is.
func inContext(context, file string) string {
	context = strings.TrimPrefix(context, cwdScheme)
	if isElsewhere(context) || isElsewhere(file) || strings.HasPrefix(file, "/") {
		return file
	}
	return strings.TrimSuffix(valueOr(context, "."), "/") + "/" + file
}

// isElsewhere tells a URL from a path of this machine.
func isElsewhere(s string) bool {
	kind, err := buildflag.RemoteContext(s)
	return err == nil && kind != buildflag.ContextFolder || strings.Contains(s, "://")
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func valueOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// pairs writes NAME=VALUE for each that has a value, in the order of the names;
// one without is left to the environment, or to the Dockerfile.
func pairs(m map[string]*string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if v := m[k]; v != nil {
			out = append(out, k+"="+*v)
		}
	}
	return out
}

// written is an entry as a flag's value: the type, then what is named, and then
// the attributes, in a fixed order.
func written(typ string, attrs map[string]string, more ...string) string {
	var fields []string
	if typ != "" {
		fields = append(fields, "type="+typ)
	}
	for i := 0; i+1 < len(more); i += 2 {
		if more[i+1] != "" {
			fields = append(fields, more[i]+"="+more[i+1])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		fields = append(fields, k+"="+attrs[k])
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // a strings.Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

func resourceFlags(r *eval.Resources) []string {
	if r == nil {
		return nil
	}
	var out []string
	text := func(key string, v *string) {
		if v != nil && *v != "" {
			out = append(out, key+"="+*v)
		}
	}
	number := func(key string, v *int64) {
		if v != nil && *v != 0 {
			out = append(out, key+"="+strconv.FormatInt(*v, 10))
		}
	}
	text("memory", r.Memory)
	text("memory-swap", r.MemorySwap)
	number("cpu-shares", r.CPUShares)
	number("cpu-period", r.CPUPeriod)
	number("cpu-quota", r.CPUQuota)
	text("cpuset-cpus", r.CpusetCPUs)
	text("cpuset-mems", r.CpusetMems)
	return out
}
