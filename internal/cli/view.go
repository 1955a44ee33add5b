package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// builderView is a builder in JSON, with the fields that buildx writes.
type builderView struct {
	Name         string
	Driver       string
	LastActivity time.Time
	Dynamic      bool
	Current      bool
	Nodes        []nodeView
	Err          string `json:",omitempty"`
}

// nodeView is a node in JSON. ErrClass and ErrHints are ours: the kind of
// failure, for scripts that must not read sentences, and what to try.
type nodeView struct {
	Name       string
	Endpoint   string
	Flags      []string          `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	Status     builder.State     `json:",omitempty"`
	Version    string            `json:",omitempty"`
	Err        string            `json:",omitempty"`
	ErrClass   string            `json:",omitempty"`
	ErrHints   []string          `json:",omitempty"`
	IDs        []string          `json:",omitempty"`
	Platforms  []string          `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`

	GCPolicy []client.PruneInfo `json:",omitempty"`

	// Of builders with several daemons.
	ActiveBuilds *int   `json:",omitempty"`
	CacheBytes   *int64 `json:",omitempty"`
}

func viewBuilder(b *builder.Builder, statuses []builder.Status) builderView {
	v := builderView{
		Name: b.Name, Driver: b.Driver, Dynamic: b.Dynamic, Current: b.Current,
		LastActivity: b.LastActivity.UTC(), Nodes: []nodeView{}, Err: errText(b.Err),
	}
	for i, n := range b.Nodes {
		v.Nodes = append(v.Nodes, viewNode(n, statuses[i]))
	}
	return v
}

// with adds what each of several daemons has to do.
func (v builderView) with(seen []pool.Sight) builderView {
	if len(seen) != len(v.Nodes) {
		return v
	}
	for i, s := range seen {
		if s.Known {
			n := len(s.Builds)
			v.Nodes[i].ActiveBuilds = &n
		}
		if s.Cache >= 0 {
			v.Nodes[i].CacheBytes = &seen[i].Cache
		}
	}
	return v
}

func viewNode(n builder.Node, st builder.Status) nodeView {
	v := nodeView{
		Name: n.Name, Endpoint: n.Endpoint, Flags: n.Flags, DriverOpts: endpoint.Redacted(n.DriverOpts),
		Status: st.State, Version: st.Version, Err: errText(st.Err), ErrClass: errClass(st.Err), ErrHints: hint.Of(st.Err),
	}
	for _, p := range builder.Offered(n, st) {
		v.Platforms = append(v.Platforms, platforms.FormatAll(p))
	}
	for _, w := range st.Workers {
		v.IDs = append(v.IDs, w.ID)
		if v.Labels == nil {
			v.Labels, v.GCPolicy = w.Labels, w.GCPolicy
		}
	}
	return v
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error())
}

// errClass is the kind of a failure, "" without one. What keeps a node from
// being asked at all is wrong with what is stored, or with what it names.
func errClass(err error) string {
	var f *remote.Failure
	switch {
	case errors.As(err, &f):
		return string(f.Class)
	case err != nil:
		return string(remote.BadConfig)
	}
	return ""
}

// statusText is the state, and what kind of failure it is: "inactive (refused)".
func statusText(st builder.Status) string {
	if class := errClass(st.Err); class != "" {
		return fmt.Sprintf("%s (%s)", st.State, class)
	}
	return string(st.State)
}

// shortReason is why a node is not running, for a place that already names it.
func shortReason(err error) string {
	var f *remote.Failure
	if errors.As(err, &f) {
		return f.Short()
	}
	return errText(err)
}

// platformList is what a node builds for. Platforms that the owner fixed have a
// star; unless all is set, variants are counted rather than listed.
func platformList(n builder.Node, st builder.Status, all bool) string {
	var names []string
	more := map[string]int{}
	for i, p := range builder.Offered(n, st) {
		name := platforms.FormatAll(p)
		if i < len(n.Platforms) {
			names = append(names, name+"*")
			continue
		}
		if base := baseOf(p); !all && base != name && slices.Contains(names, base) {
			more[base]++
			continue
		}
		names = append(names, name)
	}
	for i, name := range names {
		if n := more[name]; n > 0 {
			names[i] = fmt.Sprintf("%s (+%d)", name, n)
		}
	}
	return strings.Join(names, ", ")
}

// baseOf is the platform without its variant.
func baseOf(p ocispecs.Platform) string {
	p.Variant, p.OSVersion = "", ""
	return platforms.Format(p)
}

// optionList is driver options as inspect shows them.
func optionList(opts map[string]string) string {
	opts = endpoint.Redacted(opts)
	var all []string
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		all = append(all, fmt.Sprintf("%s=%q", k, opts[k]))
	}
	return strings.Join(all, " ")
}
