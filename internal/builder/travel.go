package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/state"
)

// ImportOptions say how a definition file's builders are made one's own.
type ImportOptions struct {
	Dir string // what relative paths in it are relative to
	Use bool   // choose the builder; the file has one then
}

// The files that embedded certificates become.
const (
	caFile   = "ca.pem"
	certFile = "cert.pem"
	keyFile  = "key.pem"
)

// made is a builder that is ready to be stored.
type made struct {
	group state.Group
	certs []state.CertFile
}

// Import stores the builders of a definition file and gives their names. All
// are checked before the first is stored, and none is when one cannot be; no
// daemon is contacted. One that is stored already, just as it is, stays.
func (s *Service) Import(ctx context.Context, f builderfile.File, o ImportOptions) ([]string, error) {
	if o.Use {
		if len(f.Builders) != 1 {
			return nil, hint.New(fmt.Sprintf("the file has %d builders, and only one can be chosen", len(f.Builders)), "leave --use out, and choose one: berth use NAME")
		}
		if _, err := s.Key(); err != nil { // what Use will need
			return nil, err
		}
	}
	var names []string
	var fresh []made
	for _, def := range f.Builders {
		m, err := s.make(ctx, def, o.Dir)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("builder %q", def.Name))
		}
		names = append(names, m.group.Name)
		switch same, err := s.stored(ctx, m); {
		case err != nil:
			return nil, err
		case !same:
			fresh = append(fresh, m)
		}
	}
	for i, m := range fresh {
		err := s.Store.Add(ctx, &m.group, m.certs)
		if err == nil {
			err = s.Store.Touch(ctx, m.group.Name, time.Now())
			i++ // it is there
		}
		if err != nil {
			for _, done := range fresh[:i] {
				_ = s.Store.Remove(context.WithoutCancel(ctx), done.group.Name) // the first error is what matters
			}
			return nil, err
		}
	}
	if o.Use {
		return names, s.Use(ctx, names[0], UseOptions{})
	}
	return names, nil
}

// make checks a builder of a file's and gives it the stored form.
func (s *Service) make(ctx context.Context, def builderfile.Builder, dir string) (made, error) {
	if s.isContext(def.Name) {
		return made{}, hint.New(fmt.Sprintf("instance name %q already exists as context builder", def.Name), "choose another: --name NAME")
	}
	m := made{group: state.Group{Name: strings.ToLower(def.Name), Driver: DriverRemote}}
	for _, n := range def.Nodes {
		node, err := s.nodeOf(n, dir)
		if err == nil {
			err = s.checkTLS(ctx, n.Endpoint, node.options)
		}
		if err != nil {
			return made{}, hint.Wrap(err, "node "+n.Name)
		}
		for _, c := range []struct{ option, file, pem string }{
			{endpoint.OptCACert, caFile, n.Certs.CACert}, {endpoint.OptCert, certFile, n.Certs.Cert}, {endpoint.OptKey, keyFile, n.Certs.Key.Reveal()},
		} {
			if c.pem != "" {
				node.DriverOpts[c.option] = s.Store.CertPath(def.Name, n.Name, c.file)
				m.certs = append(m.certs, state.CertFile{Node: n.Name, Name: c.file, Data: []byte(c.pem)})
			}
		}
		if len(node.DriverOpts) == 0 {
			node.DriverOpts = nil
		}
		m.group.Nodes = append(m.group.Nodes, state.Node{
			Name: n.Name, Endpoint: node.Endpoint, Platforms: n.Platforms, DriverOpts: node.DriverOpts,
		})
	}
	return m, nil
}

// stored tells whether m is there already. Another builder of its name is an
// error.
func (s *Service) stored(ctx context.Context, m made) (bool, error) {
	g, err := s.Store.Get(ctx, m.group.Name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case g.Driver == m.group.Driver && sameNodes(g.Nodes, m.group.Nodes) && s.sameCerts(m):
		return true, nil
	}
	return false, hint.New(fmt.Sprintf("there is a builder %s already, and it is another one", g.Name),
		"remove it: berth rm "+g.Name, "or, for a file with one builder, choose another name: --name NAME")
}

func sameNodes(a, b []state.Node) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		same := a[i].Name == b[i].Name && a[i].Endpoint == b[i].Endpoint && maps.Equal(a[i].DriverOpts, b[i].DriverOpts) &&
			len(a[i].Platforms) == len(b[i].Platforms) && (len(a[i].Platforms) == 0 || reflect.DeepEqual(a[i].Platforms, b[i].Platforms))
		if !same {
			return false
		}
	}
	return true
}

func (s *Service) sameCerts(m made) bool {
	for _, c := range m.certs {
		data, err := os.ReadFile(s.Store.CertPath(m.group.Name, c.Node, c.Name))
		if err != nil || string(data) != string(c.Data) {
			return false
		}
	}
	return true
}

// Export describes b for a definition file, with absolute paths. Only with
// embed do secrets go with it: certificates and keys become texts, and a
// proxy's password stays. left says what was left out.
func (s *Service) Export(b *Builder, embed bool) (def builderfile.Builder, left []string, err error) {
	fail := func(err error, hints ...string) (builderfile.Builder, []string, error) {
		return builderfile.Builder{}, nil, hint.Wrap(err, fmt.Sprintf("builder %q", b.Name), hints...)
	}
	switch {
	case b.Err != nil:
		return fail(b.Err)
	case b.Driver == DriverDocker:
		return fail(errors.New("is Docker's own BuildKit, of a docker context of this machine"), "docker contexts travel by themselves: docker context export "+b.Name)
	case b.Driver != DriverRemote:
		return fail(fmt.Errorf("is of the %s driver: buildx started it, and it cannot travel", b.Driver))
	case len(b.Nodes) == 0:
		return fail(errors.New("has no nodes"))
	}
	def.Name = b.Name
	for _, n := range b.Nodes {
		node, said, err := exportNode(n, embed)
		if err != nil {
			return fail(hint.Wrap(err, "node "+n.Name))
		}
		def.Nodes = append(def.Nodes, node)
		for _, text := range said {
			left = append(left, fmt.Sprintf("node %s: %s", n.Name, text))
		}
	}
	return def, left, nil
}

func exportNode(n Node, embed bool) (node builderfile.Node, left []string, err error) {
	e, err := endpoint.Parse(n.Endpoint)
	if err != nil {
		return node, nil, err
	}
	o, err := endpoint.ParseOptions(e, n.DriverOpts)
	if err != nil {
		return node, nil, err
	}
	o.Inline = n.options.Inline
	node = builderfile.Node{Name: n.Name, Endpoint: e, Platforms: n.Platforms, Options: maps.Clone(n.DriverOpts)}
	switch {
	case embed:
		if err := embedCerts(&node, o); err != nil {
			return node, nil, err
		}
	case o.Inline != endpoint.Inline{}:
		left = append(left, "its certificates are texts, which go with it only with --embed-certs")
	}
	if !o.Proxy.Password.IsZero() && !embed {
		o.Proxy.Password = endpoint.Secret{}
		node.Options[endpoint.OptProxy] = o.Proxy.String()
		left = append(left, "the proxy's password, which goes with it only with --embed-certs")
	}
	if len(n.Flags)+len(n.Files) > 0 {
		left = append(left, "flags and files of buildx's, which mean nothing to a daemon that others run")
	}
	return node, left, nil
}

// embedCerts puts the files that o names into the node, as texts.
func embedCerts(node *builderfile.Node, o endpoint.Options) error {
	texts, err := remote.TLSTexts(o)
	if err != nil {
		return err
	}
	node.Certs = builderfile.Certs{CACert: texts.CACert.Reveal(), Cert: texts.Cert.Reveal(), Key: texts.Key}
	maps.DeleteFunc(node.Options, func(k, _ string) bool { return slices.Contains(builderfile.PathOptions(), k) })
	return nil
}
