package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/stack"
	digest "github.com/opencontainers/go-digest"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Failure is why a build failed, with the names that buildx gives in JSON.
type Failure struct {
	Code    int      `json:",omitempty"`
	Message string   `json:",omitempty"`
	Name    string   `json:",omitempty"` // of the step
	Logs    []string `json:",omitempty"` // the step's last lines
	Sources []byte   `json:",omitempty"` // the lines of the Dockerfile
	Stack   []byte   `json:",omitempty"`
}

// CodeName is the code in words.
func (f *Failure) CodeName() string { return codes.Code(f.Code).String() } //nolint:gosec // a code of gRPC

// Failure tells why the build failed; nil where it did not. What of it cannot be
// read is missing, and the error says why.
func (r *Record) Failure(ctx context.Context) (*Failure, error) {
	if r.Error == nil {
		return nil, nil
	}
	f := &Failure{Code: int(r.Error.Code), Message: r.Error.Message}
	full, err := r.fullError(ctx)
	if full != nil {
		f.detail(full)
	}
	if r.Status() == Canceled {
		return f, r.explain(err)
	}
	lerr := r.failedStep(ctx, f, stepOf(full))
	return f, r.explain(errors.Join(err, lerr))
}

// fullError is the error with all that the daemon knows of it.
func (r *Record) fullError(ctx context.Context) (error, error) {
	st := &spb.Status{Code: r.Error.Code, Message: r.Error.Message, Details: r.Error.Details}
	if r.ExternalError == nil {
		return grpcerrors.FromGRPC(status.ErrorProto(st)), nil
	}
	desc, err := descriptor(r.ExternalError)
	if err != nil {
		return nil, err
	}
	data, err := r.blob(ctx, desc, maxDocument)
	if err != nil {
		return nil, err
	}
	whole := &spb.Status{}
	if err := proto.Unmarshal(data, whole); err != nil {
		return nil, fmt.Errorf("%s is no error: %w", desc.Digest, err)
	}
	return grpcerrors.FromGRPC(status.ErrorProto(whole)), nil
}

// detail takes out what the error bears.
func (f *Failure) detail(err error) {
	var sources bytes.Buffer
	for _, s := range errdefs.Sources(err) {
		_ = s.Print(&sources) // a buffer takes everything
		sources.WriteByte('\n')
	}
	f.Sources = sources.Bytes()
	f.Stack = fmt.Appendf(nil, "%+v", stack.Formatter(err))
}

// stepOf is the step that an error names, "" where it names none.
func stepOf(err error) digest.Digest {
	var v *errdefs.VertexError
	if err == nil || !errors.As(err, &v) {
		return ""
	}
	return digest.Digest(v.Digest)
}

const (
	failureLines = 20      // of a failed step
	failureLine  = 4 << 10 // bytes of each
)

// failedStep finds the name and the last lines of the step that failed.
func (r *Record) failedStep(ctx context.Context, f *Failure, step digest.Digest) error {
	steps := map[digest.Digest]*failedStep{}
	var last *failedStep
	err := r.place.status(ctx, r, func(s *client.SolveStatus) {
		for _, v := range s.Vertexes {
			st := steps[v.Digest]
			if st == nil {
				st = &failedStep{}
				steps[v.Digest] = st
			}
			st.name = v.Name
			if v.Error != "" && (step == "" && last == nil || v.Digest == step) {
				last = st
			}
		}
		for _, l := range s.Logs {
			if st := steps[l.Vertex]; st != nil {
				st.add(l.Data)
			}
		}
	})
	if last == nil {
		last = steps[step]
	}
	if last != nil {
		f.Name, f.Logs = last.name, last.lines
	}
	return err
}

type failedStep struct {
	name  string
	lines []string
	open  bool // the last line has not ended
}

func (s *failedStep) add(data []byte) {
	for part := range bytes.Lines(data) {
		text, ended := bytes.CutSuffix(part, []byte{'\n'})
		text = bytes.TrimSuffix(text, []byte{'\r'})
		if s.open {
			n := len(s.lines) - 1
			s.lines[n] += string(text[:min(len(text), max(0, failureLine-len(s.lines[n])))])
		} else {
			if len(s.lines) == failureLines {
				s.lines = s.lines[1:]
			}
			s.lines = append(s.lines, string(text[:min(len(text), failureLine)]))
		}
		s.open = !ended
	}
}
