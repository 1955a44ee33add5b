package historypage

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/history"
)

// oneBuild is a source with one build.
type oneBuild struct{ b *Build }

func (s oneBuild) Overview(context.Context) (*Overview, error) {
	return &Overview{Builders: []Builder{}, Builds: []Row{{Ref: s.b.Ref}}}, nil
}

func (s oneBuild) Build(_ context.Context, ref history.Reference) (*Build, error) {
	if ref.String() != s.b.Ref {
		return nil, &history.NotFound{Reference: ref}
	}
	return s.b, nil
}

func (s oneBuild) Attachment(context.Context, history.Reference, string) (string, error) {
	return "", errors.New("broken \x1b[2J")
}

// serving starts a server, which ends with the test.
func serving(t *testing.T) *Server {
	t.Helper()
	l, err := Listen(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(l, oneBuild{made(t, 10)}, "")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the server has ended with %v", err)
		}
	})
	return s
}

func ask(t *testing.T, method, where string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, where, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

func TestServerAnswersOnlyItsOwnPage(t *testing.T) {
	s := serving(t)
	base := strings.TrimSuffix(s.URL(), "/"+s.token+"/")
	_, port, _ := net.SplitHostPort(s.addr)
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	for _, c := range []struct {
		name, method, where string
		change              func(*http.Request)
		code                int
	}{
		{"the page", "GET", s.URL(), nil, 200},
		{"without its last slash", "GET", strings.TrimSuffix(s.URL(), "/"), nil, 303},
		{"by the name localhost", "GET", s.URL(), host("localhost:" + port), 200},
		{"its data", "GET", s.URL() + "api/overview", header("Sec-Fetch-Site", "same-origin"), 200},
		{"with its own origin", "GET", s.URL() + "api/overview", header("Origin", base), 200},
		{"typed", "GET", s.URL(), header("Sec-Fetch-Site", "none"), 200},
		{"a build", "GET", s.URL() + "api/build?ref=b/b0/id", nil, 200},
		{"no such build", "GET", s.URL() + "api/build?ref=b/b0/other", nil, 404},
		{"no reference", "GET", s.URL() + "api/build?ref=a/b", nil, 502},
		{"two builds", "GET", s.URL() + "api/compare?a=b/b0/id&b=b/b0/id", nil, 200},
		{"what fails", "GET", s.URL() + "api/attachment?ref=b/b0/id&digest=x", nil, 502},
		{"no such page", "GET", s.URL() + "api/other", nil, 404},
		{"without the secret", "GET", base + "/", nil, 404},
		{"with a part of it", "GET", base + "/" + s.token[:31] + "/", nil, 404},
		{"with another", "GET", base + "/" + strings.Repeat("0", 32) + "/api/overview", nil, 404},
		{"the secret in a query", "GET", base + "/?token=" + s.token, nil, 404},
		{"rebound", "GET", s.URL(), host("evil.example:" + port), 403},
		{"rebound without a port", "GET", s.URL(), host("127.0.0.1"), 403},
		{"no host", "GET", s.URL(), host("127.0.0.1:1"), 403},
		{"another origin", "GET", s.URL() + "api/overview", header("Origin", "http://evil.example"), 403},
		{"a file's origin", "GET", s.URL() + "api/overview", header("Origin", "null"), 403},
		{"another site", "GET", s.URL(), header("Sec-Fetch-Site", "cross-site"), 403},
		{"another port", "GET", s.URL() + "api/overview", header("Sec-Fetch-Site", "same-site"), 403},
		{"changing", "POST", s.URL() + "api/overview", nil, 405},
		{"removing", "DELETE", s.URL() + "api/build?ref=b/b0/id", nil, 405},
	} {
		answer, body := ask(t, c.method, c.where, c.change)
		if answer.StatusCode != c.code {
			t.Errorf("%s: %d %.200s", c.name, answer.StatusCode, body)
		}
		if c.code >= 400 && (strings.Contains(body, s.token) || strings.Contains(body, "\x1b")) {
			t.Errorf("%s: %s", c.name, body)
		}
		head := answer.Header
		if head.Get("X-Content-Type-Options") != "nosniff" || head.Get("Referrer-Policy") != "no-referrer" || head.Get("Cache-Control") != "no-store" || head.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", c.name, head)
		}
	}
}

func TestPolicy(t *testing.T) {
	s := serving(t)
	answer, body := ask(t, "GET", s.URL(), nil)
	said := answer.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q lacks %s", said, want)
		}
	}
	if strings.Contains(said, "unsafe") || strings.Contains(said, "*") || strings.Contains(said, "http") {
		t.Error(said)
	}
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(body)
	script := regexp.MustCompile(`(?s)<script>(.*)</script>`).FindStringSubmatch(body)
	if style == nil || script == nil || !strings.Contains(said, "style-src '"+hash(style[1])+"'") || !strings.Contains(said, "script-src '"+hash(script[1])+"'") {
		t.Error("the policy does not name what is in the page")
	}
	if !strings.Contains(policy(false), "connect-src 'none'") {
		t.Error(policy(false))
	}
}

func TestTicketsAreGoodOnce(t *testing.T) {
	s := serving(t)
	ticket := s.Ticket()
	answer, _ := ask(t, "GET", ticket, nil)
	if to, err := answer.Location(); err != nil || to.String() != s.URL() || answer.StatusCode != http.StatusSeeOther {
		t.Errorf("%v %v", answer.Status, err)
	}
	if answer, _ = ask(t, "GET", ticket, nil); answer.StatusCode != http.StatusNotFound {
		t.Error(answer.Status)
	}
	late := s.Ticket()
	u, err := url.Parse(late)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.tickets[strings.TrimPrefix(u.Path, "/")] = begun()
	s.mu.Unlock()
	if answer, _ = ask(t, "GET", late, nil); answer.StatusCode != http.StatusNotFound {
		t.Error(answer.Status)
	}
	if strings.Contains(ticket+late, s.token) || len(s.token) != 32 || serving(t).token == s.token {
		t.Error("the secret")
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80", "example.com:80", "127.0.0.1", "127.0.0.1.example.com:0", "\x1b[2J:1"} {
		if l, err := Listen(t.Context(), addr); err == nil {
			_ = l.Close() // the test has failed
			t.Errorf("%s is listened on", addr)
		} else if strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q", err)
		}
	}
	for _, addr := range []string{"", "127.0.0.1:0", "localhost:0", "127.0.0.2:0"} {
		l, err := Listen(t.Context(), addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if !strings.HasPrefix(l.Addr().String(), "127.0.0.") {
			t.Error(l.Addr())
		}
		_ = l.Close() // nobody has come
	}
}
