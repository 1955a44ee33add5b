package request

// CacheLimits tells whether the daemon knows limits to its cache, by the space
// that is used or free, and ages when it lists it: v0.17 does.
func (c Capabilities) CacheLimits() bool { return c.Version != "" && atLeast(c.Version, 0, 17) }
