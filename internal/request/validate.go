package request

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// Validate refuses what no daemon could build, before anything is contacted.
func (r Request) Validate() error {
	for _, check := range []func() error{r.checkContext, r.checkDockerfile, r.checkKeys, r.checkPush, r.checkOutputs, r.checkDests, r.checkCaches, r.checkAnnotations} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (r Request) checkContext() error {
	var given []string
	for _, c := range []struct {
		what string
		set  bool
	}{{r.Context.Dir, r.Context.Dir != ""}, {buildflag.RedactURL(r.Context.URL), r.Context.URL != ""}, {"an archive", r.Context.Upload != ""}, {"nothing", r.Context.Empty}} {
		if c.set {
			given = append(given, c.what)
		}
	}
	switch len(given) {
	case 0:
		return hint.New("the build has no context", "name a folder, such as .")
	case 1:
		return nil
	}
	return fmt.Errorf("the build has two contexts, %s and %s", given[0], given[1])
}

func (r Request) checkDockerfile() error {
	d := r.Dockerfile
	switch {
	case d.Inline != nil && d.Dir != "":
		return fmt.Errorf("the Dockerfile comes from standard input and from %s", d.Dir)
	case d.URL != "" && (d.Inline != nil || d.Dir != ""):
		return fmt.Errorf("the Dockerfile comes from %s and from here", buildflag.RedactURL(d.URL))
	case d.Inline != nil && len(d.Inline) == 0:
		return hint.New("the Dockerfile from standard input is empty")
	case d.Inline == nil && d.Dir == "" && d.URL == "" && !r.Context.remote():
		return hint.New("the build has no Dockerfile", "name it with --file")
	case d.Dir != "" && d.Name == "":
		return hint.New("the name of the Dockerfile is empty", "name it with --file")
	case d.URL != "" && r.Context.remote() && !r.gitContext():
		return hint.New("a Dockerfile that the daemon downloads goes with a folder or a Git repository, not with an archive",
			"download it first: -f FILE, with the whole path")
	}
	return nil
}

// gitContext tells whether the main context is a Git repository.
func (r Request) gitContext() bool {
	kind, err := buildflag.RemoteContext(r.Context.URL)
	return err == nil && kind == buildflag.ContextGit
}

func (r Request) checkKeys() error {
	empty := func(kv buildflag.KV) bool { return kv.Key == "" }
	switch { // the values stay out of the message: they may be secrets
	case slices.ContainsFunc(r.BuildArgs, empty):
		return hint.New("a build argument has an empty name")
	case slices.ContainsFunc(r.Labels, empty):
		return hint.New("a label has an empty name")
	}
	return nil
}

func (r Request) checkPush() error {
	for _, o := range r.Outputs {
		if pushes(o) && len(r.names(o)) == 0 {
			return hint.New("tag is needed when pushing to registry", "name the image with --tag REGISTRY/NAME:TAG")
		}
	}
	return nil
}

func (r Request) checkOutputs() error {
	layouts := 0
	for _, o := range r.Outputs {
		if o.Type == buildflag.OutputDocker && !o.Loads() && len(r.Platforms) > 1 {
			return hint.New(fmt.Sprintf("type=docker holds one platform, and the build is for %s", platformList(r.Platforms)),
				"choose one with --platform", "to keep them all, use --push, or --output type=oci,dest=FILE")
		}
		if (o.Type == buildflag.OutputDocker || o.Type == buildflag.OutputOCI) && !o.Bool("tar", true) {
			if o.Dest == "" {
				return hint.New(fmt.Sprintf("%s writes a folder and needs \"dest\"", o), "give dest=FOLDER")
			}
			if layouts++; layouts > 1 {
				return hint.New("only one output can be a layout folder (tar=false)", "write the others as archives")
			}
		}
	}
	return nil
}

// checkDests refuses two outputs that would write over each other.
func (r Request) checkDests() error {
	seen := map[string]buildflag.Output{}
	for _, o := range r.Outputs {
		dest := o.Dest
		if dest == "" && (o.Type == buildflag.OutputTar || o.Type == buildflag.OutputOCI) && !o.Loads() {
			dest = buildflag.Stdout
		}
		if dest == "" {
			continue
		}
		if dest != buildflag.Stdout {
			dest = filepath.Clean(dest)
		}
		first, twice := seen[dest]
		seen[dest] = o
		switch {
		case !twice:
		case dest == buildflag.Stdout:
			return hint.New(fmt.Sprintf("two outputs go to the standard output: %s and %s", first, o), "give one of them a file: dest=FILE")
		default:
			return fmt.Errorf("two outputs go to %s: %s and %s", o.Dest, first, o)
		}
	}
	return checkDeleted(seen)
}

// checkDeleted refuses an output in a folder that is cleared of all that is not
// exported to it.
func checkDeleted(outputs map[string]buildflag.Output) error {
	for dir, o := range outputs {
		if o.Type != buildflag.OutputLocal || o.Attrs["mode"] != "delete" {
			continue
		}
		for dest, other := range outputs {
			rel, err := filepath.Rel(dir, dest)
			if err == nil && dest != dir && dest != buildflag.Stdout && filepath.IsLocal(rel) {
				return hint.New(fmt.Sprintf("%s would delete what %s writes", o, other), "choose a destination outside "+o.Dest)
			}
		}
	}
	return nil
}

// pushes tells whether the daemon sends the output to a registry.
func pushes(o buildflag.Output) bool {
	switch o.Type {
	case buildflag.OutputRegistry:
		return true
	case buildflag.OutputImage:
		return o.Bool("push", false)
	}
	return false
}

// names are the references that an image output gets: the tags, or else its own.
func (r Request) names(o buildflag.Output) []string {
	if len(r.Tags) > 0 {
		return append([]string(nil), r.Tags...)
	}
	own := o.Attrs["name"]
	var out []string
	for name := range strings.SplitSeq(own, ",") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}
