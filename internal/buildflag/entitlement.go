package buildflag

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// The rights that --allow grants.
const (
	AllowNetworkHost      = "network.host"
	AllowSecurityInsecure = "security.insecure"
	AllowDevice           = "device"
	AllowLocalDelete      = "buildx.local.delete"
)

// Allowed is what --allow grants.
type Allowed struct {
	// Daemon are the rights that the daemon is asked for, as BuildKit writes
	// them, each once.
	Daemon []string
	// LocalDelete: an output with mode=delete may remove files outside of the
	// working directory. No daemon is told of it.
	LocalDelete bool
}

// ParseAllow reads the values of --allow.
func ParseAllow(vals []string) (Allowed, error) {
	var out Allowed
	for _, v := range vals {
		if v == AllowLocalDelete {
			out.LocalDelete = true
			continue
		}
		if err := checkRight(v); err != nil {
			return Allowed{}, hint.Wrap(err, "--allow "+shown(v),
				"the rights are network.host, security.insecure, device[=NAME[,alias=NAME]], buildx.local.delete")
		}
		if !slices.Contains(out.Daemon, v) {
			out.Daemon = append(out.Daemon, v)
		}
	}
	return out, nil
}

func checkRight(s string) error {
	switch s {
	case "":
		return errors.New("it is empty")
	case AllowNetworkHost, AllowSecurityInsecure, AllowDevice:
		return nil
	}
	device, ok := strings.CutPrefix(s, AllowDevice+"=")
	if !ok {
		return errors.New("there is no such right")
	}
	return checkDevice(device)
}

// checkDevice reads NAME[,alias=NAME]. The name is of the Container Device
// Interface and has a "=" of its own: vendor.com/class=name.
func checkDevice(s string) error {
	parts, err := fields(s)
	if err != nil {
		return err
	}
	if parts[0] == "" {
		return errors.New("the name of the device is empty")
	}
	for i, part := range parts[1:] {
		key, value, ok := strings.Cut(part, "=")
		switch {
		case !ok || key != "alias":
			return fmt.Errorf("%s is not alias=NAME", shown(part))
		case value == "":
			return errors.New("the alias is empty")
		case i > 0:
			return errors.New("the alias is given twice")
		}
	}
	return nil
}
