package buildkittest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/tonistiigi/fsutil"

	"github.com/berthbuild/berth/internal/dial/dialtest"
)

func connect(t *testing.T, s *Server, opts ...client.ClientOpt) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), s.Endpoint(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestInfoAndWorkers(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			dialtest.NoLeaks(t)
			s := New(t, Options{Network: network, Version: "v9", Workers: []Worker{{
				ID: "w", Platforms: []string{"linux/arm64", "linux/arm/v7"}, Labels: map[string]string{"a": "b"},
			}}})
			c := connect(t, s)
			info, err := c.Info(t.Context())
			if err != nil || info.BuildkitVersion.Version != "v9" {
				t.Fatalf("Info = %+v, %v", info, err)
			}
			ws, err := c.ListWorkers(t.Context())
			if err != nil || len(ws) != 1 || ws[0].Labels["a"] != "b" || len(ws[0].Platforms) != 2 ||
				ws[0].Platforms[1].Variant != "v7" {
				t.Fatalf("ListWorkers = %+v, %v", ws, err)
			}
			calls := s.Calls()
			if len(calls) != 2 || calls[0].Method != "/moby.buildkit.v1.Control/Info" || calls[0].Authority == "" {
				t.Errorf("calls = %+v", calls)
			}
		})
	}
}

func TestMutualTLS(t *testing.T) {
	dialtest.NoLeaks(t)
	certs := TestCerts(t)
	s := New(t, Options{TLS: &TLS{Server: certs.Server, ClientCA: certs.CA.File}})
	good := connect(t, s, client.WithServerConfig("localhost", certs.CA.File), client.WithCredentials(certs.Client.Cert, certs.Client.Key))
	if _, err := good.Info(t.Context()); err != nil {
		t.Errorf("with the right certificates: %v", err)
	}
	for name, opts := range map[string][]client.ClientOpt{
		"no client certificate": {client.WithServerConfig("localhost", certs.CA.File)},
		"other CA":              {client.WithServerConfig("localhost", certs.OtherCA.File), client.WithCredentials(certs.Client.Cert, certs.Client.Key)},
		"expired client":        {client.WithServerConfig("localhost", certs.CA.File), client.WithCredentials(certs.ExpiredClient.Cert, certs.ExpiredClient.Key)},
		"other client":          {client.WithServerConfig("localhost", certs.CA.File), client.WithCredentials(certs.OtherClient.Cert, certs.OtherClient.Key)},
	} {
		if _, err := connect(t, s, opts...).Info(t.Context()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestSolve goes through everything that a build exchanges with the daemon.
func TestSolve(t *testing.T) {
	dialtest.NoLeaks(t)
	src, fetched, out := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "Dockerfile"), []byte("FROM scratch"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(t, Options{Solve: func(ctx context.Context, b *Build) (map[string]string, error) {
		b.Step("[1/2] first")
		secret, err := b.Secret(ctx, "id")
		if err != nil || string(secret) != "hush" {
			return nil, errors.Join(errors.New("secret"), err)
		}
		b.Step("[2/2] second")
		return map[string]string{"k": "v"}, errors.Join(
			b.FetchDir(ctx, "context", fetched),
			b.SendDir(ctx, 0, fetched),
			b.SendFile(ctx, 1, []byte("tar")))
	}})
	local, err := fsutil.NewFS(src)
	if err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	opt := client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: map[string]string{"target": "x"},
		LocalMounts:   map[string]fsutil.FS{"context": local},
		Session:       []session.Attachable{secretsprovider.FromMap(map[string][]byte{"id": []byte("hush")})},
		Exports: []client.ExportEntry{
			{Type: client.ExporterLocal, OutputDir: out},
			{Type: client.ExporterTar, Output: func(map[string]string) (io.WriteCloser, error) { return nopCloser{&tar}, nil }},
		},
	}
	status := make(chan *client.SolveStatus)
	var names []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for st := range status {
			for _, v := range st.Vertexes {
				names = append(names, v.Name)
			}
		}
	}()
	res, err := connect(t, s).Solve(t.Context(), nil, opt, status)
	if err != nil {
		t.Fatal(err)
	}
	<-done
	if res.ExporterResponse["k"] != "v" || tar.String() != "tar" {
		t.Errorf("response %v, tar %q", res.ExporterResponse, tar.String())
	}
	if got, err := os.ReadFile(filepath.Join(out, "Dockerfile")); err != nil || string(got) != "FROM scratch" {
		t.Errorf("exported %q, %v", got, err)
	}
	if !slices.Equal(names, []string{"[1/2] first", "[2/2] second"}) {
		t.Errorf("steps = %q", names)
	}
	if rs := s.Requests(); len(rs) != 1 || rs[0].FrontendAttrs["target"] != "x" {
		t.Errorf("requests = %+v", rs)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestSolveFails(t *testing.T) {
	dialtest.NoLeaks(t)
	s := New(t, Options{Solve: func(context.Context, *Build) (map[string]string, error) {
		return nil, errors.New("no such stage")
	}})
	if _, err := connect(t, s).Solve(t.Context(), nil, client.SolveOpt{Frontend: "x"}, nil); err == nil {
		t.Error("a failing build succeeded")
	}
}

// TestKill: a build on a daemon that dies ends, on both sides.
func TestKill(t *testing.T) {
	dialtest.NoLeaks(t)
	running := make(chan struct{})
	s := New(t, Options{Solve: func(ctx context.Context, _ *Build) (map[string]string, error) {
		close(running)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	c := connect(t, s)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "x"}, nil)
		failed <- err
	}()
	<-running
	s.Kill()
	if err := <-failed; err == nil {
		t.Error("the build survived its daemon")
	}
	if c, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = c.Close()
		t.Error("a killed server still listens")
	}
}

// TestGateway: a client with a gateway of its own asks the daemon's frontend,
// and gets its answer, or its error with the type that it had.
func TestGateway(t *testing.T) {
	dialtest.NoLeaks(t)
	s := New(t, Options{Call: func(ctx context.Context, b *Build, attrs map[string]string) (map[string][]byte, error) {
		b.Step("[internal] load build definition")
		if attrs["requestid"] == "frontend.nosuch" {
			return nil, errdefs.NewUnsupportedSubrequestError(attrs["requestid"])
		}
		return map[string][]byte{"asked": []byte(attrs["requestid"])}, nil
	}})
	ask := func(id string) (answer string, err error) {
		_, err = connect(t, s).Build(t.Context(), client.SolveOpt{FrontendAttrs: map[string]string{"requestid": id}}, "",
			func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
				res, err := c.Solve(ctx, gateway.SolveRequest{Frontend: "x", FrontendOpt: c.BuildOpts().Opts})
				if err == nil {
					answer = string(res.Metadata["asked"])
				}
				return res, err
			}, nil)
		return answer, err
	}
	if answer, err := ask("frontend.lint"); err != nil || answer != "frontend.lint" {
		t.Errorf("%q, %v", answer, err)
	}
	var unsupported *errdefs.UnsupportedSubrequestError
	if _, err := ask("frontend.nosuch"); !errors.As(err, &unsupported) || unsupported.Name != "frontend.nosuch" {
		t.Errorf("%v", err)
	}
}
