package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/kube/kubeapi"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

const (
	pageSize = "250"
	// maxPages bounds a list; a selector that finds more pods than that is none.
	maxPages = 20
)

// kind is an object that stands for pods.
type kind struct {
	name     string // for people
	api      string // the path of its API group
	resource string // in the path, and for RBAC
}

func kindOf(scheme string) kind {
	switch scheme {
	case endpoint.SchemeKubeDeployment:
		return kind{"deployment", "/apis/apps/v1", "deployments"}
	case endpoint.SchemeKubeStatefulSet:
		return kind{"statefulset", "/apis/apps/v1", "statefulsets"}
	case endpoint.SchemeKubeService:
		return kind{"service", "/api/v1", "services"}
	}
	return kind{"pod", "/api/v1", "pods"}
}

// path is that of an object, or with an empty name of the list of them.
func (c *cluster) path(k kind, name string) string {
	p := k.api + "/namespaces/" + url.PathEscape(c.ns) + "/" + k.resource
	if name != "" {
		p += "/" + url.PathEscape(name)
	}
	return p
}

func (c *cluster) ready(ctx context.Context, e endpoint.Endpoint) ([]Pod, error) {
	if e.Scheme == endpoint.SchemeKubePod {
		return c.named(ctx, e)
	}
	what, selector := "for the selector "+e.Param(endpoint.KubeSelector), e.Param(endpoint.KubeSelector)
	if k := kindOf(e.Scheme); e.Scheme != endpoint.SchemeKubeSelector {
		what = "behind the " + k.name + " " + e.Host
		var err error
		if selector, err = c.selector(ctx, k, e.Host); err != nil {
			return nil, err
		}
	}
	all, err := c.list(ctx, selector)
	if err != nil {
		return nil, c.apiError(ctx, err, "")
	}
	return c.choose(ctx, all, what, selector, e.Param(endpoint.KubeContainer))
}

// choose leaves the pods that can be dialled.
func (c *cluster) choose(ctx context.Context, all []podObject, what, selector, container string) ([]Pod, error) {
	var ready []Pod
	why := ""
	for i := range all {
		said := all[i].notReady("")
		if said != "" {
			if why == "" && !all[i].ended() {
				why = "; " + all[i].Metadata.Name + " " + said
			}
			continue
		}
		if container != "" && !all[i].has(container) {
			return nil, noContainer(all[i].pod(c.ns), container)
		}
		ready = append(ready, all[i].pod(c.ns))
	}
	if len(ready) > 0 {
		slices.SortFunc(ready, func(a, b Pod) int { return strings.Compare(a.Name, b.Name) })
		return ready, nil
	}
	if len(all) == 0 {
		if err := c.noNamespace(ctx); err != nil {
			return nil, err
		}
	}
	return nil, &dial.Error{
		Class: NotReady, Heals: true,
		Text:  fmt.Sprintf("no ready pod %s in namespace %s: 0 of %d ready%s", what, c.ns, len(all), why),
		Tries: []string{c.kubectl("get", "pods", "-l", hint.Quote(selector))},
	}
}

// named looks at one pod. Who may not look may still be let in.
func (c *cluster) named(ctx context.Context, e endpoint.Endpoint) ([]Pod, error) {
	p, err := c.get(ctx, e.Host)
	if err != nil {
		if s := statusOf(err); s != nil && s.Code == http.StatusForbidden {
			return []Pod{{Namespace: c.ns, Name: e.Host}}, nil
		}
		return nil, c.apiError(ctx, err, e.Host)
	}
	pod := p.pod(c.ns)
	container := first(e.Param(endpoint.KubeContainer), pod.container)
	if !p.has(container) {
		return nil, noContainer(pod, container)
	}
	if said := p.notReady(container); said != "" {
		return nil, &dial.Error{
			Class: NotReady, Heals: !p.ended(),
			Text:  fmt.Sprintf("the pod %s in namespace %s %s", pod.Name, c.ns, said),
			Tries: []string{c.kubectl("describe", "pod", pod.Name)},
		}
	}
	return []Pod{pod}, nil
}

func (c *cluster) get(ctx context.Context, name string) (*podObject, error) {
	p := &podObject{}
	err := c.api.Get(ctx, "pods", c.path(kindOf(endpoint.SchemeKubePod), name), nil, p)
	return p, err
}

// list gives the pods that a selector chooses.
func (c *cluster) list(ctx context.Context, selector string) ([]podObject, error) {
	var all []podObject
	q := url.Values{"labelSelector": {selector}, "limit": {pageSize}}
	for range maxPages {
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []podObject `json:"items"`
		}
		if err := c.api.Get(ctx, "pods", c.path(kindOf(endpoint.SchemeKubePod), ""), q, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Metadata.Continue == "" {
			break
		}
		q.Set("continue", page.Metadata.Continue)
	}
	return all, nil
}

// selector reads how an object chooses its pods.
func (c *cluster) selector(ctx context.Context, k kind, name string) (string, error) {
	none := func() (string, error) {
		return "", &dial.Error{Class: NotFound, Text: fmt.Sprintf("the %s %s in namespace %s chooses no pods: it has no selector", k.name, name, c.ns)}
	}
	if k.resource == "services" { // whose selector is older and simpler
		var o struct {
			Spec struct {
				Selector map[string]string `json:"selector"`
			} `json:"spec"`
		}
		if err := c.api.Get(ctx, k.resource, c.path(k, name), nil, &o); err != nil {
			return "", c.apiError(ctx, err, name)
		}
		if len(o.Spec.Selector) == 0 {
			return none()
		}
		return kubeapi.LabelSelector{MatchLabels: o.Spec.Selector}.String(), nil
	}
	var o struct {
		Spec struct {
			Selector kubeapi.LabelSelector `json:"selector"`
		} `json:"spec"`
	}
	if err := c.api.Get(ctx, k.resource, c.path(k, name), nil, &o); err != nil {
		return "", c.apiError(ctx, err, name)
	}
	if s := o.Spec.Selector.String(); s != "" {
		return s, nil
	}
	return none()
}

// noNamespace tells that the namespace does not exist, nil where it does or
// where we may not ask.
func (c *cluster) noNamespace(ctx context.Context) error {
	var o struct{}
	err := c.api.Get(ctx, "namespaces", "/api/v1/namespaces/"+url.PathEscape(c.ns), nil, &o)
	if s := statusOf(err); s == nil || s.Code != http.StatusNotFound {
		return nil
	}
	return &dial.Error{
		Class: NotFound, Err: err, Text: fmt.Sprintf("there is no namespace %s in the cluster %s", c.ns, c.api.Server()),
		Tries: []string{c.kubectl("get", "namespaces", "--no-headers")},
	}
}

func noContainer(p Pod, container string) error {
	return &dial.Error{
		Class: NotFound, Text: fmt.Sprintf("the pod %s has no container %q; it has: %s", p.Name, container, strings.Join(containers(p), ", ")),
	}
}

func statusOf(err error) *kubeapi.StatusError {
	var s *kubeapi.StatusError
	if errors.As(err, &s) {
		return s
	}
	return nil
}
