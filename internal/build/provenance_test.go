package build

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/request"
	controlapi "github.com/moby/buildkit/api/services/control"
)

// historian is a daemon whose builds are remembered by f.
func historian(t *testing.T, version string, f buildkittest.HistoryFunc, platforms ...string) *buildkittest.Server {
	t.Helper()
	o := buildkittest.Options{Version: version, History: f}
	if len(platforms) > 0 {
		o.Workers = []buildkittest.Worker{{ID: "w", Platforms: platforms}}
	}
	return buildkittest.New(t, o)
}

// testdata is a predicate that a real daemon recorded.
func testdata(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// attested are a record's attestations: what is no provenance, and provenance.
func attested(s *buildkittest.Server, predicate []byte, kind string) *controlapi.BuildResultInfo {
	p, other := s.Keep(predicate), s.Keep([]byte("no provenance"))
	p.MediaType, other.MediaType = "application/vnd.in-toto+json", "application/vnd.in-toto+json"
	p.Annotations = map[string]string{predicateType: kind}
	other.Annotations = map[string]string{predicateType: "https://spdx.dev/Document"}
	return &controlapi.BuildResultInfo{Attestations: []*controlapi.Descriptor{other, p}}
}

const slsa1 = "https://slsa.dev/provenance/v1"

func runOn(t *testing.T, b *builder.Builder, r request.Request, detail ProvenanceDetail) *Result {
	t.Helper()
	o := options(t)
	o.Provenance = detail
	res, err := Run(t.Context(), b, r, o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The daemon's record is told in the older form, whichever it has, and in full
// only when that is asked for.
func TestProvenance(t *testing.T) {
	for name, c := range map[string]struct{ file, kind string }{
		"v1":   {"provenance-v1.json", slsa1},
		"v0.2": {"provenance-v02.json", slsa02},
	} {
		var s *buildkittest.Server
		s = historian(t, "", func(_ context.Context, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
			return &controlapi.BuildHistoryRecord{Ref: req.Ref, Result: attested(s, testdata(t, c.file), c.kind)}, nil
		})
		b := builderOf(node("n0", s.Endpoint()))
		for detail, golden := range map[ProvenanceDetail]string{MinProvenance: "provenance-min.golden", MaxProvenance: "provenance-max.golden"} {
			res := runOn(t, b, req(t), detail)
			got, err := json.MarshalIndent(res.Metadata()["buildx.build.provenance"], "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if want := string(testdata(t, golden)); string(got)+"\n" != want {
				t.Errorf("%s, %s:\n%s\nwant\n%s", name, detail, got, want)
			}
			if len(res.Missing()) > 0 {
				t.Errorf("%v", res.Missing())
			}
		}
		if res := runOn(t, b, req(t), NoProvenance); res.Parts[0].Provenance != nil {
			t.Errorf("not asked for, and there: %s", res.Parts[0].Provenance)
		}
	}
}

func TestProvenanceByPlatform(t *testing.T) {
	predicate := testdata(t, "provenance-v1.json")
	var one *buildkittest.Server
	one = historian(t, "", func(_ context.Context, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
		return &controlapi.BuildHistoryRecord{Ref: req.Ref, Results: map[string]*controlapi.BuildResultInfo{
			"linux/amd64": attested(one, predicate, slsa1), "linux/arm64": attested(one, predicate, slsa1),
		}}, nil
	})
	r := req(t)
	r.Platforms = plats("linux/amd64", "linux/arm64")
	keys := func(res *Result) string {
		text, err := json.Marshal(res.Metadata())
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]any
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, k := range []string{"", "/linux/amd64", "/linux/arm64"} {
			if _, ok := all["buildx.build.provenance"+k].(map[string]any); ok {
				names = append(names, "provenance"+k)
			}
			if ref, ok := all["buildx.build.ref"+k].(string); ok {
				names = append(names, ref[:4]) // without the random id
			}
		}
		return strings.Join(names, " ")
	}
	if got := keys(runOn(t, builderOf(node("n0", one.Endpoint())), r, MinProvenance)); got != "b/n0 provenance/linux/amd64 provenance/linux/arm64" {
		t.Error(got)
	}

	// Several nodes: the provenance and the reference of each are kept, also of
	// one that does not say what platform it is.
	var amd, arm *buildkittest.Server
	amd = historian(t, "", func(_ context.Context, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
		return &controlapi.BuildHistoryRecord{Ref: req.Ref, Result: attested(amd, predicate, slsa1)}, nil
	}, "linux/amd64")
	arm = historian(t, "", func(_ context.Context, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
		return &controlapi.BuildHistoryRecord{Ref: req.Ref, Results: map[string]*controlapi.BuildResultInfo{"linux/arm64": attested(arm, predicate, slsa1)}}, nil
	}, "linux/arm64")
	two := builderOf(node("n0", amd.Endpoint()), node("n1", arm.Endpoint()))
	if got := keys(runOn(t, two, r, MinProvenance)); got != "b/n0 provenance/linux/amd64 b/n0 provenance/linux/arm64 b/n1" {
		t.Error(got)
	}
}

// A record that is written late is waited for.
func TestLateRecord(t *testing.T) {
	dialtest.NoLeaks(t)
	var s *buildkittest.Server
	s = historian(t, "", func(_ context.Context, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
		if req.EarlyExit {
			return nil, nil
		}
		return &controlapi.BuildHistoryRecord{Ref: req.Ref, Result: attested(s, testdata(t, "provenance-v1.json"), slsa1)}, nil
	})
	res := runOn(t, builderOf(node("n0", s.Endpoint())), req(t), MinProvenance)
	if len(res.Parts[0].Provenance) != 1 || len(res.Missing()) > 0 {
		t.Errorf("%v, %v", res.Parts[0].Provenance, res.Missing())
	}
}

// A good build stays one when its record cannot be had; the reason is told.
func TestMissingProvenance(t *testing.T) {
	dialtest.NoLeaks(t)
	for name, c := range map[string]struct {
		f    func(s *buildkittest.Server) *controlapi.BuildHistoryRecord
		want string
	}{
		"no record": {func(*buildkittest.Server) *controlapi.BuildHistoryRecord { return nil }, "no record of the build"},
		"not JSON": {func(s *buildkittest.Server) *controlapi.BuildHistoryRecord {
			return recordOf(attested(s, []byte("[]"), slsa1))
		}, "record"},
		"old garbage": {func(s *buildkittest.Server) *controlapi.BuildHistoryRecord {
			return recordOf(attested(s, []byte("{"), slsa02))
		}, "record"},
		"no such content": {func(*buildkittest.Server) *controlapi.BuildHistoryRecord {
			return recordOf(&controlapi.BuildResultInfo{Attestations: []*controlapi.Descriptor{descriptor("sha256:"+strings.Repeat("0", 64), 1)}})
		}, "not found"},
		"no digest": {func(*buildkittest.Server) *controlapi.BuildHistoryRecord {
			return recordOf(&controlapi.BuildResultInfo{Attestations: []*controlapi.Descriptor{descriptor("../../etc/passwd", 1)}})
		}, "digest"},
		"huge": {func(*buildkittest.Server) *controlapi.BuildHistoryRecord {
			return recordOf(&controlapi.BuildResultInfo{Attestations: []*controlapi.Descriptor{descriptor("sha256:"+strings.Repeat("0", 64), 1<<40)}})
		}, "too much"},
	} {
		var s *buildkittest.Server
		s = historian(t, "", func(_ context.Context, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
			rec := c.f(s)
			if rec != nil {
				rec.Ref = req.Ref
			}
			return rec, nil
		})
		res := runOn(t, builderOf(node("n0", s.Endpoint())), req(t), MinProvenance)
		all := res.Missing()
		if len(all) != 1 || !strings.Contains(all[0].Error(), c.want) || !strings.Contains(all[0].Error(), "node n0") {
			t.Errorf("%s: %v", name, all)
		}
		if _, ok := res.Metadata()["buildx.build.provenance"]; ok {
			t.Errorf("%s: something is there", name)
		}
	}
	// One that never kept records is not even asked.
	old := historian(t, "v0.10.6", func(context.Context, *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
		t.Error("asked")
		return nil, nil
	})
	if res := runOn(t, builderOf(node("n0", old.Endpoint())), req(t), MinProvenance); len(res.Missing()) > 0 {
		t.Errorf("an old daemon: %v", res.Missing())
	}
	if res := runOn(t, builderOf(node("n0", historian(t, "", nil).Endpoint())), req(t), MinProvenance); len(res.Missing()) > 0 {
		t.Errorf("one that does not know the question: %v", res.Missing())
	}
}

func recordOf(res *controlapi.BuildResultInfo) *controlapi.BuildHistoryRecord {
	return &controlapi.BuildHistoryRecord{Result: res}
}

func descriptor(digest string, size int64) *controlapi.Descriptor {
	return &controlapi.Descriptor{Digest: digest, Size: size, Annotations: map[string]string{predicateType: slsa1}}
}

// Ctrl-C while the daemon does not tell its record.
func TestProvenanceCancelled(t *testing.T) {
	dialtest.NoLeaks(t)
	asked := make(chan struct{})
	s := historian(t, "", func(ctx context.Context, _ *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	go func() {
		<-asked
		cancel(why)
	}()
	o := options(t)
	o.Provenance = MinProvenance
	if _, err := Run(ctx, builderOf(node("n0", s.Endpoint())), req(t), o); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func FuzzSLSA(f *testing.F) {
	for _, name := range []string{"provenance-v1.json", "provenance-v02.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, strings.Contains(name, "v02"))
	}
	f.Add([]byte("{}"), false)
	f.Add([]byte(`{"runDetails":{"metadata":null}}`), false)
	f.Fuzz(func(t *testing.T, data []byte, old bool) {
		kind := slsa1
		if old {
			kind = slsa02
		}
		for _, detail := range []ProvenanceDetail{MinProvenance, MaxProvenance} {
			got, err := slsa(data, kind, detail)
			if err == nil && !json.Valid(got) {
				t.Errorf("%s", got)
			}
		}
	})
}
