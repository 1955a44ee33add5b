//go:build e2e && !e2ekube && bench && linux

package test

import "testing"

// benchKube is for machines on which the cluster is built; it takes minutes.
func benchKube(*testing.T) []benchPeer { return nil }
