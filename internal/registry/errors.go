package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berthbuild/berth/internal/hint"
)

// ErrNotFound is the cause when a registry has no such image, or shows nobody that it
// has.
var ErrNotFound = errors.New("not found")

// isStatus tells that a registry has answered with a status.
func isStatus(err error, status int) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == status
}

// name is a tag or a digest with its repository.
func (r *Repository) name(id string) string {
	if strings.Contains(id, ":") {
		return r.Name() + "@" + id
	}
	return r.Name() + ":" + id
}

// loginName is what docker login calls a registry.
func loginName(host string) string {
	if host == hubHost {
		return dockerHub
	}
	return host
}

// failure is an error that has been explained.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// explain says what failed, and what helps where the cause tells.
func (r *Repository) explain(err error, what string) error {
	var done failure
	if err == nil || errors.As(err, &done) {
		return err
	}
	return failure{r.explained(err, what)}
}

func (r *Repository) explained(err error, what string) error {
	var answer *transport.Error
	var plaintext *Plaintext
	var notTLS tls.RecordHeaderError
	var unknown *tls.CertificateVerificationError
	login := "docker login " + hint.Quote(loginName(r.host))
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w%w", what, ErrNotFound, hint.Quietly(err))
	case errors.As(err, &answer) && answer.StatusCode == http.StatusUnauthorized:
		return hint.Wrap(err, fmt.Sprintf("%s: the registry %s wants a login that is allowed to do this", what, r.host), login)
	case errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden:
		return hint.Wrap(err, fmt.Sprintf("%s: the registry %s does not allow it", what, r.host), "log in as somebody who may: "+login)
	case errors.As(err, &plaintext), errors.As(err, &notTLS):
		return hint.Wrap(err, what, fmt.Sprintf("where the registry really has no TLS, say so in a builder's buildkitd.toml: [registry.%q] http = true", r.host))
	case errors.As(err, &unknown):
		return hint.Wrap(err, what, fmt.Sprintf("name the certificate's CA in a builder's buildkitd.toml: [registry.%q] ca = [\"FILE\"]", r.host))
	}
	return hint.Wrap(err, what)
}
