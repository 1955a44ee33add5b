package cli

import (
	"slices"
	"testing"
)

func TestBakeShmSize(t *testing.T) {
	a := bakeApp(t.TempDir(), nil)
	inline := "target \"default\" {\n  dockerfile-inline = \"FROM scratch\"\n  shm-size = \"64m\"\n}"
	targets, _ := granting(t, a, bakeOrigin{}, inline, nil, nil)
	if got := targets[0].Request.ShmSize; got != 64<<20 {
		t.Errorf("shm-size: %d", got)
	}
	targets, _ = granting(t, a, bakeOrigin{}, inline, []string{"*.shm-size=128m"}, nil)
	if got := targets[0].Request.ShmSize; got != 128<<20 {
		t.Errorf("--set shm-size: %d", got)
	}
}

func TestBakeNetworkAndHosts(t *testing.T) {
	a := bakeApp(t.TempDir(), nil)
	targets, _ := granting(t, a, bakeOrigin{}, `
target "default" {
  dockerfile-inline = "FROM scratch"
  network = ""
  extra-hosts = { db = "10.0.0.1,10.0.0.2", v6 = "2001:db8::5" }
}`, nil, nil)
	var hosts []string
	for _, h := range targets[0].Request.Hosts {
		hosts = append(hosts, h.Name+"="+h.IP)
	}
	if want := []string{"db=10.0.0.1", "db=10.0.0.2", "v6=2001:db8::5"}; !slices.Equal(hosts, want) {
		t.Errorf("%q, wanted %q", hosts, want)
	}
	if n := targets[0].Request.Network; n != "" {
		t.Errorf("the network is %q", n)
	}
}
