package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berthbuild/berth/internal/diskuse"
	"github.com/berthbuild/berth/internal/ui"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
)

// usage is what du shows.
type usage struct {
	nodes    []diskuse.Usage
	several  bool // the builder has several nodes: each record says where it is
	filtered bool // not everything is there, so sums would mislead
	now      time.Time
}

// answers is how many nodes answered.
func (u usage) answers() int {
	n := 0
	for _, one := range u.nodes {
		if one.Err == nil {
			n++
		}
	}
	return n
}

// recordRow is a record for templates and JSON, with the fields and the texts
// that buildx has; Node is ours, and in JSON only where there are several.
type recordRow struct {
	CreatedAt   string
	Description string
	ID          string
	LastUsedAt  string
	Mutable     bool
	Node        string `json:",omitempty"`
	Parents     []string
	Reclaimable bool
	Shared      bool
	Size        string
	Type        string
	UsageCount  int
}

// recordHeader names the columns of a table.
func recordHeader() map[string]string {
	return map[string]string{
		"CreatedAt": "CREATED AT", "Description": "DESCRIPTION", "ID": "ID", "LastUsedAt": "LAST ACCESSED",
		"Mutable": "MUTABLE", "Node": "NODE", "Parents": "PARENTS", "Reclaimable": "RECLAIMABLE", "Shared": "SHARED",
		"Size": "SIZE", "Type": "TYPE", "UsageCount": "USAGE COUNT",
	}
}

// sampleRecord has everything that a record can have, to try a template on.
func sampleRecord() recordRow {
	used := time.Unix(0, 0)
	return newRecordRow("node", client.UsageInfo{
		ID: "id", Description: "description", LastUsedAt: &used, Parents: slices.Repeat([]string{"parent"}, 9),
		RecordType: client.UsageRecordTypeRegular, UsageCount: 1, Size: 1,
	}, used)
}

func newRecordRow(node string, r client.UsageInfo, now time.Time) recordRow {
	return recordRow{
		CreatedAt: r.CreatedAt.String(), Description: r.Description, ID: r.ID, LastUsedAt: lastUsed(r, now),
		Mutable: r.Mutable, Node: node, Parents: r.Parents, Reclaimable: !r.InUse, Shared: r.Shared,
		Size: units.HumanSize(float64(r.Size)), Type: string(r.RecordType), UsageCount: r.UsageCount,
	}
}

func lastUsed(r client.UsageInfo, now time.Time) string {
	if r.LastUsedAt == nil {
		return ""
	}
	return units.HumanDuration(max(0, now.Sub(*r.LastUsedAt))) + " ago"
}

// safe is the row fit for a terminal: builds name things as they like.
func (r recordRow) safe() recordRow {
	r.ID, r.Description, r.Type = safe(r.ID), safe(r.Description), safe(r.Type)
	r.Parents = slices.Clone(r.Parents)
	for i := range r.Parents {
		r.Parents[i] = safe(r.Parents[i])
	}
	return r
}

// starred is the row as tables show it.
func (r recordRow) starred() recordRow {
	if r.Mutable {
		r.ID += "*"
	}
	if r.Shared {
		r.Size += "*"
	}
	return r
}

// rows are all records, node by node.
func (u usage) rows(starred bool) []recordRow {
	var all []recordRow
	for _, n := range u.nodes {
		for _, r := range n.Records {
			row := newRecordRow(n.Node.Name, r, u.now)
			if starred {
				row = row.safe().starred()
			}
			all = append(all, row)
		}
	}
	return all
}

func (u usage) json(out io.Writer) error {
	for _, row := range u.rows(false) {
		if !u.several {
			row.Node = ""
		}
		if err := json.NewEncoder(out).Encode(row); err != nil { // as buildx writes it, with < and > escaped
			return err
		}
	}
	return nil
}

// cells are a record's row in the table of du and prune.
func (r recordRow) cells(several bool) []string {
	cells := []string{r.ID, fmt.Sprint(r.Reclaimable), r.Size, r.LastUsedAt}
	if several {
		cells = append(cells, r.Node)
	}
	return cells
}

func recordCells(several bool) []string {
	cells := []string{"ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"}
	if several {
		cells = append(cells, "NODE")
	}
	return cells
}

func (u usage) table(out io.Writer) error {
	header := recordCells(u.several)
	rows := [][]string{header}
	for _, r := range u.rows(true) {
		rows = append(rows, r.cells(u.several))
	}
	least := slices.Repeat([]string{"1234567"}, len(header)) // as docker's tables
	table := ui.NewTable(out, least, rows...)
	for _, row := range rows {
		if err := table.Row(row...); err != nil {
			return err
		}
	}
	return u.summary(out)
}

func (u usage) pretty(out io.Writer) error {
	var text strings.Builder
	for _, r := range u.rows(false) {
		r = r.safe()
		fmt.Fprintf(&text, "ID:           %s\n", r.ID)
		if u.several {
			fmt.Fprintf(&text, "Node:         %s\n", r.Node)
		}
		if len(r.Parents) > 0 {
			fmt.Fprintf(&text, "Parents:\n - %s\n", strings.Join(r.Parents, "\n - "))
		}
		fmt.Fprintf(&text, "Created at:   %s\n", r.CreatedAt)
		fmt.Fprintf(&text, "Mutable:      %t\n", r.Mutable)
		fmt.Fprintf(&text, "Reclaimable:  %t\n", r.Reclaimable)
		fmt.Fprintf(&text, "Shared:       %t\n", r.Shared)
		fmt.Fprintf(&text, "Size:         %s\n", r.Size)
		if r.Description != "" {
			fmt.Fprintf(&text, "Description:  %s\n", r.Description)
		}
		fmt.Fprintf(&text, "Usage count:  %d\n", r.UsageCount)
		if r.LastUsedAt != "" {
			fmt.Fprintf(&text, "Last used:    %s\n", r.LastUsedAt)
		}
		if r.Type != "" {
			fmt.Fprintf(&text, "Type:         %s\n", r.Type)
		}
		text.WriteString("\n")
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return err
	}
	return u.summary(out)
}

// sums are the bytes of records.
type sums struct{ total, reclaimable, shared int64 }

func (s *sums) add(records []client.UsageInfo) {
	for _, r := range records {
		size := max(r.Size, 0) // negative is unknown
		s.total += size
		if !r.InUse {
			s.reclaimable += size
		}
		if r.Shared {
			s.shared += size
		}
	}
}

// summary is the space that everything takes; a filtered list has none.
func (u usage) summary(out io.Writer) error {
	if u.filtered {
		return nil
	}
	var all sums
	for _, n := range u.nodes {
		all.add(n.Records)
	}
	tw := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
	if all.shared > 0 {
		fmt.Fprintf(tw, "Shared:\t%s\n", units.HumanSize(float64(all.shared)))
		fmt.Fprintf(tw, "Private:\t%s\n", units.HumanSize(float64(all.total-all.shared)))
	}
	fmt.Fprintf(tw, "Reclaimable:\t%s\n", units.HumanSize(float64(all.reclaimable)))
	fmt.Fprintf(tw, "Total:\t%s\n", units.HumanSize(float64(all.total)))
	for _, n := range u.nodes {
		if !u.several || n.Err != nil {
			continue
		}
		var own sums
		own.add(n.Records)
		fmt.Fprintf(tw, "  %s:\t%s\n", n.Node.Name, units.HumanSize(float64(own.total)))
	}
	return tw.Flush()
}
