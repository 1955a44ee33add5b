package telemetry

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// settings are how traces are sent.
type settings struct {
	protocol string
	secrets  []string
}

// disabled is whether OpenTelemetry is to be left alone altogether.
func disabled(get func(string) string) bool {
	return strings.EqualFold(get("OTEL_SDK_DISABLED"), "true")
}

// read gives nil where the environment names no collector. Its errors name the
// variable and not its value, which may have a key in it.
func read(get func(string) string) (*settings, error) {
	wanted, err := exporter(get)
	if !wanted || err != nil {
		return nil, err
	}
	s := &settings{}
	for _, check := range []func(func(string) string) error{s.readProtocol, s.checkEndpoint, s.readHeaders, checkCertificate} {
		if err := check(get); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// exporter tells whether traces are to be sent by OTLP. Naming a collector is
// enough to ask for it, as with buildx and BuildKit.
func exporter(get func(string) string) (bool, error) {
	names := get("OTEL_TRACES_EXPORTER")
	if names == "" {
		_, endpoint := signal(get, "ENDPOINT")
		return endpoint != "", nil
	}
	all := strings.Split(names, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	switch {
	case slices.Contains(all, "otlp"):
		return true, nil
	case names == "none":
		return false, nil
	}
	return false, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not supported; otlp and none are", names)
}

// signal is a variable of the exporter's, with its name: the one for traces, or
// else the one for everything.
func signal(get func(string) string, what string) (name, value string) {
	name = "OTEL_EXPORTER_OTLP_TRACES_" + what
	if value = get(name); value != "" {
		return name, value
	}
	name = "OTEL_EXPORTER_OTLP_" + what
	return name, get(name)
}

func (s *settings) readProtocol(get func(string) string) error {
	name, value := signal(get, "PROTOCOL")
	switch value {
	case "":
		s.protocol = protocolGRPC
	case protocolGRPC, protocolHTTP:
		s.protocol = value
	default:
		return fmt.Errorf("%s: %q is not supported; %s and %s are", name, value, protocolGRPC, protocolHTTP)
	}
	return nil
}

// checkEndpoint refuses what the library would leave aside in silence, to send
// to its default in place of it.
func (s *settings) checkEndpoint(get func(string) string) error {
	name, value := signal(get, "ENDPOINT")
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	scheme := ""
	if err == nil {
		scheme = strings.ToLower(u.Scheme)
	}
	switch {
	case scheme == "unix" && s.protocol == protocolGRPC && u.Path != "":
		return nil
	case (scheme != "http" && scheme != "https") || u.Host == "":
		return fmt.Errorf("%s: a URL such as http://localhost:4317 is wanted", name)
	}
	return nil
}

// readHeaders checks them and remembers what is secret: both sets, since the
// library reads both.
func (s *settings) readHeaders(get func(string) string) error {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		value := get(name)
		if value == "" {
			continue
		}
		for pair := range strings.SplitSeq(value, ",") {
			key, secret, ok := strings.Cut(pair, "=")
			plain, err := url.PathUnescape(strings.TrimSpace(secret))
			if strings.TrimSpace(key) == "" || !ok || err != nil {
				return fmt.Errorf("%s: NAME=VALUE[,NAME=VALUE…] is wanted, each value as in a URL", name)
			}
			s.secrets = append(s.secrets, secrets(secret, plain)...)
		}
	}
	return nil
}

// secrets are the texts of a header that must not be seen; a scheme, as in
// "Bearer KEY", stands apart.
func secrets(texts ...string) []string {
	var all []string
	for _, text := range texts {
		for _, part := range append([]string{strings.TrimSpace(text)}, strings.Fields(text)...) {
			if len(part) > 3 && !strings.EqualFold(part, "bearer") && !strings.EqualFold(part, "basic") && !slices.Contains(all, part) {
				all = append(all, part)
			}
		}
	}
	return all
}

// checkCertificate looks whether the collector's CA can be read; without it the
// library would go by the system's.
func checkCertificate(get func(string) string) error {
	name, path := signal(get, "CERTIFICATE")
	if path == "" {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		err = errors.New("there is no certificate in " + path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
