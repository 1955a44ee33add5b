package endpoint

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// IsURL tells whether text, given where a builder's name is expected, is meant
// as an endpoint: "SCHEME://…". No builder has such a name.
func IsURL(text string) bool {
	_, _, ok := cutScheme(text)
	return ok
}

// Locate parses an endpoint that may carry driver options in its query, for
// where there is no other place for them: "tcp://HOST:1234?tlsdir=/certs". A
// parameter that the scheme itself knows is the scheme's; the others are driver
// options by their names and come back as typed, for ParseOptions to check.
// What is neither is refused by its name.
func Locate(raw string) (Endpoint, map[string]string, error) {
	if err := checkText(raw); err != nil {
		return Endpoint{}, nil, refuse(raw, err)
	}
	scheme, _, _ := cutScheme(raw)
	base, query, asked := strings.Cut(raw, "?")
	if !asked || strings.Contains(base, "#") {
		e, err := Parse(raw)
		return e, map[string]string{}, err
	}
	q, err := url.ParseQuery(query)
	if err != nil || strings.Contains(query, "#") {
		return Endpoint{}, nil, refuse(raw, errors.New("the query after the ? cannot be read; special characters are written as %XX"))
	}
	options := map[string]string{}
	rest := url.Values{}
	for key, values := range q {
		switch {
		case !slices.Contains(OptionNames(), key):
			rest[key] = values
		case len(values) > 1:
			return Endpoint{}, nil, refuse(raw, fmt.Errorf("the parameter %s is given twice", key))
		default:
			options[key] = values[0]
		}
	}
	if len(rest) > 0 && !hasParameters(scheme) {
		for key := range rest {
			return Endpoint{}, nil, refuse(raw, unknownParameter(key))
		}
	}
	if len(rest) > 0 {
		base += "?" + rest.Encode()
	}
	e, err := Parse(base)
	if err != nil {
		return Endpoint{}, nil, err
	}
	return e, options, nil
}

// hasParameters tells the schemes whose endpoints have a query of their own.
func hasParameters(scheme string) bool {
	return scheme == SchemeDockerContainer || scheme == SchemeExec || strings.HasPrefix(scheme, "kube-")
}

// unknownParameter is unknownOption for a URL, whose query may hold what must
// not be repeated.
func unknownParameter(key string) error {
	if strings.ContainsAny(key, ":@") {
		key = "…"
	}
	return unknownOption(key, OptionNames())
}
