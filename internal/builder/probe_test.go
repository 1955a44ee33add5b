package builder

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func node(endpoint string) Node {
	return Node{Builder: "b", Name: "b0", Driver: DriverRemote, Endpoint: endpoint}
}

func TestProbe(t *testing.T) {
	dialtest.NoLeaks(t)
	s, _ := service(t)
	live := buildkittest.New(t, buildkittest.Options{Network: "unix", Version: "v0.12.3"})
	old := buildkittest.New(t, buildkittest.Options{NoInfo: true})
	broken := buildkittest.New(t, buildkittest.Options{Err: status.Error(codes.PermissionDenied, "not you")})
	for _, c := range []struct {
		name    string
		node    Node
		state   State
		version string
	}{
		{"running", node(live.Endpoint()), Running, "v0.12.3"},
		{"older than Info", node(old.Endpoint()), Running, "v0.34.2"}, // the worker says it
		{"refused", node("tcp://" + buildkittest.FreeAddr(t)), Inactive, ""},
		{"no socket", node("unix://" + filepath.ToSlash(filepath.Join(t.TempDir(), "x.sock"))), Inactive, ""},
		{"not BuildKit", node(buildkittest.Raw(t, buildkittest.Say("HTTP/1.1 400 Bad Request\r\n\r\n"))), Failing, ""},
		{"denied", node(broken.Endpoint()), Failing, ""},
		{"other driver", Node{Builder: "b", Name: "b0", Driver: "docker-container", Endpoint: "unix:///var/run/docker.sock"}, Failing, ""},
		{"bad endpoint", node("tcp://"), Failing, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := s.Probe(t.Context(), c.node, ProbeOptions{Once: true})
			if st.State != c.state || st.Version != c.version || (st.Err == nil) != (c.state == Running) {
				t.Errorf("%+v", st)
			}
			if c.state == Running && len(st.Workers) != 1 {
				t.Errorf("workers: %v", st.Workers)
			}
		})
	}
}

// A daemon that comes up while it is waited for is running.
func TestProbeWaits(t *testing.T) {
	s, _ := service(t)
	addr := buildkittest.FreeAddr(t)
	up := make(chan struct{})
	opened := false
	st := s.Probe(t.Context(), node("tcp://"+addr), ProbeOptions{Budget: time.Minute, OnWait: func(remote.Waiting) {
		if !opened { // calls come one after another
			opened = true
			buildkittest.New(t, buildkittest.Options{Address: addr})
			close(up)
		}
	}})
	if st.State != Running {
		t.Fatalf("%+v", st)
	}
	<-up
}

// All are asked at once: the dead do not hold up the living, who are told of
// one at a time.
func TestProbeAll(t *testing.T) {
	dialtest.NoLeaks(t)
	s, _ := service(t)
	hold := make(chan struct{})
	slow := buildkittest.New(t, buildkittest.Options{Hold: hold})
	live := buildkittest.New(t, buildkittest.Options{})
	all := []*Builder{
		{Name: "slow", Nodes: []Node{node(slow.Endpoint()), node(live.Endpoint())}},
		{Name: "damaged", Err: errors.New("unreadable")},
		{Name: "live", Nodes: []Node{node(live.Endpoint())}},
	}
	var order []string
	s.ProbeAll(t.Context(), all, ProbeOptions{Once: true, Budget: time.Minute}, func(b, n int, st Status) {
		order = append(order, fmt.Sprintf("%d/%d %s", b, n, st.State))
		if len(order) == 2 {
			close(hold) // only when the others have answered
		}
	})
	if len(order) != 3 || order[2] != "0/0 running" {
		t.Errorf("%q", order)
	}
}

func TestProbeCancelled(t *testing.T) {
	dialtest.NoLeaks(t)
	s, _ := service(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	deaf := buildkittest.New(t, buildkittest.Options{Hold: make(chan struct{})})
	cancel(why)
	st := s.Probe(ctx, node(deaf.Endpoint()), ProbeOptions{Budget: time.Hour})
	if st.State == Running || !errors.Is(st.Err, why) {
		t.Errorf("%+v", st)
	}
}

func TestOffered(t *testing.T) {
	n := Node{Platforms: plats("linux/arm64", "linux/arm/v7")}
	st := Status{Workers: []*client.WorkerInfo{
		{Platforms: plats("linux/amd64", "linux/arm64", "linux/arm64/v8")},
		{Platforms: plats("linux/amd64", "windows/amd64")},
	}}
	var got []string
	for _, p := range Offered(n, st) {
		got = append(got, platforms.FormatAll(p))
	}
	equal(t, "platforms", got, []string{"linux/arm64", "linux/arm/v7", "linux/amd64", "windows/amd64"})
	if len(n.Platforms) != 2 || len(st.Workers[0].Platforms) != 3 {
		t.Error("its arguments were changed")
	}
	if got := Offered(Node{}, Status{}); len(got) != 0 {
		t.Errorf("nothing known: %v", got)
	}
}
