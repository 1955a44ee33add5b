package builderfile

import (
	"bytes"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/containerd/platforms"
	"go.yaml.in/yaml/v3"
)

// Print writes f for a file in the folder dir: paths of options and of
// kubeconfigs that lie in it become relative to it, others below home begin
// with ~. Both may be "". Secrets in f are written; whoever calls has taken out
// those that are not to travel. Parse reads the result back.
func Print(f File, dir, home string) ([]byte, error) {
	w := printer{dir: dir, home: home}
	builders := list()
	for _, b := range f.Builders {
		nodes := list()
		for _, n := range b.Nodes {
			nodes.Content = append(nodes.Content, w.node(n))
		}
		builders.Content = append(builders.Content, mapping(text("name"), text(b.Name), text("nodes"), nodes))
	}
	version := text(Version)
	version.Tag = "!!int"
	root := mapping(text("version"), version, text("builders"), builders)
	root.HeadComment = "# yaml-language-server: $schema=" + SchemaURL
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

type printer struct{ dir, home string }

func (w printer) node(n Node) *yaml.Node {
	m := mapping(text("name"), text(n.Name), text("endpoint"), text(w.endpoint(n.Endpoint)))
	add := func(key string, value *yaml.Node) { m.Content = append(m.Content, text(key), value) }
	if len(n.Platforms) > 0 {
		all := list()
		all.Style = yaml.FlowStyle
		for _, p := range n.Platforms {
			all.Content = append(all.Content, text(platforms.FormatAll(p)))
		}
		add("platforms", all)
	}
	if len(n.Options) > 0 {
		all := mapping()
		for _, key := range slices.Sorted(maps.Keys(n.Options)) {
			value := n.Options[key]
			if slices.Contains(PathOptions(), key) {
				value = w.path(value)
			}
			all.Content = append(all.Content, text(key), text(value))
		}
		add("options", all)
	}
	if !n.Certs.IsZero() {
		all := mapping()
		for _, c := range []struct{ key, pem string }{
			{endpoint.OptCACert, n.Certs.CACert}, {endpoint.OptCert, n.Certs.Cert}, {endpoint.OptKey, n.Certs.Key.Reveal()},
		} {
			if c.pem != "" {
				value := text(c.pem)
				value.Style = yaml.LiteralStyle
				all.Content = append(all.Content, text(c.key), value)
			}
		}
		add("certs", all)
	}
	return m
}

// endpoint is the URL with its kubeconfig's path as path makes it. What begins
// with ~ no endpoint can have.
func (w printer) endpoint(e endpoint.Endpoint) string {
	file := e.Param(endpoint.KubeConfig)
	if file == "" || !strings.HasPrefix(e.Scheme, "kube-") {
		return e.String()
	}
	if file = w.path(file); strings.HasPrefix(file, "~") {
		return e.String()
	}
	q, err := url.ParseQuery(e.Query)
	if err != nil {
		return e.String() // Parse wrote it, so it can be read
	}
	q.Set(endpoint.KubeConfig, file)
	e.Query = q.Encode()
	return e.String()
}

// path is how an absolute path is written.
func (w printer) path(path string) string {
	if rel, ok := Within(w.dir, path); ok {
		if strings.HasPrefix(rel, "~") { // a folder of that name
			rel = "./" + rel
		}
		return rel
	}
	if rel, ok := Within(w.home, path); ok {
		return "~/" + rel
	}
	return path
}

// Within is the path relative to dir, with slashes, where it lies in it.
func Within(dir, path string) (string, bool) {
	if dir == "" || !filepath.IsAbs(path) {
		return "", false
	}
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return "", false
	}
	return filepath.ToSlash(rel), true
}

// text is a scalar that reads back as what it is: the encoder quotes it where a
// reader would take it for something else.
func text(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func list() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode} }

func mapping(content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: content}
}
