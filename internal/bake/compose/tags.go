package compose

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

// resets are the places at which a document says !reset or !override: what was
// there before it is gone. A place is its keys, each after a zero byte.
type resets map[string]bool

func place(at, key string) string { return at + "\x00" + key }

// values are what a document says, without what it resets.
func values(doc *yaml.Node) (any, resets, error) {
	var out any
	if !tagged(doc) {
		return out, nil, doc.Decode(&out)
	}
	r := resets{}
	n := r.unfold(doc, "")
	if n == nil {
		return nil, r, nil
	}
	return out, r, n.Decode(&out)
}

// tagged tells whether a document has one of the tags.
func tagged(n *yaml.Node) bool {
	return n.Tag == "!reset" || n.Tag == "!override" || slices.ContainsFunc(n.Content, tagged)
}

// unfold copies a node without what is reset in it, and with what its aliases
// stand for, since a tag within an anchor is one at each of their places. How much
// that may be is bounded (documents). What overrides is taken as it is.
func (r resets) unfold(n *yaml.Node, at string) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Tag {
	case "!reset":
		r[at] = true
		return nil
	case "!override":
		r[at] = true
		return n
	}
	out := *n
	out.Anchor, out.Content = "", nil
	for i, child := range n.Content {
		switch n.Kind {
		case yaml.MappingNode:
			if i%2 == 0 {
				continue
			}
			key, to := n.Content[i-1], at // what is merged is the mapping's own
			if key.Value != "<<" {
				to = place(at, key.Value)
			}
			if value := r.unfold(child, to); value != nil {
				out.Content = append(out.Content, key, value)
			}
		case yaml.SequenceNode:
			if value := r.unfold(child, place(at, fmt.Sprint(i))); value != nil {
				out.Content = append(out.Content, value)
			}
		default: // of a document
			value := r.unfold(child, at)
			if value == nil {
				return nil
			}
			out.Content = append(out.Content, value)
		}
	}
	return &out
}

// apply takes out of a mapping what is reset. Nothing is reset within lists.
func (r resets) apply(m map[string]any, at string) {
	if len(r) == 0 {
		return
	}
	for key, v := range m {
		to := place(at, key)
		if r[to] {
			delete(m, key)
		} else if inner, ok := v.(map[string]any); ok {
			r.apply(inner, to)
		}
	}
}

// textKeys makes the keys of all mappings texts, or names one that is none.
func textKeys(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			e, err := textKeys(e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			v[key] = e
		}
	case map[any]any:
		out := make(map[string]any, len(v))
		for key, e := range v {
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("the key %s is no text", clip(fmt.Sprint(key)))
			}
			e, err := textKeys(e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			out[name] = e
		}
		return out, nil
	case []any:
		for i, e := range v {
			e, err := textKeys(e)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			v[i] = e
		}
	}
	return v, nil
}
