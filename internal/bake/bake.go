// Package bake turns a bake definition into the builds that are asked for.
//
// Its first part, which is all that is here, is pure: Resolve picks the targets
// out of a definition, applies inheritance and --set, and finds the targets that
// they are built upon; Plan.JSON writes what --print shows. Evaluating files is
// the business of internal/bake/eval; reading them, asking for entitlements and
// building are not done here.
//
// Rules: nothing is decided by a file's order where the definition gives none:
// targets, groups and variables come out sorted by their names. What a name or
// an override does not match is refused before anything else is done.
package bake

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// DefaultName is what is built where nothing is named.
const DefaultName = "default"

// Selection is what is asked of a definition.
type Selection struct {
	// Names are targets, groups, and patterns of both as path.Match has them;
	// none is DefaultName.
	Names []string
	// Set are the values of --set, in their order: PATTERN.KEY[.NAME]=VALUE.
	Set []string
	// Env finds the value in --set TARGET.arg.NAME without one; nil knows none.
	Env func(name string) (value string, found bool)
	// Within is set where the definition comes from elsewhere, and paths in it are
	// not of this machine: it makes of the path of a main context what that is
	// there. Paths of this machine begin with cwd:// then, and keep that.
	Within func(path string) (string, error)
	// FileRelative has the folders that are contexts be relative to the file that
	// names them, in a definition of this machine. Those of --set, and those that
	// begin with cwd://, are not.
	FileRelative bool
	// Epoch is the SOURCE_DATE_EPOCH of the environment: an argument of all targets
	// that have none of that name. Empty is none.
	Epoch string
	// NoPolicy has no target held against a policy, whatever the definition says.
	NoPolicy bool
}

// Plan is what is built.
type Plan struct {
	Targets  []Target     // sorted by name, each once, with those that they are built upon
	Groups   []eval.Group // those that led to the targets; "default" is what was asked for
	Warnings []string     // what is allowed, but hardly meant
}

// Target is one build of a plan, with nothing left to be inherited.
type Target struct {
	eval.Target
	// Linked says that nobody asked for it: others are built upon it, and it
	// stays in the cache.
	Linked bool
	// Links are the targets that it is built upon, by the name of the context
	// that is one: contexts = { base = "target:alpine" } links base to alpine.
	Links map[string]string
	// Set are the values that --set gave the target's lists, by key: what the user
	// asks for, and not the definition. Those of targets that it inherits are not
	// in it.
	Set map[string][]string
}

// epochArg is the argument that makes builds reproducible.
const epochArg = "SOURCE_DATE_EPOCH"

// targetScheme begins a context that is another target.
const targetScheme = "target:"

// Resolve picks what is asked for out of a definition.
func Resolve(def *eval.Definition, s Selection) (*Plan, error) {
	r := newResolver(def, s)
	var err error
	if r.overrides, err = parseOverrides(s.Set, r.targetNames, s.Env); err != nil {
		return nil, err
	}
	names, err := r.match(s.Names)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := r.expand(name); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Clone(r.wanted) {
		if err := r.build(name); err != nil {
			return nil, err
		}
	}
	return r.plan(names), nil
}

// resolver is one call of Resolve.
type resolver struct {
	def         *eval.Definition
	within      func(path string) (string, error)
	relative    bool   // Selection.FileRelative
	epoch       string // Selection.Epoch
	noPolicy    bool   // Selection.NoPolicy
	targets     map[string]*eval.Target
	groups      map[string]*eval.Group
	targetNames []string // sorted
	overrides   map[string]*overrideSet

	wanted   []string               // targets that were asked for, by name or by group
	asked    map[string]bool        // the same
	visited  map[string]bool        // groups that led to them
	resolved map[string]eval.Target // with what they inherit
	built    map[string]*Target     // of the plan
	warnings []string

	outer chain // groups within groups
	heirs chain // targets that inherit
	upon  chain // targets upon targets
	work  int   // see maxWork
	text  int   // see maxText
}

func newResolver(def *eval.Definition, s Selection) *resolver {
	r := &resolver{
		def: def, within: s.Within, relative: s.FileRelative && s.Within == nil, epoch: s.Epoch, noPolicy: s.NoPolicy,
		targets: map[string]*eval.Target{}, groups: map[string]*eval.Group{},
		asked: map[string]bool{}, visited: map[string]bool{},
		resolved: map[string]eval.Target{}, built: map[string]*Target{},
	}
	for i := range def.Targets {
		r.targets[def.Targets[i].Name] = &def.Targets[i]
		r.targetNames = append(r.targetNames, def.Targets[i].Name)
	}
	slices.Sort(r.targetNames)
	for i := range def.Groups {
		r.groups[def.Groups[i].Name] = &def.Groups[i]
	}
	return r
}

// match expands patterns to the names of targets and groups.
func (r *resolver) match(asked []string) ([]string, error) {
	if len(asked) == 0 {
		return []string{DefaultName}, nil
	}
	var out []string
	for _, name := range asked {
		if !strings.ContainsAny(name, `*?[`) {
			out = append(out, name)
			continue
		}
		all := slices.Clone(r.targetNames)
		for g := range r.groups {
			all = append(all, g)
		}
		slices.Sort(all)
		found := len(out)
		for _, candidate := range slices.Compact(all) {
			if ok, err := path.Match(name, candidate); ok && err == nil {
				out = append(out, candidate)
			}
		}
		if len(out) == found {
			return nil, r.unknown(fmt.Sprintf("could not find any target matching %q", name))
		}
	}
	return out, nil
}

// unknown says that a name is not in the definition, and which are.
func (r *resolver) unknown(text string) error {
	names := slices.DeleteFunc(slices.Clone(r.targetNames), func(n string) bool { return strings.HasPrefix(n, "_") })
	for g := range r.groups {
		names = append(names, g)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	const most = 20
	more := ""
	if len(names) > most {
		names, more = names[:most], ", …"
	}
	if len(names) == 0 {
		return hint.New(text, "the definition has no targets")
	}
	return hint.New(text, "the definition has "+strings.Join(names, ", ")+more)
}

// expand collects the targets of a name. A group goes before a target of the
// same name, but not within itself.
func (r *resolver) expand(name string) error {
	g, isGroup := r.groups[name]
	if isGroup && !r.outer.on[name] {
		if r.visited[name] {
			return nil
		}
		r.visited[name] = true
		if err := r.outer.enter(name, "groups in groups"); err != nil {
			return err
		}
		defer r.outer.leave()
		for _, member := range g.Targets {
			if err := r.expand(member); err != nil {
				return err
			}
		}
		return nil
	}
	if _, ok := r.targets[name]; !ok {
		if isGroup {
			return hint.New("group cycle not allowed: " + r.outer.round(name))
		}
		return r.notFound(name)
	}
	if !r.asked[name] {
		r.asked[name] = true
		r.wanted = append(r.wanted, name)
	}
	return nil
}

func (r *resolver) notFound(name string) error {
	text := "failed to find target " + name
	if group := r.outer.last(); group != "" {
		text += ", which is in group " + group
	}
	return r.unknown(text)
}

// build makes the target of the plan, and those that it is built upon.
func (r *resolver) build(name string) error {
	if _, ok := r.built[name]; ok {
		return nil
	}
	t, _, err := r.inherit(name)
	if err != nil {
		return err
	}
	out := &Target{Target: t, Linked: !r.asked[name], Set: r.overrides[name].lists()}
	if err := r.finish(out); err != nil {
		return err
	}
	if r.text += out.TextSize(); r.text > maxText {
		return hint.New(fmt.Sprintf("the targets have more than %d bytes of text, at %s", maxText, name), "build fewer of them at once")
	}
	if err := r.upon.enter(name, "targets upon targets"); err != nil {
		return err
	}
	defer r.upon.leave()
	for _, link := range sortedKeys(out.Links) {
		to := out.Links[link]
		switch {
		case to == name:
			return hint.New(fmt.Sprintf("target %s cannot link to itself", name))
		case r.upon.on[to]:
			return hint.New(fmt.Sprintf("infinite loop from %s to %s: %s", name, to, r.upon.round(to)))
		case r.targets[to] == nil:
			return r.badLink(name, link, to)
		}
		if err := r.build(to); err != nil {
			return err
		}
	}
	r.built[name] = out
	return nil
}

func (r *resolver) badLink(name, link, to string) error {
	err := fmt.Sprintf("failed to find target %s, which is the context %s of target %s", to, link, name)
	if _, ok := r.groups[to]; ok {
		return hint.New(err, to+" is a group: name one of its targets")
	}
	return r.unknown(err)
}

// finish sets what a target has without being told, and refuses what none can
// have.
func (r *resolver) finish(t *Target) error {
	t.Normalize()
	t.Inherits = nil
	r.relate(&t.Target)
	var err error
	if t.Context, err = r.context(t.Context); err == nil {
		err = check(&t.Target)
	}
	if err != nil {
		return hint.Wrap(err, "target "+t.Name)
	}
	if *t.Context == "-" {
		return hint.New(fmt.Sprintf("target %s: context from stdin not allowed in bake", t.Name))
	}
	if strings.TrimPrefix(valueOf(t.Dockerfile), "cwd://") == "-" { // the user's standard input is not for a definition to read
		return hint.New(fmt.Sprintf("target %s: dockerfile from stdin not allowed in bake", t.Name), "name a file", "or write it into the definition: dockerfile-inline")
	}
	if t.Dockerfile == nil || *t.Dockerfile == "" {
		name := "Dockerfile"
		t.Dockerfile = &name
	}
	for name, value := range t.Contexts {
		if to, ok := strings.CutPrefix(value, targetScheme); ok {
			if t.Links == nil {
				t.Links = map[string]string{}
			}
			t.Links[name] = to
		}
	}
	if t.Network != nil && *t.Network == "host" && !slices.Contains(t.Entitlements, buildflag.AllowNetworkHost) {
		t.Entitlements = append(slices.Clone(t.Entitlements), buildflag.AllowNetworkHost) // it is asked for like any other
	}
	if t.Linked {
		t.Outputs = []eval.Output{{Type: "cacheonly"}}
	}
	if r.epoch != "" && t.Args[epochArg] == nil {
		t.Args = maps.Clone(t.Args)
		if t.Args == nil {
			t.Args = map[string]*string{}
		}
		t.Args[epochArg] = &r.epoch
	}
	if r.noPolicy {
		t.Policy = []eval.Policy{{Disabled: true}}
	}
	return nil
}

// relate has the folders of a target be relative to the files that name them.
func (r *resolver) relate(t *eval.Target) {
	if !r.relative {
		return
	}
	main := beside(t.ContextFile, valueOf(t.Context))
	t.Context = &main
	contexts := make(map[string]string, len(t.Contexts))
	for name, folder := range t.Contexts {
		if file, ok := t.ContextsFile[name]; ok {
			folder = beside(file, folder)
		}
		contexts[name] = folder
	}
	t.Contexts = contexts
}

// beside is a folder as seen from a file, unless it says itself where it is.
func beside(file, folder string) string {
	kind, err := buildflag.RemoteContext(folder)
	if file == "" || looksRemote(folder) || err != nil || kind != buildflag.ContextFolder || path.IsAbs(folder) || filepath.IsAbs(folder) || folder == "-" {
		return folder
	}
	return path.Join(path.Dir(filepath.ToSlash(file)), folder)
}

func valueOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// context is where the main context is: of a local definition, a cleaned path.
func (r *resolver) context(given *string) (*string, error) {
	text := "."
	if given != nil {
		text = *given
	}
	if r.within == nil {
		text = strings.TrimPrefix(text, "cwd://")
	}
	if looksRemote(text) {
		return &text, nil
	}
	text = path.Clean(text) // of nothing too, and of -
	if r.within == nil || text == "-" {
		return &text, nil
	}
	text, err := r.within(text)
	return &text, err
}

// looksRemote tells a URL from a path, for not cleaning it.
func looksRemote(s string) bool {
	return strings.Contains(s, "://") || strings.HasPrefix(s, targetScheme) || strings.HasPrefix(s, "git@")
}

// plan puts together what has been built.
func (r *resolver) plan(names []string) *Plan {
	p := &Plan{Warnings: r.warnings}
	for _, name := range sortedKeys(r.built) {
		p.Targets = append(p.Targets, *r.built[name])
	}
	first := eval.Group{Name: DefaultName}
	for _, name := range names {
		if name != DefaultName || !r.visited[name] {
			first.Targets = append(first.Targets, name)
		}
	}
	for _, name := range sortedKeys(r.visited) {
		g := *r.groups[name]
		if name == DefaultName {
			first.Description = g.Description
			first.Targets = append(first.Targets, g.Targets...)
			continue
		}
		p.Groups = append(p.Groups, g)
	}
	slices.Sort(first.Targets)
	first.Targets = slices.Compact(first.Targets)
	p.Groups = append(p.Groups, first)
	slices.SortFunc(p.Groups, func(a, b eval.Group) int { return strings.Compare(a.Name, b.Name) })
	return p
}
