// Package load sends a build's result into a Docker engine.
//
// There are two ways. Partial has the daemon send what describes the image, finds
// out what the engine has, and sends what it lacks. Loader passes on the archive
// that the daemon makes, for engines and daemons that know no better.
//
// It is not for finding the engine (internal/dockerconfig), nor for choosing
// between the two ways and solving (internal/build).
//
// Rules: the engine gets all of an image or none of it. The end of an archive is
// held back until the build is known to have succeeded, because a daemon that
// fails in the middle ends its stream in the same way as one that is done. What
// the engine is believed to have is only ever left out when the engine, by an
// error or by being asked afterwards, would show that it has not. Asking is
// bounded in number and time, whatever the engine holds, and never fails a build
// that has not been built yet.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/berthbuild/berth/internal/hint"
)

// Engine is what is needed of a Docker engine's client. When it also has a
// DaemonHost, as moby's client does, errors name that.
type Engine interface {
	// ImageLoad sends a docker archive and gives the engine's messages, which
	// the caller closes.
	ImageLoad(ctx context.Context, input io.Reader, opts ...client.ImageLoadOption) (client.ImageLoadResult, error)
}

// Status is one message of the engine while it loads.
type Status struct {
	ID             string // of the layer; "" for the whole
	Text           string // one line: "Loading layer", "Loaded image: test:latest"
	Current, Total int64  // bytes; 0 when unknown
}

// ErrEngine is found in errors that the engine itself has told of.
var ErrEngine = errors.New("the engine refused")

// engineError carries the engine's own words.
type engineError struct{ text string }

func (e *engineError) Error() string   { return e.text }
func (e *engineError) Is(t error) bool { return t == ErrEngine }

// Docker streams the archive r into engine and waits until it has loaded it.
// onProgress may be nil; it is called from this goroutine. The error names the
// engine; ctx's error is among the causes when the caller cancelled. An r that
// can be closed is closed when ctx ends: the HTTP client waits for a Read that
// it has begun, and could not be cancelled otherwise.
func Docker(ctx context.Context, engine Engine, r io.Reader, onProgress func(Status)) error {
	if onProgress == nil {
		onProgress = func(Status) {}
	}
	defer context.AfterFunc(ctx, func() { closeReader(r, context.Cause(ctx)) })()
	res, err := engine.ImageLoad(ctx, r)
	if err == nil {
		err = follow(res, onProgress)
		if cerr := res.Close(); err == nil {
			err = cerr
		}
	}
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return explain(engine, err)
}

func closeReader(r io.Reader, cause error) {
	switch c := r.(type) {
	case *io.PipeReader:
		_ = c.CloseWithError(cause)
	case io.Closer:
		_ = c.Close()
	}
}

// explain names the engine.
func explain(engine Engine, err error) error {
	if err == nil {
		return nil
	}
	return explainDoing(engine, "loading the image into the Docker engine", err)
}

func explainDoing(engine Engine, doing string, err error) error {
	if h, ok := engine.(interface{ DaemonHost() string }); ok {
		doing += " at " + h.DaemonHost()
	}
	if errors.Is(err, context.Canceled) || !disconnected(err) {
		return hint.Wrap(err, doing)
	}
	return hint.Wrap(err, doing, "see whether it runs: docker info",
		"another engine is chosen with DOCKER_HOST, or with: docker context use NAME")
}

// disconnected tells an engine that cannot be reached, or has gone, from one
// that has answered.
func disconnected(err error) bool {
	var network net.Error
	return client.IsErrConnectionFailed(err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network)
}

// message is a line of the engine's answer. Engines repeat the error as plain
// text; some say it only there.
type message struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
}

// follow tells of the engine's messages to their end.
func follow(r io.Reader, onProgress func(Status)) error {
	return read(r, func(m message) {
		if st := m.status(); st != (Status{}) {
			onProgress(st)
		}
	})
}

// read reads the engine's messages to their end; one that says that it failed
// is the error.
func read(r io.Reader, each func(message)) error {
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading its answer: %w", err)
		}
		if err := m.failure(); err != nil {
			return err
		}
		each(m)
	}
}

func (m message) status() Status {
	st := Status{ID: m.ID, Text: strings.TrimSpace(m.Stream + m.Status)}
	if m.Progress != nil {
		st.Current, st.Total = m.Progress.Current, m.Progress.Total
	}
	return st
}

func (m message) failure() error {
	if m.Error != nil && m.Error.Message != "" {
		return &engineError{m.Error.Message}
	}
	if m.ErrorText != "" {
		return &engineError{m.ErrorText}
	}
	// An engine with the containerd store tells of a layer that it could not
	// unpack in a line of text, and then ends as if all were well.
	if strings.HasPrefix(m.Stream, "Error unpacking") {
		return &engineError{strings.TrimSpace(m.Stream)}
	}
	return nil
}
