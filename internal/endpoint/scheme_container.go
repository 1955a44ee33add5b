package endpoint

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// The schemes of a daemon in a container.
const (
	SchemeDockerContainer  = "docker-container"
	SchemePodmanContainer  = "podman-container"
	SchemeNerdctlContainer = "nerdctl-container"
)

// ContainerContext is the parameter of docker-container:// that names a docker
// context; without it, the one in force is used.
const ContainerContext = "context"

// maxContainer bounds a container's or a context's name, in bytes.
const maxContainer = 255

func parseDockerContainer(raw, rest string) (Endpoint, error) {
	return parseContainer(raw, rest, SchemeDockerContainer, ContainerContext)
}

func parsePodmanContainer(raw, rest string) (Endpoint, error) {
	return parseContainer(raw, rest, SchemePodmanContainer)
}

func parseNerdctlContainer(raw, rest string) (Endpoint, error) {
	return parseContainer(raw, rest, SchemeNerdctlContainer)
}

// parseContainer reads NAME[?query]. The name keeps its case.
func parseContainer(raw, rest, scheme string, known ...string) (Endpoint, error) {
	name, query, _ := strings.Cut(rest, "?")
	e := Endpoint{Scheme: scheme, Host: name}
	if err := checkContainer(name); err != nil {
		return Endpoint{}, refuse(raw, err, containerHint(scheme, name)...)
	}
	q, err := parseQuery(scheme, query, known...)
	if err != nil {
		return Endpoint{}, refuse(raw, err, e.String())
	}
	if context := q.Get(ContainerContext); q.Has(ContainerContext) {
		if err := checkName("docker context", context, "_.-+"); err != nil {
			return Endpoint{}, refuse(raw, err, "docker context ls")
		}
	}
	e.Query = q.Encode()
	return e, nil
}

// containerHint corrects what was probably meant.
func containerHint(scheme, name string) []string {
	if first := strings.Trim(name, "/"); first != name && checkContainer(first) == nil {
		return []string{Endpoint{Scheme: scheme, Host: first}.String()}
	}
	return []string{scheme + "://NAME"}
}

// checkContainer says why name cannot be the name or id of a container.
func checkContainer(name string) error {
	if strings.Contains(name, "@") {
		return errors.New("has a user name or password, which a container has no use for")
	}
	return checkName("container", name, "_.-")
}

// checkName holds a name against the grammar that engines share: a letter or
// digit, and then letters, digits and the characters of more. What is not of it
// is not repeated beyond a character.
func checkName(what, name, more string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name of the %s is missing", what)
	case len(name) > maxContainer:
		return fmt.Errorf("the name of the %s is %d bytes long; at most %d are allowed", what, len(name), maxContainer)
	}
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		switch {
		case alnum, i > 0 && strings.ContainsRune(more, r):
		case i == 0:
			return fmt.Errorf("the name of the %s begins with %q, and not with a letter or digit", what, r)
		default:
			return fmt.Errorf("the name of the %s contains %q; it may have letters, digits and %s", what, r, more)
		}
	}
	return nil
}

// parseQuery reads a query whose parameters are known, each given once and with
// a value.
func parseQuery(scheme, query string, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(query)
	if err != nil || strings.Contains(query, "#") {
		return nil, errors.New("the query after the ? cannot be read; special characters are written as %XX")
	}
	for key, values := range q {
		isKnown := false
		for _, k := range known {
			isKnown = isKnown || k == key
		}
		switch {
		case !isKnown && len(known) == 0:
			return nil, fmt.Errorf("has the parameter %s, and %s:// has none", showKey(key), scheme)
		case !isKnown:
			return nil, fmt.Errorf("the parameter %s is unknown; %s:// has %s", showKey(key), scheme, strings.Join(known, ", "))
		case len(values) > 1:
			return nil, fmt.Errorf("the parameter %s is given twice", key)
		case values[0] == "":
			return nil, fmt.Errorf("the parameter %s is empty", key)
		}
	}
	return q, nil
}

// showKey repeats a parameter's name unless it may hold a password.
func showKey(key string) string {
	if strings.ContainsAny(key, ":@") {
		return `"…"`
	}
	return fmt.Sprintf("%q", clip(key))
}
