package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/berthbuild/berth/internal/buildkittest"
)

// registry plays one: what it wants, and what it was asked.
type registry struct {
	*httptest.Server
	wants string // "", Basic, Bearer

	mu    sync.Mutex
	asked []string
}

const password = "p4ssw0rd-of-the-registry"

func newRegistry(t *testing.T, wants string) *registry {
	r := &registry{wants: wants}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *registry) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.asked = append(r.asked, req.Method+" "+req.URL.Path)
	r.mu.Unlock()
	user, pass, basic := req.BasicAuth()
	good := basic && user == "me" && pass == password
	switch {
	case req.URL.Path == "/token":
		if !good {
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no `+pass+`"}]}`, http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprint(w, `{"token":"t0ken-of-the-registry"}`)
	case r.wants == "", r.wants == "Basic" && good, r.wants == "Bearer" && req.Header.Get("Authorization") == "Bearer t0ken-of-the-registry":
		_, _ = fmt.Fprint(w, "{}")
	case r.wants == "Basic":
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	case r.wants == "Broken":
		w.WriteHeader(http.StatusBadGateway)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.URL+`/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// keys is a keychain of one login, or of why there is none.
type keys struct {
	config authn.AuthConfig
	err    error
}

func (k keys) Resolve(authn.Resource) (authn.Authenticator, error) {
	if k.err != nil {
		return nil, k.err
	}
	if k.config == (authn.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(k.config), nil
}

func TestPush(t *testing.T) {
	s := buildkittest.New(t, buildkittest.Options{})
	right := keys{config: authn.AuthConfig{Username: "me", Password: password}}
	wrong := keys{config: authn.AuthConfig{Username: "me", Password: "wr0ng-password"}}
	for _, c := range []struct {
		name, wants string
		keys        keys
		status      Status
		class, text string
	}{
		{"no login wanted", "", keys{}, OK, "", "asks for no login"},
		{"basic", "Basic", right, OK, "", "takes the login"},
		{"bearer", "Bearer", right, OK, "", "takes the login"},
		{"basic, wrong", "Basic", wrong, Failed, string(ClassRefused), "does not take the login: HTTP 401"},
		{"bearer, wrong", "Bearer", wrong, Failed, string(ClassRefused), "does not take the login: HTTP 401"},
		{"basic, none", "Basic", keys{}, Failed, string(ClassLogin), "wants a login"},
		{"bearer, none", "Bearer", keys{}, Failed, string(ClassLogin), "wants a login"},
		{"broken", "Broken", right, Warning, "", "HTTP 502"},
		{"the helper fails", "Basic", keys{err: errors.New("out: " + password)}, Failed, string(ClassLogin), "credential helper"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRegistry(t, c.wants)
			o := options(node("n0", s.Endpoint()))
			o.Push, o.Keychain = strings.TrimPrefix(r.URL, "http://")+"/app:1", c.keys
			report := run(t, o)
			st := stepOf(t, report, StepPush)
			if st.Status != c.status || string(st.Class) != c.class || !strings.Contains(st.Text, c.text) {
				t.Errorf("%+v", st)
			}
			if c.status != OK && len(st.Hints) == 0 {
				t.Error("there is no hint")
			}
			if slices.ContainsFunc(r.asked, func(a string) bool { return !strings.HasPrefix(a, "GET ") }) {
				t.Errorf("it was not only read: %q", r.asked)
			}
			text, _ := json.Marshal(report)
			for _, secret := range []string{password, "wr0ng-password", "t0ken-of-the-registry"} {
				if strings.Contains(string(text), secret) {
					t.Errorf("%s is in %s", secret, text)
				}
			}
		})
	}
	o := options(node("n0", s.Endpoint()))
	o.Push, o.Keychain = "127.0.0.1:1/app", keys{}
	if st := stepOf(t, run(t, o), StepPush); st.Status != Warning || !strings.Contains(st.Text, "cannot be asked from here") {
		t.Errorf("nobody there: %+v", st)
	}
	o.Push = "UPPER CASE"
	if st := stepOf(t, run(t, o), StepPush); st.Class != ClassPushRef {
		t.Errorf("no reference: %+v", st)
	}
}
