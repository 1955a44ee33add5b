package bake

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
)

// keyKind is what may follow a key of --set, and what several values mean.
type keyKind int

const (
	scalar  keyKind = iota // one value, the last
	list                   // each value is an entry; = takes the place of what the definition says
	added                  // the same, but always added
	named                  // KEY.NAME=VALUE
	boolean                // true or false; nothing is true
)

// overrideKey is a key of --set.
type overrideKey struct {
	name  string
	alias string // the older spelling; "" for none
	kind  keyKind
	apply func(t *eval.Target, o *override) error
}

// overrideKeys are all of them, in the order in which they are applied: outputs
// before what --push and --load make of them, a list of secrets before the one
// that is changed.
func overrideKeys() []overrideKey {
	return []overrideKey{
		{"annotation", "annotations", added, setTexts(func(t *eval.Target) *[]string { return &t.Annotations })},
		{"arg", "args", named, setArg},
		{"attest", "", added, setAttest},
		{"cache-from", "", list, setEntries(func(t *eval.Target) *[]eval.Cache { return &t.CacheFrom }, eval.ParseCache)},
		{"cache-to", "", list, setEntries(func(t *eval.Target) *[]eval.Cache { return &t.CacheTo }, eval.ParseCache)},
		{"call", "", scalar, setText(func(t *eval.Target) **string { return &t.Call })},
		{"context", "", scalar, setContext},
		{"contexts", "", named, setContexts},
		{"dockerfile", "", scalar, setText(func(t *eval.Target) **string { return &t.Dockerfile })},
		{"entitlement", "entitlements", added, setTexts(func(t *eval.Target) *[]string { return &t.Entitlements })},
		{"extra-host", "extra-hosts", named, setMap(func(t *eval.Target) *map[string]*string { return &t.ExtraHosts })},
		{"label", "labels", named, setMap(func(t *eval.Target) *map[string]*string { return &t.Labels })},
		{"network", "", scalar, setText(func(t *eval.Target) **string { return &t.Network })},
		{"no-cache", "", boolean, setBool(func(t *eval.Target) **bool { return &t.NoCache })},
		{"no-cache-filter", "", list, setTexts(func(t *eval.Target) *[]string { return &t.NoCacheFilter })},
		{"output", "", list, setEntries(func(t *eval.Target) *[]eval.Output { return &t.Outputs }, single(eval.ParseOutput))},
		{"platform", "platforms", list, setTexts(func(t *eval.Target) *[]string { return &t.Platforms })},
		{"policy", "", list, setEntries(func(t *eval.Target) *[]eval.Policy { return &t.Policy }, single(eval.ParsePolicy))},
		{"pull", "", boolean, setBool(func(t *eval.Target) **bool { return &t.Pull })},
		{"push", "", boolean, setPush},
		{"load", "", boolean, setLoad},
		{"resource", "resources", named, setResource},
		{"secret", "secrets", list, setSecret},
		{"shm-size", "", scalar, setText(func(t *eval.Target) **string { return &t.ShmSize })},
		{"ssh", "", list, setEntries(func(t *eval.Target) *[]eval.SSH { return &t.SSH }, single(eval.ParseSSH))},
		{"tag", "tags", list, setTexts(func(t *eval.Target) *[]string { return &t.Tags })},
		{"target", "", scalar, setText(func(t *eval.Target) **string { return &t.Target })},
		{"ulimit", "ulimits", list, setTexts(func(t *eval.Target) *[]string { return &t.Ulimits })},
	}
}

// OverrideKeys are the keys that --set takes, for help and completion.
func OverrideKeys() []string {
	var out []string
	for _, k := range overrideKeys() {
		out = append(out, k.name)
	}
	return out
}

// override is what --set says of one key of one target.
type override struct {
	values  []string
	appends bool // the last one was +=
	cleared bool // there was an empty one: what the definition says is gone
	names   map[string]*string
}

// overrideSet is what --set says of one target.
type overrideSet struct {
	keys map[string]*override // by overrideKey.name
}

// setting is one --set.
type setting struct {
	pattern, name string // name: of an argument, label, …
	key           overrideKey
	typed         string // the key as it was typed
	value         string
	given         bool // there was a =
	appends       bool
}

// parseOverrides reads --set, and tells what it says of each of the targets.
func parseOverrides(values, targets []string, env func(string) (string, bool)) (map[string]*overrideSet, error) {
	out := map[string]*overrideSet{}
	for _, v := range values {
		s, err := parseSetting(v)
		if err != nil {
			return nil, err
		}
		found := false
		for _, name := range targets {
			ok, err := path.Match(s.pattern, name)
			if err != nil {
				return nil, fmt.Errorf("could not match targets with '%s': %w", s.pattern, err)
			}
			if !ok {
				continue
			}
			found = true
			if out[name] == nil {
				out[name] = &overrideSet{keys: map[string]*override{}}
			}
			out[name].add(s, env)
		}
		if _, err := path.Match(s.pattern, ""); err != nil {
			return nil, fmt.Errorf("could not match targets with '%s': %w", s.pattern, err)
		}
		if !found {
			return nil, hint.New(fmt.Sprintf("could not find any target matching '%s'", s.pattern),
				"it matches the names of targets, not of groups; * matches any part of a name")
		}
	}
	return out, nil
}

// parseSetting reads PATTERN.KEY[.NAME][+]=VALUE.
func parseSetting(text string) (setting, error) {
	left, value, given := strings.Cut(text, "=")
	s := setting{value: value, given: given}
	left, s.appends = strings.CutSuffix(left, "+")
	parts := strings.SplitN(left, ".", 3)
	if len(parts) < 2 {
		return s, hint.New(fmt.Sprintf("invalid override key %s, expected target.name", left), `write --set TARGET.KEY=VALUE, as in --set "*.platform=linux/arm64"`)
	}
	s.pattern, s.typed = parts[0], parts[1]
	sub := len(parts) == 3
	if sub {
		s.name = parts[2]
	}
	keys := overrideKeys()
	i := slices.IndexFunc(keys, func(k overrideKey) bool { return s.typed != "" && (k.name == s.typed || k.alias == s.typed) })
	switch {
	case s.typed == "":
		return s, hint.New(fmt.Sprintf("invalid override %s, expected target.name=value", text))
	case i < 0:
		return s, hint.New("unknown key: "+s.typed, "the keys are "+strings.Join(OverrideKeys(), ", "))
	}
	s.key = keys[i]
	return s, s.check(text, left, sub)
}

// check refuses what does not go with the key.
func (s setting) check(text, left string, sub bool) error {
	takesName := s.key.kind == named || s.typed == "secret"
	switch {
	case s.key.kind == named && s.name == "":
		return hint.New(fmt.Sprintf("invalid key %s, %s requires name", left, s.key.name),
			fmt.Sprintf("write --set %s.%s.NAME=VALUE", s.pattern, s.key.name))
	case sub && !takesName:
		return fmt.Errorf("invalid key %s, %s does not support subkeys", left, s.key.name)
	case sub && s.typed == "secret" && s.name == "":
		return fmt.Errorf("invalid key %s, secret requires an id after the dot", left)
	case sub && s.typed == "secret" && s.appends:
		return fmt.Errorf("invalid key %s+, secret does not support append", left)
	case !s.given && s.key.kind != boolean && s.key.name != "arg":
		return hint.New(fmt.Sprintf("invalid override %s, expected target.name=value", text),
			fmt.Sprintf("to clear it, write --set %s=", left))
	}
	return nil
}

// add takes one --set that is meant for the target.
func (o *overrideSet) add(s setting, env func(string) (string, bool)) {
	have := o.keys[s.key.name]
	if have == nil {
		have = &override{names: map[string]*string{}}
		o.keys[s.key.name] = have
	}
	switch {
	case s.key.name == "arg" && !s.given:
		// Of the environment, or left as it is.
		if env == nil {
			return
		}
		if value, found := env(s.name); found {
			have.names[s.name] = &value
		}
	case s.name != "":
		have.names[s.name] = &s.value
	case s.key.kind == boolean && !s.given:
		have.values = []string{"true"}
	case s.key.kind == scalar || s.key.kind == boolean:
		have.values = []string{s.value}
	case s.value == "" && s.appends:
	case s.value == "":
		have.values, have.appends, have.cleared = nil, false, true
	default:
		have.values, have.appends = append(have.values, s.value), s.appends
	}
}

// apply changes a target.
func (o *overrideSet) apply(t *eval.Target) error {
	for _, k := range overrideKeys() {
		have := o.keys[k.name]
		if have == nil {
			continue
		}
		if k.kind == added {
			have.appends = true
		}
		if err := k.apply(t, have); err != nil {
			return fmt.Errorf("--set %s.%s: %w", t.Name, k.name, err)
		}
	}
	return nil
}

// lists are the values of the keys that are lists.
func (o *overrideSet) lists() map[string][]string {
	if o == nil {
		return nil
	}
	out := map[string][]string{}
	for _, k := range overrideKeys() {
		if have := o.keys[k.name]; have != nil && (k.kind == list || k.kind == added) {
			out[k.name] = have.values
		}
	}
	return out
}

// base tells whether the values are added to what the definition says.
func (o *override) base() bool { return o.appends && !o.cleared }

// says tells whether the list is changed at all.
func (o *override) says() bool { return len(o.values) > 0 || o.cleared }

func (o *override) boolean() (bool, error) {
	b, err := strconv.ParseBool(o.values[0])
	if err != nil {
		return false, fmt.Errorf("invalid value %s for a boolean key: write true or false", o.values[0])
	}
	return b, nil
}
