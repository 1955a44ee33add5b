package bake

import (
	"fmt"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
)

// Flags are the flags of bake that stand for --set of every target. They go
// after what --set says.
type Flags struct {
	NoCache, Pull    *bool // nil: not given
	Load, Push       bool
	Provenance, SBOM string // the value of the flag; "" not given
	Call             string // the method of the flag; build and "" leave it to the targets
}

// Set is what they stand for.
func (f Flags) Set() []string {
	var out []string
	add := func(key, value string) { out = append(out, "*."+key+"="+value) }
	for _, b := range []struct {
		key   string
		given *bool
	}{{"no-cache", f.NoCache}, {"pull", f.Pull}} {
		if b.given != nil {
			add(b.key, map[bool]string{true: "true", false: "false"}[*b.given])
		}
	}
	if f.Push {
		add("push", "true")
	}
	if f.Load {
		add("load", "true")
	}
	for _, a := range [][2]string{{"sbom", f.SBOM}, {"provenance", f.Provenance}} {
		if a[1] != "" {
			add("attest", eval.Attestation(a[0], a[1]))
		}
	}
	switch f.Call {
	case "", "build":
	case "check":
		add("call", "lint") // as the frontend calls it
	default:
		add("call", f.Call)
	}
	return out
}

// ParsePolicy reads the values of --policy: whether policies are turned off. That
// is all that can be asked for, as none is evaluated here.
func ParsePolicy(values []string) (off bool, err error) {
	for _, v := range values {
		p, err := eval.ParsePolicy(v)
		switch {
		case err != nil:
			return false, fmt.Errorf("--policy %s: %w", v, err)
		case len(p.Files) > 0:
			return false, hint.New("--policy does not accept filename", "a definition names the files of a policy, and this version of berth evaluates none")
		case p.Reset:
			return false, hint.New("--policy does not accept reset", "a definition says that, and this version of berth evaluates no policy")
		case p.Disabled && (p.Strict != nil || p.LogLevel != "" || len(values) > 1):
			return false, hint.New("a disabled policy cannot be combined with other policy flags", "write --policy disabled=true alone")
		case !p.Disabled:
			return false, hint.New(fmt.Sprintf("--policy %s: this version of berth evaluates no policy", v), "if it may be built without: --policy disabled=true")
		}
	}
	return len(values) > 0, nil
}
