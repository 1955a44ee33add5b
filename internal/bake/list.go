package bake

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/hint"
)

// Listed is a target or a group, as --list shows it.
type Listed struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"` // of a group, with its members
	Group       bool   `json:"group,omitempty"`
}

// ListedVariable is a variable, as --list shows it.
type ListedVariable struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	Type        string  `json:"type,omitempty"`
	Value       *string `json:"value,omitempty"` // nil is null
}

// List is --list: what is listed, and how.
type List struct {
	Variables bool // else targets
	JSON      bool // else a table
}

// ParseList reads TYPE[,format=json|table], or type=TYPE,format=….
func ParseList(text string) (List, error) {
	var l List
	typ, format := "", "table"
	for i, field := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(field, "=")
		switch {
		case !ok && i == 0:
			typ = field
		case ok && key == "type":
			typ = value
		case ok && key == "format":
			format = value
		default:
			return l, hint.New(fmt.Sprintf("invalid value %q for --list", field), "write --list targets, or --list type=targets,format=json")
		}
	}
	switch typ {
	case "targets":
	case "variables":
		l.Variables = true
	default:
		return l, hint.New(fmt.Sprintf("invalid list type %q", typ), "the types are targets and variables")
	}
	switch format {
	case "table":
	case "json":
		l.JSON = true
	default:
		return l, hint.New(fmt.Sprintf("invalid list format %q", format), "the formats are table and json")
	}
	return l, nil
}

// ListTargets lists targets and groups, sorted by name. Names that begin with _
// are for being inherited, and not listed.
func ListTargets(def *eval.Definition) []Listed {
	out := []Listed{}
	for _, t := range def.Targets {
		out = append(out, Listed{Name: t.Name, Description: t.Description})
	}
	for _, g := range def.Groups {
		description := strings.Join(slices.Sorted(slices.Values(g.Targets)), ", ")
		switch {
		case g.Description != "" && description != "":
			description = g.Description + " (" + description + ")"
		case g.Description != "":
			description = g.Description
		}
		out = append(out, Listed{Name: g.Name, Description: description, Group: true})
	}
	out = slices.DeleteFunc(out, func(l Listed) bool { return strings.HasPrefix(l.Name, "_") })
	slices.SortStableFunc(out, func(a, b Listed) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// ListVariables lists the variables that the definition declares, by name.
func ListVariables(def *eval.Definition) []ListedVariable {
	out := []ListedVariable{}
	for _, v := range def.Variables {
		out = append(out, ListedVariable{Name: v.Name, Description: v.Description, Type: v.Type, Value: v.Value})
	}
	return out
}
