package dockerconfig

import "strings"

// BuildProxies are the proxies that docker's configuration has for the
// containers of the engine in force, by the names of their build arguments:
// HTTP_PROXY, HTTPS_PROXY, FTP_PROXY, NO_PROXY, ALL_PROXY. An engine without
// proxies of its own has the default ones. There may be passwords in them.
func (c *Config) BuildProxies() map[string]string {
	out := map[string]string{}
	if len(c.file.Proxies) == 0 {
		return out
	}
	for name, value := range c.file.ParseProxyConfig(c.currentHost(), nil) {
		if value != nil && name == strings.ToUpper(name) {
			out[name] = *value
		}
	}
	return out
}

// currentHost is the host of the engine in force; "" where it cannot be told,
// which is for whoever wants the engine to complain of.
func (c *Config) currentHost() string {
	name := c.ContextName()
	if name == DefaultContext {
		host, _ := c.defaultHost()
		return host
	}
	ep, _ := c.storedEndpoint(name)
	return ep.Host
}
