package buildflag

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// The output types, as written after "type=".
const (
	OutputLocal     = "local"     // a folder
	OutputTar       = "tar"       // the same as one tar archive
	OutputOCI       = "oci"       // an OCI layout, as a tar archive
	OutputDocker    = "docker"    // what `docker load` reads
	OutputImage     = "image"     // an image in the daemon's store, pushed with push=true
	OutputRegistry  = "registry"  // an image that is pushed
	OutputCacheOnly = "cacheonly" // nothing but the cache
)

// Stdout is the Dest of an output that goes to the standard output.
const Stdout = "-"

// Output is one --output.
type Output struct {
	Type  string            // one of the Output… constants
	Attrs map[string]string // everything but type and dest; never nil; keys in lower case
	Dest  string            // "" none given, Stdout, else a path as the user typed it

	// Engine: it goes into a Docker engine, though its type does not say so. No
	// flag sets it; see request.ForLoad.
	Engine bool
}

// Loads tells whether the output goes into a Docker engine.
func (o Output) Loads() bool {
	return o.Engine || o.Type == OutputDocker && o.Dest == "" && o.Bool("tar", true)
}

// Pushes tells whether the output is uploaded to a registry.
func (o Output) Pushes() bool {
	return o.Type == OutputRegistry || o.Type == OutputImage && o.Bool("push", false)
}

// outputTypes is every type with what may be said about its dest.
func outputTypes() []string {
	return []string{OutputLocal, OutputTar, OutputOCI, OutputDocker, OutputImage, OutputRegistry, OutputCacheOnly}
}

// boolAttrs are the attributes that berth itself acts on; "" counts as true.
func boolAttrs() []string { return []string{"push", "push-by-digest", "platform-split", "tar"} }

// Bool reads a boolean attribute: absent is def, and an empty value is true,
// as BuildKit reads it. ParseOutputs has refused anything unreadable.
func (o Output) Bool(key string, def bool) bool {
	v, ok := o.Attrs[key]
	if !ok {
		return def
	}
	if v == "" {
		return true
	}
	b, err := strconv.ParseBool(v)
	return err == nil && b
}

// String is the output as a flag value; ParseOutputs reads it back.
func (o Output) String() string {
	parts := []string{"type=" + o.Type}
	if o.Dest != "" {
		parts = append(parts, "dest="+o.Dest)
	}
	for _, k := range sortedKeys(o.Attrs) {
		parts = append(parts, k+"="+o.Attrs[k])
	}
	return joinFields(parts)
}

// ParseOutputs reads the values of --output, in their order. A value without
// a key is a folder, and "-" is a tar archive on the standard output.
func ParseOutputs(vals []string) ([]Output, error) {
	var out []Output
	for _, v := range vals {
		o, err := parseOutput(v)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("--output %q", v))
		}
		out = append(out, o)
	}
	return out, nil
}

func parseOutput(value string) (Output, error) {
	if strings.TrimSpace(value) == "" {
		return Output{}, hint.New("it is empty", "write --output type=TYPE, or --output FOLDER")
	}
	parts, err := fields(value)
	if err != nil {
		return Output{}, err
	}
	if len(parts) == 1 && !looksLikePair(parts[0]) {
		if parts[0] == "" {
			return Output{}, hint.New("it is empty", "write --output type=TYPE, or --output FOLDER")
		}
		if parts[0] == Stdout {
			return Output{Type: OutputTar, Attrs: map[string]string{}, Dest: Stdout}, nil
		}
		return Output{Type: OutputLocal, Attrs: map[string]string{}, Dest: parts[0]}, nil
	}
	o, err := collectOutput(parts)
	if err != nil {
		return Output{}, err
	}
	return o, o.check()
}

// looksLikePair tells "name=value" from a folder whose name has a "=": a key
// has no path separator and no capital letter.
func looksLikePair(s string) bool {
	key, _, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return false
	}
	if strings.EqualFold(key, "type") {
		return true
	}
	for _, r := range key {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' {
			return false
		}
	}
	return key[0] >= 'a'
}

func collectOutput(parts []string) (Output, error) {
	o := Output{Attrs: map[string]string{}}
	seen := map[string]bool{}
	for _, part := range parts {
		key, value, ok := splitPair(part)
		if !ok || key == "" {
			return Output{}, fmt.Errorf("%q is not KEY=VALUE", part)
		}
		if seen[key] {
			return Output{}, fmt.Errorf("%q is given twice", key)
		}
		seen[key] = true
		switch key {
		case "type":
			o.Type = value
		case "dest":
			if value == "" {
				return Output{}, hint.New(`"dest" is empty`, "name a path, or - for the standard output")
			}
			o.Dest = value
		default:
			o.Attrs[key] = value
		}
	}
	return o, nil
}

// check refuses what can be known to be wrong from the one value alone.
func (o Output) check() error {
	if o.Type == "" {
		return hint.New(`"type" is missing`, "the types are "+strings.Join(outputTypes(), ", "),
			"for a folder with a = in its name, write ./NAME")
	}
	if !slices.Contains(outputTypes(), o.Type) {
		return hint.New(fmt.Sprintf("type %q is not known", o.Type), "the types are "+strings.Join(outputTypes(), ", "))
	}
	for _, key := range boolAttrs() {
		if v := o.Attrs[key]; v != "" {
			if _, err := strconv.ParseBool(v); err != nil {
				return fmt.Errorf("%q must be true or false, not %q", key, v)
			}
		}
	}
	switch o.Type {
	case OutputLocal:
		return o.checkLocal()
	case OutputImage, OutputRegistry, OutputCacheOnly:
		if o.Dest != "" {
			return hint.New(fmt.Sprintf(`type %q does not take "dest"`, o.Type), "to write an image into a file, use type=oci or type=docker")
		}
	case OutputOCI, OutputDocker:
		if !o.Bool("tar", true) && o.Dest == Stdout {
			return hint.New(`tar=false writes a folder, which "dest=-" is not`, "give dest=FOLDER")
		}
	}
	if o.Type == OutputRegistry && !o.Bool("push", true) {
		return hint.New("type=registry pushes, so push=false contradicts it", "use type=image")
	}
	return nil
}

func (o Output) checkLocal() error {
	switch o.Dest {
	case "":
		return hint.New(`type=local needs "dest"`, "write type=local,dest=FOLDER")
	case Stdout:
		return hint.New("type=local writes a folder and cannot go to the standard output", "use type=tar,dest=-")
	}
	switch mode := o.Attrs["mode"]; mode {
	case "", "copy", "delete":
		return nil
	default:
		return fmt.Errorf(`"mode" must be copy or delete, not %q`, mode)
	}
}
