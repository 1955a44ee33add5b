package historypage

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/termtext"
)

// Source is where a server has its data from. Its methods may be called from several
// goroutines at once, and end with their contexts.
type Source interface {
	// Overview gives what is known of all builders and builds. It does not wait for
	// daemons that are slow.
	Overview(ctx context.Context) (*Overview, error)
	// Build gives one build, of one that runs how far it is.
	Build(ctx context.Context, ref history.Reference) (*Build, error)
	// Attachment gives what hangs on a build's record, as text.
	Attachment(ctx context.Context, ref history.Reference, digest string) (string, error)
}

// Overview is the builders and the newest builds.
type Overview struct {
	Builders []Builder `json:"builders"`
	Builds   []Row     `json:"builds"` // the newest first
	More     int       `json:"more,omitempty"`
	Notes    []string  `json:"notes,omitempty"`
}

// Builder is one builder.
type Builder struct {
	Name    string `json:"name"`
	Driver  string `json:"driver"`
	Current bool   `json:"current,omitempty"`
	Error   string `json:"error,omitempty"`
	Nodes   []Node `json:"nodes,omitempty"`
}

// Node is a member of a builder. Numbers are -1 where they are not known, and Health is
// empty where the answer has not come yet.
type Node struct {
	Name      string   `json:"name"`
	Endpoint  string   `json:"endpoint"`
	Health    string   `json:"health"` // running, inactive, error
	Version   string   `json:"version,omitempty"`
	Platforms []string `json:"platforms,omitempty"`
	Error     string   `json:"error,omitempty"`
	Running   int      `json:"running"`
	Cache     int64    `json:"cache"`
}

// Row is a build in the list.
type Row struct {
	Ref      string `json:"ref"`
	ID       string `json:"id"`
	Builder  string `json:"builder"`
	Node     string `json:"node"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Started  string `json:"started"`
	Duration int64  `json:"duration"`
	Done     int    `json:"done"`
	Total    int    `json:"total"`
	Cached   int    `json:"cached"`
}

// Listen listens on a loopback address: HOST:PORT with a host that is one, or nothing
// for a free port of 127.0.0.1. Whatever others can reach is refused: the page shows
// logs, and what builds were told.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, hint.Wrap(errors.New(termtext.Line(err.Error(), maxValue)), "--addr", "an address is 127.0.0.1:8080, or [::1]:8080; port 0 is a free one")
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, hint.New(fmt.Sprintf("--addr %s is not an address of this machine's loopback", termtext.Line(addr, 100)),
			"the page is for this machine only: 127.0.0.1:"+termtext.Line(port, 10), "from elsewhere: ssh -L, or berth history report")
	}
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", net.JoinHostPort(host, port))
}

// Server is the page on a loopback address. It only answers who knows the secret in
// its URL, and only reads.
type Server struct {
	source Source
	addr   string // as clients write it
	token  string
	first  string // what the page shows when it is opened; "" is the list
	slots  chan struct{}

	mu      sync.Mutex
	tickets map[string]time.Time // until when each is good
}

// Bounds of a server.
const (
	maxAtOnce   = 8
	askBudget   = 90 * time.Second
	writeBudget = 120 * time.Second
)

// NewServer makes a server for a listener. first is the reference of the build that
// is shown first, or nothing.
func NewServer(l net.Listener, source Source, first string) *Server {
	return &Server{source: source, addr: l.Addr().String(), token: secret(), first: first, slots: make(chan struct{}, maxAtOnce), tickets: map[string]time.Time{}}
}

// secret is 128 bits that nobody guesses.
func secret() string {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // never fails
	return hex.EncodeToString(bits[:])
}

// ticketTime is how long a browser may take to come.
const ticketTime = time.Minute

// Ticket is an address that leads to URL once, and soon. It is for the command line of
// a browser, which other users of the machine can read.
func (s *Server) Ticket() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := secret()
	s.tickets[t] = time.Now().Add(ticketTime)
	return "http://" + s.addr + "/" + t
}

// take tells whether a ticket is good, which it is no longer then.
func (s *Server) take(ticket string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.tickets[ticket]
	delete(s.tickets, ticket)
	return ok && time.Now().Before(until)
}

// URL is where the page is. It has the secret in it.
func (s *Server) URL() string { return "http://" + s.addr + "/" + s.token + "/" }

// Serve answers until ctx ends, and then ends at once: there is nothing to be lost.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: writeBudget, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(l)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", policy(true))
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Frame-Options", "DENY")
	head.Set("Referrer-Policy", "no-referrer") // the secret is in the URL
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	if why := s.foreign(r); why != "" {
		refuse(w, http.StatusForbidden, why)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "this page only reads")
		return
	}
	token, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if path == "" && s.take(token) {
		head.Set("Location", "/"+s.token+"/")
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	if subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1 {
		refuse(w, http.StatusNotFound, "the URL is the one that berth history open printed")
		return
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), askBudget, fmt.Errorf("no answer within %s", askBudget))
	defer cancel()
	if path == "" && !strings.HasSuffix(r.URL.Path, "/") { // what the page asks for is beside it
		head.Set("Location", "/"+s.token+"/")
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		refuse(w, http.StatusServiceUnavailable, "too much is asked at once")
		return
	}
	s.answer(ctx, w, path, r.URL.Query())
}

// foreign says why a request is none of this page's: another name for this address,
// which a page elsewhere may have made its name resolve to, or another page.
func (s *Server) foreign(r *http.Request) string {
	_, port, _ := net.SplitHostPort(s.addr)
	if r.Host != s.addr && r.Host != "localhost:"+port {
		return "this server is http://" + s.addr
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return "another page has asked"
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return "another page has asked"
	}
	return ""
}

func refuse(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": why}) // who asked has gone
}

func (s *Server) answer(ctx context.Context, w http.ResponseWriter, path string, q url.Values) {
	var v any
	var err error
	switch path {
	case "":
		s.page(w)
		return
	case "api/overview":
		v, err = s.source.Overview(ctx)
	case "api/build":
		v, err = s.build(ctx, q.Get("ref"))
	case "api/compare":
		v, err = s.compare(ctx, q.Get("a"), q.Get("b"))
	case "api/attachment":
		v, err = s.attachment(ctx, q.Get("ref"), q.Get("digest"))
	default:
		refuse(w, http.StatusNotFound, "there is no such page")
		return
	}
	if err != nil {
		code := http.StatusBadGateway
		if history.IsNotFound(err) || errors.Is(err, history.ErrGone) {
			code = http.StatusNotFound
		}
		refuse(w, code, text(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}

// text is an error for the page.
func text(err error) string {
	msg := err.Error()
	for _, h := range hint.Of(err) {
		msg += "\nhint: " + h
	}
	return texts{}.block(msg, maxBlock)
}

func (s *Server) page(w http.ResponseWriter) {
	doc, err := page(start{Mode: modeLive, Ref: s.first})
	if err != nil {
		refuse(w, http.StatusInternalServerError, text(err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(doc) // who asked has gone
}

func (s *Server) build(ctx context.Context, ref string) (*Build, error) {
	r, err := history.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	return s.source.Build(ctx, r)
}

func (s *Server) compare(ctx context.Context, a, b string) (*Comparison, error) {
	this, err := s.build(ctx, a)
	if err != nil {
		return nil, err
	}
	that, err := s.build(ctx, b)
	if err != nil {
		return nil, err
	}
	c := Compare(this, that)
	return &c, nil
}

func (s *Server) attachment(ctx context.Context, ref, digest string) (map[string]string, error) {
	r, err := history.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	content, err := s.source.Attachment(ctx, r, digest)
	return map[string]string{"content": content}, err
}
