package request

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// addContainers adds what the build's containers get: hosts, network, limits.
func (r Request) addContainers(attrs map[string]string, c Capabilities) error {
	hosts, err := r.hosts(c)
	if err != nil {
		return err
	}
	if len(r.Resources) > 0 && !c.since(0, 31) {
		return hint.New(fmt.Sprintf("--resource needs BuildKit v0.31 or newer, and the daemon is %s", c.name()),
			"leave it out, or limit the daemon itself")
	}
	var ulimits []string
	for _, u := range r.Ulimits {
		ulimits = append(ulimits, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	for key, value := range map[string]string{
		"add-hosts":          strings.Join(hosts, ","),
		"force-network-mode": r.Network,
		"ulimit":             strings.Join(ulimits, ","),
		"cgroup-parent":      r.CgroupParent,
	} {
		if value != "" {
			attrs[key] = value
		}
	}
	if r.ShmSize > 0 {
		attrs["shm-size"] = strconv.FormatInt(r.ShmSize, 10)
	}
	for _, limit := range r.Resources {
		attrs[limit.Key] = limit.Value
	}
	return nil
}

// hosts are the lines of /etc/hosts as the frontend reads them. host-gateway is
// the address that a Docker engine tells of itself.
func (r Request) hosts(c Capabilities) ([]string, error) {
	var out []string
	for _, h := range r.Hosts {
		if h.IP != buildflag.HostGateway {
			out = append(out, h.Name+"="+h.IP)
			continue
		}
		switch {
		case c.Engine == "":
			return nil, noGateway(h, "this daemon")
		case c.HostGateway == "":
			return nil, noGateway(h, c.Engine)
		}
		out = append(out, h.Name+"="+c.HostGateway)
	}
	return out, nil
}

// CheckDriver refuses what the builder's kind alone rules out, before anything
// is contacted. engine tells that one of its nodes is a Docker engine.
func (r Request) CheckDriver(driver string, engine bool) error {
	if engine {
		return nil
	}
	for _, h := range r.Hosts {
		if h.IP == buildflag.HostGateway {
			return noGateway(h, "the "+driver+" driver")
		}
	}
	return nil
}

// noGateway keeps buildx's words for it.
func noGateway(h buildflag.Host, who string) error {
	return hint.New(fmt.Sprintf("--add-host %s=%s: host-gateway is not supported by %s, which has no address to put in its place", h.Name, h.IP, who),
		fmt.Sprintf("give the address that the build is to reach: --add-host %s=IP", h.Name))
}

// entitlements are the rights that the daemon is asked for. A network that
// wants one brings it along, as in buildx.
func (r Request) entitlements(c Capabilities) ([]string, error) {
	for _, e := range r.Entitlements {
		if name, _, _ := strings.Cut(e, "="); name == buildflag.AllowDevice && !c.since(0, 20) {
			return nil, hint.New(fmt.Sprintf("--allow %s needs BuildKit v0.20 or newer, and the daemon is %s", e, c.name()))
		}
	}
	out := slices.Clone(r.Entitlements)
	if r.Network == buildflag.NetworkHost && !slices.Contains(out, buildflag.AllowNetworkHost) {
		out = append(out, buildflag.AllowNetworkHost)
	}
	return out, nil
}
