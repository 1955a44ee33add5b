package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/termtext"
	"github.com/docker/go-units"
)

// pretty writes a record as buildx does, block by block.
type pretty struct{ out *strings.Builder }

// lines writes a block of names and values; those without a value are left out.
func (p pretty) lines(pairs ...string) {
	tw := tabwriter.NewWriter(p.out, 1, 8, 1, '\t', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(tw, "%s:\t%s\n", oneCell(pairs[i]), oneCell(pairs[i+1]))
		}
	}
	_ = tw.Flush() // a strings.Builder takes everything
}

// table writes a block with a header, and a blank line; nothing where there are no
// rows.
func (p pretty) table(header []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	tw := tabwriter.NewWriter(p.out, 1, 8, 1, '\t', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i := range row {
			row[i] = oneCell(row[i])
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush() // a strings.Builder takes everything
	p.out.WriteByte('\n')
}

// maxCell bounds a value, in bytes.
const maxCell = 64 << 10

// oneCell keeps a value on its line and in its column.
func oneCell(s string) string { return termtext.Line(s, maxCell) }

func keyValues(all []history.KeyValue) [][]string {
	var rows [][]string
	for _, kv := range all {
		rows = append(rows, []string{kv.Name, kv.Value})
	}
	return rows
}

// printDetail writes a record for a person. Its reference is shown to who did not
// give one.
func (a *app) printDetail(d history.Detail, withRef bool, out io.Writer) error {
	var text strings.Builder
	p := pretty{&text}
	ref := ""
	if withRef {
		ref = d.Ref
	}
	p.lines("Name", d.Name, "Ref", ref, "Context", d.Context, "Dockerfile", d.Dockerfile,
		"VCS Repository", d.VCSRepository, "VCS Revision", d.VCSRevision, "Target", d.Target,
		"Platforms", strings.Join(d.Platform, ", "), "Keep Git Dir", truth(d.KeepGitDir))
	text.WriteByte('\n')
	p.table([]string{"NAMED CONTEXT", "VALUE"}, keyValues(d.NamedContexts))
	p.course(d)
	text.WriteByte('\n')
	p.config(d.Config)
	text.WriteByte('\n')
	p.table([]string{"BUILD ARG", "VALUE"}, keyValues(d.BuildArgs))
	p.table([]string{"LABEL", "VALUE"}, keyValues(d.Labels))
	p.attached(d)
	if d.Error != nil {
		text.WriteString(termtext.Clean(failureText(d.Error, false)))
		switch {
		case len(d.Error.Stack) == 0:
		case a.debug:
			fmt.Fprintf(&text, "\n%s\n", termtext.Clean(string(d.Error.Stack)))
		default:
			text.WriteString("Enable --debug to see stack traces for error\n")
		}
	}
	fmt.Fprintf(&text, "Print build logs: %s history logs %s\n", a.called(), oneCell(d.Ref))
	_, err := io.WriteString(out, text.String())
	return err
}

func truth(b bool) string {
	if b {
		return "true"
	}
	return ""
}

// course is how the build went.
func (p pretty) course(d history.Detail) {
	took := buildTime(d.Duration)
	if d.CompletedAt == nil {
		took += " (running)"
	}
	state, failure := "", ""
	switch {
	case d.Error == nil:
	case d.Status == string(history.Canceled):
		state = "Canceled"
	default:
		failure = d.Error.CodeName() + " " + d.Error.Message
	}
	cached := 0.0
	if d.NumTotalSteps > 0 {
		cached = float64(d.NumCachedSteps) / float64(d.NumTotalSteps) * 100
	}
	p.lines("Started", d.StartedAt.Format("2006-01-02 15:04:05"), "Duration", took, "Error", failure, "Status", state,
		"Build Steps", fmt.Sprintf("%d/%d (%.0f%% cached)", d.NumCompletedSteps, d.NumTotalSteps, cached))
}

func (p pretty) config(c history.Config) {
	pairs := []string{
		"Network", c.Network, "Extra Hosts", strings.Join(c.ExtraHosts, ", "), "Hostname", c.Hostname,
		"Cgroup Parent", c.CgroupParent, "Image Resolve Mode", c.ImageResolveMode,
		"Multi-Platform", truth(c.MultiPlatform), "No Cache", truth(c.NoCache), "No Cache Filter", strings.Join(c.NoCacheFilter, ", "),
		"Shm Size", c.ShmSize, "Resource Limits", c.Ulimit, "Memory", sizeText(c.Memory), "Memory Swap", sizeText(c.MemorySwap),
		"CPU Shares", c.CPUShares, "CPU Period", c.CPUPeriod, "CPU Quota", c.CPUQuota, "CPUSet CPUs", c.CPUSetCPUs, "CPUSet Mems", c.CPUSetMems,
		"Cache Mount Namespace", c.CacheMountNS, "Dockerfile Check Config", c.DockerfileCheckConfig,
		"Source Date Epoch", c.SourceDateEpoch, "Sandbox Hostname", c.SandboxHostname,
	}
	for _, kv := range c.RestRaw {
		value := kv.Value
		if value == "" {
			value = " " // it is there, which says something
		}
		pairs = append(pairs, kv.Name, value)
	}
	p.lines(pairs...)
}

// sizeText is a number of bytes with a unit; anything else as it is.
func sizeText(s string) string {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return s
	}
	return units.BytesSize(float64(n))
}

func (p pretty) attached(d history.Detail) {
	var rows [][]string
	for _, m := range d.Materials {
		rows = append(rows, []string{m.URI, strings.Join(m.Digests, ", ")})
	}
	if len(rows) > 0 {
		p.out.WriteString("Materials:\n")
		p.table([]string{"URI", "DIGEST"}, rows)
	}
	rows = nil
	for _, at := range d.Attachments {
		rows = append(rows, []string{at.Digest, at.Platform, at.Type})
	}
	if len(rows) > 0 {
		p.out.WriteString("Attachments:\n")
		p.table([]string{"DIGEST", "PLATFORM", "TYPE"}, rows)
	}
}

// failureText is the lines that a build failed at, and the last of its log. With
// the message it can stand alone.
func failureText(f *history.Failure, message bool) string {
	var text strings.Builder
	if message {
		fmt.Fprintf(&text, "%s\n\n", f.Message)
	}
	text.Write(f.Sources)
	if len(f.Logs) > 0 {
		fmt.Fprintf(&text, "Logs:\n> => %s:\n", f.Name)
		for _, line := range f.Logs {
			fmt.Fprintf(&text, "> %s\n", line)
		}
		text.WriteByte('\n')
	}
	return text.String()
}
