package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Target is one of several builds that are run together.
type Target struct {
	Name    string
	Request request.Request
	// Links are named contexts that are the results of other targets: context
	// name → target name. A target that others are built upon is built once.
	Links map[string]string
	// Started and Origin are those of Options for this target; each may be nil.
	Started func(node, ref string)
	Origin  func(context.Context) (request.VCS, error)
}

// RunAll builds all targets on b at once. Each daemon is connected to once, and
// a folder that several targets want is sent to it once. The first target that
// fails ends the others, and its error names it; what was finished by then stays
// where it went. Options.Jobs says otherwise: with DeferError there may be results
// beside an error, which is a *Failures. Options.Started and Options.Origin are not used. A cancelled ctx is answered as by
// Run.
func RunAll(ctx context.Context, b *builder.Builder, targets []Target, o Options) (map[string]*Result, error) {
	all := !slices.ContainsFunc(targets, func(t Target) bool { return !repeatable(t.Request) })
	return withFailover(ctx, b, o, all, func(o Options) (map[string]*Result, error) {
		return again(ctx, o, all, func(o Options) (map[string]*Result, error) { return runAllOnce(ctx, b, targets, o) })
	})
}

func runAllOnce(ctx context.Context, b *builder.Builder, targets []Target, o Options) (map[string]*Result, error) {
	jobs, err := openJobs(b, targets, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, j := range jobs {
			j.in.close()
		}
	}()
	for _, j := range jobs {
		o.Origin = j.target.Origin
		j.asked = askOrigin(ctx, o)
		defer j.asked.end()
	}
	snaps := newSnapshots(ctx, b, o)
	defer snaps.close()
	for _, j := range jobs {
		j.in.beginSnapshots(snaps)
	}
	var reqs []request.Request
	for _, j := range jobs {
		reqs = append(reqs, j.req)
	}
	into := openEngines(ctx, b, o, reqs...)
	defer into.close()
	placed, err := placeAll(ctx, b, jobs, o)
	if err != nil {
		return nil, err
	}
	defer placed.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := tie(jobs); err != nil {
		return nil, err
	}
	for _, j := range jobs {
		if err := j.in.takeSnapshots(ctx, o); err != nil {
			return nil, err
		}
	}
	shared, err := shareFolders(ctx, jobs, o)
	if err != nil {
		return nil, err
	}
	defer shared.close()
	for _, j := range jobs { // what cannot be loaded is refused before any of them builds
		if _, err := into.fit(j.req, j.parts); err != nil {
			return nil, hint.Wrap(err, "target "+j.target.Name)
		}
	}
	failed := runAll(ctx, jobs, b, into, o)
	var lost *Lost
	if errors.As(failed, &lost) {
		// What another target has given away cannot be taken back either.
		lost.Exported = lost.Exported || slices.ContainsFunc(jobs, (*job).exported)
	}
	switch {
	case failed != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case failed != nil && !o.Jobs.DeferError:
		return nil, failed
	}
	results := map[string]*Result{}
	for _, j := range jobs {
		if j.result != nil {
			results[j.target.Name] = j.result
		}
	}
	return results, failed
}

// job is one target on its way.
type job struct {
	target Target
	req    request.Request
	in     *inputs
	parts  []part
	result *Result

	asked   *question // where its context comes from
	unknown error     // why that is not known
}

// openJobs opens what the targets need from here, before anything is contacted.
func openJobs(b *builder.Builder, targets []Target, o Options) (jobs []*job, err error) {
	defer func() {
		if err != nil {
			for _, j := range jobs {
				j.in.close()
			}
		}
	}()
	for _, t := range targets {
		req, err := prepare(b, t.Request)
		if err != nil {
			return jobs, hint.Wrap(err, "target "+t.Name)
		}
		in, err := openInputs(req, o)
		if err != nil {
			return jobs, hint.Wrap(err, "target "+t.Name)
		}
		jobs = append(jobs, &job{target: t, req: req, in: in})
		if err := checkOutputs(req); err != nil {
			return jobs, hint.Wrap(err, "target "+t.Name)
		}
	}
	return jobs, nil
}

// placeAll connects to the nodes that the targets need, and gives each target
// its parts.
func placeAll(ctx context.Context, b *builder.Builder, jobs []*job, o Options) (*placement, error) {
	var union []ocispecs.Platform
	native := false
	for _, j := range jobs {
		native = native || len(j.req.Platforms) == 0
		for _, p := range j.req.Platforms {
			if !slices.ContainsFunc(union, func(u ocispecs.Platform) bool { return offers([]ocispecs.Platform{u}, p) }) {
				union = append(union, p)
			}
		}
	}
	placed, err := placeFor(ctx, b, union, native, len(jobs) > 1, o)
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		var origin request.VCS
		origin, j.unknown = j.asked.answer()
		j.req = j.req.WithVCS(origin)
	}
	if err := placed.share(jobs, o); err != nil {
		placed.close()
		return nil, err
	}
	return placed, nil
}

// share gives each job its parts. Jobs that have something in common go to the same
// members.
func (p *placement) share(jobs []*job, o Options) error {
	able := p
	if len(p.members) > 1 {
		able = p.able()
	}
	for _, group := range together(jobs) {
		if len(p.members) > 1 {
			able.spread(cmp.Or(o.Affinity, affinityKey(group[0].req, group[0].req.VCS)), len(jobs))
		}
		for _, j := range group {
			one := &placement{members: able.members, order: able.order, policy: able.policy, first: able.first}
			var err error
			if one.chosen, err = one.chooseFor(j.req.Platforms); err == nil {
				j.parts, err = one.split(j.req)
			}
			if err != nil {
				return hint.Wrap(err, "target "+j.target.Name)
			}
			for i := range one.chosen {
				able.members[i].wins++
			}
			for i := range j.parts {
				j.parts[i].prefix = strings.TrimSpace(j.target.Name + " " + j.parts[i].share)
			}
		}
	}
	if len(p.members) > 1 && len(jobs) > 1 {
		o.Progress.Step(fmt.Sprintf("[internal] using nodes %s (%s, %d of %d healthy)", able.spreadText(), p.policy, len(able.members), len(p.members))).Done(nil)
	}
	return nil
}

// chooseFor is choose among members of which all have answered; the only one
// there is builds whatever is wanted. One that is full is taken: the run has its
// place there.
func (p *placement) chooseFor(want []ocispecs.Platform) (map[int][]ocispecs.Platform, error) {
	if len(p.members) == 1 {
		return map[int][]ocispecs.Platform{0: want}, p.members[0].err
	}
	chosen, err := p.choose(want, time.Now(), func(*member) {})
	if errors.Is(err, errFull) {
		room := &placement{order: p.order, policy: p.policy, first: p.first}
		for _, m := range p.members {
			one := *m
			one.told, one.mute = false, nil
			room.members = append(room.members, &one)
		}
		chosen, err = room.choose(want, time.Now(), func(*member) {})
	}
	return chosen, err
}

// run builds one target.
func (j *job) run(ctx context.Context, b *builder.Builder, into *engines, o Options) error {
	o.Started = j.target.Started
	var err error
	j.result, err = runParts(ctx, j.req, j.parts, j.in, into, &Result{Builder: b.Name, unknown: j.unknown}, o)
	return j.named(ctx, err)
}

// exported tells whether the target may have been exported for good.
func (j *job) exported() bool {
	return irrevocable(j.req) && (j.result != nil || slices.ContainsFunc(j.parts, func(p part) bool { return p.outs.gone() }))
}

// named says which target failed.
func (j *job) named(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		err = hint.Wrap(err, "target "+j.target.Name)
	}
	return err
}
