package request

// CacheLimits tells whether the daemon knows limits to its cache, by the space
// that is used or free, and ages when it lists it: v0.17 does.
func (c Capabilities) CacheLimits() bool { return c.Version != "" && atLeast(c.Version, 0, 17) }

// ActiveBuilds tells whether the daemon says which builds it has at the moment:
// v0.12 does. An older one answers that question with nothing.
func (c Capabilities) ActiveBuilds() bool { return c.since(0, 12) }
