package request

import (
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
)

// Capabilities is what a daemon can do, decided once, from the version that it
// told when it was connected.
type Capabilities struct {
	Version         string // as the daemon says it; "" from daemons older than v0.11
	Attestations    bool   // provenance and SBOM, v0.11
	History         bool   // build records, v0.11
	MultipleOutputs bool   // several outputs in one build, v0.13
	GitQuery        bool   // Git URLs with ?NAME=VALUE, v0.24

	// Engine is the Docker engine that the daemon is a part of, as it calls
	// itself; "" for any other daemon. Such a one keeps the images that it
	// builds. See EngineCapabilities.
	Engine string
	// HostGateway is the address by which a build reaches the engine's machine,
	// where the engine tells it.
	HostGateway string
	// ContainerdStore: the engine keeps its images in containerd, and so can do
	// what any BuildKit can. Otherwise they are in a graph driver.
	ContainerdStore bool
}

// CapabilitiesOf reads a daemon's version. A version that is no number, as
// development builds have, counts as new: such a daemon answers for itself. No
// version at all is a daemon from before there was a way to ask.
func CapabilitiesOf(v client.BuildkitVersion) Capabilities {
	return Capabilities{
		Version:         v.Version,
		Attestations:    v.Version != "" && atLeast(v.Version, 0, 11),
		History:         v.Version != "" && atLeast(v.Version, 0, 11),
		MultipleOutputs: v.Version != "" && atLeast(v.Version, 0, 13),
		GitQuery:        v.Version != "" && atLeast(v.Version, 0, 24),
	}
}

// since tells whether the daemon is of a BuildKit version or newer.
func (c Capabilities) since(major, minor int) bool {
	return c.Version != "" && atLeast(c.Version, major, minor)
}

// name is the daemon's version for a sentence.
func (c Capabilities) name() string {
	switch {
	case c.Version == "" && c.Engine != "":
		return "the BuildKit of " + c.Engine
	case c.Version == "":
		return "BuildKit older than v0.11"
	}
	return "BuildKit " + c.Version
}

// atLeast compares "v0.34.2", "0.34.2-rc1" and the like by their first two
// numbers. Unreadable, and the 0.0.0 of a build without a tag, are true.
func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 3 {
		return true
	}
	gotMajor, err1 := strconv.Atoi(parts[0])
	gotMinor, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil || gotMajor < 0 || gotMinor < 0 {
		return true
	}
	if gotMajor == 0 && gotMinor == 0 {
		return true
	}
	return gotMajor > major || (gotMajor == major && gotMinor >= minor)
}
