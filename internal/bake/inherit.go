package bake

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
)

// The bounds of what refers to each other: groups in groups, targets that
// inherit, targets upon targets. maxWork bounds what inheritance copies, in
// entries of lists and maps, of which a copy counts for some by itself; maxText
// bounds the texts of all targets that are built, many of which may be the same
// text, inherited.
const (
	maxChain = 10_000
	maxWork  = 4_000_000
	copyWork = 8
	maxText  = 128 << 20
)

// path is what refers to what: the names on the way to the present one.
type chain struct {
	names []string
	on    map[string]bool
}

// enter goes on to name, unless the chain is at its bound; leave goes back.
func (c *chain) enter(name, what string) error {
	if len(c.names) >= maxChain {
		return hint.New(fmt.Sprintf("%s are more than %d deep, at %s", what, maxChain, name))
	}
	if c.on == nil {
		c.on = map[string]bool{}
	}
	c.names, c.on[name] = append(c.names, name), true
	return nil
}

func (c *chain) leave() {
	last := len(c.names) - 1
	delete(c.on, c.names[last])
	c.names = c.names[:last]
}

// last is the name that refers to the present one; "" where nobody does.
func (c *chain) last() string {
	if len(c.names) == 0 {
		return ""
	}
	return c.names[len(c.names)-1]
}

// round writes the way from name, which is on the chain, to name.
func (c *chain) round(name string) string {
	const most = 20
	way := slices.Clone(c.names[slices.Index(c.names, name):])
	if len(way) > most {
		way = append(way[:most], "…")
	}
	return strings.Join(append(way, name), " → ")
}

// inherit gives a target with all that it inherits, and with its overrides: an
// override of a target reaches those that inherit from it.
//
// A target that comes to inherit from itself is not an error, as it is none in
// buildx: the repetition says nothing. partial tells that one was left out, so
// that the result is right for this way only.
func (r *resolver) inherit(name string) (t eval.Target, partial bool, err error) {
	if t, ok := r.resolved[name]; ok {
		return t, false, nil
	}
	own, ok := r.targets[name]
	if !ok {
		return t, false, r.badParent(name)
	}
	if err := r.heirs.enter(name, "targets that inherit"); err != nil {
		return t, false, err
	}
	defer r.heirs.leave()
	t = eval.Target{Name: name}
	for _, parent := range own.Inherits {
		if r.heirs.on[parent] {
			partial = true
			if err := r.spend(copyWork); err != nil {
				return t, false, err
			}
			r.warn("target " + parent + " inherits from itself, which says nothing: " + r.heirs.round(parent))
			continue
		}
		from, cut, err := r.inherit(parent)
		if err != nil {
			return t, false, err
		}
		partial = partial || cut
		if t, err = r.merge(&t, &from); err != nil {
			return t, false, err
		}
	}
	if t, err = r.merge(&t, own); err != nil {
		return t, false, err
	}
	if set := r.overrides[name]; set != nil {
		if err := set.apply(&t); err != nil {
			return t, false, err
		}
	}
	if !partial {
		r.resolved[name] = t
	}
	return t, partial, nil
}

func (r *resolver) merge(t, over *eval.Target) (eval.Target, error) {
	if err := r.spend(copyWork + entries(t) + entries(over)); err != nil {
		return *t, err
	}
	return t.Merge(over), nil
}

// spend takes work. Targets that inherit from each other in circles would
// otherwise be walked through in every order that there is.
func (r *resolver) spend(work int) error {
	if r.work += work; r.work > maxWork {
		return hint.New(fmt.Sprintf("targets inherit more than %d entries of lists and maps from each other", maxWork))
	}
	return nil
}

// entries is how much there is to be copied.
func entries(t *eval.Target) int {
	return 1 + len(t.Args) + len(t.Labels) + len(t.ExtraHosts) + len(t.Contexts) + len(t.Annotations) + len(t.NoCacheFilter) +
		len(t.Ulimits) + len(t.Entitlements) + len(t.CacheFrom) + len(t.Secrets) + len(t.SSH) + len(t.Attest) + len(t.Policy)
}

func (r *resolver) badParent(name string) error {
	text := "failed to find target " + name
	if heir := r.heirs.last(); heir != "" {
		text += ", which target " + heir + " inherits"
	}
	if _, ok := r.groups[name]; ok {
		return hint.New(text, name+" is a group: inherit one of its targets")
	}
	return r.unknown(text)
}

func (r *resolver) warn(text string) {
	const most = 20
	if len(r.warnings) < most && !slices.Contains(r.warnings, text) {
		r.warnings = append(r.warnings, text)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
