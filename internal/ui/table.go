package ui

import (
	"io"
	"strings"
	"unicode/utf8"
)

// columnGap is the space between two columns.
const columnGap = 3

// Table writes rows in columns whose widths are settled before the first row,
// so that rows can be shown as they become known.
type Table struct {
	out    io.Writer
	widths []int
}

// NewTable settles the widths to hold the header and every sample row; a cell
// that is wider later pushes its own row only. Nothing is written yet.
func NewTable(out io.Writer, header []string, samples ...[]string) *Table {
	widths := make([]int, len(header))
	for _, row := range append([][]string{header}, samples...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return &Table{out: out, widths: widths}
}

// Row writes one line.
func (t *Table) Row(cells ...string) error {
	var line strings.Builder
	for i, cell := range cells {
		line.WriteString(cell)
		if i < len(cells)-1 {
			pad := t.widths[i] + columnGap - utf8.RuneCountInString(cell)
			line.WriteString(strings.Repeat(" ", max(pad, 1)))
		}
	}
	_, err := io.WriteString(t.out, line.String()+"\n")
	return err
}
