package cli

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/doctor"
	"github.com/berthbuild/berth/internal/ui"
)

// reportView is a report in JSON. The fields are stable.
type reportView struct {
	OK      bool
	Builder string         `json:",omitempty"`
	Driver  string         `json:",omitempty"`
	Seconds float64        // all of it
	Steps   []stepView     // before the nodes
	Nodes   []nodeStepView // each with its own steps
	Others  []stepView     // what concerns no node
}

type nodeStepView struct {
	Name     string `json:",omitempty"`
	Endpoint string
	OK       bool
	Steps    []stepView
}

type stepView struct {
	Name     string
	Status   doctor.Status
	Seconds  float64
	Text     string   `json:",omitempty"`
	ErrClass string   `json:",omitempty"` // of a failure
	Needs    string   `json:",omitempty"` // of a skipped step
	Hints    []string `json:",omitempty"`
	Facts    []fact   `json:",omitempty"`
}

type fact struct{ Name, Value string }

func viewReport(r *doctor.Report) reportView {
	_, _, broken := r.Broken()
	v := reportView{
		OK: !broken, Builder: r.Builder, Driver: r.Driver, Seconds: seconds(r.Took),
		Steps: viewSteps(r.First), Nodes: []nodeStepView{}, Others: viewSteps(r.Last),
	}
	for _, n := range r.Nodes {
		node := nodeStepView{Name: n.Name, Endpoint: n.Endpoint, OK: true, Steps: viewSteps(n.Steps)}
		for _, s := range n.Steps {
			node.OK = node.OK && s.Status != doctor.Failed
		}
		v.Nodes = append(v.Nodes, node)
	}
	return v
}

func viewSteps(all []doctor.Step) []stepView {
	views := []stepView{}
	for _, s := range all {
		v := stepView{
			Name: s.Name, Status: s.Status, Seconds: seconds(s.Took), Text: s.Text,
			ErrClass: string(s.Class), Needs: s.Needs, Hints: s.Hints,
		}
		for _, f := range s.Facts {
			v.Facts = append(v.Facts, fact{f.Name, f.Value})
		}
		views = append(views, v)
	}
	return views
}

// seconds has microseconds and no more.
func seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }

// doctorPrinter writes the steps for people as they come.
type doctorPrinter struct {
	io    *ui.Streams
	color bool
	open  bool  // a line on the terminal wants clearing
	err   error // the first of writing
}

// wait says on a terminal what a step that takes long is.
func (p *doctorPrinter) wait(step string) {
	if p.io.ErrTTY {
		fmt.Fprintf(p.io.Err, "\r\x1b[K  … %s", step)
		p.open = true
	}
}

// clear takes that away again.
func (p *doctorPrinter) clear() {
	if p.open {
		fmt.Fprint(p.io.Err, "\r\x1b[K")
		p.open = false
	}
}

// mark is how a status looks.
type mark struct{ sign, word, color string }

func markOf(s doctor.Status) mark {
	switch s {
	case doctor.OK:
		return mark{"✓", "ok", "\x1b[32m"}
	case doctor.Warning:
		return mark{"!", "warn", "\x1b[33m"}
	case doctor.Failed:
		return mark{"✗", "FAIL", "\x1b[31m"}
	}
	return mark{"–", "skip", "\x1b[2m"}
}

const (
	stepWidth = 12 // of a step's name
	timeWidth = 8
)

func (p *doctorPrinter) print(format string, args ...any) {
	p.clear()
	if _, err := fmt.Fprintf(p.io.Out, format, args...); p.err == nil {
		p.err = err
	}
}

func (p *doctorPrinter) builder(name, driver string) {
	if name != "" {
		p.print("builder %s (%s)\n", name, driver)
	}
}

func (p *doctorPrinter) node(name, endpoint string) {
	switch {
	case endpoint == "":
		p.print("this machine\n")
	case name == "":
		p.print("%s\n", endpoint)
	default:
		p.print("node %s at %s\n", name, endpoint)
	}
}

func (p *doctorPrinter) step(s doctor.Step) {
	m := markOf(s.Status)
	head := m.word + strings.Repeat(" ", len("FAIL")-len(m.word))
	if p.io.OutTTY {
		head = m.sign
	}
	indent := strings.Repeat(" ", 2+utf8.RuneCountInString(head)+1+stepWidth+1+timeWidth+2)
	if p.color {
		head = m.color + head + "\x1b[0m"
	}
	took := ""
	if s.Took > 0 {
		took = dial.Short(s.Took)
	}
	text := s.Text
	if s.Class != "" {
		text = "[" + string(s.Class) + "] " + text
	}
	line := fmt.Sprintf("  %s %-*s %*s  %s", head, stepWidth, s.Name, timeWidth, took, text)
	p.print("%s\n", strings.TrimRight(line, " "))
	for _, f := range s.Facts {
		p.print("%s%s: %s\n", indent, f.Name, f.Value)
	}
	for _, h := range s.Hints {
		p.print("%shint: %s\n", indent, h)
	}
}

// end is the last line of a good report; a bad one ends in the error.
func (p *doctorPrinter) end(r *doctor.Report) error {
	if _, _, broken := r.Broken(); !broken {
		p.print("a build would work (looked for %s)\n", dial.Short(r.Took))
	}
	return p.err
}
