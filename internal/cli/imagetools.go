package cli

import (
	"context"
	"fmt"
	"sync"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/imagetools"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/registry"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/spf13/cobra"
)

func newImagetoolsCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "imagetools COMMAND",
		Short: "Look at images in registries, and make new ones out of them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImagetoolsCreateCmd(a), newImagetoolsInspectCmd(a))
	return cmd
}

// imageTools are the way to registries: with docker's credentials, and as the builder's
// buildkitd.toml says that they are reached. wait is told why nothing happens.
func (a *app) imageTools(ctx context.Context, wait func(registry.Wait)) (tools *imagetools.Tools, closeTools func(), err error) {
	config, err := a.dockerConfig()
	if err != nil {
		return nil, nil, err
	}
	hosts, err := a.registryHosts(ctx)
	if err != nil {
		return nil, nil, err
	}
	client := registry.New(registry.Options{Keychain: keychain(config), Hosts: hosts, OnWait: wait})
	return imagetools.New(client, a.dir), client.Close, nil
}

// registryHosts reads what the builder's configuration says of registries. Where no
// builder was named, one that cannot be used does not matter.
func (a *app) registryHosts(ctx context.Context) (map[string]registry.Host, error) {
	s := a.service()
	s.Ask = nil // no images need a builder so much that somebody has to be asked
	name := a.builderName(nil)
	b, err := s.Find(ctx, name)
	if err == nil {
		err = b.Err
	}
	if err != nil {
		if name == "" {
			return nil, nil
		}
		return nil, err
	}
	if len(b.Nodes) == 0 {
		return nil, nil
	}
	hosts, err := registry.ParseConfig(b.Nodes[0].Files)
	return hosts, hint.Wrap(err, fmt.Sprintf("the buildkitd.toml of builder %s", b.Name))
}

// showWait says on stderr why nothing happens.
func (a *app) showWait(w registry.Wait) {
	fmt.Fprintln(a.io.Err, termtext.Line(w.String(), maxFinding))
}

// heldWaits says why nothing happens: on stderr, or in a display while there is one.
type heldWaits struct {
	show func(registry.Wait)

	mu      sync.Mutex
	printer *progress.Printer
	step    *progress.Step
}

func (h *heldWaits) say(w registry.Wait) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.printer == nil {
		h.show(w)
		return
	}
	if h.step == nil {
		h.step = h.printer.Step("[internal] waiting for registries")
	}
	h.step.Log(w.String())
}

// log sends what is said into a display.
func (h *heldWaits) log(p *progress.Printer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.printer = p
}

// end ends that, ahead of the display.
func (h *heldWaits) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.step != nil {
		h.step.Done(nil)
	}
	h.printer, h.step = nil, nil
}
