package endpoint

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// The schemes of Kubernetes: a pod by its name, or the ready pods behind an
// object.
const (
	SchemeKubePod         = "kube-pod"
	SchemeKubeDeployment  = "kube-deployment"
	SchemeKubeStatefulSet = "kube-statefulset"
	SchemeKubeService     = "kube-service"
	SchemeKubeSelector    = "kube-selector"
)

// The parameters of the schemes of Kubernetes.
const (
	KubeContext   = "context"    // of the kubeconfig; its current one where not given
	KubeNamespace = "namespace"  // the context's where not given
	KubeContainer = "container"  // of the pod, to run buildctl in
	KubeConfig    = "kubeconfig" // an absolute path
	KubeVia       = "via"        // ViaPortForward; running buildctl where not given
	KubePort      = "port"       // of buildkitd in the pod, with via=port-forward
	KubeSocket    = "socket"     // of buildkitd in the container
	KubeSelector  = "selector"   // of pods by their labels, only with kube-selector://
)

const (
	// ViaPortForward is the value of KubeVia for a forwarded port.
	ViaPortForward = "port-forward"
	viaExec        = "exec" // the default, which is not written down

	// DefaultKubePort is where buildkitd is expected to listen in a pod.
	DefaultKubePort = "1234"
)

// maxKubeContext bounds a context's name in bytes; some are as long as ARNs.
const maxKubeContext = 1024

func parseKubePod(raw, rest string) (Endpoint, error) {
	return parseKube(raw, rest, SchemeKubePod)
}

func parseKubeDeployment(raw, rest string) (Endpoint, error) {
	return parseKube(raw, rest, SchemeKubeDeployment)
}

func parseKubeStatefulSet(raw, rest string) (Endpoint, error) {
	return parseKube(raw, rest, SchemeKubeStatefulSet)
}

func parseKubeService(raw, rest string) (Endpoint, error) {
	return parseKube(raw, rest, SchemeKubeService)
}

func parseKubeSelector(raw, rest string) (Endpoint, error) {
	return parseKube(raw, rest, SchemeKubeSelector)
}

func parseKube(raw, rest, scheme string) (Endpoint, error) {
	name, query, _ := strings.Cut(rest, "?")
	e := Endpoint{Scheme: scheme, Host: name}
	if err := kubeTarget(scheme, name); err != nil {
		return Endpoint{}, refuse(raw, err, kubeExample(scheme))
	}
	q, err := kubeQuery(scheme, query)
	if err != nil {
		return Endpoint{}, refuse(raw, err)
	}
	if scheme == SchemeKubeSelector && q.Get(KubeSelector) == "" {
		return Endpoint{}, refuse(raw, errors.New("has no selector"), kubeExample(scheme))
	}
	if corrected, err := kubeContradiction(q); err != nil {
		var hints []string
		if corrected != nil {
			e.Query = corrected.Encode()
			hints = []string{e.String()}
		}
		return Endpoint{}, refuse(raw, err, hints...)
	}
	e.Query = q.Encode()
	return e, nil
}

func kubeExample(scheme string) string {
	if scheme == SchemeKubeSelector {
		return scheme + "://?selector=app%3Dbuildkitd"
	}
	return scheme + "://NAME?namespace=NAMESPACE"
}

// kubeTarget checks what stands between "://" and the query.
func kubeTarget(scheme, name string) error {
	if strings.Contains(name, "@") {
		return errors.New("has a user name or password; who you are is the kubeconfig's to say")
	}
	if scheme == SchemeKubeSelector {
		if name != "" {
			return fmt.Errorf("%q: the pods are named by ?%s=… alone", clip(name), KubeSelector)
		}
		return nil
	}
	kind := strings.TrimPrefix(scheme, "kube-")
	switch {
	case name == "":
		return fmt.Errorf("the name of the %s is missing", kind)
	case strings.Contains(name, "/"):
		return fmt.Errorf("the %s %q has a slash; its namespace is given with ?%s=…", kind, clip(name), KubeNamespace)
	case scheme == SchemeKubeService:
		return kubeName(kind, name, 63)
	}
	return kubeName(kind, name, 253)
}

// kubeName checks an RFC 1123 name: a label where most is 63, else a subdomain.
func kubeName(what, name string, most int) error {
	bad := func(why string) error { return fmt.Errorf("the %s %q cannot exist: %s", what, clip(name), why) }
	if len(name) > most {
		return bad(fmt.Sprintf("a name has at most %d bytes", most))
	}
	parts := []string{name}
	if most > 63 {
		parts = strings.Split(name, ".")
	}
	for _, part := range parts {
		if part == "" || part[0] == '-' || part[len(part)-1] == '-' {
			return bad("a name begins and ends with a letter or digit")
		}
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return bad(fmt.Sprintf("a name has no %q, only a-z, 0-9 and -", r))
			}
		}
	}
	return nil
}

// kubeQuery reads the parameters, and leaves out those that say the default.
func kubeQuery(scheme, query string) (url.Values, error) {
	q, err := url.ParseQuery(query)
	if err != nil || strings.Contains(query, "#") {
		return nil, errors.New("the query after the ? cannot be read; special characters are written as %XX")
	}
	known := []string{KubeContext, KubeNamespace, KubeContainer, KubeConfig, KubeVia, KubePort, KubeSocket}
	if scheme == SchemeKubeSelector {
		known = append(known, KubeSelector)
	}
	for key, values := range q {
		switch {
		case !slices.Contains(known, key):
			return nil, fmt.Errorf("%s:// has no parameter %q; it has %s", scheme, clip(key), strings.Join(known, ", "))
		case len(values) > 1:
			return nil, fmt.Errorf("the parameter %s is given twice", key)
		case values[0] == "":
			return nil, fmt.Errorf("the parameter %s is empty", key)
		}
		value, err := kubeParam(key, values[0])
		if err != nil {
			return nil, err
		}
		if key == KubeVia && value == viaExec {
			q.Del(key) // checked for contradictions without it
			continue
		}
		q.Set(key, value)
	}
	return q, nil
}

// kubeParam checks one parameter and normalises it.
func kubeParam(key, value string) (string, error) {
	for _, r := range value {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return "", fmt.Errorf("the parameter %s contains the character %U", key, r)
		}
	}
	switch key {
	case KubeNamespace, KubeContainer:
		return value, kubeName(key, value, 63)
	case KubeContext:
		if len(value) > maxKubeContext {
			return "", fmt.Errorf("the %s is %d bytes long; at most %d are allowed", key, len(value), maxKubeContext)
		}
		return value, nil
	case KubeVia:
		if value != viaExec && value != ViaPortForward {
			return "", fmt.Errorf("%s=%s is neither %s nor %s", key, clip(value), viaExec, ViaPortForward)
		}
		return value, nil
	case KubePort:
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return "", fmt.Errorf("the port %q is not a number from 1 to 65535", clip(value))
		}
		return strconv.FormatUint(n, 10), nil
	case KubeSocket:
		return kubeSocket(value)
	case KubeConfig:
		return kubeConfigPath(value)
	}
	return value, checkSelector(value)
}

// kubeSocket checks a socket's path in the container, which is given to
// buildctl as it is: no shell reads it.
func kubeSocket(value string) (string, error) {
	p := path.Clean(strings.TrimPrefix(value, "unix://"))
	switch {
	case p[0] != '/':
		return "", fmt.Errorf("the socket %q is not an absolute path", clip(value))
	case slices.Contains(strings.Split(value, "/"), ".."):
		return "", fmt.Errorf("the socket %q has a .. in its path", clip(value))
	case p == "/":
		return "", errors.New("the socket has no path, only /")
	case len(p) > maxSunPath:
		return "", fmt.Errorf("the socket's path is %d bytes long; the system allows %d", len(p), maxSunPath)
	}
	return p, nil
}

// kubeConfigPath wants an absolute path, because an endpoint is kept and used
// from other folders later.
func kubeConfigPath(value string) (string, error) {
	drive := len(value) > 2 && value[1] == ':' && (value[2] == '\\' || value[2] == '/')
	switch {
	case strings.HasPrefix(value, "~/"):
		return "", fmt.Errorf("the kubeconfig %q is not an absolute path; a shell fills in $HOME", clip(value))
	case value[0] != '/' && !drive:
		return "", fmt.Errorf("the kubeconfig %q is not an absolute path; a shell fills in $PWD", clip(value))
	}
	return value, nil
}

// kubeContradiction refuses parameters of the way that is not taken, and gives
// the corrected ones where it is clear what was meant.
func kubeContradiction(q url.Values) (corrected url.Values, err error) {
	if q.Get(KubeVia) != ViaPortForward {
		if !q.Has(KubePort) {
			return nil, nil
		}
		fixed := clone(q)
		fixed.Set(KubeVia, ViaPortForward)
		fixed.Del(KubeSocket)
		fixed.Del(KubeContainer)
		return fixed, fmt.Errorf("%s= is for %s=%s; %s=%s runs buildctl in the container and needs none",
			KubePort, KubeVia, ViaPortForward, KubeVia, viaExec)
	}
	for _, key := range []string{KubeSocket, KubeContainer} {
		if q.Has(key) {
			fixed := clone(q)
			fixed.Del(KubeSocket)
			fixed.Del(KubeContainer)
			return fixed, fmt.Errorf("%s= is for %s=%s; a forwarded port belongs to the whole pod", key, KubeVia, viaExec)
		}
	}
	return nil, nil
}

func clone(q url.Values) url.Values {
	c := url.Values{}
	for k, v := range q {
		c[k] = slices.Clone(v)
	}
	return c
}

// KubePodOf is the pod called name in the namespace ns, with what else the
// Kubernetes endpoint e says.
func KubePodOf(e Endpoint, name, ns string) Endpoint {
	q, err := url.ParseQuery(e.Query) // Parse wrote it, so it can be read
	if err != nil {
		q = url.Values{}
	}
	q.Del(KubeSelector)
	q.Set(KubeNamespace, ns)
	return Endpoint{Scheme: SchemeKubePod, Host: name, Query: q.Encode()}
}
