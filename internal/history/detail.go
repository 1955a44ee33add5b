package history

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Detail is all that a record says, with the names that buildx gives in JSON and
// to templates.
type Detail struct {
	Name string `json:",omitempty"`
	Ref  string

	Context       string   `json:",omitempty"`
	Dockerfile    string   `json:",omitempty"`
	VCSRepository string   `json:",omitempty"`
	VCSRevision   string   `json:",omitempty"`
	Target        string   `json:",omitempty"`
	Platform      []string `json:",omitempty"`
	KeepGitDir    bool     `json:",omitempty"`

	NamedContexts []KeyValue `json:",omitempty"`

	StartedAt   *time.Time    `json:",omitempty"`
	CompletedAt *time.Time    `json:",omitempty"`
	Duration    time.Duration `json:",omitempty"`
	Status      string        `json:",omitempty"`
	Error       *Failure      `json:",omitempty"`

	NumCompletedSteps int32
	NumTotalSteps     int32
	NumCachedSteps    int32

	BuildArgs []KeyValue `json:",omitempty"`
	Labels    []KeyValue `json:",omitempty"`

	Config Config

	Materials   []Material   `json:",omitempty"`
	Attachments []Attachment `json:",omitempty"`

	Errors []string `json:",omitempty"` // what could not be read
}

// KeyValue is one setting.
type KeyValue struct {
	Name  string `json:",omitempty"`
	Value string `json:",omitempty"`
}

// Material is something that the build was made of.
type Material struct {
	URI     string   `json:",omitempty"`
	Digests []string `json:",omitempty"`
}

// Config is how the build was set up, as its frontend was told.
type Config struct {
	Network               string     `json:",omitempty"`
	ExtraHosts            []string   `json:",omitempty"`
	Hostname              string     `json:",omitempty"`
	CgroupParent          string     `json:",omitempty"`
	ImageResolveMode      string     `json:",omitempty"`
	MultiPlatform         bool       `json:",omitempty"`
	NoCache               bool       `json:",omitempty"`
	NoCacheFilter         []string   `json:",omitempty"`
	ShmSize               string     `json:",omitempty"`
	Ulimit                string     `json:",omitempty"`
	Memory                string     `json:",omitempty"`
	MemorySwap            string     `json:",omitempty"`
	CPUShares             string     `json:",omitempty"`
	CPUPeriod             string     `json:",omitempty"`
	CPUQuota              string     `json:",omitempty"`
	CPUSetCPUs            string     `json:",omitempty"`
	CPUSetMems            string     `json:",omitempty"`
	CacheMountNS          string     `json:",omitempty"`
	DockerfileCheckConfig string     `json:",omitempty"`
	SourceDateEpoch       string     `json:",omitempty"`
	SandboxHostname       string     `json:",omitempty"`
	RestRaw               []KeyValue `json:",omitempty"`
}

// statusWords are the statuses as this view has them.
func statusWords(s Status) string {
	if s == Failed {
		return "failed"
	}
	return string(s)
}

// Detail reads all that there is to the record. dir is the working directory,
// which paths below it are shown from. What cannot be read is missing, and Errors
// says why.
func (h *History) Detail(ctx context.Context, r *Record, dir string) Detail {
	r.Group = h.group(r)
	now := time.Now()
	started := r.Created().Local()
	d := Detail{
		Name: r.Name(), Ref: r.Ref, StartedAt: &started, Duration: r.Duration(now), Status: statusWords(r.Status()),
		NumCompletedSteps: r.NumCompletedSteps, NumTotalSteps: r.NumTotalSteps, NumCachedSteps: r.NumCachedSteps,
	}
	if r.CompletedAt != nil {
		ended := r.Ended().Local()
		d.CompletedAt = &ended
	}
	a := attrs{rest: maps.Clone(r.FrontendAttrs)}
	d.sources(r, a, dir)
	d.settings(a)
	var failed []error
	f, err := r.Failure(ctx)
	d.Error, failed = f, append(failed, err)
	var errs []error
	d.Attachments, errs = r.Attachments(ctx)
	failed = append(failed, errs...)
	d.Materials, err = r.materials(ctx, d.Attachments)
	for _, err := range append(failed, err) {
		if err != nil {
			d.Errors = append(d.Errors, err.Error())
		}
	}
	return d
}

// attrs are what the frontend was told, of which each is taken once.
type attrs struct{ rest map[string]string }

func (a attrs) take(key string) string {
	v := a.rest[key]
	delete(a.rest, key)
	return v
}

// list takes a value that is a list.
func (a attrs) list(key string) []string {
	v := a.take(key)
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}

// truth takes a flag with a value.
func (a attrs) truth(key string) bool {
	b, err := strconv.ParseBool(a.take(key))
	return err == nil && b
}

// all takes those that begin with a prefix, which their names lose.
func (a attrs) all(prefix string) []KeyValue {
	var list []KeyValue
	for _, key := range slices.Sorted(maps.Keys(a.rest)) {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			list = append(list, KeyValue{name, a.take(key)})
		}
	}
	return list
}

// sources is what was built.
func (d *Detail) sources(r *Record, a attrs, dir string) {
	d.Context = shown(a.take(attrContext))
	if local := r.Local; d.Context == "" && local != nil {
		d.Context = local.LocalPath
		if filepath.IsAbs(d.Context) {
			if rel, err := filepath.Rel(dir, d.Context); err == nil && filepath.IsLocal(rel) {
				d.Context = rel
			}
		}
	}
	d.Dockerfile = r.shownDockerfile(a)
	d.VCSRepository, d.VCSRevision = a.take(attrSource), a.take(attrRevision)
	d.Target = a.take(attrTarget)
	d.Platform = a.list("platform")
	d.KeepGitDir = a.truth("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR")
	d.NamedContexts = a.all("context:")
	for i := range d.NamedContexts {
		d.NamedContexts[i].Value = shown(d.NamedContexts[i].Value)
	}
}

// shownDockerfile is the Dockerfile's path, from the context where it is below.
func (r *Record) shownDockerfile(a attrs) string {
	file, inRepository := a.take(attrFile), a.take(attrFileDir)
	if r.Local != nil && inRepository == "" {
		if p := r.Local.DockerfilePath; p != "" && p != "-" {
			if rel, err := filepath.Rel(r.Local.LocalPath, p); filepath.IsAbs(p) && err == nil && filepath.IsLocal(rel) {
				return rel
			}
			return p
		}
	}
	if inRepository != "" && inRepository != "." {
		if file == "" {
			file = defaultFile
		}
		return filepath.ToSlash(filepath.Join(inRepository, file))
	}
	return file
}

// settings is everything else that the frontend was told.
func (d *Detail) settings(a attrs) {
	// These name something else besides being arguments, and stay among them.
	multi, _ := strconv.ParseBool(a.rest["build-arg:BUILDKIT_MULTI_PLATFORM"])
	c := Config{
		CacheMountNS:          a.rest["build-arg:BUILDKIT_CACHE_MOUNT_NS"],
		DockerfileCheckConfig: a.rest["build-arg:BUILDKIT_DOCKERFILE_CHECK"],
		SourceDateEpoch:       a.rest["build-arg:SOURCE_DATE_EPOCH"],
	}
	c.Network = a.take("force-network-mode")
	c.ExtraHosts = a.list("add-hosts")
	c.Hostname = a.take("hostname")
	c.CgroupParent = a.take("cgroup-parent")
	c.ImageResolveMode = a.take("image-resolve-mode")
	c.MultiPlatform = a.truth("multi-platform") || multi
	if v, ok := a.rest["no-cache"]; ok {
		if delete(a.rest, "no-cache"); v == "" {
			c.NoCache = true
		} else {
			c.NoCacheFilter = strings.Split(v, ",")
		}
	}
	c.ShmSize, c.Ulimit = a.take("shm-size"), a.take("ulimit")
	c.Memory, c.MemorySwap = a.take("memory"), a.take("memoryswap")
	c.CPUShares, c.CPUPeriod, c.CPUQuota = a.take("cpushares"), a.take("cpuperiod"), a.take("cpuquota")
	c.CPUSetCPUs, c.CPUSetMems = a.take("cpusetcpus"), a.take("cpusetmems")
	d.BuildArgs, d.Labels = a.all("build-arg:"), a.all("label:")
	a.take("frontend.caps") // says how it was called
	a.all("attest:")        // it is among the attachments
	a.all("vcs:")
	c.RestRaw = a.all("")
	d.Config = c
}

// maxMaterials bounds those of one record.
const maxMaterials = 10_000

// materials are what the first provenance says that the build was made of.
func (r *Record) materials(ctx context.Context, all []Attachment) ([]Material, error) {
	i := slices.IndexFunc(all, Wanted{Type: "provenance"}.match)
	if i < 0 {
		return nil, nil
	}
	data, err := r.blob(ctx, all[i].desc, maxAttachment)
	if err != nil {
		return nil, r.explain(err)
	}
	var said struct {
		Materials       []provenance `json:"materials"` // SLSA v0.2
		BuildDefinition struct {
			ResolvedDependencies []provenance `json:"resolvedDependencies"` // SLSA v1
		} `json:"buildDefinition"`
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, r.explain(fmt.Errorf("%s is no provenance: %w", all[i].Digest, err))
	}
	var list []Material
	for _, m := range append(said.Materials, said.BuildDefinition.ResolvedDependencies...) {
		if len(list) == maxMaterials {
			break
		}
		material := Material{URI: m.URI}
		for _, alg := range slices.Sorted(maps.Keys(m.Digest)) {
			material.Digests = append(material.Digests, alg+":"+m.Digest[alg])
		}
		list = append(list, material)
	}
	return list, nil
}

// provenance is one material.
type provenance struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}
