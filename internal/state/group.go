package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Group is a builder as stored: a name and the nodes that build for it.
// Fields of the file that are not known here are kept when a Group that came
// from a Store is stored again.
type Group struct {
	Name    string // as given at creation; its file has the lower-case form
	Driver  string // "remote" for ours; Buildx has others
	Nodes   []Node
	Dynamic bool

	// LastActivity is when it last built, zero if never. It is not part of
	// the group's file; see Store.Touch.
	LastActivity time.Time

	unknown map[string]json.RawMessage
}

// Node is one daemon of a builder, as stored.
type Node struct {
	Name       string
	Endpoint   string
	Platforms  []ocispecs.Platform // fixed by --platform; nil when the daemon is asked
	DriverOpts map[string]string
	Flags      []string
	Files      map[string][]byte

	unknown      map[string]json.RawMessage
	platformsRaw json.RawMessage // as read, for fields of a platform that we do not know
}

// groupFields and nodeFields are what the files hold, in their order.
type groupFields struct {
	Name    string
	Driver  string
	Nodes   []Node
	Dynamic bool
}

type nodeFields struct {
	Name       string
	Endpoint   string
	Platforms  json.RawMessage
	DriverOpts map[string]string
	Flags      []string
	Files      map[string][]byte
}

// parseGroup reads a group's file.
func parseGroup(data []byte) (Group, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return Group{}, errors.New("is empty")
	}
	var g Group
	if err := json.Unmarshal(data, &g); err != nil {
		return Group{}, fmt.Errorf("is not a builder: %w", err)
	}
	if _, err := ValidName(g.Name); err != nil {
		return Group{}, fmt.Errorf("is not a builder: %w", err)
	}
	return g, nil
}

// MarshalJSON writes the stored form: known fields in the order of Buildx,
// then the others.
func (g Group) MarshalJSON() ([]byte, error) {
	return marshalWith(groupFields{g.Name, g.Driver, g.Nodes, g.Dynamic}, g.unknown)
}

// UnmarshalJSON reads the stored form.
func (g *Group) UnmarshalJSON(data []byte) error {
	var f groupFields
	unknown, err := unmarshalWith(data, &f)
	if err != nil {
		return err
	}
	*g = Group{Name: f.Name, Driver: f.Driver, Nodes: f.Nodes, Dynamic: f.Dynamic, unknown: unknown}
	return nil
}

// MarshalJSON writes the stored form.
func (n Node) MarshalJSON() ([]byte, error) {
	raw, err := n.rawPlatforms()
	if err != nil {
		return nil, err
	}
	return marshalWith(nodeFields{n.Name, n.Endpoint, raw, n.DriverOpts, n.Flags, n.Files}, n.unknown)
}

// UnmarshalJSON reads the stored form.
func (n *Node) UnmarshalJSON(data []byte) error {
	var f nodeFields
	unknown, err := unmarshalWith(data, &f)
	if err != nil {
		return err
	}
	*n = Node{
		Name: f.Name, Endpoint: f.Endpoint, DriverOpts: f.DriverOpts, Flags: f.Flags, Files: f.Files,
		unknown: unknown, platformsRaw: f.Platforms,
	}
	if n.Platforms, err = decodePlatforms(f.Platforms); err != nil {
		return fmt.Errorf("platforms of node %q: %w", n.Name, err)
	}
	return nil
}

// rawPlatforms gives what was read as long as nobody changed it.
func (n Node) rawPlatforms() (json.RawMessage, error) {
	if was, err := decodePlatforms(n.platformsRaw); err == nil && n.platformsRaw != nil && reflect.DeepEqual(was, n.Platforms) {
		return n.platformsRaw, nil
	}
	return json.Marshal(n.Platforms)
}

func decodePlatforms(raw json.RawMessage) ([]ocispecs.Platform, error) {
	if raw == nil {
		return nil, nil
	}
	var p []ocispecs.Platform
	err := json.Unmarshal(raw, &p)
	return p, err
}

// marshalWith encodes a struct and appends fields that it does not have.
func marshalWith(fields any, unknown map[string]json.RawMessage) ([]byte, error) {
	data, err := json.Marshal(fields)
	if err != nil || len(unknown) == 0 {
		return data, err
	}
	buf := bytes.NewBuffer(data[:len(data)-1]) // without the closing brace
	for _, name := range slices.Sorted(maps.Keys(unknown)) {
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		buf.WriteByte(',')
		buf.Write(key)
		buf.WriteByte(':')
		buf.Write(unknown[name])
	}
	buf.WriteByte('}')
	return buf.Bytes(), nil
}

// unmarshalWith decodes a struct and gives the fields that it does not have.
// Like encoding/json, and so like Buildx, it takes names of any case.
func unmarshalWith(data []byte, fields any) (map[string]json.RawMessage, error) {
	if err := json.Unmarshal(data, fields); err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	known := reflect.TypeOf(fields).Elem()
	for i := range known.NumField() {
		maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool {
			return strings.EqualFold(name, known.Field(i).Name)
		})
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}
