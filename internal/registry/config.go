package registry

import (
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	// configFile is the daemon's configuration among a builder's files, and
	// configDir where all of them are in its container.
	configFile = "buildkitd.toml"
	configDir  = "/etc/buildkit/"
)

// ParseConfig reads what a builder's files say of registries: [registry."HOST"] in its
// buildkitd.toml, with certificates that are among the files. Those that are not are
// the daemon's own, and passed over.
func ParseConfig(files map[string][]byte) (map[string]Host, error) {
	raw, ok := files[configFile]
	if !ok {
		return nil, nil
	}
	var config struct {
		Registry map[string]struct {
			Mirrors  []string `toml:"mirrors"`
			HTTP     *bool    `toml:"http"`
			Insecure bool     `toml:"insecure"`
			CA       []string `toml:"ca"`
			KeyPair  []struct {
				Key  string `toml:"key"`
				Cert string `toml:"cert"`
			} `toml:"keypair"`
		} `toml:"registry"`
	}
	if err := toml.Unmarshal(raw, &config); err != nil {
		return nil, err
	}
	hosts := map[string]Host{}
	for name, c := range config.Registry {
		h := Host{Insecure: c.Insecure, Mirrors: c.Mirrors}
		if c.HTTP != nil {
			if h.Plain = PlainNever; *c.HTTP {
				h.Plain = PlainAlways
			}
		}
		for _, ca := range c.CA {
			if pem, ok := files[strings.TrimPrefix(ca, configDir)]; ok {
				h.RootCAs = append(h.RootCAs, pem)
			}
		}
		for _, pair := range c.KeyPair {
			key, hasKey := files[strings.TrimPrefix(pair.Key, configDir)]
			cert, hasCert := files[strings.TrimPrefix(pair.Cert, configDir)]
			if !hasKey || !hasCert {
				continue
			}
			both, err := tls.X509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("registry %q: its keypair: %w", name, err)
			}
			h.KeyPairs = append(h.KeyPairs, both)
		}
		hosts[name] = h
	}
	return hosts, nil
}
