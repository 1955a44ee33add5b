package cli

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/otlptest"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var update = flag.Bool("update", false, "rewrite the expectations in the scripts")

// TestMain makes this test binary the program itself when a script calls it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"berth":         func() { os.Exit(Main(os.Args)) },
		"docker-buildx": func() { os.Exit(Main(os.Args)) },
	})
}

// TestScripts runs the command line as users type it, as processes of its own,
// against daemons in this process: one on a unix socket, one on TCP, one on TCP
// with mutual TLS. Their addresses are in the scripts' environment.
func TestScripts(t *testing.T) {
	certs := buildkittest.TestCerts(t)
	solve := func(_ context.Context, b *buildkittest.Build) (map[string]string, error) {
		b.Step("[1/1] COPY . /")
		return map[string]string{
			"containerimage.digest":        "sha256:1111111111111111111111111111111111111111111111111111111111111111",
			"containerimage.config.digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
		}, nil
	}
	unix := buildkittest.New(t, buildkittest.Options{Network: "unix", Solve: solve, Usage: cacheUsage, Prune: cachePrune})
	plain := buildkittest.New(t, buildkittest.Options{Solve: solve, Call: answers})
	failing := buildkittest.New(t, buildkittest.Options{Solve: failingBuild})
	tls := buildkittest.New(t, buildkittest.Options{Solve: solve, TLS: &buildkittest.TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	old := buildkittest.New(t, buildkittest.Options{Solve: solve, NoInfo: true, Version: "v0.10.6", Usage: cacheUsage, Prune: cachePrune})
	arm := buildkittest.New(t, buildkittest.Options{Solve: solve, Workers: []buildkittest.Worker{{ID: "arm", Platforms: []string{"linux/arm64", "linux/arm/v7"}}}})
	builds := buildkittest.New(t, buildkittest.Options{Records: buildRecords, Status: func(context.Context, string, func(*controlapi.StatusResponse) error) error { return nil }, Update: func(*controlapi.UpdateBuildHistoryRequest) error { return nil }})
	stuck := buildkittest.Raw(t, buildkittest.Silence)
	proxy := dialtest.Proxy(t, dialtest.ProxyOpts{
		User: "me", Password: "hunter2", Hosts: map[string]string{"daemon.example:1234": strings.TrimPrefix(tls.Endpoint(), "tcp://")},
	})
	collector := otlptest.New(t, otlptest.Options{})
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"cmptimes": cmpTimes},
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			for k, v := range map[string]string{
				"HOME": home, "BUILDX_CONFIG": filepath.Join(e.WorkDir, "state"), "DOCKER_CONFIG": filepath.Join(home, ".docker"),
				"DOCKER_HOST": "unix:///no/docker.sock",
				"UNIX":        unix.Endpoint(), "PLAIN": plain.Endpoint(), "TLS": tls.Endpoint(), "OLD": old.Endpoint(), "ARM": arm.Endpoint(),
				"FAILING": failing.Endpoint(), "STUCK": stuck, "COLLECTOR": collector.GRPC(), "FREE": "tcp://" + buildkittest.FreeAddr(t),
				"PROXY": proxy.Addr, "HISTORY": builds.Endpoint(), "TZ": "UTC",
				"CA": certs.CA.File, "CERT": certs.Client.Cert, "KEY": certs.Client.Key,
				"OTHERCA": certs.OtherCA.File, "OTHERKEY": certs.OtherClient.Key,
			} {
				e.Setenv(k, v)
			}
			return nil
		},
	})
}

// answers is a frontend that finds something in every target but "good".
func answers(_ context.Context, b *buildkittest.Build, attrs map[string]string) (map[string][]byte, error) {
	b.Step("[internal] load build definition from Dockerfile")
	switch attrs["requestid"] {
	case "frontend.lint":
		found, status := `[{"ruleName":"Rule","detail":"is broken","location":{"ranges":[{"start":{"line":1},"end":{"line":1}}]}}]`, "1"
		if attrs["target"] == "good" {
			found, status = "null", "0"
		}
		return map[string][]byte{
			"version": []byte("1.0.0"), "result.statuscode": []byte(status), "result.txt": []byte("text"),
			"result.json": []byte(`{"warnings":` + found + `,"sources":[{"filename":"Dockerfile","data":"RlJPTSBzY3JhdGNoCg=="}]}`),
		}, nil
	case "frontend.targets":
		return map[string][]byte{"version": []byte("1.0.0"), "result.json": []byte(`{"targets":[{"name":"good","default":true}]}`)}, nil
	}
	return nil, errdefs.NewUnsupportedSubrequestError(attrs["requestid"])
}

// failingBuild prints, warns and fails at the first line of the Dockerfile; a
// build for the target "good" only warns.
func failingBuild(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
	source := &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("RUN make\n")}
	line := []*pb.Range{{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}}
	step, now := string(digest.FromString("step")), timestamppb.Now()
	run := func(failure string) *controlapi.Vertex {
		v := &controlapi.Vertex{Digest: step, Name: "[1/1] RUN make", Started: now, Error: failure}
		if failure != "" {
			v.Completed = now
		}
		return v
	}
	b.Send(&controlapi.StatusResponse{
		Vertexes: []*controlapi.Vertex{run("")},
		Warnings: []*controlapi.VertexWarning{{Vertex: step, Short: []byte("Rule: is broken (line 1)"), Info: source, Ranges: line}},
	})
	if b.Request.FrontendAttrs["target"] == "good" {
		return nil, nil
	}
	b.Send(&controlapi.StatusResponse{Logs: []*controlapi.VertexLog{{Vertex: step, Stream: 2, Msg: []byte("make: *** broken\n"), Timestamp: now}}})
	b.Send(&controlapi.StatusResponse{Vertexes: []*controlapi.Vertex{run("exit code: 2")}})
	err := errdefs.WithSource(errors.New("process did not complete successfully: exit code: 2"), &errdefs.Source{Info: source, Ranges: line})
	return nil, grpcerrors.ToGRPC(ctx, err)
}

// buildRecords are a build that failed, and one that runs under a name that would
// like to write on the terminal.
func buildRecords(*controlapi.BuildHistoryRequest) ([]*controlapi.BuildHistoryRecord, error) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []*controlapi.BuildHistoryRecord{
		{
			Ref: "bad", CreatedAt: timestamppb.New(at), CompletedAt: timestamppb.New(at.Add(time.Minute)), NumTotalSteps: 3, NumCompletedSteps: 2, NumCachedSteps: 1,
			FrontendAttrs: map[string]string{"filename": "sub/Other", "build-arg:A": "1\n2"},
			Error:         &spb.Status{Code: 2, Message: "exit\x1b[2J code: 7"},
		},
		{Ref: "new", CreatedAt: timestamppb.New(at.Add(time.Hour)), FrontendAttrs: map[string]string{"build-arg:BUILDKIT_BUILD_NAME": "n\x1b[2Jame"}},
	}, nil
}

// cacheUsage is a cache with a record of each kind of mark, and one that would
// like to write on the terminal.
func cacheUsage(*controlapi.DiskUsageRequest) ([]*controlapi.UsageRecord, error) {
	made := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))
	return []*controlapi.UsageRecord{
		{ID: "mutable", Mutable: true, Size: 4096, CreatedAt: made, RecordType: "source.local", Description: "local source for context", UsageCount: 1},
		{ID: "shared", Shared: true, Size: 2_000_000, CreatedAt: made, RecordType: "regular", Description: "[1/1] RUN \x1b[2Jbye <&>", Parents: []string{"mutable", "other"}, UsageCount: 2},
		{ID: "used", InUse: true, Size: 1_500_000_000, CreatedAt: made, RecordType: "exec.cachemount"},
	}, nil
}

// cachePrune removes what it can of it.
func cachePrune(_ context.Context, req *controlapi.PruneRequest, removed func(*controlapi.UsageRecord) error) error {
	all, err := cacheUsage(nil)
	if err != nil || req.KeepDuration > 0 {
		return err
	}
	for _, r := range all[:2] {
		if err := removed(r); err != nil {
			return err
		}
	}
	return nil
}
