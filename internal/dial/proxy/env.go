package proxy

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// Resolve is p itself, unless it is the environment's: then what HTTPS_PROXY
// names, or ALL_PROXY where that is not set, and no proxy for what NO_PROXY
// leaves out and for loopback. Small letters will do too. The error names the
// variable and never what is in it.
func Resolve(p endpoint.Proxy, e endpoint.Endpoint, env dial.Env) (endpoint.Proxy, error) {
	if p.Kind != endpoint.ProxyEnv {
		return p, nil
	}
	name, value := first(env, "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
	if value == "" {
		return endpoint.Proxy{}, nil
	}
	_, except := first(env, "NO_PROXY", "no_proxy")
	rules := httpproxy.Config{HTTPSProxy: "http://proxy.invalid", NoProxy: except}
	to := &url.URL{Scheme: "https", Host: net.JoinHostPort(strings.TrimSuffix(e.Hostname(), "."), e.Port)}
	if use, err := rules.ProxyFunc()(to); err == nil && use == nil {
		return endpoint.Proxy{}, nil
	}
	if !strings.Contains(value, "://") { // as everybody takes it
		value = endpoint.ProxyHTTP + "://" + value
	}
	p, err := endpoint.ParseProxy(value)
	if err != nil {
		return endpoint.Proxy{}, &dial.Error{
			Class: dial.ProxyConfig, Text: fmt.Sprintf("the variable %s names no proxy: %v", name, err), Err: err,
			Tries: append(hint.Of(err), "correct "+name+", or take the driver option proxy=env out"),
		}
	}
	return p, nil
}

// first is the first variable that is set to something.
func first(env dial.Env, names ...string) (name, value string) {
	for _, name := range names {
		if v := strings.TrimSpace(env.Getenv(name)); v != "" {
			return name, v
		}
	}
	return "", ""
}
