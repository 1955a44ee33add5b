package bake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// JSON is what --print shows: a definition in the JSON form, which can be baked
// again and then gives the same plan. Texts that look like templates are escaped
// for that.
func (p *Plan) JSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	if len(p.Groups) > 0 {
		err := printAllOf(&b, "group", len(p.Groups), func(i int) (string, any) {
			g := p.Groups[i]
			return g.Name, printedGroup{Description: escape(g.Description), Targets: g.Targets}
		})
		if err != nil {
			return nil, err
		}
		b.WriteByte(',')
	}
	err := printAllOf(&b, "target", len(p.Targets), func(i int) (string, any) {
		return p.Targets[i].Name, printTarget(&p.Targets[i].Target)
	})
	if err != nil {
		return nil, err
	}
	b.WriteString("\n}\n")
	return b.Bytes(), nil
}

// printAllOf writes what is sorted by name, one after the other: all of a large
// plan at once would be in memory several times.
func printAllOf(b *bytes.Buffer, kind string, n int, entry func(i int) (name string, value any)) error {
	fmt.Fprintf(b, "\n  %q: {", kind)
	for i := range n {
		name, value := entry(i)
		data, err := json.MarshalIndent(value, "    ", "  ")
		if err != nil {
			return fmt.Errorf("printing the definition: %w", err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "\n    %q: %s", name, data)
	}
	if n > 0 {
		b.WriteString("\n  ")
	}
	b.WriteByte('}')
	return nil
}

// printedGroup and what is in a printedTarget have the names and the order of
// buildx. Maps are sorted when they are written.
type printedGroup struct {
	Description string   `json:"description,omitempty"`
	Targets     []string `json:"targets"`
}

type printedTarget struct {
	Description      string              `json:"description,omitempty"`
	Annotations      []string            `json:"annotations,omitempty"`
	Attest           []map[string]any    `json:"attest,omitempty"`
	Context          *string             `json:"context,omitempty"`
	Contexts         map[string]string   `json:"contexts,omitempty"`
	Dockerfile       *string             `json:"dockerfile,omitempty"`
	DockerfileInline *string             `json:"dockerfile-inline,omitempty"`
	Args             map[string]string   `json:"args,omitempty"`
	Labels           map[string]string   `json:"labels,omitempty"`
	Tags             []string            `json:"tags,omitempty"`
	CacheFrom        []map[string]string `json:"cache-from,omitempty"`
	CacheTo          []map[string]string `json:"cache-to,omitempty"`
	Target           *string             `json:"target,omitempty"`
	Secrets          []printedSecret     `json:"secret,omitempty"`
	SSH              []printedSSH        `json:"ssh,omitempty"`
	Platforms        []string            `json:"platforms,omitempty"`
	Outputs          []map[string]string `json:"output,omitempty"`
	Pull             *bool               `json:"pull,omitempty"`
	NoCache          *bool               `json:"no-cache,omitempty"`
	Network          *string             `json:"network,omitempty"`
	NoCacheFilter    []string            `json:"no-cache-filter,omitempty"`
	ShmSize          *string             `json:"shm-size,omitempty"`
	Ulimits          []string            `json:"ulimits,omitempty"`
	Resources        *printedResources   `json:"resources,omitempty"`
	Call             *string             `json:"call,omitempty"`
	Entitlements     []string            `json:"entitlements,omitempty"`
	ExtraHosts       map[string]string   `json:"extra-hosts,omitempty"`
	Policy           []any               `json:"policy,omitempty"`
}

type printedSecret struct {
	ID  string `json:"id,omitempty"`
	Src string `json:"src,omitempty"`
	Env string `json:"env,omitempty"`
}

type printedSSH struct {
	ID    string   `json:"id,omitempty"`
	Paths []string `json:"paths,omitempty"`
}

type printedResources struct {
	Memory     *string `json:"memory,omitempty"`
	MemorySwap *string `json:"memory-swap,omitempty"`
	CPUShares  *int64  `json:"cpu-shares,omitempty"`
	CPUPeriod  *int64  `json:"cpu-period,omitempty"`
	CPUQuota   *int64  `json:"cpu-quota,omitempty"`
	CpusetCPUs *string `json:"cpuset-cpus,omitempty"`
	CpusetMems *string `json:"cpuset-mems,omitempty"`
}

func printTarget(t *eval.Target) printedTarget {
	return printedTarget{
		Description: escape(t.Description), Annotations: escapeAll(t.Annotations), Attest: printAttest(t.Attest),
		Context: escapePtr(t.Context), Contexts: escapeMap(t.Contexts),
		Dockerfile: escapePtr(t.Dockerfile), DockerfileInline: escapePtr(t.DockerfileInline),
		Args: escapeSet(t.Args), Labels: escapeSet(t.Labels), ExtraHosts: escapeSet(t.ExtraHosts),
		Tags: escapeAll(t.Tags), Platforms: escapeAll(t.Platforms), Target: escapePtr(t.Target),
		CacheFrom: printEntries(t.CacheFrom, eval.Cache.Fields), CacheTo: printEntries(t.CacheTo, eval.Cache.Fields),
		Outputs: printEntries(t.Outputs, eval.Output.Fields),
		Secrets: printSecrets(t.Secrets), SSH: printSSH(t.SSH), Policy: printPolicy(t.Policy),
		Pull: t.Pull, NoCache: t.NoCache, NoCacheFilter: escapeAll(t.NoCacheFilter),
		Network: escapePtr(t.Network), ShmSize: escapePtr(t.ShmSize), Ulimits: escapeAll(t.Ulimits),
		Resources: printResources(t.Resources), Call: escapePtr(t.Call), Entitlements: escapeAll(t.Entitlements),
	}
}

func printEntries[T any](list []T, fields func(T) map[string]string) []map[string]string {
	var out []map[string]string
	for _, entry := range list {
		out = append(out, escapeMap(fields(entry)))
	}
	return out
}

func printAttest(list []eval.Attest) []map[string]any {
	var out []map[string]any
	for _, a := range list {
		m := map[string]any{"type": escape(a.Type)}
		for k, v := range a.Attrs {
			m[escape(k)] = escape(v)
		}
		if a.Disabled {
			m["disabled"] = true
		}
		out = append(out, m)
	}
	return out
}

func printSecrets(list []eval.Secret) []printedSecret {
	var out []printedSecret
	for _, s := range list {
		out = append(out, printedSecret{escape(s.ID), escape(s.Src), escape(s.Env)})
	}
	return out
}

func printSSH(list []eval.SSH) []printedSSH {
	var out []printedSSH
	for _, s := range list {
		out = append(out, printedSSH{escape(s.ID), escapeAll(s.Paths)})
	}
	return out
}

// printPolicy writes what can be read again; what buildx prints cannot.
func printPolicy(list []eval.Policy) []any {
	var out []any
	for _, p := range list {
		if len(p.Files) > 1 {
			out = append(out, escape(p.String()))
			continue
		}
		m := map[string]any{}
		for _, f := range p.Files {
			m["filename"] = escape(f)
		}
		if p.Reset {
			m["reset"] = true
		}
		if p.Disabled {
			m["disabled"] = true
		}
		if p.Strict != nil {
			m["strict"] = *p.Strict
		}
		if p.LogLevel != "" {
			m["log-level"] = p.LogLevel
		}
		out = append(out, m)
	}
	return out
}

func printResources(r *eval.Resources) *printedResources {
	if r == nil {
		return nil
	}
	return &printedResources{
		escapePtr(r.Memory), escapePtr(r.MemorySwap), r.CPUShares, r.CPUPeriod, r.CPUQuota, escapePtr(r.CpusetCPUs), escapePtr(r.CpusetMems),
	}
}

// escape keeps a text from being read as a template.
func escape(s string) string {
	if !strings.Contains(s, "${") && !strings.Contains(s, "%{") {
		return s
	}
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
}

func escapePtr(s *string) *string {
	if s == nil {
		return nil
	}
	e := escape(*s)
	return &e
}

func escapeAll(list []string) []string {
	for _, s := range list {
		if escape(s) != s {
			out := make([]string, len(list))
			for i, s := range list {
				out[i] = escape(s)
			}
			return out
		}
	}
	return list
}

func escapeMap(m map[string]string) map[string]string {
	for k, v := range m {
		if escape(k) != k || escape(v) != v {
			out := make(map[string]string, len(m))
			for k, v := range maps.All(m) {
				out[escape(k)] = escape(v)
			}
			return out
		}
	}
	return m
}

// escapeSet leaves out what is null.
func escapeSet(m map[string]*string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		if v != nil {
			out[escape(k)] = escape(*v)
		}
	}
	return out
}
