package historypage

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/history"
	digest "github.com/opencontainers/go-digest"
)

// Make makes what is shown of a build. It reads nothing but its argument.
func Make(f Facts) *Build {
	t := newTexts(f.Record.GetFrontendAttrs())
	r, d := f.Record, f.Detail
	b := &Build{
		Ref: t.line(r.Reference()), ID: t.line(r.Ref), Builder: t.line(r.Builder), Node: t.line(r.Node),
		Name: t.line(d.Name), Status: d.Status, Started: r.Created().UTC().Format(time.RFC3339Nano),
		Duration: max(0, r.Duration(f.Now).Milliseconds()), Total: int(d.NumTotalSteps), Cached: int(d.NumCachedSteps),
		Left: f.Course.Left, Steps: []Step{},
	}
	if b.Name == "" {
		b.Name = b.ID
	}
	b.steps(t, f)
	b.sources(t, d)
	b.attached(t, f)
	for _, w := range f.Course.Warnings {
		b.Warnings = append(b.Warnings, t.line(w))
	}
	for _, n := range append(slices.Clone(d.Errors), f.Notes...) {
		b.Notes = append(b.Notes, t.line(n))
	}
	if d.Error != nil {
		b.failure(t, d.Error)
	}
	return b
}

// steps makes the steps, in the order in which they began.
func (b *Build) steps(t texts, f Facts) {
	begun := f.Record.Created()
	ms := func(at time.Time) int64 { return max(0, at.Sub(begun).Milliseconds()) }
	running := f.Record.Status() == history.Running
	all := slices.Clone(f.Course.Steps)
	slices.SortStableFunc(all, func(a, b *history.Step) int { return firstStart(a).Compare(firstStart(b)) })
	at := map[digest.Digest]int{}
	for i, s := range all {
		at[s.Digest] = i
	}
	for _, s := range all {
		step := Step{Name: t.line(s.Name), Error: t.block(s.Error, maxBlock), Start: -1, End: -1}
		step.Stage, step.Text = splitName(step.Name)
		open := false
		for _, span := range s.Spans {
			end := span.Completed
			if end.IsZero() {
				open, end = true, f.Record.Ended()
				if running || end.IsZero() {
					end = f.Now
				}
			}
			from := ms(span.Started)
			step.Spans = append(step.Spans, [2]int64{from, max(from, ms(end))})
		}
		step.State = stateOf(s, open, running)
		step.times()
		seen := map[int]bool{}
		for _, in := range s.Inputs {
			if j, ok := at[in]; ok && !seen[j] && all[j] != s {
				seen[j] = true
				step.Inputs = append(step.Inputs, j)
			}
		}
		for _, p := range s.Parts {
			part := Part{Name: t.line(p.Name), Current: p.Current, Total: p.Total}
			if !p.Started.IsZero() && !p.Completed.IsZero() {
				part.Took = max(0, p.Completed.Sub(p.Started).Milliseconds())
			}
			step.Parts = append(step.Parts, part)
		}
		step.Lines = len(s.Lines) + s.Left
		b.Steps = append(b.Steps, step)
	}
	b.Lanes = lanes(b.Steps, b.Duration)
	b.Critical = critical(b.Steps)
	b.Logs = pack(t, all, begun)
}

// firstStart is when a step began; those that have not come last.
func firstStart(s *history.Step) time.Time {
	var first time.Time
	for _, span := range s.Spans {
		if first.IsZero() || span.Started.Before(first) {
			first = span.Started
		}
	}
	if first.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return first
}

func stateOf(s *history.Step, open, running bool) string {
	switch {
	case strings.Contains(s.Error, "context canceled"):
		return StepCanceled
	case s.Error != "":
		return StepFailed
	case s.Cached:
		return StepCached
	case len(s.Spans) == 0:
		return StepWaiting
	case open && running:
		return StepRunning
	case open:
		return StepCanceled // the build has ended without it
	}
	return StepDone
}

// times sums up the spans, which may overlap.
func (s *Step) times() {
	slices.SortFunc(s.Spans, func(a, b [2]int64) int {
		if a[0] != b[0] {
			return int(a[0] - b[0])
		}
		return int(a[1] - b[1])
	})
	var whole [][2]int64
	for _, span := range s.Spans {
		if n := len(whole); n > 0 && span[0] <= whole[n-1][1] {
			whole[n-1][1] = max(whole[n-1][1], span[1])
			continue
		}
		whole = append(whole, span)
	}
	for _, span := range whole {
		s.Busy += span[1] - span[0]
	}
	s.Spans = nil
	if len(whole) == 0 {
		return
	}
	s.Start, s.End = whole[0][0], whole[len(whole)-1][1]
	if len(whole) > 1 {
		s.Spans = whole
	}
}

// splitName takes the brackets off a step's name: "[build 2/5] RUN make".
func splitName(name string) (stage, text string) {
	rest, ok := strings.CutPrefix(name, "[")
	if !ok {
		return "", name
	}
	stage, text, ok = strings.Cut(rest, "] ")
	if !ok || stage == "" || text == "" || len(stage) > 200 {
		return "", name
	}
	return stage, text
}

// sources is what the build was made of, and how it was set up.
func (b *Build) sources(t texts, d history.Detail) {
	add := func(to *[]Pair, name, value string) {
		if value != "" {
			*to = append(*to, Pair{name, t.line(value)})
		}
	}
	add(&b.Inputs, "Context", d.Context)
	add(&b.Inputs, "Dockerfile", d.Dockerfile)
	add(&b.Inputs, "Target", d.Target)
	add(&b.Inputs, "Repository", d.VCSRepository)
	add(&b.Inputs, "Revision", d.VCSRevision)
	for _, c := range t.pairs(d.NamedContexts) {
		b.Inputs = append(b.Inputs, Pair{"Context " + c.Name, c.Value})
	}
	for _, p := range d.Platform {
		b.Platforms = append(b.Platforms, t.line(p))
	}
	b.Args, b.Labels = t.args(d.BuildArgs), t.pairs(d.Labels)
	b.Settings = append(settings(t, d.Config), t.pairs(d.Config.RestRaw)...)
	for _, m := range d.Materials {
		made := Material{URI: t.line(m.URI)}
		for _, dgst := range m.Digests {
			made.Digests = append(made.Digests, t.line(dgst))
		}
		b.Materials = append(b.Materials, made)
	}
}

// settings are the fields of a Config that are set, by their names in words.
func settings(t texts, c history.Config) []Pair {
	var all []Pair
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		field := v.Type().Field(i)
		text := ""
		switch value := v.Field(i).Interface().(type) {
		case string:
			text = value
		case []string:
			text = strings.Join(value, ", ")
		case bool:
			if value {
				text = strconv.FormatBool(value)
			}
		}
		if text != "" {
			all = append(all, Pair{words(field.Name), t.line(text)})
		}
	}
	return all
}

// words takes a name apart where a small letter is followed by a capital one.
func words(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' && name[i-1] >= 'a' && name[i-1] <= 'z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// attached is what the build left.
func (b *Build) attached(t texts, f Facts) {
	for _, e := range f.Record.GetExporters() {
		out := Output{Type: t.line(e.GetType())}
		for _, name := range slices.Sorted(maps.Keys(e.GetAttrs())) {
			value := e.Attrs[name]
			if secretName(name) {
				value = hidden
			}
			out.Attrs = append(out.Attrs, Pair{t.line(name), t.line(value)})
		}
		b.Outputs = append(b.Outputs, out)
	}
	if said := f.Record.GetExporterResponse(); len(said) > 0 {
		out := Output{Type: "result"}
		for _, name := range slices.Sorted(maps.Keys(said)) {
			out.Attrs = append(out.Attrs, Pair{t.line(name), t.line(said[name])})
		}
		b.Outputs = append(b.Outputs, out)
	}
	for _, a := range f.Detail.Attachments {
		made := Attachment{Digest: t.line(a.Digest), Platform: t.line(a.Platform), Type: t.line(a.Type)}
		if data, ok := f.Contents[a.Digest]; ok {
			made.Content = t.document(data)
		}
		b.Attachments = append(b.Attachments, made)
	}
}

// failure is why it failed. The step is the last one that failed itself.
func (b *Build) failure(t texts, f *history.Failure) {
	b.Error = &Failure{Message: t.block(f.Message, maxBlock), Sources: t.block(string(f.Sources), maxBlock), Step: -1}
	name := t.line(f.Name)
	for i, s := range b.Steps {
		if s.State == StepFailed && (b.Error.Step < 0 || s.Name == name) {
			b.Error.Step = i
		}
	}
}
