package kube

import (
	"fmt"
	"strings"
	"time"
)

// Pod is a pod that can be dialled.
type Pod struct {
	Namespace, Name, UID string
	Node                 string // where it runs; "" where it is not known

	container  string // to run buildctl in
	containers []string
}

// defaultContainer is kubectl's annotation for pods with several.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// disruption is the condition of a pod that is taken away by an eviction, a
// preemption or a taint of its node.
const disruption = "DisruptionTarget"

// The parts of Kubernetes' objects that we read.
type (
	meta struct {
		Name        string            `json:"name"`
		UID         string            `json:"uid"`
		Deleted     *time.Time        `json:"deletionTimestamp"`
		Annotations map[string]string `json:"annotations"`
	}
	podObject struct {
		Metadata meta      `json:"metadata"`
		Spec     podSpec   `json:"spec"`
		Status   podStatus `json:"status"`
	}
	podSpec struct {
		NodeName   string `json:"nodeName"`
		Containers []struct {
			Name string `json:"name"`
		} `json:"containers"`
	}
	podStatus struct {
		Phase      string            `json:"phase"`
		Reason     string            `json:"reason"`
		Message    string            `json:"message"`
		Conditions []condition       `json:"conditions"`
		Containers []containerStatus `json:"containerStatuses"`
		Inits      []containerStatus `json:"initContainerStatuses"`
	}
	condition struct {
		Type    string `json:"type"`
		Status  string `json:"status"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
	containerStatus struct {
		Name     string         `json:"name"`
		Ready    bool           `json:"ready"`
		Restarts int            `json:"restartCount"`
		State    containerState `json:"state"`
		Last     containerState `json:"lastState"`
	}
	containerState struct {
		Waiting *struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"waiting"`
		Running    *struct{}   `json:"running"`
		Terminated *terminated `json:"terminated"`
	}
	terminated struct {
		ExitCode int       `json:"exitCode"`
		Signal   int       `json:"signal"`
		Reason   string    `json:"reason"`
		Finished time.Time `json:"finishedAt"`
	}
)

func (p *podObject) pod(ns string) Pod {
	out := Pod{Namespace: ns, Name: p.Metadata.Name, UID: p.Metadata.UID, Node: p.Spec.NodeName}
	for _, c := range p.Spec.Containers {
		out.containers = append(out.containers, c.Name)
	}
	out.container = p.Metadata.Annotations[defaultContainer]
	if !p.has(out.container) && len(out.containers) > 0 {
		out.container = out.containers[0]
	}
	return out
}

func (p *podObject) has(container string) bool {
	for _, c := range p.Spec.Containers {
		if c.Name == container {
			return true
		}
	}
	return false
}

func (p *podObject) status(container string) *containerStatus {
	for i, c := range p.Status.Containers {
		if c.Name == container {
			return &p.Status.Containers[i]
		}
	}
	return nil
}

// ended tells whether the pod will never run again.
func (p *podObject) ended() bool { return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" }

// notReady says why the pod cannot be dialled, "" where it can. With a
// container, that one alone counts: what else is in the pod may be broken.
func (p *podObject) notReady(container string) string {
	switch {
	case p.ended():
		return "has ended (" + first(p.Status.Reason, p.Status.Phase) + ")" + because(p.Status.Message)
	case p.Metadata.Deleted != nil:
		return "is terminating"
	case p.Status.Phase == "Unknown":
		return "is in an unknown state: its node does not answer"
	}
	if container != "" {
		if c := p.status(container); c != nil && c.Ready {
			return ""
		}
	} else if p.condition("Ready").Status == "True" {
		return ""
	}
	return "is not ready" + p.reason(container)
}

// reason tells what a pod that is not ready waits for.
func (p *podObject) reason(container string) string {
	if c := p.condition("PodScheduled"); c.Status == "False" {
		return ": not scheduled" + because(c.Message)
	}
	for _, c := range append(p.Status.Inits[:len(p.Status.Inits):len(p.Status.Inits)], p.Status.Containers...) {
		if container != "" && c.Name != container && c.Ready {
			continue
		}
		if said := c.waits(); said != "" {
			return ": container " + c.Name + " " + said
		}
	}
	if c := p.condition("Ready"); c.Reason != "" {
		return " (" + c.Reason + ")" + because(c.Message)
	}
	return first(because(p.Status.Message), " (phase "+first(p.Status.Phase, "unknown")+")")
}

func (c *containerStatus) waits() string {
	switch {
	case c.State.Waiting != nil:
		said := "waits (" + first(c.State.Waiting.Reason, "no reason given") + ")" + because(c.State.Waiting.Message)
		if t := c.Last.Terminated; t != nil {
			said += "; it ended before with " + t.String()
		}
		return said
	case c.State.Terminated != nil && !c.Ready && (c.State.Terminated.ExitCode != 0):
		return "ended with " + c.State.Terminated.String()
	case c.State.Running != nil && !c.Ready:
		return "runs, but its readiness probe fails"
	}
	return ""
}

// String is how it ended.
func (t *terminated) String() string {
	s := fmt.Sprintf("exit code %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" && t.Reason != "Completed" {
		s += " (" + t.Reason + ")"
	}
	return s
}

func (p *podObject) condition(kind string) condition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return condition{}
}

// because adds the server's words, on one line and bounded.
func because(message string) string {
	if message = words(message); message == "" {
		return ""
	}
	return ": " + message
}

func words(s string) string {
	const most = 200
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}
