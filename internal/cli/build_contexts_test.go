package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/moby/buildkit/util/archiveutil"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/request"
	"github.com/berthbuild/berth/internal/ui"
)

// stdinApp is an app whose standard input is in.
func stdinApp(t *testing.T, in io.Reader) *app {
	t.Helper()
	return &app{io: &ui.Streams{In: in}, dir: t.TempDir(), lookupEnv: func(string) (string, bool) { return "", false }}
}

// archiveOf is a tar archive with one file, whose first header may be one of
// attributes as large as wanted.
func archiveOf(t *testing.T, attributes int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: "Dockerfile", Mode: 0o644, Size: 13}
	if attributes > 0 {
		h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", attributes)}
	}
	if err := errors.Join(w.WriteHeader(h), func() error { _, err := w.Write([]byte("FROM scratch\n")); return err }(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestStdinContext(t *testing.T) {
	plain := archiveOf(t, 0)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		in      []byte
		archive bool
		added   int    // bytes before the archive
		err     string // else what the Dockerfile is
	}{
		{name: "tar", in: plain, archive: true},
		{name: "tar with times", in: archiveOf(t, 10), archive: true, added: 1024},
		{name: "tar with attributes", in: archiveOf(t, 20_000), archive: true, added: 1024},
		{name: "gzip", in: zipped.Bytes(), archive: true},
		{name: "Dockerfile", in: []byte("FROM scratch\n")},
		{name: "latin-1", in: []byte("# \xe9\nFROM scratch\n")},
		{name: "long", in: bytes.Repeat([]byte("# x\n"), 100_000)},
		{name: "empty", err: "is empty"},
		{name: "blank", in: []byte(" \n\n"), err: "the Dockerfile from standard input is empty"},
		{name: "zip", in: []byte("PK\x03\x04\x00\x00"), err: "neither a tar archive"},
		{name: "nothing in it", in: make([]byte, 10240), err: "has no files"},
		{name: "endless", in: bytes.Repeat([]byte("# x\n"), maxDockerfile/4+1), err: "larger than 16 MiB"},
	} {
		// However the bytes come.
		for how, in := range map[string]io.Reader{"whole": bytes.NewReader(c.in), "halves": iotest.HalfReader(bytes.NewReader(c.in))} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				a, r := stdinApp(t, in), &request.Request{}
				err := a.setContext(r, buildOptions{context: "-"})
				if err == nil {
					err = a.setDockerfile(r, buildOptions{context: "-"})
				}
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("%v, wanted %q", err, c.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Validate(); err != nil {
					t.Error(err)
				}
				if !c.archive {
					if !r.Context.Empty || r.Context.Upload != "" || !bytes.Equal(r.Dockerfile.Inline, c.in) {
						t.Errorf("%+v, a Dockerfile of %d bytes", r.Context, len(r.Dockerfile.Inline))
					}
					return
				}
				if r.Context.Empty || r.Context.Upload == "" || r.Dockerfile.Name != "Dockerfile" || r.Dockerfile.Inline != nil {
					t.Errorf("%+v, %+v", r.Context, r.Dockerfile)
				}
				sent, err := io.ReadAll(a.io.In)
				if err != nil || len(sent) != c.added+len(c.in) || !bytes.Equal(sent[c.added:], c.in) {
					t.Errorf("%d bytes are sent of %d, %v", len(sent), len(c.in), err)
				}
				if !archiveutil.IsArchive(sent[:min(1024, len(sent))]) {
					t.Error("BuildKit would not know that it is an archive")
				}
				if c.name != "gzip" {
					wantFile(t, sent)
				}
			})
		}
	}
}

func wantFile(t *testing.T, archive []byte) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal("no Dockerfile in it: ", err)
		}
		if h.Name == "Dockerfile" {
			return
		}
	}
}

// Two builds never get each other's archive: the daemon tells them apart by
// their ids.
func TestUploadsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		r := &request.Request{}
		if err := stdinApp(t, bytes.NewReader(archiveOf(t, 0))).setContext(r, buildOptions{context: "-"}); err != nil {
			t.Fatal(err)
		}
		if seen[r.Context.Upload] {
			t.Errorf("%s twice", r.Context.Upload)
		}
		seen[r.Context.Upload] = true
	}
}

// A build that waits for standard input ends when it is cancelled.
func TestStdinIsInterruptible(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	in, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	a := stdinApp(t, in)
	a.interruptible(ctx, buildOptions{context: "-"})
	done := make(chan error, 1)
	go func() { done <- a.setContext(&request.Request{}, buildOptions{context: "-"}) }()
	cancel(errCanceled)
	select {
	case err := <-done:
		if !errors.Is(err, errCanceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits on")
	}
	if _, err := a.io.In.Read(make([]byte, 1)); !errors.Is(err, errCanceled) {
		t.Errorf("afterwards: %v", err)
	}

	a = stdinApp(t, in)
	a.interruptible(t.Context(), buildOptions{context: "."})
	if a.io.In != in {
		t.Error("standard input was replaced for a build that does not read it: it would not be a terminal any more")
	}
}

func TestLocate(t *testing.T) {
	a := stdinApp(t, strings.NewReader(""))
	led, err := filepath.EvalSymlinks(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"plain", "github.com/me/here"} {
		if err := os.MkdirAll(filepath.Join(a.dir, filepath.FromSlash(dir)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("plain", filepath.Join(a.dir, "link")); err != nil {
		t.Skip(err)
	}
	for in, want := range map[string]struct {
		kind  buildflag.ContextKind
		value string
	}{
		"plain":                          {buildflag.ContextFolder, filepath.Join(led, "plain")},
		"./plain/":                       {buildflag.ContextFolder, filepath.Join(led, "plain")},
		"link":                           {buildflag.ContextFolder, filepath.Join(led, "plain")},
		"nosuch":                         {buildflag.ContextFolder, filepath.Join(a.dir, "nosuch")},
		"github.com/me/here":             {buildflag.ContextFolder, filepath.Join(led, "github.com", "me", "here")},
		"github.com/me/there":            {buildflag.ContextGit, "github.com/me/there"},
		"https://example.com/x.git#a:b":  {buildflag.ContextGit, "https://example.com/x.git#a:b"},
		"https://example.com/x.tar.gz":   {buildflag.ContextHTTP, "https://example.com/x.tar.gz"},
		"git@example.com:me/x.git":       {buildflag.ContextGit, "git@example.com:me/x.git"},
		"ssh://git@example.com:2222/x":   {buildflag.ContextGit, "ssh://git@example.com:2222/x"},
		"https://example.com/x.git?ref=": {buildflag.ContextGit, ""}, // refused
	} {
		kind, value, err := a.locate(in)
		if want.value == "" {
			if err == nil {
				t.Errorf("%s: no error", in)
			}
			continue
		}
		if err != nil || kind != want.kind || value != want.value {
			t.Errorf("%s: %v %s, %v", in, kind, value, err)
		}
	}
}

// What history shows of a build's sources never has a password in it.
func TestRecordedPaths(t *testing.T) {
	a := &app{dir: "/w"}
	for _, c := range []struct {
		dir               string // of a local context
		context, file     string
		local, dockerfile string
	}{
		{"", "https://me:pw@example.com/x.git#main", "", "https://example.com/x.git#main", ""},
		{"", "-", "", "-", ""},
		{"/w/a", "a", "-", "/w/a", "-"},
		{"/w/a", "a", "b/D", "/w/a", "/w/b/D"},
		{"/w/a", "a", "https://t@example.com/D", "/w/a", "https://example.com/D"},
	} {
		got := a.reference(request.Request{Context: request.Context{Dir: c.dir}}, buildOptions{context: c.context, file: c.file})
		if got.LocalPath != c.local || got.DockerfilePath != c.dockerfile {
			t.Errorf("%+v: %q, %q", c, got.LocalPath, got.DockerfilePath)
		}
	}
}
