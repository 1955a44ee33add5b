package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest bounds a manifest or an index in bytes, as BuildKit does.
const MaxManifest = 4 << 20

// accepted are the manifests that are asked for, in the order that registries are
// used to.
func accepted() string {
	return strings.Join([]string{
		string(types.DockerManifestSchema2), string(types.DockerManifestList),
		ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageIndex, "*/*",
	}, ", ")
}

// IsManifest tells the media types of what a registry keeps as manifests.
func IsManifest(mediaType string) bool {
	t := types.MediaType(mediaType)
	return t.IsIndex() || t.IsImage() || t.IsSchema1()
}

// Get reads the manifest or index that a tag or a digest stands for. What comes is
// the registry's bytes; the digest is theirs.
func (r *Repository) Get(ctx context.Context, tagOrDigest string) (Descriptor, []byte, error) {
	var d Descriptor
	var raw []byte
	err := r.fromAny(ctx, func(at *Repository) (err error) {
		d, raw, err = at.get(ctx, tagOrDigest)
		return err
	})
	return d, raw, r.explain(err, r.name(tagOrDigest))
}

// fromAny asks the mirrors of a registry, and then itself, until one knows. A mirror's
// failure is no more than a reason to go on.
func (r *Repository) fromAny(ctx context.Context, ask func(*Repository) error) error {
	for _, m := range r.c.settings(r.host).Mirrors {
		host, prefix, _ := strings.Cut(m, "/")
		at := &Repository{c: r.c, host: host, path: strings.TrimPrefix(prefix+"/"+r.path, "/")}
		if err := ask(at); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return ask(r)
}

func (r *Repository) get(ctx context.Context, id string) (Descriptor, []byte, error) {
	resp, err := r.do(ctx, request{method: http.MethodGet, kind: "manifests", id: id, header: http.Header{"Accept": {accepted()}}})
	if err != nil {
		return Descriptor{}, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	raw, err := readBounded(resp.Body, MaxManifest)
	if err != nil {
		return Descriptor{}, nil, err
	}
	d := Descriptor{MediaType: mediaType(resp, raw), Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	want, byDigest := digest.Digest(id), strings.Contains(id, ":")
	if !byDigest {
		want = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	}
	if want != "" && (byDigest || d.MediaType != string(types.DockerManifestSchema1Signed)) { // whose digest is that of a part
		if err := verify(raw, want); err != nil {
			return d, nil, err
		}
		d.Digest = want
	}
	if err := checkDocument(raw, d.MediaType); err != nil {
		return d, nil, err
	}
	return d, raw, nil
}

// mediaType is what the registry says, or else what the document looks like.
func mediaType(resp *http.Response, raw []byte) string {
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && IsManifest(t) {
		return t
	}
	return DetectMediaType(raw)
}

// DetectMediaType tells what a document is by what it says, or by what it has in it; ""
// when it is nothing that a registry keeps as a manifest.
func DetectMediaType(raw []byte) string {
	var m struct {
		MediaType string          `json:"mediaType"`
		Config    json.RawMessage `json:"config"`
		FSLayers  json.RawMessage `json:"fsLayers"`
		Manifests json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(raw, &m); {
	case err != nil:
		return ""
	case m.MediaType != "":
		return m.MediaType
	case m.Config != nil:
		return string(types.DockerManifestSchema2)
	case m.FSLayers != nil:
		return string(types.DockerManifestSchema1)
	case m.Manifests != nil:
		return string(types.DockerManifestList)
	}
	return ""
}

// checkDocument refuses a document that one reader takes for an image, and another for
// an index.
func checkDocument(raw []byte, mediaType string) error {
	var m struct {
		MediaType string            `json:"mediaType"`
		Config    json.RawMessage   `json:"config"`
		Layers    []json.RawMessage `json:"layers"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("its manifest cannot be read: %w", err)
	}
	t := types.MediaType(mediaType)
	switch {
	case t.IsIndex() && (m.Config != nil || len(m.Layers) > 0), t.IsImage() && len(m.Manifests) > 0:
		return errors.New("its manifest is an image and an index at the same time")
	case m.MediaType != "" && IsManifest(m.MediaType) && IsManifest(mediaType) && m.MediaType != mediaType:
		return fmt.Errorf("the registry sent it as %s, and it calls itself %s", mediaType, m.MediaType)
	}
	return nil
}

// Manifest reads the manifest or index of a descriptor.
func (r *Repository) Manifest(ctx context.Context, d Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("the digest %q: %w", d.Digest, err)
	}
	got, raw, err := r.Get(ctx, d.Digest.String())
	if err == nil && d.Size > 0 && got.Size != d.Size {
		err = r.explain(&wrongSize{got: got.Size, want: d.Size}, r.name(d.Digest.String()))
	}
	return raw, err
}

type wrongSize struct{ got, want int64 }

func (e *wrongSize) Error() string {
	return fmt.Sprintf("it has %d bytes where %d were announced", e.got, e.want)
}

// Open reads a blob. What is read is held against the descriptor: the last read fails
// when it was something else.
func (r *Repository) Open(ctx context.Context, d Descriptor) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("the digest %q: %w", d.Digest, err)
	}
	name := r.name(d.Digest.String())
	var body io.ReadCloser
	err := r.fromAny(ctx, func(at *Repository) error {
		resp, err := at.do(ctx, request{method: http.MethodGet, kind: "blobs", id: d.Digest.String()})
		if err != nil {
			return r.explain(err, name)
		}
		if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
			_ = resp.Body.Close()
			return r.explain(&wrongSize{got: resp.ContentLength, want: d.Size}, name)
		}
		body = &verified{body: resp.Body, left: d.Size, size: d.Size, verifier: d.Digest.Verifier(), explain: func(err error) error { return r.explain(err, name) }}
		return nil
	})
	return body, err
}

// verified reads just what was announced.
type verified struct {
	body       io.ReadCloser
	left, size int64
	verifier   digest.Verifier
	explain    func(error) error
}

var errOtherContent = errors.New("what was sent is not what its digest says")

// Read implements io.Reader.
func (v *verified) Read(buf []byte) (int, error) {
	n, err := v.body.Read(buf)
	if int64(n) > v.left {
		return 0, v.explain(fmt.Errorf("more was sent than the %d bytes that were announced", v.size))
	}
	v.left -= int64(n)
	_, _ = v.verifier.Write(buf[:n]) // a hash takes everything
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, v.explain(err)
	case v.left > 0:
		return n, v.explain(io.ErrUnexpectedEOF)
	case !v.verifier.Verified():
		return 0, v.explain(errOtherContent)
	}
	return n, io.EOF
}

// Close implements io.Closer.
func (v *verified) Close() error { return v.body.Close() }

// Referrers lists what says of itself that it is about an image: signatures,
// attestations. A registry without such a list has none.
func (r *Repository) Referrers(ctx context.Context, subject digest.Digest) ([]Descriptor, error) {
	list, _, err := r.listReferrers(ctx, subject)
	return list.Manifests, r.explain(err, r.name(subject.String()))
}

// listReferrers tells also whether the registry makes the list itself.
func (r *Repository) listReferrers(ctx context.Context, subject digest.Digest) (list ocispecs.Index, itself bool, err error) {
	if err := subject.Validate(); err != nil {
		return list, false, err
	}
	resp, err := r.do(ctx, request{method: http.MethodGet, kind: "referrers", id: subject.String(), header: http.Header{"Accept": {ocispecs.MediaTypeImageIndex}}})
	if itself = err == nil; !itself {
		if !isUnsupported(err) {
			return list, false, err
		}
		resp, err = r.do(ctx, request{method: http.MethodGet, kind: "manifests", id: referrersTag(subject), header: http.Header{"Accept": {ocispecs.MediaTypeImageIndex}}})
		if isStatus(err, http.StatusNotFound) {
			return list, false, nil
		}
		if err != nil {
			return list, false, err
		}
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	list, next, err := readReferrers(resp)
	for pages := 1; err == nil && itself && next != ""; pages++ {
		if pages == maxPages {
			return list, itself, fmt.Errorf("the list of what refers to it has more than %d pages", maxPages)
		}
		var page ocispecs.Index
		page, next, err = r.moreReferrers(ctx, next)
		list.Manifests = append(list.Manifests, page.Manifests...)
	}
	return list, itself, err
}

// maxPages bounds a list that comes in pieces.
const maxPages = 100

// moreReferrers asks for the page of the list that is at a path.
func (r *Repository) moreReferrers(ctx context.Context, path string) (list ocispecs.Index, next string, err error) {
	resp, err := r.do(ctx, request{method: http.MethodGet, url: "https://" + address(r.host) + path, header: http.Header{"Accept": {ocispecs.MediaTypeImageIndex}}})
	if err != nil {
		return list, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	return readReferrers(resp)
}

// readReferrers reads a page of the list, and where it goes on; "" at its end.
func readReferrers(resp *http.Response) (list ocispecs.Index, next string, err error) {
	raw, err := readBounded(resp.Body, MaxManifest)
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	if err != nil {
		return list, "", fmt.Errorf("the list of what refers to it cannot be read: %w", err)
	}
	for _, d := range list.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return list, "", fmt.Errorf("the list of what refers to it has the digest %q: %w", d.Digest, err)
		}
	}
	return list, nextPage(resp.Request.URL, resp.Header.Values("Link")), nil
}

// nextPage is where a list goes on, as a path with a query: on whatever host the
// registry calls itself, it is asked where it is.
func nextPage(at *url.URL, links []string) string {
	for _, link := range strings.Split(strings.Join(links, ","), "<")[1:] { // targets may have commas
		target, params, _ := strings.Cut(link, ">")
		params = strings.TrimRight(params, ", ")
		for _, p := range strings.Split(params, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
			if !strings.EqualFold(key, "rel") || !strings.EqualFold(strings.Trim(value, `"`), "next") {
				continue
			}
			if next, err := at.Parse(target); err == nil && strings.HasPrefix(next.EscapedPath(), "/") {
				return (&url.URL{Path: next.Path, RawPath: next.RawPath, RawQuery: next.RawQuery}).RequestURI()
			}
		}
	}
	return ""
}

// referrersTag is where the list is in a registry that does not make it.
func referrersTag(subject digest.Digest) string {
	return strings.Replace(subject.String(), ":", "-", 1)
}

// isUnsupported tells a registry that does not know such requests, which is another
// than one that refuses them, or has no time.
func isUnsupported(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode != http.StatusUnauthorized && answer.StatusCode != http.StatusForbidden &&
		!isPassing(answer.StatusCode) && (answer.StatusCode < 500 || answer.StatusCode == http.StatusNotImplemented)
}

// has tells whether the repository has a manifest or a blob.
func (r *Repository) has(ctx context.Context, kind, id string, from *Repository) (bool, error) {
	q := request{method: http.MethodHead, kind: kind, id: id, push: true, from: from}
	if kind == "manifests" {
		q.header = http.Header{"Accept": {accepted()}}
	}
	resp, err := r.do(ctx, q)
	if isStatus(err, http.StatusNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, resp.Body.Close()
}

// request is one call of the registry's API.
type request struct {
	method, kind, id string
	url              string // in place of kind and id: where the registry said to go on
	query            url.Values
	header           http.Header
	push             bool
	from             *Repository // to mount from
	body             io.Reader
	getBody          func() (io.ReadCloser, error) // where it can be sent again
	size             int64
	ok               []int // statuses besides 200
}

// do makes it. An answer with another status is a *transport.Error.
func (r *Repository) do(ctx context.Context, q request) (*http.Response, error) {
	key := sessionKey{host: r.host, path: r.path, push: q.push}
	if q.from != nil {
		key.from = q.from.path
	}
	s, err := r.c.session(ctx, key)
	if err != nil {
		return nil, withoutURL(err)
	}
	target := q.url
	if target == "" {
		u := url.URL{Scheme: "https", Host: address(r.host), Path: "/v2/" + r.path + "/" + q.kind + "/" + q.id, RawQuery: q.query.Encode()}
		target = u.String()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, q.body)
	if err != nil {
		return nil, withoutURL(err)
	}
	if q.body != nil {
		req.ContentLength, req.GetBody = q.size, q.getBody
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	if err := transport.CheckError(resp, append(q.ok, http.StatusOK)...); err != nil {
		_ = resp.Body.Close()
		if after, said := r.c.restWanted(resp); said {
			err = &delayed{err, after}
		}
		return nil, err
	}
	return resp, nil
}

// withoutURL takes addresses out of an error: behind a redirect they are long, and have
// signatures that open what they lead to.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// readBounded reads a document whole.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("it has more than %d bytes, which is the limit for a document of its kind", limit)
	}
	return raw, err
}

func verify(raw []byte, want digest.Digest) error {
	if err := want.Validate(); err != nil {
		return fmt.Errorf("the registry gave it the digest %q: %w", want, err)
	}
	if got := want.Algorithm().FromBytes(raw); got != want {
		return fmt.Errorf("the registry sent something else: its digest is %s, and should be %s", got, want)
	}
	return nil
}

// Document reads a blob whole, of at most limit bytes.
func (r *Repository) Document(ctx context.Context, d Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, r.explain(fmt.Errorf("it has %d bytes where a document of at most %d was expected", d.Size, limit), r.name(d.Digest.String()))
	}
	for try := 1; ; try++ {
		raw, err := r.document(ctx, d)
		if err == nil || try == maxTries || !Broken(err) || ctx.Err() != nil {
			return raw, err
		}
		if err := r.c.pause(ctx, r.host, r.c.times.backoff(try), err.Error()); err != nil {
			return nil, err
		}
	}
}

func (r *Repository) document(ctx context.Context, d Descriptor) ([]byte, error) {
	body, err := r.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // only read
	var buf bytes.Buffer
	_, err = buf.ReadFrom(body)
	return buf.Bytes(), err
}
