package schemes

import (
	"testing"

	"github.com/berthbuild/berth/internal/dial"
)

func TestAllAreCompleteAndDistinct(t *testing.T) {
	all := All(dial.Env{})
	seen := map[string]bool{}
	for _, s := range all {
		if s.Name == "" || s.Summary == "" || s.Dial == nil {
			t.Errorf("scheme %+v is incomplete", s)
		}
		if seen[s.Name] {
			t.Errorf("scheme %s is listed twice", s.Name)
		}
		seen[s.Name] = true
		if got, ok := all.Lookup(s.Name); !ok || got.Name != s.Name {
			t.Errorf("Lookup(%q) = %q, %v", s.Name, got.Name, ok)
		}
	}
	for _, name := range []string{"unix", "tcp", "ssh", "docker-container", "kube-pod", "kube-selector"} {
		if !seen[name] {
			t.Errorf("scheme %s is missing", name)
		}
	}
	if _, ok := all.Lookup("gopher"); ok {
		t.Error("an unknown scheme was found")
	}
}
