package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/kube/kubeapi"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/kubeconfig"
)

// The classes of failures on the way into a pod.
const (
	NoConfig     dial.Class = "kube-config"       // no kubeconfig, or one that cannot be used
	Plugin       dial.Class = "kube-plugin"       // the credential plugin gives none
	APIServer    dial.Class = "kube-api"          // the API server is not reached
	APITLS       dial.Class = "kube-tls"          // its certificate, or ours, is refused
	APIError     dial.Class = "kube-error"        // it answers with an error
	Unauthorized dial.Class = "kube-unauthorized" // it does not know who we are
	Forbidden    dial.Class = "kube-forbidden"    // who we are is not enough
	NotFound     dial.Class = "kube-not-found"    // no such pod, container, namespace, …
	NotReady     dial.Class = "kube-not-ready"    // no pod is ready
	PodGone      dial.Class = "kube-pod-gone"     // the pod went away under the connection
	Lost         dial.Class = "kube-lost"         // the connection broke, and the pod is still there
	Port         dial.Class = "kube-port"         // nobody listens on the pod's port
)

// configError is about the kubeconfig.
func configError(err error) error {
	e := &dial.Error{Class: NoConfig, Text: err.Error(), Err: err}
	var none *kubeconfig.NoneError
	var noContext *kubeconfig.ContextError
	switch {
	case errors.As(err, &none):
		e.Tries = []string{"name one: ?kubeconfig=/path/to/kubeconfig in the endpoint, or export KUBECONFIG=…"}
	case errors.As(err, &noContext):
		e.Tries = []string{"kubectl config get-contexts"}
		if noContext.Name == "" && len(noContext.Known) > 0 {
			e.Tries = []string{"name one in the endpoint: ?context=" + url.QueryEscape(noContext.Known[0])}
		}
	}
	return e
}

// pluginError is about the program that gives credentials.
func pluginError(err error) error {
	e := &dial.Error{Class: Plugin, Text: err.Error(), Err: err}
	var p *kubeconfig.PluginError
	if !errors.As(err, &p) {
		return e
	}
	if p.Install != "" {
		e.Tries = append(e.Tries, p.Install)
	}
	if !p.Missing {
		e.Tries = append(e.Tries, "does it work for kubectl? kubectl get pods")
	}
	return e
}

func isUnauthorized(err error) bool {
	s := statusOf(err)
	return s != nil && s.Code == http.StatusUnauthorized
}

// apiError is a request that did not get what it wanted; name is the object's.
func (c *cluster) apiError(ctx context.Context, err error, name string) error {
	s := statusOf(err)
	if s == nil {
		return c.unreachable(err)
	}
	e := &dial.Error{Class: APIError, Text: "the Kubernetes API server says: " + s.Error(), Err: err}
	switch {
	case s.Code == http.StatusUnauthorized:
		e.Class, e.Text = Unauthorized, fmt.Sprintf("the Kubernetes API server %s does not accept the credentials of %q", c.api.Server(), c.config.User)
		e.Tries = []string{c.kubectl("auth", "whoami")}
	case s.Code == http.StatusForbidden:
		return c.forbidden(s)
	case s.Code == http.StatusNotFound && s.Reason == "NotFound":
		if gone := c.noNamespace(ctx); gone != nil {
			return gone
		}
		kind := strings.TrimSuffix(strings.SplitN(s.Resource, "/", 2)[0], "s")
		e.Class, e.Text = NotFound, fmt.Sprintf("there is no %s %s in namespace %s", kind, name, c.ns)
		e.Tries = []string{c.kubectl("get", kind+"s")}
	case s.Code == http.StatusNotFound:
		e.Text = fmt.Sprintf("%s is not a Kubernetes API server, or not at this path (%v)", c.api.Server(), s)
	case s.Code == http.StatusTooManyRequests || s.Code >= http.StatusInternalServerError:
		e.Heals = true
	}
	return e
}

// forbidden names what RBAC lacks, and how it can be given or done without.
func (c *cluster) forbidden(s *kubeapi.StatusError) error {
	e := &dial.Error{Class: Forbidden, Err: s, Text: fmt.Sprintf("not allowed to %s %s in namespace %s", s.Verb, s.Resource, c.ns)}
	user := userIn(s.Message)
	if user != "" && strings.Contains(s.Message, "cannot "+s.Verb) { // RBAC says the same, at length
		e.Text += " (as " + user + ")"
	} else {
		e.Text += "; the server says: " + s.Error()
	}
	if s.Resource == "pods/exec" {
		e.Tries = append(e.Tries, c.forwardHint())
	}
	verbs := s.Verb
	if s.Resource == "pods" {
		verbs = "get,list"
	}
	subject := "--user=" + first(user, "USER")
	if account, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		subject = "--serviceaccount=" + account
	}
	role := "berth-" + strings.ReplaceAll(s.Resource, "/", "-")
	e.Tries = append(e.Tries,
		"or let an administrator allow it: "+c.kubectl("create", "role", role, "--verb="+verbs, "--resource="+apiResource(s.Resource)),
		c.kubectl("create", "rolebinding", role, "--role="+role, subject))
	return e
}

// apiResource is how kubectl wants a resource named.
func apiResource(resource string) string {
	if resource == "deployments" || resource == "statefulsets" {
		return resource + ".apps"
	}
	return resource
}

// userIn is who the server takes us for, which it only says in its message;
// for a hint.
func userIn(message string) string {
	m := regexp.MustCompile(`User "([A-Za-z0-9:@._-]+)"`).FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	return m[1]
}

// unreachable is about the way to the API server, which is not the endpoint's
// host.
func (c *cluster) unreachable(err error) error {
	e := &dial.Error{Class: APIServer, Err: err, Heals: true}
	at := "the Kubernetes API server " + c.api.Server()
	var (
		dns       *net.DNSError
		ne        net.Error
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		cert      *tls.CertificateVerificationError
		alert     tls.AlertError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &dns):
		e.Text = at + " is not reachable: no such host"
		if !dns.IsNotFound {
			e.Text = at + " is not reachable: the name server does not answer"
		}
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &cert):
		e.Class, e.Heals = APITLS, false
		e.Text = fmt.Sprintf("%s shows a certificate that is not trusted: %v", at, deepest(err))
		e.Tries = []string{fmt.Sprintf("is certificate-authority right in %s?", strings.Join(c.config.Files, ", "))}
	case errors.As(err, &alert):
		e.Class, e.Heals = APITLS, false
		e.Text = fmt.Sprintf("%s refuses the TLS connection: %v", at, alert)
	case errors.As(err, &record):
		e.Class, e.Heals = APITLS, false
		e.Text = at + " does not speak TLS"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Text = at + " is not reachable: connection refused"
	case errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.DeadlineExceeded):
		e.Text = at + " does not answer in time"
	default:
		e.Text = fmt.Sprintf("%s is not reachable: %v", at, deepest(err))
	}
	if e.Class == APIServer {
		e.Tries = []string{"is the cluster up, and this machine in its network or VPN? " + c.kubectl("get", "pods")}
	}
	return e
}

// deepest is the innermost error: the ones around it repeat addresses.
func deepest(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// refused is about opening the stream into a pod that is there.
func (l *link) refused(ctx context.Context, err error) error {
	s := statusOf(err)
	if s == nil {
		return l.unreachable(err)
	}
	if s.Code == http.StatusBadRequest && l.container != "" && len(l.pod.containers) > 0 && !slices.Contains(l.pod.containers, l.container) {
		return noContainer(l.pod, l.container)
	}
	return l.apiError(ctx, err, l.pod.Name)
}

// endError is about a stream that ended while the pod lives on.
func (l *link) endError(ended error) error {
	var exit *kubeapi.ExitError
	if !errors.As(ended, &exit) {
		return &dial.Error{Class: Lost, Err: ended, Text: fmt.Sprintf("the connection to the pod %s broke: %v", l.pod.Name, ended), Heals: true}
	}
	if l.port != "" {
		// The kubelet's words name network namespaces and ids first.
		text := fmt.Sprintf("port %s of the pod %s: %s", l.port, l.pod.Name, tail(exit.Message))
		if strings.Contains(exit.Message, "connection refused") {
			text = fmt.Sprintf("nobody listens on port %s of the pod %s", l.port, l.pod.Name)
		}
		return &dial.Error{
			Class: Port, Err: exit, Heals: true, Text: text,
			Tries: []string{"does buildkitd listen on TCP there? --addr tcp://0.0.0.0:" + l.port + ", or tcp://127.0.0.1:" + l.port},
		}
	}
	// Why a command could not be started is known to the container's runtime
	// alone, and it says so in words only.
	started := exit.Code != 0 && exit.Code != stdio.NotFound && exit.Code != stdio.CannotRun
	if !started && (exit.Code != 0 || strings.Contains(exit.Message, "executable file not found") || strings.Contains(exit.Message, "no such file or directory")) {
		return &dial.Error{
			Class: stdio.NoBuildctl, Err: exit, Text: fmt.Sprintf("the container %s of the pod %s has no buildctl", l.container, l.pod.Name),
			Tries: append(l.otherContainers(), l.forwardHint()),
		}
	}
	text := "buildctl in the pod " + l.pod.Name + ": " + exit.Message
	if said := l.stderr.String(); said != "" {
		text = "buildctl in the pod " + l.pod.Name + " says: " + said
	}
	return &dial.Error{
		Class: stdio.HelperFailed, Err: exit, Text: text, Heals: true,
		Tries: []string{
			"does buildkitd listen on another socket there? " + l.instead(endpoint.KubeSocket, "/PATH/TO/buildkitd.sock"),
			l.kubectl("logs", l.pod.Name, "-c", l.container),
		},
	}
}

func (l *link) otherContainers() []string {
	others := slices.DeleteFunc(containers(l.pod), func(c string) bool { return c == l.container })
	var tries []string
	for _, c := range others {
		tries = append(tries, "is it another container? "+l.instead(endpoint.KubeContainer, c))
	}
	return tries
}

// forwardHint is the way that needs no buildctl and no right to run it.
func (c *cluster) forwardHint() string {
	return "where buildkitd listens on TCP in the pod, forward its port instead: " + c.instead(endpoint.KubeVia, endpoint.ViaPortForward)
}

// instead is our endpoint with one parameter changed, as a shell wants it.
func (c *cluster) instead(key, value string) string {
	e := c.endpoint
	q, _ := url.ParseQuery(e.Query) // Parse wrote it
	if key == endpoint.KubeVia {
		q.Del(endpoint.KubeContainer)
		q.Del(endpoint.KubeSocket)
	}
	q.Set(key, value)
	e.Query = q.Encode()
	return "'" + e.String() + "'"
}

// tail is the end of a long text.
func tail(s string) string {
	const most = 160
	if len(s) <= most {
		return s
	}
	return "…" + strings.ToValidUTF8(s[len(s)-most:], "")
}

// gone looks what became of the pod, nil where it is as it was.
func (l *link) gone(ctx context.Context, ended error) error {
	p, err := l.get(ctx, l.pod.Name)
	said := ""
	switch s := statusOf(err); {
	case s != nil && s.Code == http.StatusNotFound && s.Reason == "NotFound":
		said = "was deleted"
	case err != nil:
		return nil // nothing to tell about the pod
	case l.pod.UID != "" && p.Metadata.UID != l.pod.UID:
		said = "was replaced by a new one of the same name"
	case p.ended() && (p.Metadata.Deleted == nil || p.Status.Reason != ""):
		said = "has ended (" + first(p.Status.Reason, p.Status.Phase) + ")" + because(p.Status.Message)
	case p.condition(disruption).Status == "True":
		c := p.condition(disruption)
		said = "was evicted (" + first(c.Reason, "no reason is given") + ")" + because(c.Message)
	case p.Metadata.Deleted != nil:
		said = "is being deleted" // and may have ended, which is only how that shows
	default:
		said = p.died(l.container)
	}
	if said == "" {
		return nil
	}
	return &dial.Error{
		Class: PodGone, Heals: true, Err: ended, Text: fmt.Sprintf("the pod %s in namespace %s %s", l.pod.Name, l.ns, said),
		Tries: []string{l.kubectl("get", "events", "--field-selector", "involvedObject.name="+l.pod.Name)},
	}
}

// died says how the container ended, "" where it runs.
func (p *podObject) died(container string) string {
	for _, c := range p.Status.Containers {
		if container != "" && c.Name != container {
			continue
		}
		if t := c.State.Terminated; t != nil {
			return "lost its container " + c.Name + ", which ended with " + t.String()
		}
		if t := c.Last.Terminated; t != nil && c.State.Waiting != nil {
			return "lost its container " + c.Name + ", which ended with " + t.String()
		}
	}
	return ""
}

// kubectl is a command line for a hint, in the same cluster and namespace.
func (c *cluster) kubectl(args ...string) string {
	all := []string{"kubectl"}
	if c.config.Context != "" {
		all = append(all, "--context", hint.Quote(c.config.Context))
	}
	return strings.Join(append(append(all, "-n", c.ns), args...), " ")
}
