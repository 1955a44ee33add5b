package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// HasManifest tells whether the repository has a manifest.
func (r *Repository) HasManifest(ctx context.Context, d digest.Digest) (bool, error) {
	has, err := r.has(ctx, "manifests", d.String(), nil)
	return has, r.explain(err, r.name(d.String()))
}

// PutManifest writes a manifest or an index under a tag or its digest. In a registry
// that keeps no lists of what refers to an image, one that does is added to such a list.
func (r *Repository) PutManifest(ctx context.Context, tagOrDigest string, d Descriptor, raw []byte) error {
	return r.explain(r.putManifest(ctx, tagOrDigest, d, raw), r.name(tagOrDigest))
}

func (r *Repository) putManifest(ctx context.Context, id string, d Descriptor, raw []byte) error {
	about, err := readSubject(raw)
	if err != nil {
		return err
	}
	resp, err := r.do(ctx, request{
		method: http.MethodPut, kind: "manifests", id: id, push: true, header: http.Header{"Content-Type": {d.MediaType}},
		body: bytes.NewReader(raw), size: int64(len(raw)),
		getBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil },
		ok:      []int{http.StatusCreated, http.StatusAccepted},
	})
	if err != nil {
		return err
	}
	drain(resp)
	if stored := resp.Header.Get("Docker-Content-Digest"); stored != "" && stored != d.Digest.String() {
		return fmt.Errorf("the registry has stored something else: its digest is %s, and should be %s", stored, d.Digest)
	}
	if about.Subject == nil || resp.Header.Get("OCI-Subject") != "" {
		return nil
	}
	entry := Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: about.kind(), Annotations: about.Annotations}
	return r.addReferrer(ctx, about.Subject.Digest, entry)
}

// subject is what a manifest says that it is about.
type subject struct {
	ArtifactType string              `json:"artifactType"`
	Config       ocispecs.Descriptor `json:"config"`
	Subject      *Descriptor         `json:"subject"`
	Annotations  map[string]string   `json:"annotations"`
}

func (s subject) kind() string {
	if s.ArtifactType != "" {
		return s.ArtifactType
	}
	return s.Config.MediaType
}

func readSubject(raw []byte) (subject, error) {
	var s subject
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("the manifest cannot be read: %w", err)
	}
	if s.Subject != nil {
		if err := s.Subject.Digest.Validate(); err != nil {
			return s, fmt.Errorf("the manifest is about the digest %q: %w", s.Subject.Digest, err)
		}
	}
	return s, nil
}

// addReferrer adds to the list of what refers to an image, where the registry does not
// do that.
func (r *Repository) addReferrer(ctx context.Context, about digest.Digest, d Descriptor) error {
	r.referrers.Lock()
	defer r.referrers.Unlock()
	list, itself, err := r.listReferrers(ctx, about)
	if err != nil || itself {
		return err
	}
	for _, known := range list.Manifests {
		if known.Digest == d.Digest {
			return nil
		}
	}
	raw, err := json.Marshal(ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex,
		Manifests: append(list.Manifests, d), Annotations: list.Annotations,
	})
	if err != nil {
		return err
	}
	top := Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return r.putManifest(ctx, referrersTag(about), top, raw)
}

// PutBlob writes a blob that the repository does not have: by mounting it from another
// repository of the registry (nil: there is none), or else with what open gives. A
// transfer that breaks, or that the registry has no time for, is begun anew. It tells whether bytes were sent.
func (r *Repository) PutBlob(ctx context.Context, d Descriptor, from *Repository, open func(context.Context) (io.ReadCloser, error)) (sent bool, err error) {
	if err := d.Digest.Validate(); err != nil {
		return false, fmt.Errorf("the digest %q: %w", d.Digest, err)
	}
	if from != nil && (!r.SameRegistry(from) || r.path == from.path) {
		from = nil
	}
	var waited time.Duration
	for try := 1; ; try++ {
		sent, err := r.putBlob(ctx, d, from, open)
		wait, why := r.c.uploadAgain(err, try)
		if why == "" || ctx.Err() != nil {
			return sent, r.explain(err, r.name(d.Digest.String()))
		}
		if waited += wait; waited > r.c.times.throttle {
			return sent, r.explain(&Throttled{Host: r.host, After: wait}, r.name(d.Digest.String()))
		}
		if err := r.c.pause(ctx, r.host, wait, why); err != nil {
			return sent, err
		}
	}
}

// uploadAgain tells whether to begin a transfer anew, after how long, and why. What is
// asked ahead of it has been asked again already, for it has no body.
func (c *Client) uploadAgain(err error, try int) (wait time.Duration, why string) {
	var answer *transport.Error
	var later *delayed
	switch {
	case err == nil:
		return 0, ""
	case !errors.As(err, &answer):
		if try >= maxTries || !Broken(err) {
			return 0, ""
		}
		return c.times.backoff(try), err.Error()
	case !isPassing(answer.StatusCode), answer.Request == nil, answer.Request.Method != http.MethodPut:
		return 0, ""
	case errors.As(err, &later):
		return later.after, statusText(answer)
	case try >= maxTries:
		return 0, ""
	}
	return c.times.backoff(try), statusText(answer)
}

func statusText(e *transport.Error) string {
	return fmt.Sprintf("%d %s", e.StatusCode, http.StatusText(e.StatusCode))
}

// pause waits before a further try.
func (c *Client) pause(ctx context.Context, host string, wait time.Duration, why string) error {
	c.o.OnWait(Wait{Host: host, Reason: why, For: wait})
	return c.times.sleep(ctx, wait)
}

func (r *Repository) putBlob(ctx context.Context, d Descriptor, from *Repository, open func(context.Context) (io.ReadCloser, error)) (bool, error) {
	has, err := r.has(ctx, "blobs", d.Digest.String(), from)
	if err != nil || has {
		return false, err
	}
	at, err := r.beginUpload(ctx, d, from)
	if err != nil || at == "" {
		return false, err
	}
	body, err := open(ctx)
	if err != nil {
		return false, err
	}
	failed := &sourceError{ReadCloser: body}
	defer failed.Close() //nolint:errcheck // only read
	q := request{
		method: http.MethodPut, url: at, push: true, from: from, header: http.Header{"Content-Type": {"application/octet-stream"}},
		body: failed, size: d.Size, ok: []int{http.StatusCreated, http.StatusAccepted, http.StatusNoContent},
	}
	if d.Size == 0 {
		q.body = http.NoBody
	}
	resp, err := r.do(ctx, q)
	var answer *transport.Error
	if errors.As(err, &answer) { // whatever came of the source when nobody wanted more
		return true, err
	}
	if why := failed.why(); why != nil {
		return true, why // it is why the upload broke
	}
	if err != nil {
		return true, err
	}
	drain(resp)
	return true, nil
}

// sourceError remembers why there was nothing more to send. An upload may be answered
// while it is still read.
type sourceError struct {
	io.ReadCloser

	mu     sync.Mutex
	closed bool
	err    error
}

// Read implements io.Reader.
func (s *sourceError) Read(buf []byte) (int, error) {
	n, err := s.ReadCloser.Read(buf)
	if err != nil && err != io.EOF {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			s.err = err
		}
	}
	return n, err
}

// Close implements io.Closer.
func (s *sourceError) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.ReadCloser.Close()
}

func (s *sourceError) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// beginUpload gives where the blob is to be sent; "" when it has been mounted.
func (r *Repository) beginUpload(ctx context.Context, d Descriptor, from *Repository) (string, error) {
	q := request{method: http.MethodPost, kind: "blobs", id: "uploads/", push: true, from: from, ok: []int{http.StatusCreated, http.StatusAccepted}}
	if from != nil {
		q.query = url.Values{"mount": {d.Digest.String()}, "from": {from.path}}
	}
	next, err := r.postUpload(ctx, q)
	if from != nil && isUnsupported(err) { // some registries do not know of mounting, or do not allow it
		q.query = nil
		next, err = r.postUpload(ctx, q)
	}
	if err != nil || next == nil {
		return "", err
	}
	query := next.Query()
	query.Set("digest", d.Digest.String())
	next.RawQuery = query.Encode()
	return next.String(), nil
}

// postUpload asks where to send a blob; nil when it is there now.
func (r *Repository) postUpload(ctx context.Context, q request) (*url.URL, error) {
	resp, err := r.do(ctx, q)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if resp.StatusCode == http.StatusCreated {
		return nil, nil
	}
	next, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, errors.New("the registry does not say where to send it")
	}
	next = resp.Request.URL.ResolveReference(next)
	if next.Scheme != "http" && next.Scheme != "https" {
		return nil, fmt.Errorf("the registry wants it to be sent to %q", next.Scheme+":")
	}
	return next, nil
}
