//go:build e2e && e2ekube && bench && linux

package test

import (
	"path/filepath"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

func benchKube(t *testing.T) []benchPeer {
	t.Helper()
	k := lab.Kubernetes(t)
	startPod(t, k, "bench", "")
	return []benchPeer{{
		Scheme: "kube-pod", Endpoint: "kube-pod://bench", Env: []string{"KUBECONFIG=" + k.Config(lab.KubeAdmin)},
		Path: filepath.Dir(k.Kubectl()), Context: true,
	}}
}
