package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// send writes the image in pieces, as a session does, and closes.
func send(l *Loader, image []byte, piece int) error {
	w, err := l.Output()(nil)
	if err != nil {
		return err
	}
	for len(image) > 0 {
		n := min(piece, len(image))
		if _, err := w.Write(image[:n]); err != nil {
			_ = w.Close()
			return err
		}
		image = image[n:]
	}
	return w.Close()
}

// collecting is an engine that says what it got: the bytes, and how the request
// ended.
type got struct {
	bytes []byte
	err   error
}

func collecting(t *testing.T) (Engine, chan got) {
	ch := make(chan got, 1)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		all, err := io.ReadAll(r.Body)
		ch <- got{all, err}
		_, _ = io.WriteString(w, `{"stream":"Loaded image: test\n"}`)
	}), ch
}

func TestLoaderSendsEverything(t *testing.T) {
	for _, size := range []int{0, 1, 511, 4096, 1 << 20} {
		for _, piece := range []int{1, 100, 1023, 1024, 1025, 32 << 10} {
			if size > 4096 && piece < 1000 {
				continue
			}
			t.Run(fmt.Sprint(size, " in ", piece), func(t *testing.T) {
				engine, ch := collecting(t)
				l := New(t.Context(), engine, nil)
				want := image(t, size)
				if err := send(l, want, piece); err != nil {
					t.Fatal(err)
				}
				if err := l.Finish(nil); err != nil {
					t.Fatal(err)
				}
				if g := <-ch; g.err != nil || !bytes.Equal(g.bytes, want) {
					t.Errorf("the engine got %d of %d bytes, %v", len(g.bytes), len(want), g.err)
				}
			})
		}
	}
}

func TestLoaderSendsATinyStream(t *testing.T) {
	engine, ch := collecting(t)
	l := New(t.Context(), engine, nil)
	if err := send(l, []byte("tiny"), 4); err != nil {
		t.Fatal(err)
	}
	if err := l.Finish(nil); err != nil {
		t.Fatal(err)
	}
	if g := <-ch; string(g.bytes) != "tiny" {
		t.Errorf("got %q", g.bytes)
	}
}

// TestLoaderTakesBackAFailedBuild: the daemon closes its stream cleanly, even a
// complete one, and then the build turns out to have failed.
func TestLoaderTakesBackAFailedBuild(t *testing.T) {
	failed := errors.New("the daemon went away")
	whole := image(t, 100_000)
	for name, sent := range map[string][]byte{"half": whole[:50_000], "whole": whole} {
		t.Run(name, func(t *testing.T) {
			engine, ch := collecting(t)
			l := New(t.Context(), engine, nil)
			if err := send(l, sent, 4096); err != nil {
				t.Fatal(err)
			}
			if err := l.Finish(failed); !errors.Is(err, failed) {
				t.Errorf("error = %v", err)
			}
			if g := <-ch; g.err == nil || len(g.bytes) > len(sent)-trailer {
				t.Errorf("the engine took %d of %d bytes for an image: %v", len(g.bytes), len(sent), g.err)
			}
		})
	}
}

// silent fails the test when anything reaches it.
type silent struct{ t *testing.T }

func (s silent) engine() Engine {
	return serve(s.t, func(http.ResponseWriter, *http.Request) { s.t.Error("the engine was asked") })
}

func TestLoaderSendsNothingOfABuildThatSentNothing(t *testing.T) {
	failed := errors.New("no")
	if err := New(t.Context(), silent{t}.engine(), nil).Finish(failed); !errors.Is(err, failed) {
		t.Errorf("error = %v", err)
	}
	opened := New(t.Context(), silent{t}.engine(), nil)
	if err := send(opened, nil, 1); err != nil {
		t.Fatal(err)
	}
	if err := opened.Finish(failed); !errors.Is(err, failed) {
		t.Errorf("error = %v", err)
	}
	for _, open := range []bool{true, false} {
		l := New(t.Context(), silent{t}.engine(), nil)
		if open {
			if err := send(l, nil, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Finish(nil); err == nil || !strings.Contains(err.Error(), "sent no image") {
			t.Errorf("error = %v", err)
		}
	}
}

func TestLoaderOpensOnce(t *testing.T) {
	l := New(t.Context(), silent{t}.engine(), nil)
	if err := send(l, nil, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Output()(nil); err == nil {
		t.Error("opened twice")
	}
	_ = l.Finish(context.Canceled)
	late := New(t.Context(), silent{t}.engine(), nil)
	w, err := late.Output()(nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = late.Finish(context.Canceled)
	if _, err := w.Write(image(t, 10_000)); err == nil {
		t.Error("took bytes after Finish")
	}
}

// TestLoaderEngineRejectsEarly: the engine answers without reading. Nobody may
// be left waiting, and its words win over what the build makes of it.
func TestLoaderEngineRejectsEarly(t *testing.T) {
	for name, tc := range map[string]struct {
		handle http.HandlerFunc
		want   string
	}{
		"status": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"message":"plugins say no"}`)
		}, "plugins say no"},
		"line": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"error":"wrong phase of the moon"}`)
		}, "wrong phase of the moon"},
		"cut":         {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "Docker engine at unix://"},
		"false boast": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"stream":"Loaded"}`) }, "before it had the whole image"},
	} {
		t.Run(name, func(t *testing.T) {
			l := New(t.Context(), serve(t, tc.handle), nil)
			err := send(l, image(t, 8<<20), 32<<10)
			if err == nil {
				t.Fatal("8 MiB were taken by an engine that reads nothing")
			}
			err = l.Finish(fmt.Errorf("failed to solve: %w", err))
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "failed to solve") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestLoaderEngineFailsAtTheEnd(t *testing.T) {
	l := New(t.Context(), serve(t, answer(`{"error":"no space left on device"}`)), nil)
	if err := send(l, image(t, 5000), 512); err != nil {
		t.Fatal(err)
	}
	if err := l.Finish(nil); !errors.Is(err, ErrEngine) {
		t.Errorf("error = %v", err)
	}
}

// TestLoaderCancelled: the caller cancels while the engine reads nothing and a
// writer waits.
func TestLoaderCancelled(t *testing.T) {
	asked := make(chan struct{})
	release := make(chan struct{})
	engine := serve(t, func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-release
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	l := New(ctx, engine, nil)
	sent := make(chan error, 1)
	go func() { sent <- send(l, image(t, 8<<20), 32<<10) }()
	<-asked
	cancel()
	if err := <-sent; err == nil {
		t.Error("the writer was not told")
	}
	if err := l.Finish(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// TestLoaderAbortFreesAWriter: the build fails while a write waits for the
// engine, which never answers.
func TestLoaderAbortFreesAWriter(t *testing.T) {
	asked := make(chan struct{})
	release := make(chan struct{})
	engine := serve(t, func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-release
	})
	defer close(release)
	l := New(t.Context(), engine, nil)
	sent := make(chan error, 1)
	go func() { sent <- send(l, image(t, 8<<20), 32<<10) }()
	<-asked
	failed := errors.New("the daemon went away")
	if err := l.Finish(failed); !errors.Is(err, failed) {
		t.Errorf("error = %v", err)
	}
	if err := <-sent; err == nil {
		t.Error("the writer was not told")
	}
}
