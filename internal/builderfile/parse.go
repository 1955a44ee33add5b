package builderfile

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/state"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v3"
)

// reserved is the name that stands for Docker's own BuildKit.
const reserved = "default"

// Parse reads a file. The error is an *Error: the first thing that is wrong.
func Parse(data []byte, at Place) (File, error) {
	p := parser{at: at}
	root, err := p.document(data)
	if err != nil {
		return File{}, err
	}
	return p.file(root)
}

type parser struct {
	at    Place
	nodes int
}

// fail is about the line of a YAML node.
func (p *parser) fail(n *yaml.Node, err error) error {
	return &Error{File: p.at.File, Line: n.Line, Err: err}
}

func (p *parser) failf(n *yaml.Node, format string, args ...any) error {
	return p.fail(n, fmt.Errorf(format, args...))
}

// document reads YAML without giving it a meaning: aliases are not followed, so
// that nothing grows.
func (p *parser) document(data []byte) (*yaml.Node, error) {
	whole := func(err error) error { return &Error{File: p.at.File, Err: err} }
	switch {
	case len(data) > MaxSize:
		return nil, whole(fmt.Errorf("is larger than %d MiB", MaxSize>>20))
	case !utf8.Valid(data):
		return nil, whole(errors.New("is not UTF-8"))
	}
	d := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, second yaml.Node
	if err := decode(d, &doc); err != nil {
		return nil, whole(err)
	}
	if len(doc.Content) != 1 {
		return nil, whole(errEmpty)
	}
	switch err := d.Decode(&second); {
	case err == nil:
		return nil, p.failf(&second, "begins a second document; one file is one document")
	case !isEOF(err):
		return nil, whole(err)
	}
	return doc.Content[0], nil
}

func (p *parser) file(root *yaml.Node) (File, error) {
	m, err := p.mapping(root, "the file", "version", "builders")
	if err != nil {
		return File{}, err
	}
	version, err := p.text(m, "version", root)
	if err != nil {
		return File{}, err
	}
	if version != Version {
		return File{}, p.fail(m["version"], hint.New(fmt.Sprintf("version %q is not known to this berth", clip(version)), "version: "+Version))
	}
	list, err := p.list(m, "builders", root)
	if err != nil {
		return File{}, err
	}
	var f File
	for _, n := range list {
		b, err := p.builder(n)
		if err != nil {
			return File{}, err
		}
		if other, dup := f.Find(b.Name); dup {
			return File{}, p.failf(n, "a builder named %s stands on line %d already", b.Name, other.Line)
		}
		f.Builders = append(f.Builders, b)
	}
	return f, nil
}

func (p *parser) builder(n *yaml.Node) (Builder, error) {
	m, err := p.mapping(n, "a builder", "name", "nodes")
	if err != nil {
		return Builder{}, err
	}
	b := Builder{Line: n.Line}
	if b.Name, err = p.name(m, n); err != nil {
		return b, err
	}
	if err := ValidName(b.Name); err != nil {
		return b, p.fail(m["name"], err)
	}
	list, err := p.list(m, "nodes", n)
	if err != nil {
		return b, err
	}
	for i, n := range list {
		if p.nodes++; p.nodes > maxNodes {
			return b, p.failf(n, "a file has at most %d nodes", maxNodes)
		}
		node, err := p.node(n, fmt.Sprintf("%s%d", b.Name, i))
		if err != nil {
			return b, err
		}
		for _, other := range b.Nodes {
			switch {
			case other.Name == node.Name:
				return b, p.failf(n, "a node named %s stands on line %d already", node.Name, other.Line)
			case other.Endpoint == node.Endpoint && maps.Equal(other.Options, node.Options):
				return b, p.failf(n, "node %s on line %d is at %s already", other.Name, other.Line, node.Endpoint)
			}
		}
		b.Nodes = append(b.Nodes, node)
	}
	return b, nil
}

func (p *parser) node(n *yaml.Node, name string) (Node, error) {
	m, err := p.mapping(n, "a node", "name", "endpoint", "platforms", "options", "certs")
	if err != nil {
		return Node{}, err
	}
	node := Node{Name: name, Line: n.Line}
	if m["name"] != nil {
		if node.Name, err = p.name(m, n); err != nil {
			return node, err
		}
	}
	if err := p.endpoint(m, n, &node); err != nil {
		return node, err
	}
	if err := p.options(m["options"], &node); err != nil {
		return node, err
	}
	if err := p.certs(m["certs"], &node); err != nil {
		return node, err
	}
	if err := p.checkOptions(m, n, node); err != nil {
		return node, err
	}
	return node, p.platforms(m["platforms"], &node)
}

func (p *parser) name(m map[string]*yaml.Node, n *yaml.Node) (string, error) {
	name, err := p.text(m, "name", n)
	if err != nil {
		return "", err
	}
	if _, err := state.ValidName(name); err != nil {
		return "", p.fail(m["name"], err)
	}
	return name, nil
}

// ValidName says why a file cannot have a builder of that name.
func ValidName(name string) error {
	if _, err := state.ValidName(name); err != nil {
		return err
	}
	if strings.EqualFold(name, reserved) {
		return hint.New(`the name "default" is reserved for Docker's own BuildKit`, "choose another name")
	}
	return nil
}

// endpoint reads the endpoint, with the driver options that its URL has.
func (p *parser) endpoint(m map[string]*yaml.Node, n *yaml.Node, node *Node) error {
	raw, err := p.text(m, "endpoint", n)
	if err != nil {
		return err
	}
	if node.Endpoint, node.Options, err = endpoint.Locate(p.withKubeconfig(raw)); err != nil {
		return p.fail(m["endpoint"], err)
	}
	return nil
}

// withKubeconfig makes the path of a kubeconfig that is relative to the file an
// absolute one, which is all that an endpoint can have.
func (p *parser) withKubeconfig(raw string) string {
	base, query, _ := strings.Cut(raw, "?")
	q, err := url.ParseQuery(query)
	file := q.Get(endpoint.KubeConfig)
	if err != nil || !strings.HasPrefix(strings.ToLower(base), "kube-") || file == "" ||
		isAbs(file) || strings.HasPrefix(file, "~") || strings.Contains(query, "#") || len(q[endpoint.KubeConfig]) != 1 {
		return raw // as it is, or for Locate to refuse
	}
	q.Set(endpoint.KubeConfig, filepath.Join(p.at.Dir, filepath.FromSlash(file)))
	return base + "?" + q.Encode()
}

// isAbs tells absolute paths of any system: files travel.
func isAbs(path string) bool {
	drive := len(path) > 2 && path[1] == ':' && (path[2] == '\\' || path[2] == '/')
	return drive || strings.HasPrefix(path, "/") || filepath.IsAbs(path)
}

// options reads a mapping of scalars: their text counts, not their type, so
// that default-load: true and connect-timeout: 1m need no quotes.
func (p *parser) options(n *yaml.Node, node *Node) error {
	if n == nil {
		return nil
	}
	m, err := p.mapping(n, "options")
	if err != nil {
		return err
	}
	for key, value := range m {
		text, err := p.scalar(value, "option "+key)
		if err != nil {
			return err
		}
		if _, both := node.Options[key]; both {
			return p.failf(value, "option %s is in the endpoint's URL, too", key)
		}
		node.Options[key] = text
	}
	return nil
}

// certs reads certificates that are embedded.
func (p *parser) certs(n *yaml.Node, node *Node) error {
	if n == nil {
		return nil
	}
	m, err := p.mapping(n, "certs", endpoint.OptCACert, endpoint.OptCert, endpoint.OptKey)
	if err != nil {
		return err
	}
	for key, value := range m {
		text, err := p.scalar(value, "certs."+key)
		if err != nil {
			return err
		}
		if !strings.Contains(text, "-----BEGIN ") {
			return p.failf(value, "certs.%s is not PEM: a file is named under options", key)
		}
		for _, option := range []string{key, endpoint.OptTLSDir} {
			if _, both := node.Options[option]; both {
				return p.failf(value, "certs.%s and the option %s exclude each other", key, option)
			}
		}
		switch key {
		case endpoint.OptCACert:
			node.Certs.CACert = text
		case endpoint.OptCert:
			node.Certs.Cert = text
		case endpoint.OptKey:
			node.Certs.Key = endpoint.NewSecret(text)
		}
	}
	if (node.Certs.Cert == "") != node.Certs.Key.IsZero() {
		return p.failf(n, "certs.cert and certs.key belong together; one of them is missing")
	}
	return nil
}

// checkOptions holds the options against the endpoint, embedded certificates
// standing for files.
func (p *parser) checkOptions(m map[string]*yaml.Node, n *yaml.Node, node Node) error {
	kv := maps.Clone(node.Options)
	for key, has := range map[string]bool{
		endpoint.OptCACert: node.Certs.CACert != "", endpoint.OptCert: node.Certs.Cert != "", endpoint.OptKey: !node.Certs.Key.IsZero(),
	} {
		if has {
			kv[key] = "embedded.pem"
		}
	}
	_, err := endpoint.ParseOptions(node.Endpoint, kv)
	if err == nil {
		return nil
	}
	at := n
	if o := m["options"]; o != nil {
		at = p.culprit(o, node.Endpoint, err)
	}
	return p.fail(at, err)
}

// culprit is the line of the option that is wrong by itself, or of them all.
func (p *parser) culprit(options *yaml.Node, e endpoint.Endpoint, whole error) *yaml.Node {
	for i := 0; i+1 < len(options.Content); i += 2 {
		key, value := options.Content[i], options.Content[i+1]
		_, err := endpoint.ParseOptions(e, map[string]string{key.Value: value.Value})
		if err != nil && err.Error() == whole.Error() {
			return key
		}
	}
	return options
}

func (p *parser) platforms(n *yaml.Node, node *Node) error {
	if n == nil {
		return nil
	}
	list, err := p.list(map[string]*yaml.Node{"platforms": n}, "platforms", n)
	if err != nil {
		return err
	}
	for _, item := range list {
		text, err := p.scalar(item, "a platform")
		if err != nil {
			return err
		}
		one, err := platform(text)
		if err != nil {
			return p.fail(item, err)
		}
		node.Platforms = append(node.Platforms, one)
	}
	return nil
}

// platform reads one platform, as --platform does. What stands for the platform
// of this machine would be another one elsewhere, and is refused.
func platform(text string) (ocispecs.Platform, error) {
	all, err := buildflag.ParsePlatforms([]string{text})
	bad := hint.New(fmt.Sprintf("%q is not a platform", clip(text)), "a platform is OS/ARCH[/VARIANT], such as linux/amd64 or linux/arm/v7")
	if err != nil || len(all) != 1 || strings.EqualFold(text, "local") {
		return ocispecs.Platform{}, bad
	}
	if again, err := buildflag.ParsePlatforms([]string{platforms.FormatAll(all[0])}); err != nil || !reflect.DeepEqual(again, all) {
		return ocispecs.Platform{}, bad // a path rather than a platform: linux/../x
	}
	return all[0], nil
}

// mapping reads the keys of a mapping; without known, any are. A value that is
// not said is as if the key were not there.
func (p *parser) mapping(n *yaml.Node, what string, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, p.failf(n, "%s is %s and not a mapping of keys", what, kind(n))
	}
	m := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, p.failf(key, "a key is a word, and not %s", kind(key))
		}
		if len(known) > 0 && !slices.Contains(known, key.Value) {
			return nil, p.fail(key, hint.New(fmt.Sprintf("%s has no key %q", what, clip(key.Value)), "known are: "+strings.Join(known, ", ")))
		}
		if _, twice := m[key.Value]; twice {
			return nil, p.failf(key, "the key %q is given twice", clip(key.Value))
		}
		m[key.Value] = value
	}
	return m, nil
}

// list reads the items of a list that must be there and have some.
func (p *parser) list(m map[string]*yaml.Node, key string, parent *yaml.Node) ([]*yaml.Node, error) {
	n := m[key]
	switch {
	case n == nil:
		return nil, p.failf(parent, "%s is missing", key)
	case n.Kind != yaml.SequenceNode:
		return nil, p.failf(n, "%s is %s and not a list", key, kind(n))
	case len(n.Content) == 0:
		return nil, p.failf(n, "%s is empty", key)
	}
	return n.Content, nil
}

// text reads a scalar that must be there.
func (p *parser) text(m map[string]*yaml.Node, key string, parent *yaml.Node) (string, error) {
	if m[key] == nil {
		return "", p.failf(parent, "%s is missing", key)
	}
	return p.scalar(m[key], key)
}

func (p *parser) scalar(n *yaml.Node, what string) (string, error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		return "", p.failf(n, "%s is %s and not a text", what, kind(n))
	case n.Tag == "!!null" || n.Value == "":
		return "", p.failf(n, "%s is empty", what)
	case n.Style&yaml.TaggedStyle != 0:
		return "", p.failf(n, "%s has the tag %q; tags have no meaning here", what, clip(n.Tag))
	}
	return n.Value, nil
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which is not used here,"
	}
	return fmt.Sprintf("%q", clip(n.Value))
}

// clip shortens what a message repeats.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
