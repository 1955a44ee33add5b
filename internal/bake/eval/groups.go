package eval

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// groupDecl is a block that makes a group.
type groupDecl struct {
	block *block
	group Group
	busy  bool
	done  bool
	err   bool
}

// evalGroups evaluates the groups that blocks make.
func (e *evaluator) evalGroups() {
	for i := range e.groups {
		g := &e.groups[i]
		e.record(e.group(g, g.block.nameAt))
	}
}

func (e *evaluator) group(g *groupDecl, at hcl.Range) hcl.Diagnostics {
	f := frame{kind: blockGroup, name: g.block.name, attr: "targets"}
	switch {
	case g.busy:
		return e.cycle(f, at)
	case g.err:
		return alreadyReported()
	case g.done:
		return nil
	}
	g.busy = true
	diags := e.readGroup(f, g)
	g.busy, g.done = false, true
	if diags.HasErrors() {
		g.err = true
		e.record(diags)
		return alreadyReported()
	}
	return nil
}

func (e *evaluator) readGroup(f frame, g *groupDecl) hcl.Diagnostics {
	g.group = Group{Name: g.block.name}
	list := g.block.attr("targets")
	if list == nil {
		return faults(g.block.nameAt, "Missing required argument", `The argument "targets" is required, but no definition was found.`,
			"targets = []")
	}
	v, diags := e.attrValue(f, list, e.root)
	if diags.HasErrors() {
		return diags
	}
	var err error
	if g.group.Targets, err = toTexts(v); err != nil {
		return faults(list.value.Range(), "Unsuitable value type", "Unsuitable value: "+err.Error())
	}
	if a := g.block.attr("description"); a != nil {
		if v, diags = e.attrValue(frame{blockGroup, g.block.name, "description"}, a, e.root); diags.HasErrors() {
			return diags
		}
		text, err := toText(v)
		if text == nil {
			return faults(a.value.Range(), "Unsuitable value type", "Unsuitable value: "+cmpErr(err, errNull).Error())
		}
		g.group.Description = *text
	}
	return nil
}

// lastGroup is the last block of that name.
func (e *evaluator) lastGroup(name string) *groupDecl {
	if e.groupAt == nil {
		e.groupAt = make(map[string]int, len(e.groups))
		for i := range e.groups {
			e.groupAt[e.groups[i].block.name] = i
		}
	}
	i, ok := e.groupAt[name]
	if !ok {
		return nil
	}
	return &e.groups[i]
}

// groupValue is the value of group.NAME.
func (e *evaluator) groupValue(name string, at hcl.Range) (cty.Value, hcl.Diagnostics) {
	if g := e.lastGroup(name); g != nil {
		if diags := e.group(g, at); diags.HasErrors() {
			return cty.DynamicVal, diags
		}
		v := cty.ObjectVal(map[string]cty.Value{
			"name": cty.StringVal(name), "description": cty.StringVal(g.group.Description), "targets": textsValue(g.group.Targets),
		})
		return v, e.budget.take(at, v)
	}
	return cty.DynamicVal, faults(at, "Unknown group", fmt.Sprintf("There is no group named %q.", name))
}
