package manifests

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// head is the comment on top: what this is, and the lines that make a builder.
func head(o Options) ([]string, error) {
	lines := []string{
		fmt.Sprintf("BuildKit in Kubernetes: %s, each with a cache volume of its own.", daemons(o.Replicas)),
		"Printed by `berth manifests kubernetes`, to be applied as it is: kubectl apply -f FILE",
	}
	if o.Namespace != DefaultNamespace {
		lines = append(lines, "The namespace has to be there: kubectl create namespace "+o.Namespace)
	}
	why := "The pods are privileged"
	if o.Rootless {
		why = "The pods have no root, but run without seccomp and AppArmor"
	}
	lines = append(lines, why+": where the namespace enforces Pod Security, its level has to be privileged.", "")
	if o.TLS == nil || o.Access != None {
		lines = append(lines, "Make a builder of them, through the API server, which needs no certificate:", "  "+kubeLine(o), "")
	}
	if o.TLS != nil {
		tcp, err := tcpLines(o)
		if err != nil {
			return nil, err
		}
		lines = append(lines, "Make a builder of them within the cluster's network, by TCP with mutual TLS:")
		for _, l := range tcp {
			lines = append(lines, "  "+l)
		}
		lines = append(lines, "", "The Secrets below hold private keys: keep this text as you keep those.", "")
	}
	lines = append(lines, reachable(o)...)
	if o.Access != None {
		lines = append(lines,
			"Whoever is to build gets the role, as the service account "+o.Name+"-client has it here:",
			"  kubectl"+" -n "+o.Namespace+" create rolebinding NAME --role="+o.Name+"-client --user=USER")
	}
	return append(lines,
		"The volumes stay when the rest is deleted, and when there are fewer replicas:",
		"  kubectl"+" -n "+o.Namespace+" delete pvc -l "+selectorText(o.Name)), nil
}

// reachable says who can come to the daemons, in words.
func reachable(o Options) []string {
	switch {
	case o.TLS != nil:
		return []string{"The port takes nobody without a certificate of the CA."}
	case o.Access == PortForward:
		return []string{"The port is plain TCP, on the pod's own loopback interface: only who may forward it reaches it."}
	}
	return []string{"No port is open: only who may run commands in a pod reaches its daemon."}
}

func daemons(n int) string {
	if n == 1 {
		return "a daemon"
	}
	return fmt.Sprintf("%d daemons", n)
}

func selectorText(name string) string {
	return "app.kubernetes.io/name=buildkitd,app.kubernetes.io/instance=" + name
}

// kubeLine makes a builder that goes through the API server.
func kubeLine(o Options) string {
	q := url.Values{"namespace": {o.Namespace}}
	if o.Access == PortForward {
		q.Set("via", "port-forward")
		if o.Port != DefaultPort {
			q.Set("port", fmt.Sprint(o.Port))
		}
	}
	e := "kube-statefulset://" + o.Name + "?" + q.Encode()
	return "berth create --name " + o.Name + " --driver remote " + hint.Quote(e)
}

// tcpLines make a builder with a node for each pod, by the names that a
// headless Service gives them.
func tcpLines(o Options) ([]string, error) {
	domain := o.Name + "." + o.Namespace + ".svc"
	opts := o.TLS.DriverOpt
	name, err := serverName(o, domain)
	if err != nil {
		return nil, err
	}
	if name != "" {
		opts += ",servername=" + name
	}
	var lines []string
	for i := range o.Replicas {
		line := "berth create --name " + o.Name + " --driver remote"
		if i > 0 {
			line += " --append"
		}
		lines = append(lines, fmt.Sprintf("%s --driver-opt %s tcp://%s.%s:%d", line, hint.Quote(opts), podName(o.Name, i), domain, o.Port))
	}
	return lines, nil
}

// serverName is the name that clients must expect in the certificate, "" where
// it is for the pods' own names.
func serverName(o Options, domain string) (string, error) {
	covered := slices.Contains(o.TLS.Names, "*."+domain)
	if !covered {
		covered = true
		for i := range o.Replicas {
			covered = covered && slices.Contains(o.TLS.Names, podName(o.Name, i)+"."+domain)
		}
	}
	if covered {
		return "", nil
	}
	for _, n := range o.TLS.Names {
		if _, err := netip.ParseAddr(n); err != nil && !strings.HasPrefix(n, "*") {
			return n, nil
		}
	}
	return "", hint.New("the daemon's certificate is for no name by which the pods can be known: "+strings.Join(o.TLS.Names, ", "),
		"make one that is: berth certs create --kubernetes "+hint.Quote("*."+domain))
}
