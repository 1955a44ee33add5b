package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// fromURL is the builder of an endpoint that was given in place of a name. It
// is stored nowhere.
func (s *Service) fromURL(raw string) (*Builder, error) {
	e, kv, err := endpoint.Locate(raw)
	if err != nil {
		return nil, err
	}
	o, err := endpoint.ParseOptions(e, endpoint.Absolute(kv, s.Dir, s.Home))
	if err != nil {
		return nil, hint.Wrap(err, fmt.Sprintf("endpoint %q", e))
	}
	if e.Scheme == endpoint.SchemeTCP && s.TLS != nil {
		env, err := s.TLS()
		if err != nil {
			return nil, err
		}
		o = o.WithTLSFrom(env)
	}
	name := urlName(e)
	return &Builder{Name: name, Driver: DriverRemote, Source: OfURL, Nodes: []Node{{
		// What hints put after "berth inspect"; the endpoint holds no secrets.
		Builder: hint.Quote(e.String()),
		Driver:  DriverRemote, Name: name, Endpoint: e.String(), DriverOpts: o.Map(),
		reach: e, options: o, source: OfURL,
	}}}, nil
}

// maxURLName bounds the readable part of a name, in bytes.
const maxURLName = 80

// urlName is what the builder of an endpoint is called in progress, metadata
// and references: the same for the same endpoint, of the grammar of builders'
// names, and without what may be a secret.
func urlName(e endpoint.Endpoint) string {
	plain := e
	plain.Query, plain.User = "", ""
	what := plain.Scheme + "-" + strings.TrimPrefix(plain.String(), plain.Scheme+"://")
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' {
			return r
		}
		return '-'
	}, what)
	for strings.Contains(name, "--") {
		name = strings.ReplaceAll(name, "--", "-")
	}
	long := len(name) > maxURLName
	if long {
		name = name[:maxURLName]
	}
	name = strings.TrimRight(name, "-")
	if long || plain != e { // what was left out tells one endpoint from another
		sum := sha256.Sum256([]byte(e.String()))
		name += "-" + hex.EncodeToString(sum[:3])
	}
	return name
}

// notStoredURL refuses to choose or remove what is only a URL.
func notStoredURL(cannot, raw string) error {
	line := "berth create --use " + hint.Quote("ENDPOINT")
	if e, _, err := endpoint.Locate(raw); err == nil && e.Query == "" {
		line = "berth create --use --driver remote " + hint.Quote(e.String())
	}
	return hint.New("an endpoint is used as it is, is stored nowhere, and "+cannot, "make a builder of it: "+line)
}
