package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"go.yaml.in/yaml/v4"
)

// The bounds of what the files may cost. Compose's library copies what an alias
// stands for, walks the text of every value again for each variable in it, and
// makes a port of every number in a range.
const (
	maxFile    = 2 << 20 // bytes of one file
	maxFiles   = 100     // that others refer to
	maxAll     = 8 << 20 // bytes of all of them
	maxDepth   = 100     // lists and mappings within each other
	maxNodes   = 200_000 // values, with what aliases stand for
	maxBytes   = 8 << 20 // of them
	maxTags    = 1000    // !reset and !override, with those that aliases stand for
	maxPorts   = 200_000 // in ranges
	maxExtends = 200_000 // values, with what services extend
	maxCost    = 16 << 20
	maxLookups = 32 << 20 // bytes of variables put into values
)

// LimitError says that the files reach one of the bounds.
type LimitError struct {
	What string
	Max  int
}

// Error names the bound.
func (l *LimitError) Error() string {
	return fmt.Sprintf("the Compose file has more than %d %s", l.Max, l.What)
}

// checkCost bounds what finding the variables in a text takes: each of them is
// looked for again in the rest of its line.
func checkCost(data []byte, size int) error {
	if len(data) > size {
		return &LimitError{"bytes", size}
	}
	cost := 0
	for line := range bytes.Lines(data) {
		if cost += bytes.Count(line, []byte("$")) * len(line); cost > maxCost {
			return &LimitError{"variables in long lines", maxCost}
		}
	}
	return nil
}

// documents reads a file's documents, within the bounds.
func documents(data []byte) ([]*yaml.Node, error) {
	if err := checkCost(data, maxFile); err != nil {
		return nil, err
	}
	var out []*yaml.Node
	c := &counter{known: map[*yaml.Node]weight{}, open: map[*yaml.Node]bool{}}
	var all weight
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		err := decoder.Decode(&n)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		w, err := c.weigh(&n, 0)
		if err == nil {
			all, err = all.plus(w)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, &n)
	}
}

// weight is how much there is, where every alias is what it stands for.
type weight struct{ nodes, bytes, cost, tags int }

func (w weight) plus(o weight) (weight, error) {
	w = weight{w.nodes + o.nodes, w.bytes + o.bytes, w.cost + o.cost, w.tags + o.tags}
	switch {
	case w.nodes > maxNodes:
		return w, &LimitError{"values, with what its aliases stand for", maxNodes}
	case w.bytes > maxBytes:
		return w, &LimitError{"bytes in its values, with what its aliases stand for", maxBytes}
	case w.cost > maxCost:
		return w, &LimitError{"variables in long lines", maxCost}
	case w.tags > maxTags:
		return w, &LimitError{"!reset and !override", maxTags}
	}
	return w, nil
}

type counter struct {
	known map[*yaml.Node]weight
	open  map[*yaml.Node]bool
}

// weigh adds up a node. What is known already is not walked again, so that this
// takes no longer than the file is.
func (c *counter) weigh(n *yaml.Node, depth int) (weight, error) {
	if depth > maxDepth {
		return weight{}, &LimitError{"lists and mappings within each other", maxDepth}
	}
	if n.Kind == yaml.AliasNode {
		if w, ok := c.known[n.Alias]; ok {
			return w, nil
		}
		if c.open[n.Alias] {
			return weight{}, hint.New(fmt.Sprintf("line %d: the anchor %s is within itself", n.Line, clip(n.Value)))
		}
		return c.weigh(n.Alias, depth+1)
	}
	w := weight{nodes: 1, bytes: len(n.Value), cost: strings.Count(n.Value, "$") * len(n.Value)}
	if n.Tag == "!reset" || n.Tag == "!override" {
		w.tags = 1
	}
	if strings.Contains(n.Value, "\n") {
		w.cost = 0
		for line := range strings.Lines(n.Value) {
			w.cost += strings.Count(line, "$") * len(line)
		}
	}
	c.open[n] = true
	for _, child := range n.Content {
		cw, err := c.weigh(child, depth+1)
		if err == nil {
			w, err = w.plus(cw)
		}
		if err != nil {
			return w, err
		}
	}
	delete(c.open, n)
	if n.Anchor != "" {
		c.known[n] = w
	}
	return w, nil
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// checkPorts bounds the ports that ranges stand for.
func checkPorts(service map[string]any) error {
	count := 0
	for _, key := range []string{"ports", "expose"} {
		list, _ := service[key].([]any)
		for _, p := range list {
			if m, ok := p.(map[string]any); ok {
				p = m["published"]
			}
			count += portsIn(fmt.Sprint(p))
			if count > maxPorts {
				return &LimitError{"ports in ranges", maxPorts}
			}
		}
	}
	return nil
}

// portsIn is how many there may be; with variables, as many as there are ports.
func portsIn(s string) int {
	const all = 1 << 16
	if !strings.Contains(s, "-") {
		return 1
	}
	if strings.Contains(s, "$") {
		return all
	}
	most := 1
	for _, r := range regexp.MustCompile(`(\d+)-(\d+)`).FindAllStringSubmatch(s, -1) {
		from, errFrom := strconv.Atoi(r[1])
		to, errTo := strconv.Atoi(r[2])
		if errFrom != nil || errTo != nil {
			return all
		}
		most = max(most, to-from+1)
	}
	return most
}

// checkExtends bounds what services take from each other within a file: each one
// has a copy of all that it extends.
func checkExtends(services map[string]any) error {
	size := map[string]int{}
	var sizeOf func(name string, depth int) int
	sizeOf = func(name string, depth int) int {
		if n, ok := size[name]; ok {
			return n
		}
		size[name] = 0 // a circle; the library names it
		service, _ := services[name].(map[string]any)
		n := count(service)
		ref, _ := service["extends"].(string)
		if m, ok := service["extends"].(map[string]any); ok && m["file"] == nil {
			ref, _ = m["service"].(string)
		}
		if ref != "" && depth < maxExtends {
			n = min(n+sizeOf(ref, depth+1), maxExtends+1)
		}
		size[name] = n
		return n
	}
	all := 0
	for name := range services {
		if all += sizeOf(name, 0); all > 10*maxExtends {
			return &LimitError{"values, with what its services extend", 10 * maxExtends}
		}
	}
	return nil
}

func count(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			n += count(e)
		}
	case []any:
		for _, e := range v {
			n += count(e)
		}
	}
	return n
}
