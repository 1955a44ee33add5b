//go:build e2e && e2ekube && linux

package test

import (
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// Each step of the way into a pod, and every way to be wrong about it.
func TestKubeDoctor(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "doctor", "")
	berth := lab.Berth(t).With("KUBECONFIG=" + k.Config(lab.KubeAdmin))
	way := []string{"kubeconfig", "credentials", "cluster", "pod"}

	d := diagnose(t, berth, "kube-pod://doctor")
	d.good(t, append(append(trial(), way...), "exec", "buildctl")...)
	has(t, "pod", d.step(t, "pod").Text, "doctor in namespace default is ready")
	d = diagnose(t, berth, "kube-pod://doctor?via=port-forward")
	d.good(t, append(append(trial(), way...), "port-forward", "port")...)
	diagnose(t, berth, "kube-selector://?selector=pod%3Ddoctor").good(t, "pod")

	diagnose(t, berth, "kube-pod://nosuch").broken(t, "no pod", "pod", "kube-not-found")
	diagnose(t, berth, "kube-selector://?selector=app%3Dnosuch").broken(t, "no pods", "pod", "kube-not-ready")
	diagnose(t, berth, "kube-pod://doctor?via=port-forward&port=9").broken(t, "no port", "port", "kube-port")
	k.Do(t, "", "create", "role", "doctor", "--verb=create", "--resource=pods/portforward")
	k.Do(t, "", "create", "rolebinding", "doctor", "--role=doctor", "--user=forwarder")
	t.Cleanup(func() { k.Do(t, "", "delete", "role/doctor", "rolebinding/doctor") })
	forwarder := berth.With("KUBECONFIG=" + k.Config("forwarder"))
	diagnose(t, forwarder, "kube-pod://doctor").broken(t, "no right to exec", "exec", "kube-forbidden")
	diagnose(t, berth.With("KUBECONFIG=/no/such/config"), "kube-pod://doctor").broken(t, "no kubeconfig", "kubeconfig", "kube-config")
	diagnose(t, forwarder, "kube-pod://doctor?via=port-forward").good(t, "port-forward")
}
