package buildflag

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"

	"github.com/berthbuild/berth/internal/hint"
)

// HostGateway is the IP of a Host that stands for the machine of a Docker
// engine; whoever knows the engine replaces it.
const HostGateway = "host-gateway"

// ParseHosts reads the values of --add-host, each NAME=IP or NAME:IP, or several
// with commas between them. An IPv6 address may stand in square brackets. A name
// may have several addresses.
func ParseHosts(vals []string) ([]Host, error) {
	var out []Host
	for _, v := range vals {
		parts, err := fields(v)
		if err != nil {
			return nil, hostError(err, v)
		}
		for _, part := range parts {
			h, err := parseHost(part)
			if err != nil {
				return nil, hostError(err, part)
			}
			out = append(out, h)
		}
	}
	return out, nil
}

func hostError(err error, value string) error {
	return hint.Wrap(err, "--add-host "+shown(value), "write --add-host NAME=IP, such as db=10.0.0.5 or db=[2001:db8::5]")
}

func parseHost(s string) (Host, error) {
	if s == "" {
		return Host{}, errors.New("it is empty")
	}
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	switch {
	case !ok:
		return Host{}, errors.New("it is not NAME=IP")
	case name == "":
		return Host{}, errors.New("the name is empty")
	case strings.ContainsFunc(name, badInHostName):
		return Host{}, errors.New("the name has a character that /etc/hosts cannot carry")
	case ip == "":
		return Host{}, errors.New("the address is empty")
	case ip == HostGateway:
		return Host{Name: name, IP: ip}, nil
	}
	bare := ip
	if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
		bare = ip[1 : len(ip)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil || addr.Zone() != "" {
		return Host{}, errors.New(shown(ip) + " is not an IP address")
	}
	return Host{Name: name, IP: addr.String()}, nil
}

// badInHostName tells what would become another line, another field or a
// comment: in /etc/hosts, or in the list that the frontend reads.
func badInHostName(r rune) bool {
	return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar || strings.ContainsRune(`,"'#=`, r)
}
