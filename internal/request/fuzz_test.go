package request

import (
	"testing"

	"github.com/moby/buildkit/client"
)

func FuzzCapabilitiesOf(f *testing.F) {
	for _, s := range []string{"", "v0.34.2", "0.12.5", "v0.13.0-rc1", "v0.0.0+unknown", "v", "..", "v-1.2.3", "v99999999999999999999.1.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := CapabilitiesOf(client.BuildkitVersion{Version: s})
		if c.MultipleOutputs && !c.Attestations {
			t.Errorf("%q: newer than v0.13 and older than v0.11", s)
		}
		if s == "" && c != (Capabilities{}) {
			t.Errorf("no version = %+v", c)
		}
	})
}
