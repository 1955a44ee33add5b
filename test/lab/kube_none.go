//go:build e2e && !e2ekube && linux

package lab

// kubeShared is empty without the build tag e2ekube.
type kubeShared struct{}
