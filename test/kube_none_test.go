//go:build e2e && !e2ekube && linux

package test

import "testing"

// needsKube is for TestKubeGuide, which is not here.
func needsKube(*testing.T, string) []string { return nil }
