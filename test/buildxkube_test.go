//go:build e2e && e2ekube && linux

package test

import (
	"os"
	"testing"

	"github.com/berthbuild/berth/test/lab"
)

// A builder that buildx made with its kubernetes driver is used through its
// deployment's pod.
func TestBuildxKubernetesBuilder(t *testing.T) {
	k := lab.Kubernetes(t)
	startPod(t, k, "bxk0-pod", "")
	k.Do(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: bxk0}
spec:
  replicas: 1
  selector: {matchLabels: {pod: bxk0-pod}}
  template: {metadata: {labels: {pod: bxk0-pod}}, spec: {containers: [{name: buildkitd, image: x}]}}
`, "apply", "-f", "-")
	t.Cleanup(func() { k.Do(t, "", "delete", "deployment", "bxk0", "--ignore-not-found", "--now") })
	berth := lab.Berth(t)
	instances := join(berth.BuildxConfig, "instances")
	if err := os.MkdirAll(instances, 0o700); err != nil {
		t.Fatal(err)
	}
	stored := `{"Name":"bxk","Driver":"kubernetes","Nodes":[{"Name":"bxk0","Endpoint":"kubernetes:///bxk?deployment=bxk0&kubeconfig=` +
		k.Config(lab.KubeAdmin) + `","Platforms":null,"DriverOpts":{"namespace":"default","replicas":"1"},"Flags":null,"Files":null}],"Dynamic":false}`
	if err := os.WriteFile(join(instances, "bxk"), []byte(stored), 0o600); err != nil {
		t.Fatal(err)
	}
	berth.OK("use", "bxk")
	has(t, "ls", berth.OK("ls").Stdout, "bxk*", "kubernetes", "running", "v0.34.2")
	buildHello(t, berth)
	r := berth.OK("rm", "bxk")
	has(t, "rm", r.Stderr, "bxk removed", "goes on", "kubectl --kubeconfig "+k.Config(lab.KubeAdmin)+" --namespace default delete deployment bxk0")
}
