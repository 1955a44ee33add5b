package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/request"
)

// uploaded is a request whose context is an archive.
func uploaded() request.Request {
	return request.Request{Context: request.Context{Upload: "some-id"}, Dockerfile: request.Dockerfile{Name: "Dockerfile"}}
}

// puller is a daemon that fetches the archive, as a frontend has it do.
func puller(t *testing.T, f func(data []byte, err error) error) *buildkittest.Server {
	t.Helper()
	return buildkittest.New(t, buildkittest.Options{Solve: func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, f(b.Upload(ctx, b.Request.FrontendAttrs["context"]))
	}, Workers: []buildkittest.Worker{{ID: "w", Platforms: []string{"linux/amd64", "linux/arm64"}}}})
}

func TestArchiveArrives(t *testing.T) {
	dialtest.NoLeaks(t)
	t.Setenv("TMPDIR", t.TempDir())
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB, more than a message
	o := options(t)
	o.Stdin = iotest.HalfReader(bytes.NewReader(want))
	s := puller(t, func(data []byte, err error) error {
		if !bytes.Equal(data, want) {
			t.Errorf("%d bytes arrived, %v", len(data), err)
		}
		return err
	})
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), uploaded(), o); err != nil {
		t.Error(err)
	}
	if left := names(t, os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("a stream to one node needs no file: %q", left)
	}
}

// Each of several nodes gets all of it, and the file between is never seen by
// anybody.
func TestArchiveForSeveralNodes(t *testing.T) {
	dialtest.NoLeaks(t)
	t.Setenv("TMPDIR", t.TempDir())
	var mu sync.Mutex
	arrived := 0
	want := bytes.Repeat([]byte("x"), 1<<20)
	var nodes []builder.Node
	for i, platform := range []string{"linux/amd64", "linux/arm64"} {
		s := puller(t, func(data []byte, err error) error {
			mu.Lock()
			defer mu.Unlock()
			if bytes.Equal(data, want) {
				arrived++
			}
			for _, name := range names(t, os.Getenv("TMPDIR")) {
				t.Errorf("in the temporary folder: %s", name)
			}
			return err
		})
		nodes = append(nodes, node(fmt.Sprint("n", i), s.Endpoint(), platform))
	}
	r := uploaded()
	r.Platforms = plats("linux/amd64", "linux/arm64")
	r.Outputs = []buildflag.Output{output(buildflag.OutputCacheOnly, "")}
	o := options(t)
	o.Stdin = bytes.NewReader(want)
	if _, err := Run(t.Context(), builderOf(nodes...), r, o); err != nil {
		t.Fatal(err)
	}
	if arrived != 2 {
		t.Errorf("it arrived whole at %d nodes", arrived)
	}
}

// A stream that breaks ends the build with the reason, on one node and on
// several.
func TestArchiveBreaks(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, several := range []bool{false, true} {
		dir := t.TempDir()
		t.Setenv("TMPDIR", dir)
		s := puller(t, func([]byte, error) error { return nil }) // whatever it got
		r, nodes := uploaded(), []builder.Node{node("n0", s.Endpoint())}
		if several {
			s2 := puller(t, func([]byte, error) error { return nil })
			nodes = []builder.Node{node("n0", s.Endpoint(), "linux/amd64"), node("n1", s2.Endpoint(), "linux/arm64")}
			r.Platforms = plats("linux/amd64", "linux/arm64")
		}
		o := options(t)
		o.Stdin = io.MultiReader(strings.NewReader("begun"), iotest.ErrReader(io.ErrUnexpectedEOF))
		_, err := Run(t.Context(), builderOf(nodes...), r, o)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "the build context from standard input") {
			t.Errorf("several %v: %v", several, err)
		}
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("several %v: left %q", several, left)
		}
	}
}

// A build that is cancelled does not wait for standard input.
func TestArchiveCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	in, w := io.Pipe()
	defer w.Close()
	o := options(t)
	o.Stdin = in
	s := puller(t, func(_ []byte, err error) error { return err })
	go func() {
		_, _ = w.Write([]byte("x")) // the daemon has asked
		cancel(errors.New("enough"))
	}()
	_, err := Run(ctx, builderOf(node("n0", s.Endpoint())), uploaded(), o)
	if err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}
