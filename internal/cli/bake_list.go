package cli

import (
	"encoding/json"

	"github.com/berthbuild/berth/internal/bake"
	"github.com/berthbuild/berth/internal/bake/eval"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/berthbuild/berth/internal/ui"
)

// listBake prints what there is to build, or to set.
func (a *app) listBake(def *eval.Definition, what string) error {
	list, err := bake.ParseList(what)
	if err != nil {
		return err
	}
	if list.Variables {
		vars := bake.ListVariables(def)
		if list.JSON {
			return a.indentedJSON(vars)
		}
		rows := make([][]string, 0, len(vars))
		for _, v := range vars {
			value := "<null>"
			if v.Value != nil {
				value = *v.Value
			}
			rows = append(rows, []string{v.Name, v.Type, value, v.Description})
		}
		return a.table([]string{"VARIABLE", "TYPE", "VALUE", "DESCRIPTION"}, rows)
	}
	targets := bake.ListTargets(def)
	if list.JSON {
		return a.indentedJSON(targets)
	}
	rows := make([][]string, 0, len(targets))
	for _, t := range targets {
		rows = append(rows, []string{t.Name, t.Description})
	}
	return a.table([]string{"TARGET", "DESCRIPTION"}, rows)
}

func (a *app) indentedJSON(v any) error {
	enc := json.NewEncoder(a.io.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (a *app) table(header []string, rows [][]string) error {
	for _, row := range rows {
		for i := range row {
			row[i] = termtext.Line(row[i], maxFinding)
		}
	}
	t := ui.NewTable(a.io.Out, header, rows...)
	for _, row := range append([][]string{header}, rows...) {
		if err := t.Row(row...); err != nil {
			return err
		}
	}
	return nil
}
