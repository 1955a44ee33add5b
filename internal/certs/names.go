package certs

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"golang.org/x/net/idna"
)

// maxNames bounds how many names a certificate carries: a handshake sends all
// of them, and more than this is a mistake.
const maxNames = 100

// ParseNames checks the names that a daemon's certificate is to carry, and
// gives them as they are written into it: DNS names in lower case and their
// xn-- form, *.NAME for one level below NAME, IPv4 and IPv6 addresses. One
// that is given twice comes once. The error names the first that cannot be.
func ParseNames(given []string) ([]string, error) {
	var names []string
	for _, g := range given {
		name, err := parseName(g)
		if err != nil {
			bad := fmt.Errorf("%q is not a name or address that a certificate can be for: %w", clip(g), err)
			if better := correctedName(g); better != "" {
				return nil, hint.Wrap(bad, "", "give the name alone: "+better)
			}
			return nil, bad
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch {
	case len(names) == 0:
		return nil, hint.New("no name for the daemon is given",
			"give the names and addresses by which clients reach it: berth certs create buildkitd.example.com 192.0.2.7")
	case len(names) > maxNames:
		return nil, fmt.Errorf("%d names are more than the %d that a certificate is made for", len(names), maxNames)
	}
	return names, nil
}

// parseName checks one name.
func parseName(given string) (string, error) {
	switch {
	case given == "":
		return "", errors.New("it is empty")
	case len(given) > 1024:
		return "", errors.New("it is longer than 1024 bytes")
	case strings.Contains(given, "://"):
		return "", errors.New("it is a URL")
	}
	if addr, err := netip.ParseAddr(given); err == nil {
		return parseAddr(addr)
	}
	if strings.HasPrefix(given, "[") {
		return "", errors.New("brackets belong into URLs")
	}
	if host, port, ok := cutPort(given); ok {
		return "", fmt.Errorf("a certificate is for the host %s, whatever the port (%s)", clip(host), port)
	}
	rest, wild := strings.CutPrefix(given, "*.")
	name, err := parseDNS(rest)
	if err == nil && wild {
		name = "*." + name
	}
	if err == nil && len(name) > 253 {
		err = errors.New("it is longer than 253 bytes")
	}
	return name, err
}

func parseAddr(addr netip.Addr) (string, error) {
	switch {
	case addr.Zone() != "":
		return "", errors.New("a certificate cannot be for the zone of an address")
	case addr.IsUnspecified():
		return "", hint.New("a daemon listens there, but no client reaches it by this address",
			"give the address or name that clients use")
	}
	return addr.Unmap().String(), nil
}

func cutPort(s string) (host, port string, ok bool) {
	at := strings.LastIndexByte(s, ':')
	if at < 0 || strings.Trim(s[at+1:], "0123456789") != "" {
		return "", "", false
	}
	return s[:at], s[at+1:], s[at+1:] != ""
}

// parseDNS gives a host's name as it stands in certificates.
func parseDNS(given string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(given, "."))
	if strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f }) {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", errors.New("it is not an international host name")
		}
		name = ascii
	}
	switch {
	case name == "":
		return "", errors.New("it is empty")
	case len(name) > 253:
		return "", errors.New("it is longer than 253 bytes")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "", errors.New("it ends in a number but is not an IPv4 address")
	}
	return name, nil
}

// checkLabel looks at the part between two dots. The underscore is let
// through: Compose services and Windows machines have it.
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("it has an empty part between dots")
	case len(label) > 63:
		return errors.New("it has a part longer than 63 bytes")
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("it has a part that begins or ends with -")
	case strings.Contains(label, "*"):
		return errors.New("* stands only for the whole first part, as in *.example.com")
	}
	for _, r := range label {
		if !isAlnum(r) && r != '-' && r != '_' {
			return fmt.Errorf("it contains %q", r)
		}
	}
	return nil
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// correctedName is the name within what was probably copied from an endpoint
// or a URL; "" when there is none.
func correctedName(given string) string {
	if len(given) > 1024 {
		return ""
	}
	s := given
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s, _, _ = strings.Cut(s, "/")
	s, _, _ = strings.Cut(s, "?")
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		s = s[at+1:]
	}
	if inner, _, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && strings.HasPrefix(s, "[") {
		s = inner
	} else if _, err := netip.ParseAddr(s); err != nil {
		if host, _, ok := cutPort(s); ok {
			s = host
		}
	}
	s, _, _ = strings.Cut(s, "%")
	if name, err := parseName(s); err == nil && s != given {
		return name
	}
	return ""
}

// maxClient bounds a client's name: it is a certificate's common name, which
// ends at 64 bytes, and part of a folder's.
const maxClient = 48

// CheckClient says why name cannot be a client's: it becomes the common name
// of a certificate and part of a folder's name.
func CheckClient(name string) error {
	bad := func(why string) error {
		return hint.New(fmt.Sprintf("a client cannot be called %q: %s", clip(name), why),
			"take letters, digits and . _ - @, such as ci or alice@example.com")
	}
	switch {
	case name == "":
		return bad("the name is empty")
	case len(name) > maxClient:
		return bad(fmt.Sprintf("the name is longer than %d bytes", maxClient))
	}
	for _, r := range name {
		if !isAlnum(r) && !strings.ContainsRune("._-@", r) {
			return bad(fmt.Sprintf("it contains %q", r))
		}
	}
	switch {
	case !isAlnum(rune(name[0])):
		return bad("it does not begin with a letter or digit")
	case !isAlnum(rune(name[len(name)-1])):
		return bad("it does not end with a letter or digit") // Windows drops a folder's last dot
	}
	return nil
}

// ParsePeriod reads a length of time such as 30d, 12h or 1d12h; a day is 24
// hours.
func ParsePeriod(s string) (time.Duration, error) {
	bad := func(why string, hints ...string) (time.Duration, error) {
		return 0, hint.New(fmt.Sprintf("%q %s", clip(s), why), hints...)
	}
	if _, err := strconv.ParseUint(s, 10, 63); err == nil && strings.Trim(s, "0") != "" {
		return bad("has no unit", "for days: "+clip(s)+"d")
	}
	var total time.Duration
	rest := s
	if days, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16) // 65535 days are 179 years
		if err != nil {
			return bad("is not a length of time", "such as 30d or 12h")
		}
		if total, rest = time.Duration(n)*day, after; rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	switch {
	case err != nil, strings.HasPrefix(rest, "+"):
		return bad("is not a length of time", "such as 30d or 12h")
	case d < 0:
		return bad("is negative")
	case total+d < total:
		return bad("is too long")
	}
	return total + d, nil
}

// maxShown bounds how much of what was typed, or of what a file says, gets
// into a sentence.
const maxShown = 80

func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
