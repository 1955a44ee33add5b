package request

import "github.com/berthbuild/berth/internal/buildflag"

// requestPrefix stands before the names of all calls on the wire.
const requestPrefix = "frontend."

// callCaps has a frontend that takes no calls say so, where it would build
// otherwise; "+forward" lets one that another frontend hands over to decide.
const callCaps = "moby.buildkit.frontend.subrequests+forward"

// WithCall is the question c about this build, in place of the build. What
// only a result needs is left out: where it goes, what is attested of it, the
// caches that it would fill, and the rights that its steps would want. So a
// question can be put to the same line that builds.
func (r Request) WithCall(c buildflag.Call) Request {
	out := r.clone()
	out.Call = c
	if c.IsBuild() {
		return out
	}
	out.Outputs, out.Annotations, out.Entitlements = nil, nil, nil
	out.Attests, out.NoProvenance = nil, true
	out.CacheFrom, out.CacheTo = nil, nil
	return out
}

// callAttrs asks the frontend for the call.
func (r Request) callAttrs(attrs map[string]string) {
	if r.Call.IsBuild() {
		return
	}
	method := r.Call.Method
	if r.Call.IsCheck() {
		method = "lint"
	}
	attrs["requestid"] = requestPrefix + method
	attrs["frontend.caps"] = callCaps
}

// Name is how a sentence calls the daemon: "BuildKit v0.34.2".
func (c Capabilities) Name() string { return c.name() }
