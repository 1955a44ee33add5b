package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/docker/cli/templates"
)

// Format is a parsed --format: "table" (or empty), "json", "table TEMPLATE"
// with a header line, or a template on its own.
type Format struct {
	kind  string
	table bool
	tmpl  *template.Template
}

// Kinds of output that need no template.
const (
	FormatTable = "table"
	FormatJSON  = "json"
)

// ParseFormat reads the option as docker's commands do, with their template
// functions (json, join, upper, …).
func ParseFormat(s string) (Format, error) {
	switch s {
	case "", FormatTable:
		return Format{kind: FormatTable}, nil
	case FormatJSON:
		return Format{kind: FormatJSON}, nil
	}
	body, isTable := strings.CutPrefix(s, FormatTable+" ")
	body = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(body)
	tmpl, err := templates.Parse(body)
	if err != nil {
		return Format{}, fmt.Errorf("--format %q: %w", s, err)
	}
	return Format{kind: "template", table: isTable, tmpl: tmpl}, nil
}

// IsTable says that the command's own table is wanted.
func (f Format) IsTable() bool { return f.kind == FormatTable }

// IsJSON says that JSON is wanted.
func (f Format) IsJSON() bool { return f.kind == FormatJSON }

// HasHeader says that the items are to be rows under a header.
func (f Format) HasHeader() bool { return f.kind == FormatTable || f.table }

// Execute writes every item by the template, one a line; "table TEMPLATE"
// aligns the columns under the names in header.
func (f Format) Execute(out io.Writer, header map[string]string, items []any) error {
	var lines []string
	if f.table {
		line, err := f.line(header)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	for _, item := range items {
		line, err := f.line(item)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	if !f.table {
		_, err := io.WriteString(out, joinLines(lines))
		return err
	}
	rows := make([][]string, len(lines))
	columns := 0
	for i, line := range lines {
		rows[i] = strings.Split(line, "\t")
		columns = max(columns, len(rows[i]))
	}
	table := NewTable(out, make([]string, columns), rows...)
	for _, row := range rows {
		if err := table.Row(row...); err != nil {
			return err
		}
	}
	return nil
}

func joinLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

func (f Format) line(item any) (string, error) {
	var b bytes.Buffer
	if err := f.tmpl.Execute(&b, item); err != nil {
		return "", fmt.Errorf("--format: %w", err)
	}
	return b.String(), nil
}

// WriteJSON writes v on one line, as docker's commands do for --format json.
func WriteJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
