// Package kubeapi talks to a Kubernetes API server: it reads objects, runs a
// command in a container, and reaches a port of a pod.
//
// It is not for finding a pod or for explaining failures: internal/dial/kube
// does that. It is not a client of everything: client-go is one, and would make
// berth a third larger.
//
// Rules: HTTP/1.1, because connections are taken over from HTTP; everything
// that comes from the server is bounded; an answer that is no success is a
// *StatusError; what is returned ends at once with Kill, whatever the other
// side does.
package kubeapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/kubeconfig"
)

const (
	// maxBody bounds an object or list, in bytes.
	maxBody = 64 << 20
	// maxStatus bounds what a refusal may say, in bytes.
	maxStatus = 64 << 10
)

// Client is a connection to one API server, as one user. It may be used
// concurrently.
type Client struct {
	base   *url.URL
	header http.Header
	http   *http.Transport
}

// Options are how to get there.
type Options struct {
	Config      *kubeconfig.Config
	Credentials kubeconfig.Credentials
	// Proxy gives the proxy for a URL, nil for none. Config's own counts first.
	Proxy func(*url.URL) (*url.URL, error)
}

// New prepares a client; nothing is contacted. The caller closes it.
func New(o Options) (*Client, error) {
	tlsConfig, err := o.Config.TLS(o.Credentials)
	if err != nil {
		return nil, err
	}
	proxy := o.Proxy
	if p := o.Config.Proxy; p != nil {
		proxy = func(*url.URL) (*url.URL, error) { return p, nil }
	}
	return &Client{
		base: o.Config.Server, header: header(o.Config, o.Credentials),
		http: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				if proxy == nil {
					return nil, nil
				}
				return proxy(r.URL)
			},
			DialContext:            (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        tlsConfig,
			Protocols:              http1(),
			DisableCompression:     true,
			MaxIdleConnsPerHost:    1,
			MaxResponseHeaderBytes: maxStatus,
			WriteBufferSize:        64 << 10,
		},
	}, nil
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// header says who we are. Over http:// nothing secret is sent.
func header(c *kubeconfig.Config, cred kubeconfig.Credentials) http.Header {
	h := http.Header{"User-Agent": {"berth"}}
	if c.Server.Scheme != "https" {
		return h
	}
	switch {
	case cred.Token != "":
		h.Set("Authorization", "Bearer "+cred.Token)
	case c.Username != "" || c.Password != "":
		r := http.Request{Header: h}
		r.SetBasicAuth(c.Username, c.Password)
	}
	if c.Impersonate.User == "" {
		return h
	}
	h.Set("Impersonate-User", c.Impersonate.User)
	if c.Impersonate.UID != "" {
		h.Set("Impersonate-Uid", c.Impersonate.UID)
	}
	for _, g := range c.Impersonate.Groups {
		h.Add("Impersonate-Group", g)
	}
	for key, values := range c.Impersonate.Extra {
		for _, v := range values {
			h.Add("Impersonate-Extra-"+url.PathEscape(key), v)
		}
	}
	return h
}

// Server is the API server's address, for messages.
func (c *Client) Server() string { return c.base.String() }

// Close ends connections that nobody uses; what was taken over lives on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// StatusError is an answer of the server that is no success.
type StatusError struct {
	Code     int    // of HTTP
	Reason   string // Kubernetes' own word for it, such as NotFound; "" where it said none
	Message  string // its words, on one line
	Verb     string // what was asked for, as RBAC calls it
	Resource string // pods, pods/exec, …
}

// Error is the server's own message.
func (e *StatusError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("HTTP %d %s", e.Code, http.StatusText(e.Code))
}

// Get reads an object or a list into out. resource is its name for RBAC.
func (c *Client) Get(ctx context.Context, resource, path string, query url.Values, out any) error {
	req, err := c.request(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	verb := "get"
	if query.Has("limit") {
		verb = "list"
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp, verb, resource)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return err
	case len(body) > maxBody:
		return fmt.Errorf("the answer is larger than %d MiB", maxBody>>20)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return &StatusError{Code: resp.StatusCode, Verb: verb, Resource: resource,
			Message: "the server's answer is not Kubernetes' JSON"}
	}
	return nil
}

// request makes one with our credentials.
func (c *Client) request(ctx context.Context, method, path string, query url.Values) (*http.Request, error) {
	u := *c.base
	u.Path += path
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = c.header.Clone()
	return req, nil
}

// refusal reads the server's reason.
func refusal(resp *http.Response, verb, resource string) *StatusError {
	e := &StatusError{Code: resp.StatusCode, Verb: verb, Resource: resource}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxStatus)) // what there is of it
	var s status
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" is another kind
	switch {
	case json.Unmarshal(body, &s) == nil && s.Kind == "Status":
		e.Reason, e.Message = s.Reason, printable(s.Message)
	case kind == "text/plain":
		e.Message = printable(string(body))
	}
	return e
}

// status is Kubernetes' Status object.
type status struct {
	Kind    string `json:"kind"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Details struct {
		Causes []struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"causes"`
	} `json:"details"`
}

// printable makes the server's text fit for a line of a message.
func printable(s string) string {
	const most = 600
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// refused tells whether err is an answer of the server, and not the lack of one.
func refused(err error) (*StatusError, bool) {
	var s *StatusError
	ok := errors.As(err, &s)
	return s, ok
}
