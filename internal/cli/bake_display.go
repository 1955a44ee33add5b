package cli

import (
	"github.com/berthbuild/berth/internal/builder"
	"github.com/moby/buildkit/client"
)

// bakeDisplay is the display of a bake. It shows how the definition is fetched,
// too, and so is opened when it is first needed.
type bakeDisplay struct {
	display
	a      *app
	opened bool
}

func (a *app) newBakeDisplay(o bakeOptions) (*bakeDisplay, error) {
	mode, err := a.progressMode(buildOptions{progress: o.progress})
	if err != nil {
		return nil, err
	}
	return &bakeDisplay{a: a, display: display{mode: mode}}, nil
}

// open opens it, unless it is open.
func (d *bakeDisplay) open(b *builder.Builder) (err error) {
	if d.opened {
		return nil
	}
	if d.display, err = d.a.openDisplay(d.mode, b); err == nil {
		d.opened = true
	}
	return err
}

// close ends it, where it is open: before anything else is written, and before a
// question is asked.
func (d *bakeDisplay) close() []client.VertexWarning {
	if !d.opened {
		return nil
	}
	d.opened = false
	return d.a.closeDisplay(d.display)
}
