package builder

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/builderfile"
	"github.com/berthbuild/berth/internal/endpoint"
	kubefile "github.com/berthbuild/berth/internal/kubeconfig"
)

// Review is what somebody should know of a node before using it.
type Review struct {
	Builder, Node, Endpoint string
	Options                 []string // "name=value", without secrets
	Runs                    []string // what is run on this machine
	Minds                   []string // what else is worth a look
}

// Review looks a definition file over. It contacts nobody and runs nothing;
// kubeconfigs that the file names are read.
func (d *Definition) Review(home string, getenv func(string) string) []Review {
	var all []Review
	for _, b := range d.File.Builders {
		for _, n := range b.Nodes {
			r := Review{Builder: b.Name, Node: n.Name, Endpoint: n.Endpoint.String()}
			shown := endpoint.Redacted(n.Options)
			for _, k := range slices.Sorted(maps.Keys(shown)) {
				r.Options = append(r.Options, k+"="+shown[k])
			}
			r.Runs = d.runs(n, home, getenv)
			r.Minds = d.minds(n, home)
			all = append(all, r)
		}
	}
	return all
}

// runs says what using a node runs on this machine.
func (d *Definition) runs(n builderfile.Node, home string, getenv func(string) string) []string {
	e := n.Endpoint
	switch e.Scheme {
	case endpoint.SchemeExec:
		return []string{"runs a command: " + e.Param(endpoint.ExecCommand)}
	case endpoint.SchemeSSH:
		return []string{fmt.Sprintf("logs in on %s with your ssh keys and agent, and runs the ProxyCommand that your ssh_config has for it, if any", e.Host)}
	case endpoint.SchemePodmanContainer:
		return []string{"runs podman exec"}
	case endpoint.SchemeNerdctlContainer:
		return []string{"runs nerdctl exec"}
	case endpoint.SchemeDockerContainer:
		return []string{"runs buildctl in the container, through your docker context " + orDefault(e.Param(endpoint.ContainerContext), "that is in force")}
	}
	if !strings.HasPrefix(e.Scheme, "kube-") {
		return nil
	}
	file := kubeconfigOf(n)
	if file == "" {
		return []string{fmt.Sprintf("uses your kubeconfig (context %s), and runs the credential plugin that it has there, if any",
			orDefault(e.Param(endpoint.KubeContext), "the current one"))}
	}
	config, err := kubefile.Load(kubefile.Source{
		Home: home, Dir: d.Dir(), Getenv: getenv, File: file, Context: e.Param(endpoint.KubeContext),
	})
	switch {
	case err != nil:
		return []string{fmt.Sprintf("uses the kubeconfig %s, which cannot be read now and may run commands", file)}
	case config.Plugin != nil:
		return []string{fmt.Sprintf("uses the kubeconfig %s, which runs a command: %s", file, strings.Join(config.Plugin.Command(), " "))}
	}
	return []string{fmt.Sprintf("uses the kubeconfig %s, which leads to %s and runs no command", file, config.Server)}
}

func orDefault(text, none string) string {
	if text == "" {
		return none
	}
	return text
}

// minds says what a node uses of the user's, and what protects it.
func (d *Definition) minds(n builderfile.Node, home string) []string {
	var all []string
	kv := endpoint.Absolute(n.Options, d.Dir(), home)
	for _, key := range builderfile.PathOptions() {
		if path := kv[key]; path != "" && d.outside(path) {
			all = append(all, fmt.Sprintf("%s is outside of the file's folder: %s", key, path))
		}
	}
	if path := kubeconfigOf(n); path != "" && d.outside(path) {
		all = append(all, "the kubeconfig is outside of the file's folder, and is not watched for changes: "+path)
	}
	if n.Endpoint.Scheme == endpoint.SchemeTCP {
		o, err := endpoint.ParseOptions(n.Endpoint, kv)
		if err == nil && !o.TLS() && n.Certs.IsZero() {
			all = append(all, "is not encrypted, and nobody proves to be that daemon")
		}
		if !o.Proxy.IsZero() {
			all = append(all, "goes through the proxy "+o.Proxy.String())
		}
	}
	return all
}

// outside tells whether a path leads out of the file's folder, by itself or
// through a link.
func (d *Definition) outside(path string) bool {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	_, inside := builderfile.Within(d.Dir(), path)
	return !inside
}
