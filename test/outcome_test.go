//go:build e2e && linux

package test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc/codes"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/outcome"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/test/lab"
)

// solving is a solve of a Dockerfile on a real daemon.
type solving struct {
	name       string
	dockerfile string // after FROM scratch and a shell
	opt        client.SolveOpt
	secret     error            // what our own provider answers
	limit      time.Duration    // the user's deadline
	started    func(s *solving) // once the step runs that says so

	class outcome.Class
	kind  outcome.Kind

	conn   *remote.Conn
	cancel context.CancelCauseFunc
}

// open connects.
func (s *solving) open(t *testing.T, bk *lab.BuildKitd) *solving {
	t.Helper()
	s.conn = connect(t, bk)
	files, err := fsutil.NewFS(lab.ShellContext(t, s.dockerfile, nil))
	if err != nil {
		t.Fatal(err)
	}
	s.opt.Frontend, s.opt.LocalMounts = "dockerfile.v0", map[string]fsutil.FS{"context": files, "dockerfile": files}
	s.opt.Session = []session.Attachable{secretsprovider.NewSecretProvider(refusing{s.secret})}
	return s
}

// solve gives what the end is judged by.
func (s *solving) solve(ctx context.Context) outcome.Facts {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.cancel = cancel
	if s.limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, s.limit)
		defer stop()
	}
	f := outcome.Facts{}
	statuses, seen := make(chan *client.SolveStatus), make(chan struct{})
	go func() {
		defer close(seen)
		for st := range statuses {
			f.Begun = true
			for _, l := range st.Logs {
				if string(l.Data) == "started\n" && s.started != nil {
					go s.started(s)
				}
			}
		}
	}()
	_, err := s.conn.Client().Solve(ctx, nil, s.opt, statuses)
	<-seen
	if err == nil {
		err = errWell
	}
	f.Err, f.User, f.Wire = err, outcome.Interrupted(ctx, err), s.conn.Wire()
	return f
}

var errWell = errors.New("it went well")

// refusing is a provider of secrets that has none.
type refusing struct{ err error }

func (r refusing) GetSecret(context.Context, string) ([]byte, error) {
	if r.err == nil {
		return nil, secrets.ErrNotFound
	}
	return nil, r.err
}

func connect(t *testing.T, bk *lab.BuildKitd) *remote.Conn {
	t.Helper()
	e, err := endpoint.Parse(bk.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, err := remote.Connect(t.Context(), remote.Target{Endpoint: e}, remote.Config{Schemes: schemes.All(dial.Env{}), KeepAlive: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// What real daemons answer, and what is made of it.
func TestOutcomes(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	waits := func(n int) string { return fmt.Sprintf("RUN echo started; sleep 70%d\n", n) }
	needs := "RUN --mount=type=secret,id=s,required cat /run/secrets/s\n"
	interrupted := errors.New("interrupted")
	for _, s := range []*solving{
		{name: "exit 3", dockerfile: "RUN exit 3\n", class: outcome.Failed, kind: outcome.Step},
		{name: "killed step", dockerfile: "RUN exit 137\n", class: outcome.Failed, kind: outcome.Step},
		{name: "missing source", dockerfile: "COPY nosuch /\n", class: outcome.Failed, kind: outcome.Build},
		{name: "no such instruction", dockerfile: "WHAT\n", class: outcome.Failed, kind: outcome.Build},
		{name: "registry refuses", dockerfile: "FROM 127.0.0.1:1/nosuch\n", class: outcome.Failed, kind: outcome.Build},
		{name: "push refused", opt: export("image", "name", "127.0.0.1:1/x", "push", "true"), class: outcome.Failed, kind: outcome.Build},
		{name: "bad exporter", opt: export("nosuch"), class: outcome.Failed, kind: outcome.Build},
		{name: "not entitled", dockerfile: "RUN --security=insecure true\n", class: outcome.Failed, kind: outcome.Build},
		{name: "no secret", dockerfile: needs, class: outcome.Failed, kind: outcome.Build},
		{name: "our provider is unavailable", dockerfile: needs, secret: coded(codes.Unavailable), class: outcome.Failed, kind: outcome.Build},
		{name: "our provider is late", dockerfile: needs, secret: coded(codes.DeadlineExceeded), class: outcome.Failed, kind: outcome.Build},
		{name: "our provider cancels", dockerfile: needs, secret: coded(codes.Canceled), class: outcome.Lost, kind: outcome.Dropped},
		{name: "no folder for the result", opt: client.SolveOpt{Exports: []client.ExportEntry{{Type: client.ExporterLocal}}}, class: outcome.Failed, kind: outcome.Input},
		{name: "the user cancels", dockerfile: waits(1), started: func(s *solving) { s.cancel(interrupted) }, class: outcome.Ours, kind: outcome.Canceled},
		{name: "the user's deadline", dockerfile: waits(2), limit: 2 * time.Second, class: outcome.Ours, kind: outcome.Deadline},
		{name: "closed under it", dockerfile: waits(3), started: func(s *solving) { _ = s.conn.Close() }, class: outcome.Lost, kind: outcome.Unavailable},
	} {
		judged(t, s.name, s.open(t, bk).solve(t.Context()), s.class, s.kind)
	}
}

// The same reference twice at once: the second is refused.
func TestReferenceTaken(t *testing.T) {
	bk := lab.BuildKit(t, lab.BuildKitOpts{Unix: true})
	ref, running, ended := client.SolveOpt{Ref: identity.NewID()}, make(chan struct{}), make(chan outcome.Facts)
	first := (&solving{dockerfile: "RUN echo started; sleep 704\n", opt: ref, started: func(*solving) { close(running) }}).open(t, bk)
	twin := (&solving{dockerfile: "RUN echo started; sleep 704\n", opt: ref}).open(t, bk)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { ended <- first.solve(ctx) }()
	<-running
	judged(t, "twin", twin.solve(t.Context()), outcome.Lost, outcome.Taken)
	cancel(errors.New("interrupted"))
	judged(t, "first", <-ended, outcome.Ours, outcome.Canceled)
}

func export(kind string, attrs ...string) client.SolveOpt {
	e := client.ExportEntry{Type: kind, Attrs: map[string]string{}}
	for i := 0; i < len(attrs); i += 2 {
		e.Attrs[attrs[i]] = attrs[i+1]
	}
	return client.SolveOpt{Exports: []client.ExportEntry{e}}
}

func coded(c codes.Code) error { return grpcerrors.WrapCode(errors.New("the provider says no"), c) }

func judged(t *testing.T, name string, f outcome.Facts, class outcome.Class, kind outcome.Kind) {
	t.Helper()
	if v := outcome.Judge(f); errors.Is(f.Err, errWell) || v.Class != class || v.Kind != kind {
		t.Errorf("%s: %s, %s; want %s, %s: %v, wire %+v", name, v.Class, v.Kind, class, kind, f.Err, f.Wire)
	}
}
