// Package kube dials BuildKit in a Kubernetes cluster: kube-pod://, and the
// ready pods behind kube-deployment://, kube-statefulset://, kube-service://
// and kube-selector://. It runs `buildctl dial-stdio` in the container, or
// forwards a port where that is denied (via=port-forward).
//
// It is not for kubeconfig files (internal/kubeconfig) or the protocols of the
// API server (kubeapi), and it starts no pod.
//
// Rules: what refused is told in its own words: the kubeconfig, the network to
// the API server, the API server, the pod, the program in it. When a connection
// breaks, what became of the pod is looked up. Close waits for nobody.
package kube

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/kube/kubeapi"
	"github.com/berthbuild/berth/internal/dial/stdio"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/kubeconfig"
)

// afterwards bounds the look at a pod whose connection broke.
const afterwards = 1500 * time.Millisecond

// Schemes are those of Kubernetes.
func Schemes(env dial.Env) []dial.Scheme {
	d := &dialler{env: env, cache: kubeconfig.NewCache(), warned: map[string]bool{}}
	return []dial.Scheme{
		{Name: endpoint.SchemeKubePod, Summary: "a pod of a Kubernetes cluster", Stages: stages, Dial: d.dial},
		{Name: endpoint.SchemeKubeDeployment, Summary: "a ready pod of a Deployment", Stages: stages, Dial: d.dial, Members: d.members},
		{Name: endpoint.SchemeKubeStatefulSet, Summary: "a ready pod of a StatefulSet", Stages: stages, Dial: d.dial, Members: d.members},
		{Name: endpoint.SchemeKubeService, Summary: "a ready pod behind a Service, which need not be reachable itself", Stages: stages, Dial: d.dial, Members: d.members},
		{Name: endpoint.SchemeKubeSelector, Summary: "a ready pod with the labels of a selector", Stages: stages, Dial: d.dial, Members: d.members},
	}
}

// members are the ready pods behind an endpoint, each with an endpoint that names
// it. What else the endpoint says (cluster, container, socket, port) stays.
func (d *dialler) members(ctx context.Context, e endpoint.Endpoint) ([]dial.Member, error) {
	var all []dial.Member
	err := d.with(ctx, e, func(c *cluster) error {
		defer c.api.Close()
		pods, err := c.ready(ctx, e)
		for _, p := range pods {
			all = append(all, dial.Member{Name: p.Name, Endpoint: endpoint.KubePodOf(e, p.Name, p.Namespace)})
		}
		return err
	})
	return all, err
}

// Ready gives the pods that an endpoint leads to and that can be dialled now:
// ready, not terminating, sorted by name. There is at least one, or an error
// that says why there is none. Dial takes the first.
func Ready(ctx context.Context, env dial.Env, e endpoint.Endpoint) ([]Pod, error) {
	d := &dialler{env: env, cache: kubeconfig.NewCache(), warned: map[string]bool{}}
	var pods []Pod
	err := d.with(ctx, e, func(c *cluster) (err error) {
		defer c.api.Close()
		pods, err = c.ready(ctx, e)
		return err
	})
	return pods, err
}

// dialler is what the attempts of one command share.
type dialler struct {
	env   dial.Env
	cache *kubeconfig.Cache

	mu     sync.Mutex
	warned map[string]bool
}

// cluster is the API server that an endpoint leads to.
type cluster struct {
	endpoint endpoint.Endpoint
	config   *kubeconfig.Config
	api      *kubeapi.Client
	ns       string
}

func (d *dialler) dial(ctx context.Context, e endpoint.Endpoint) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	began := time.Now()
	var conn net.Conn
	err := d.with(ctx, e, func(c *cluster) error {
		began := time.Now()
		pods, err := c.ready(ctx, e)
		c.tell(ctx, began, pods, err)
		if err == nil {
			conn, err = c.connect(ctx, e, pods[0])
		}
		if err != nil {
			c.api.Close()
		}
		return err
	})
	if err == nil {
		return conn, nil
	}
	if ctx.Err() != nil && (errors.Is(ctx.Err(), context.Canceled) || time.Since(began) < time.Second) {
		return nil, ctx.Err() // cut off; there is nothing to tell about the cluster
	}
	return nil, err
}

// with calls do with the endpoint's cluster. Where the server refuses what a
// credential plugin gave, the plugin is asked again, once.
func (d *dialler) with(ctx context.Context, e endpoint.Endpoint, do func(*cluster) error) error {
	end := dial.Begin(ctx, stageConfig)
	config, err := kubeconfig.Load(d.source(e))
	if err != nil {
		err = configError(err)
		end("", err)
		return err
	}
	end(configText(config), nil)
	for _, w := range config.Warnings {
		d.warn(w)
	}
	err = d.once(ctx, e, config, do)
	if isUnauthorized(err) && d.cache.Forget(config) {
		err = d.once(ctx, e, config, do)
	}
	return err
}

func (d *dialler) once(ctx context.Context, e endpoint.Endpoint, config *kubeconfig.Config, do func(*cluster) error) error {
	end := dial.Begin(ctx, stageCredentials)
	cred, err := d.cache.Credentials(ctx, config)
	if err != nil {
		err = pluginError(err)
		end("", err)
		return err
	}
	end(credentialsText(config, cred), nil)
	api, err := kubeapi.New(kubeapi.Options{Config: config, Credentials: cred, Proxy: d.proxy()})
	if err != nil {
		return configError(err)
	}
	c := &cluster{endpoint: e, config: config, api: api, ns: config.Namespace}
	if ns := e.Param(endpoint.KubeNamespace); ns != "" {
		c.ns = ns
	}
	return do(c)
}

func (d *dialler) source(e endpoint.Endpoint) kubeconfig.Source {
	return kubeconfig.Source{
		Home: d.env.Home, Dir: d.env.Dir, Getenv: d.env.Getenv,
		File: e.Param(endpoint.KubeConfig), Context: e.Param(endpoint.KubeContext),
	}
}

// warn says each warning once.
func (d *dialler) warn(text string) {
	d.mu.Lock()
	first := !d.warned[text]
	d.warned[text] = true
	d.mu.Unlock()
	if first {
		d.env.Warning(text)
	}
}

// proxy is what the environment says.
func (d *dialler) proxy() func(*url.URL) (*url.URL, error) {
	either := func(name, lower string) string {
		if v := d.env.Getenv(name); v != "" {
			return v
		}
		return d.env.Getenv(lower)
	}
	c := httpproxy.Config{
		HTTPProxy: either("HTTP_PROXY", "http_proxy"), HTTPSProxy: either("HTTPS_PROXY", "https_proxy"),
		NoProxy: either("NO_PROXY", "no_proxy"),
	}
	return c.ProxyFunc()
}

// connect opens the stream to BuildKit in the pod. The pod may be known by its
// name only, where we may not look at it.
func (c *cluster) connect(ctx context.Context, e endpoint.Endpoint, pod Pod) (net.Conn, error) {
	l := &link{cluster: c, pod: pod, socket: e.Param(endpoint.KubeSocket), port: e.Param(endpoint.KubePort)}
	if e.Param(endpoint.KubeVia) == endpoint.ViaPortForward {
		if l.port == "" {
			l.port = endpoint.DefaultKubePort
		}
		return l.forward(ctx)
	}
	l.port = ""
	l.container = e.Param(endpoint.KubeContainer)
	if l.container == "" {
		l.container = pod.container
	}
	return l.exec(ctx)
}

// link is one connection into a pod.
type link struct {
	*cluster
	pod       Pod
	container string
	socket    string
	port      string // "" for exec
	stderr    stdio.Tail
	process   *kubeapi.Process
}

func (l *link) exec(ctx context.Context) (net.Conn, error) {
	command := []string{"buildctl"}
	if l.socket != "" {
		command = append(command, "--addr", "unix://"+l.socket)
	}
	command = append(command, "dial-stdio")
	end := dial.Begin(ctx, stageExec)
	p, err := l.api.Exec(ctx, l.ns, l.pod.Name, l.container, command, &l.stderr)
	if err != nil {
		err = l.refused(ctx, err)
		end("", err)
		return nil, err
	}
	end(strings.TrimSpace("allowed, in the container "+l.container), nil)
	return l.conn(p), nil
}

func (l *link) forward(ctx context.Context) (net.Conn, error) {
	end := dial.Begin(ctx, stageForward)
	p, err := l.api.Forward(ctx, l.ns, l.pod.Name, l.port)
	if err != nil {
		err = l.refused(ctx, err)
		end("", err)
		return nil, err
	}
	end("allowed, to port "+l.port, nil)
	return l.conn(p), nil
}

func (l *link) conn(p *kubeapi.Process) net.Conn {
	l.process = p
	return stdio.New(stdio.Stream{
		In: p.In, Out: p.Out, Wait: l.wait,
		Kill: func() {
			p.Kill()
			l.api.Close()
		},
		Local: stdio.Addr{Scheme: "kube", Name: "berth"}, Remote: stdio.Addr{Scheme: "kube", Name: l.ns + "/" + l.pod.Name},
	})
}

// wait says why the stream ended, nil where it simply did.
func (l *link) wait() error {
	<-l.process.Done()
	ended := l.process.Err() // nil for a daemon that hung up, maybe because its pod ends
	ctx, cancel := context.WithTimeout(context.Background(), afterwards)
	defer cancel()
	if gone := l.gone(ctx, ended); gone != nil {
		return gone
	}
	if ended == nil {
		return nil
	}
	return l.endError(ended)
}

// containers are the names, for a message.
func containers(p Pod) []string { return slices.Sorted(slices.Values(p.containers)) }
