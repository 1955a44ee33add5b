package history

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/schemes"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/state"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// on is a builder called b with nodes b0, b1, … at the endpoints.
func on(endpoints ...string) *builder.Builder {
	b := &builder.Builder{Name: "b", Driver: builder.DriverRemote}
	for i, e := range endpoints {
		b.Nodes = append(b.Nodes, builder.Node{Builder: "b", Driver: builder.DriverRemote, Name: "b" + string(rune('0'+i)), Endpoint: e})
	}
	return b
}

func open(t *testing.T, store *state.Store, endpoints ...string) *History {
	t.Helper()
	h, err := Open(on(endpoints...), Options{Schemes: schemes.All(dial.Env{}), Budget: 2 * time.Second, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// begin is when the records of tests begin, minute by minute.
var begin = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC) //nolint:gochecknoglobals // a constant

func rec(id string, minute int, change ...func(*controlapi.BuildHistoryRecord)) *controlapi.BuildHistoryRecord {
	at := begin.Add(time.Duration(minute) * time.Minute)
	r := &controlapi.BuildHistoryRecord{Ref: id, CreatedAt: timestamppb.New(at), CompletedAt: timestamppb.New(at.Add(time.Second))}
	for _, c := range change {
		c(r)
	}
	return r
}

func runs(r *controlapi.BuildHistoryRecord) { r.CompletedAt = nil }

func serving(t *testing.T, o buildkittest.Options, all ...*controlapi.BuildHistoryRecord) *buildkittest.Server {
	t.Helper()
	o.Records = func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) { return all, nil }
	return buildkittest.New(t, o)
}

func refs(all []*Record) string {
	var names []string
	for _, r := range all {
		names = append(names, r.Reference())
	}
	return strings.Join(names, " ")
}

func parse(t *testing.T, text string) Reference {
	t.Helper()
	r, err := ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordsOfAllNodes(t *testing.T) {
	one := serving(t, buildkittest.Options{}, rec("old", 1), rec("new", 9, runs))
	two := serving(t, buildkittest.Options{}, rec("mid", 5))
	old := buildkittest.New(t, buildkittest.Options{})
	dead := "tcp://" + buildkittest.FreeAddr(t)
	store := state.Open(t.TempDir())
	if err := store.SaveRef(t.Context(), "b", "b1", "mid", state.Ref{LocalPath: "/src/app"}); err != nil {
		t.Fatal(err)
	}
	h := open(t, store, one.Endpoint(), two.Endpoint(), dead, old.Endpoint())
	all, err := h.Records(t.Context(), Filter{})
	if err != nil || refs(all) != "b/b0/new b/b1/mid b/b0/old" {
		t.Errorf("%s, %v", refs(all), err)
	}
	if all[1].Name() != "app" || all[0].Status() != Running {
		t.Errorf("%q %v", all[1].Name(), all[0].Status())
	}
	failed := h.Failed()
	if len(failed) != 2 || !strings.Contains(failed[0].Error(), "node b2 of builder b at "+dead) ||
		!strings.Contains(failed[1].Error(), "node b3 of builder b") || !strings.Contains(failed[1].Error(), "no build records: BuildKit has them since v0.12") {
		t.Errorf("failed: %q", failed)
	}
	for _, err := range failed {
		if len(hint.Of(err)) == 0 {
			t.Errorf("no hint: %v", err)
		}
	}
}

func TestFind(t *testing.T) {
	const long = "abcdefghijklmnopqrstuvwx1"
	one := serving(t, buildkittest.Options{}, rec("qaa", 1), rec("qab", 2), rec(long, 3))
	two := serving(t, buildkittest.Options{}, rec("zzz", 4))
	h := open(t, nil, one.Endpoint(), two.Endpoint())
	for text, want := range map[string]string{
		"": "zzz", "^0": "zzz", "^1": long, "^3": "qaa", long: long, "zz": "zzz", "qab": "qab", "b/b0/qa": "", "b/b0/qaa": "qaa", "b/b0/zzz": "",
		"qa": "", "nope": "", "^4": "", "abcdefghijklmnopqrstuvwx9": "", "b/b7/qaa": "", "b/b1/z": "zzz",
	} {
		r, err := h.Find(t.Context(), parse(t, text))
		switch {
		case want == "" && (err == nil || len(hint.Of(err)) == 0):
			t.Errorf("%q: found %v, %v", text, r, err)
		case want != "" && (err != nil || r.Ref != want):
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
	empty := open(t, nil, serving(t, buildkittest.Options{}).Endpoint())
	if _, err := empty.Find(t.Context(), Reference{}); !OnlyNotFound(err) || err.Error() != "no records found" {
		t.Error(err)
	}
}

// A record on a node that lives is found while another does not answer; one that
// is nowhere may be on the other.
func TestFindWithANodeDown(t *testing.T) {
	const id = "abcdefghijklmnopqrstuvwx1"
	one := serving(t, buildkittest.Options{}, rec(id, 1))
	held := buildkittest.New(t, buildkittest.Options{Hold: make(chan struct{})}) // for ever
	h := open(t, nil, one.Endpoint(), held.Endpoint())
	if r, err := h.Find(t.Context(), parse(t, id)); err != nil || r.Ref != id || len(h.Failed()) != 0 {
		t.Errorf("%v %v %v", r, err, h.Failed())
	}
	h = open(t, nil, one.Endpoint(), "tcp://"+buildkittest.FreeAddr(t))
	if _, err := h.Find(t.Context(), parse(t, "zz")); !IsNotFound(err) || OnlyNotFound(err) || !strings.Contains(err.Error(), "1 of 2 nodes could not be asked") {
		t.Error(err)
	}
}

func TestListEnds(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{Records: func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
		return nil, status.Error(codes.Internal, "the disk is gone")
	}})
	h := open(t, nil, s.Endpoint())
	if all, err := h.Records(t.Context(), Filter{}); err != nil || len(all) != 0 || len(h.Failed()) != 1 || !strings.Contains(h.Failed()[0].Error(), "the disk is gone") {
		t.Errorf("%v %v %v", all, err, h.Failed())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	block := buildkittest.New(t, buildkittest.Options{History: func(ctx context.Context, _ *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
		cancel(stopped)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if _, err := open(t, nil, block.Endpoint()).Records(ctx, Filter{}); !errors.Is(err, stopped) {
		t.Error(err)
	}
}

// failing makes a build that failed at a step.
func failing(r *controlapi.BuildHistoryRecord) {
	r.Error = &spb.Status{Code: int32(codes.Unknown), Message: "exit code: 7"}
}

func TestDetail(t *testing.T) {
	var s *buildkittest.Server
	s = buildkittest.New(t, buildkittest.Options{
		Status: func(_ context.Context, _ string, send func(*controlapi.StatusResponse) error) error {
			return send(&controlapi.StatusResponse{
				Vertexes: []*controlapi.Vertex{{Digest: "sha256:a", Name: "[1/1] RUN false", Error: "exit code: 7"}},
				Logs:     []*controlapi.VertexLog{{Vertex: "sha256:a", Msg: []byte("one\ntw")}, {Vertex: "sha256:a", Msg: []byte("o\n" + strings.Repeat("x", 1<<20) + "\n")}},
			})
		},
		Records: func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
			slsa := s.Keep([]byte(`{"materials":[{"uri":"pkg:docker/a","digest":{"sha256":"11"}}]}`))
			slsa.Annotations = map[string]string{predicateType: "https://slsa.dev/provenance/v0.2"}
			lost := s.Keep([]byte("lost"))
			s.Forget(lost)
			lost.MediaType = "application/vnd.oci.image.index.v1+json"
			return []*controlapi.BuildHistoryRecord{rec("x", 1, failing, func(r *controlapi.BuildHistoryRecord) {
				r.FrontendAttrs = map[string]string{
					"build-arg:A": "1", "label:l": "2", "context:c": "docker-image://d", "platform": "linux/amd64,linux/arm64", "no-cache": "a,b",
					"vcs:source": "https://h/r", "vcs:revision": "abc", "odd": "1", "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1",
				}
				r.Result = &controlapi.BuildResultInfo{Attestations: []*controlapi.Descriptor{slsa}, ResultDeprecated: lost}
				r.Results = map[string]*controlapi.BuildResultInfo{"linux/amd64": nil}
			})}, nil
		},
	})
	h := open(t, nil, s.Endpoint())
	r, err := h.Find(t.Context(), parse(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	d := h.Detail(t.Context(), r, "/")
	if d.Status != "failed" || d.Error.Name != "[1/1] RUN false" || len(d.Error.Logs) != 3 || d.Error.Logs[1] != "two" || len(d.Error.Logs[2]) != failureLine {
		t.Errorf("%+v", d.Error)
	}
	if len(d.Materials) != 1 || d.Materials[0].Digests[0] != "sha256:11" || len(d.Attachments) != 2 {
		t.Errorf("%+v %+v", d.Materials, d.Attachments)
	}
	if len(d.Errors) != 1 || !strings.Contains(d.Errors[0], "has been removed meanwhile") || !strings.Contains(d.Errors[0], "node b0") {
		t.Errorf("%q", d.Errors)
	}
	if d.VCSRevision != "abc" || len(d.BuildArgs) != 1 || len(d.Labels) != 1 || !d.KeepGitDir || len(d.NamedContexts) != 1 || len(d.Config.RestRaw) != 1 || len(d.Config.NoCacheFilter) != 2 || len(d.Platform) != 2 {
		t.Errorf("%+v", d)
	}
}

// What a record points to is removed, is something else, or is absurdly large.
func TestAttachmentsThatCannotBeRead(t *testing.T) {
	var kept []*controlapi.Descriptor
	s := buildkittest.New(t, buildkittest.Options{Records: func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
		return []*controlapi.BuildHistoryRecord{rec("x", 1, func(r *controlapi.BuildHistoryRecord) {
			r.Result = &controlapi.BuildResultInfo{Attestations: kept}
		})}, nil
	}})
	gone, other, huge, none := s.Keep([]byte("gone")), s.Keep([]byte("other")), s.Keep([]byte("huge")), &controlapi.Descriptor{Digest: "sha256:zz"}
	s.Forget(gone)
	s.Corrupt(other, []byte("rehto"))
	huge.Size = 1 << 50
	for d, want := range map[*controlapi.Descriptor]string{
		gone: "the record has been removed meanwhile", other: "has other content than its digest says",
		huge: "at most 67108864 are read", none: "names a digest that is none",
	} {
		kept = []*controlapi.Descriptor{d}
		d.MediaType = "t"
		h := open(t, nil, s.Endpoint())
		r, err := h.Find(t.Context(), Reference{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Attachment(t.Context(), Wanted{Type: "t"}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "record x") {
			t.Errorf("%s: %v", want, err)
		}
		b, err := NewBundle()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Add(t.Context(), b, r); err == nil || b.Len() != 0 {
			t.Errorf("bundled: %v", err)
		}
		if err := b.Write(io.Discard); err == nil {
			t.Error("a bundle of nothing")
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRemoveAndFinalize(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	s := buildkittest.New(t, buildkittest.Options{
		Records: func(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
			return []*controlapi.BuildHistoryRecord{rec("x", 1), rec("gone", 2)}, nil
		},
		Update: func(req *controlapi.UpdateBuildHistoryRequest) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, req.String())
			if req.Ref == "gone" {
				return status.Error(codes.Unknown, `lease "ref_gone": not found`)
			}
			return nil
		},
	})
	h := open(t, nil, s.Endpoint())
	for id, want := range map[string]error{"x": nil, "gone": ErrGone} {
		r, err := h.Find(t.Context(), parse(t, id))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Finalize(t.Context()); !errors.Is(err, want) {
			t.Errorf("finalize %s: %v", id, err)
		}
		if err := r.Remove(t.Context()); !errors.Is(err, want) {
			t.Errorf("remove %s: %v", id, err)
		}
	}
	if len(asked) != 4 {
		t.Errorf("asked %q", asked)
	}
}

// impatient takes daemons for silent soon.
func impatient(t *testing.T, h *History) {
	t.Helper()
	for _, p := range h.places {
		d, ok := p.(*daemon)
		if !ok {
			t.Fatal("no daemon")
		}
		d.o.pulse.Every, d.o.pulse.Patience = time.Millisecond, 50*time.Millisecond
	}
}

// The daemon dies, or falls silent, while a build is followed.
func TestFollowLost(t *testing.T) {
	for _, silent := range []bool{false, true} {
		s := serving(t, buildkittest.Options{Status: func(ctx context.Context, _ string, send func(*controlapi.StatusResponse) error) error {
			if err := send(&controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{{Digest: "sha256:a", Name: "step"}}}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}}, rec("x", 1, runs))
		h := open(t, nil, s.Endpoint())
		r, err := h.Find(t.Context(), Reference{})
		if err != nil {
			t.Fatal(err)
		}
		if silent { // of a dead one the connection tells
			impatient(t, h)
		}
		err = r.Progress(t.Context(), func(*client.SolveStatus) {
			if silent {
				s.Mute()
			} else {
				s.Kill()
			}
		})
		want := "the connection was lost"
		if silent {
			want = "the daemon has stopped answering"
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "node b0") {
			t.Errorf("silent %v: %v", silent, err)
		}
	}
}

// The daemon falls silent ahead of the reading of what a record points to.
func TestReadingFromASilentDaemon(t *testing.T) {
	h, s := servedBy(t)
	r, err := h.Find(t.Context(), parse(t, "full"))
	if err != nil {
		t.Fatal(err)
	}
	impatient(t, h)
	b, err := NewBundle()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // a temporary folder
	s.Mute()
	_, read := r.Attachment(t.Context(), Wanted{Type: "t"})
	for what, err := range map[string]error{"attachment": read, "bundle": h.Add(t.Context(), b, r)} {
		if !errors.Is(err, remote.ErrSilent) || !strings.Contains(err.Error(), "record full") || len(hint.Of(err)) == 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// On a daemon whose clock is ahead of ours a build begins in our future.
func TestDurationBesideWrongClock(t *testing.T) {
	running, ended := &Record{BuildHistoryRecord: rec("a", 0, runs)}, &Record{BuildHistoryRecord: rec("b", 0)}
	if got := running.Duration(begin.Add(-time.Hour)); got != 0 {
		t.Errorf("a running build: %s", got)
	}
	if got := running.Duration(begin.Add(time.Hour)); got != time.Hour {
		t.Errorf("a running build: %s", got)
	}
	if got := ended.Duration(begin.Add(-time.Hour)); got != time.Second {
		t.Errorf("one that has ended: %s", got)
	}
}

// Of each daemon the newest are given, and those that run; whether there are more is
// told of those that the filter chooses.
func TestNewest(t *testing.T) {
	var asked []int32
	server := func(all ...*controlapi.BuildHistoryRecord) string {
		return buildkittest.New(t, buildkittest.Options{Records: func(req *controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
			asked = append(asked, req.Limit)
			return all, nil // all, as one does that does not know bounds
		}}).Endpoint()
	}
	a := server(rec("a1", 1), rec("a2", 2), rec("a3", 3), rec("a4", 4, runs))
	for _, c := range []struct {
		filter string
		n      int
		want   string
		more   bool
		limit  int32
	}{
		{"", 0, "a4 a3 a2 a1", false, 0},
		{"", 3, "a4 a3 a2 a1", false, 4},
		{"", 2, "a4 a3 a2", true, 3},
		{"status=completed", 2, "a3 a2", true, 0},
		{"ref=a1", 2, "a1", false, 0},
	} {
		asked = nil
		var filters []string
		if c.filter != "" {
			filters = append(filters, c.filter)
		}
		f, err := ParseFilter(filters, begin)
		if err != nil {
			t.Fatal(err)
		}
		all, more, err := open(t, nil, a).Newest(t.Context(), f, c.n)
		var got []string
		for _, r := range all {
			got = append(got, r.Ref)
		}
		if err != nil || strings.Join(got, " ") != c.want || more != c.more || len(asked) != 1 || asked[0] != c.limit {
			t.Errorf("%q, %d: %v, more %v, asked for %v: %v", c.filter, c.n, got, more, asked, err)
		}
	}
	all, more, err := open(t, nil, a, server(rec("b1", 1), rec("b2", 9))).Newest(t.Context(), Filter{}, 2)
	if err != nil || len(all) != 5 || !more || all[0].Ref != "b2" {
		t.Errorf("%v, more %v: %v", all, more, err)
	}
}
