package eval

import (
	"slices"
	"strings"
)

// definition puts together what has been evaluated.
func (e *evaluator) definition() *Definition {
	def := &Definition{Variables: e.listed(), Warnings: e.warnings}
	targets := make([]Target, len(e.made))
	for i, in := range e.made {
		targets[i] = in.target
	}
	def.Targets = mergeTargets(nil, targets)
	groups := e.matrixGroups()
	for i := range e.groups {
		groups = append(groups, e.groups[i].group)
	}
	def.Groups = mergeGroups(nil, groups)
	return def
}

// Merge gives d with what over says besides, and instead: as if its files came
// after those of d. Neither is changed. The variables are those of both.
func (d *Definition) Merge(over *Definition) *Definition {
	out := &Definition{
		Targets:   mergeTargets(slices.Clone(d.Targets), over.Targets),
		Groups:    mergeGroups(slices.Clone(d.Groups), over.Groups),
		Variables: slices.Concat(d.Variables, over.Variables),
		Warnings:  slices.Concat(d.Warnings, over.Warnings),
	}
	slices.SortStableFunc(out.Variables, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// mergeTargets adds targets to a list that has each name once. What a later one
// inherits from takes the place of what an earlier one does, where it says so.
func mergeTargets(list, more []Target) []Target {
	at := make(map[string]int, len(list)+len(more))
	for i := range list {
		at[list[i].Name] = i
	}
	for _, t := range more {
		i, ok := at[t.Name]
		if !ok {
			at[t.Name] = len(list)
			list = append(list, t)
			continue
		}
		merged := list[i].Merge(&t)
		merged.Inherits = concat(list[i].Inherits, t.Inherits)
		list[i] = merged
	}
	return list
}

// mergeGroups adds groups to a list that has each name once. A later one takes
// the place of an earlier one.
func mergeGroups(list, more []Group) []Group {
	at := make(map[string]int, len(list)+len(more))
	for i := range list {
		at[list[i].Name] = i
	}
	for _, g := range more {
		i, ok := at[g.Name]
		if !ok {
			at[g.Name] = len(list)
			list = append(list, g)
			continue
		}
		if g.Description == "" {
			g.Description = list[i].Description
		}
		list[i] = g
	}
	return list
}
