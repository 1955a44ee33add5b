package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// parseHost checks and normalises a DNS name, an IPv4 address, or an IPv6
// address in brackets.
func parseHost(host string) (string, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		return parseIPv6(strings.TrimSuffix(inner, "]"))
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		return addr.String(), nil
	}
	if err := checkDNSName(host); err != nil {
		return "", fmt.Errorf("the host %q is not a name or address: %w", clip(host), err)
	}
	return strings.ToLower(host), nil
}

func parseIPv6(text string) (string, error) {
	addr, zone, hasZone := strings.Cut(text, "%")
	ip, err := netip.ParseAddr(addr)
	if err != nil || !ip.Is6() {
		return "", fmt.Errorf("%q is not an IPv6 address", clip(addr))
	}
	if !hasZone {
		return ip.String(), nil
	}
	// In a URL the per cent sign itself is written %25; what people type is
	// the bare one. A zone of just "25" is an interface's number.
	if zone != "25" {
		zone = strings.TrimPrefix(zone, "25")
	}
	if !zoneSyntax(zone) {
		return "", fmt.Errorf("%q is not a zone of an IPv6 address", clip(zone))
	}
	if ip.Is4In6() {
		return "", errors.New("an IPv4 address within IPv6 cannot have a zone")
	}
	return ip.String() + "%" + zone, nil
}

// zoneSyntax admits the names that network interfaces have.
func zoneSyntax(zone string) bool {
	for _, r := range zone {
		if !nameRune(r) && r != '.' && r != '~' {
			return false
		}
	}
	return zone != "" && len(zone) <= 64
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// checkDNSName says why name cannot be a host's name. The underscore is let
// through: Compose services and Windows machines have it.
func checkDNSName(name string) error {
	name = strings.TrimSuffix(name, ".")
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > 253:
		return errors.New("it is longer than 253 bytes")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		// Resolvers differ in what they make of 127.1 or 2130706433.
		return errors.New("it ends in a number but is not an IPv4 address")
	}
	return nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("it has an empty part between dots")
	case len(label) > 63:
		return errors.New("it has a part longer than 63 bytes")
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("it has a part that begins or ends with -")
	}
	for _, r := range label {
		if r > 0x7f {
			return fmt.Errorf("it contains %q; an international name is written in its xn-- form", r)
		}
		if !nameRune(r) {
			return fmt.Errorf("it contains %q", r)
		}
	}
	return nil
}

// checkServerName says why name cannot be the name in a certificate.
func checkServerName(name string) error {
	if _, err := netip.ParseAddr(name); err == nil && !strings.Contains(name, "%") {
		return nil
	}
	return checkDNSName(name)
}
