package endpoint

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnsupported is the cause when a scheme is known but this version has no
// dialler for it.
var ErrUnsupported = errors.New("not supported by this version of berth")

// otherScheme refuses everything but tcp and unix, and says what to use
// instead. Nothing of rest is repeated unless it is a clean host and port.
func otherScheme(raw, scheme, rest string) error {
	if remedy := meanwhile(scheme); remedy != nil {
		return refuse(scheme+"://…", fmt.Errorf("the scheme %s:// is %w", scheme, ErrUnsupported), remedy...)
	}
	if scheme == "http" || scheme == "https" {
		return refuse(raw, fmt.Errorf("%s:// is not how BuildKit is reached; it speaks gRPC over tcp://", scheme), webHints(scheme, rest)...)
	}
	return refuse(raw, fmt.Errorf("the scheme %q is unknown", scheme), examples()...)
}

func webHints(scheme, rest string) []string {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	line := "tcp://HOST:1234"
	if e, err := parseAuthority(rest); err == nil {
		line = e.String()
	} else if host, err := parseHost(rest); err == nil {
		line = Endpoint{Scheme: SchemeTCP, Host: host, Port: map[string]string{"http": "80", "https": "443"}[scheme]}.String()
	}
	if scheme == "https" {
		return []string{line, "TLS is switched on with --driver-opt cacert=…, or servername=…"}
	}
	return []string{line}
}

// meanwhile gives the way to reach such a daemon with this version, nil for a
// scheme that we never heard of.
func meanwhile(scheme string) []string {
	switch scheme {
	case "ssh":
		return []string{
			"forward the socket: ssh -N -L $HOME/buildkitd.sock:/run/buildkit/buildkitd.sock USER@HOST",
			"then use unix://$HOME/buildkitd.sock",
		}
	case "docker-container", "podman-container", "nerdctl-container":
		return []string{
			"let the container's buildkitd listen on tcp://0.0.0.0:1234 with TLS and publish that port",
			"then use tcp://HOST:1234",
		}
	case "kube-pod", "kube-deployment", "kube-statefulset", "kube-service", "kube-selector":
		return []string{
			"forward a port of it: kubectl port-forward " + kubeObject(scheme) + " 1234:1234",
			"then use tcp://127.0.0.1:1234",
		}
	case "npipe":
		return []string{"let buildkitd listen on TCP too: buildkitd --addr tcp://127.0.0.1:1234 --tlscacert …", "then use tcp://127.0.0.1:1234"}
	case "exec":
		return []string{"let the command serve a socket: socat UNIX-LISTEN:$HOME/buildkitd.sock,fork EXEC:'COMMAND'", "then use unix://$HOME/buildkitd.sock"}
	}
	return nil
}

func kubeObject(scheme string) string {
	kind := strings.TrimPrefix(scheme, "kube-")
	if kind == "selector" {
		kind = "pod"
	}
	return kind + "/NAME"
}
