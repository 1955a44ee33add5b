package cli

import (
	"slices"

	"github.com/spf13/pflag"
)

// ignoredFlag is one of docker's first builder that BuildKit has no use for. Old
// command lines have them, and buildx takes them too.
type ignoredFlag struct {
	name, short string
	zero        any    // of the flag's type; a bool needs no value
	instead     string // what is lost and what to do; empty where nothing is lost
}

func ignoredFlags() []ignoredFlag {
	resource := func(what string) string { return "limit the containers with --resource " + what }
	return []ignoredFlag{
		{"rm", "", true, ""},
		{"force-rm", "", false, ""},
		{"compress", "", false, ""},
		{"squash", "", false, "use a multi-stage Dockerfile to make fewer layers"},
		{"isolation", "", "", "containers are isolated as the daemon is set up"},
		{"security-opt", "", []string{}, `"RUN --security=insecure" and --allow security.insecure are for that`},
		{"memory", "m", "", resource("memory=2g")},
		{"memory-swap", "", "", resource("memory-swap=3g")},
		{"cpu-shares", "c", int64(0), resource("cpu-shares=512")},
		{"cpu-period", "", int64(0), resource("cpu-period=100000")},
		{"cpu-quota", "", int64(0), resource("cpu-quota=50000")},
		{"cpuset-cpus", "", "", resource("cpuset-cpus=0-1")},
		{"cpuset-mems", "", "", resource("cpuset-mems=0")},
	}
}

// addIgnoredFlags adds them. Of docker's plugin, -c is docker's own.
func addIgnoredFlags(f *pflag.FlagSet, asPlugin bool) {
	for _, i := range ignoredFlags() {
		if asPlugin && i.short == "c" {
			i.short = ""
		}
		switch zero := i.zero.(type) {
		case bool:
			f.BoolP(i.name, i.short, zero, "has no effect")
		case string:
			f.StringP(i.name, i.short, zero, "has no effect")
		case int64:
			f.Int64P(i.name, i.short, zero, "has no effect")
		case []string:
			f.StringArrayP(i.name, i.short, zero, "has no effect")
		}
		hideFlag(f.Lookup(i.name))
	}
}

// warnIgnored says which of the flags that were given are lost, and what is there
// instead.
func (a *app) warnIgnored(given map[string]bool) {
	for _, i := range slices.DeleteFunc(ignoredFlags(), func(i ignoredFlag) bool { return !given[i.name] || i.instead == "" }) {
		a.warn("--%s has no effect with BuildKit: %s", i.name, i.instead)
	}
}
