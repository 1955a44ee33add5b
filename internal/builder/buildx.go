package builder

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// The drivers of buildx whose daemons berth can use, but not start or end.
const (
	DriverContainer  = "docker-container"
	DriverKubernetes = "kubernetes"
)

// buildxPrefix is before a node's name in the name of its container.
const buildxPrefix = "buildx_buildkit_"

// adopt finds out how the nodes of a builder that buildx made are reached: in
// the container or the deployment that buildx started for each.
func (s *Service) adopt(b *Builder) {
	for i := range b.Nodes {
		n := &b.Nodes[i]
		switch n.Driver {
		case DriverContainer:
			n.reach, n.tries, n.err = s.container(*n)
		case DriverKubernetes:
			n.reach, n.err = deployment(*n)
			n.tries = []string{fmt.Sprintf("berth uses what runs and starts nothing; buildx starts it: buildx inspect --bootstrap %s", b.Name)}
		}
	}
}

// Left are the things that buildx started for a builder and that go on when it
// is forgotten, each with the command that ends it.
func Left(b *Builder) []string {
	var all []string
	for _, n := range b.Nodes {
		switch n.Driver {
		case DriverContainer:
			all = append(all, dockerCommand(n.reach.Param("context"))+" rm -f -v "+buildxPrefix+n.Name)
		case DriverKubernetes:
			all = append(all, kubectl(n)+" delete "+deploymentKind(n)+" "+deploymentName(n))
		}
	}
	return all
}

// container is the endpoint of a node of the docker-container driver.
func (s *Service) container(n Node) (endpoint.Endpoint, []string, error) {
	context, err := s.contextOf(n.Endpoint)
	if err != nil {
		return endpoint.Endpoint{}, nil, err
	}
	name := buildxPrefix + n.Name
	e, err := endpoint.Parse("docker-container://" + name + "?" + url.Values{"context": {context}}.Encode())
	return e, []string{
		"berth starts no containers; start one that is stopped: " + dockerCommand(context) + " start " + name,
		"buildx makes one that is not there: buildx inspect --bootstrap " + n.Builder,
	}, err
}

func dockerCommand(context string) string {
	if context == "" || context == dockerconfig.DefaultContext {
		return "docker"
	}
	return "docker --context " + hint.Quote(context)
}

// contextOf finds the docker context that a node's endpoint stands for: buildx
// writes its name, or for the default one the engine's address.
func (s *Service) contextOf(stored string) (string, error) {
	if stored != "" && !strings.Contains(stored, "://") {
		return stored, nil
	}
	if s.Docker == nil {
		return dockerconfig.DefaultContext, nil
	}
	config, err := s.Docker()
	if err != nil {
		return "", err
	}
	names, err := config.Contexts()
	for _, name := range append([]string{config.ContextName()}, names...) {
		engine, eerr := config.Engine(name)
		if eerr == nil && (stored == "" || engine.Host == stored) {
			return name, nil
		}
	}
	if err != nil {
		return "", err
	}
	return "", hint.New(fmt.Sprintf("its Docker engine %s is that of no docker context", dockerconfig.Redact(stored)),
		"make one: docker context create NAME --docker host=…", "or set DOCKER_HOST to it")
}

// deployment is the endpoint of a node of the kubernetes driver.
func deployment(n Node) (endpoint.Endpoint, error) {
	q := url.Values{}
	if ns := n.DriverOpts["namespace"]; ns != "" {
		q.Set("namespace", ns)
	}
	if file := kubeconfig(n); file != "" {
		q.Set("kubeconfig", file)
	}
	text := "kube-" + deploymentKind(n) + "://" + deploymentName(n)
	if len(q) > 0 {
		text += "?" + q.Encode()
	}
	return endpoint.Parse(text)
}

// deploymentName is the node's name as buildx makes it fit for Kubernetes.
func deploymentName(n Node) string { return strings.ReplaceAll(n.Name, "_", "-") }

// deploymentKind: buildx makes a stateful set for a builder with a volume.
func deploymentKind(n Node) string {
	if n.DriverOpts["persistent-volume-claim.requests.storage"] != "" {
		return "statefulset"
	}
	return "deployment"
}

// kubeconfig is the file that buildx stored in the endpoint,
// kubernetes:///NAME?deployment=NODE&kubeconfig=FILE; "" is the usual one, or a
// list of several, which only the environment can name.
func kubeconfig(n Node) string {
	u, err := url.Parse(n.Endpoint)
	if err != nil {
		return ""
	}
	file := u.Query().Get("kubeconfig")
	if len(filepath.SplitList(file)) != 1 {
		return ""
	}
	return file
}

func kubectl(n Node) string {
	cmd := "kubectl"
	if file := kubeconfig(n); file != "" {
		cmd += " --kubeconfig " + hint.Quote(file)
	}
	if ns := n.DriverOpts["namespace"]; ns != "" {
		cmd += " --namespace " + hint.Quote(ns)
	}
	return cmd
}
