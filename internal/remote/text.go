package remote

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

const (
	maxShown = 60  // bytes of a stranger's banner that a message repeats
	maxText  = 200 // bytes of an error's text
)

// printable makes what a stranger sent fit for one line of a terminal.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
			r = ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			continue
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			return b.String() + "…"
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// remake is the command that gives the node other driver options: set are put
// in, and without a value taken out. A proxy's password is not in it.
func remake(t Target, set map[string]string) string {
	if t.Options.FromEnv {
		return inEnv(set)
	}
	opts := endpoint.Redacted(t.Options.Map())
	if t.Options.TLSDir != "" && (set[endpoint.OptCACert] != "" || set[endpoint.OptCert] != "") {
		inPlaceOfFolder(t.Options, opts)
	}
	maps.Copy(opts, set)
	maps.DeleteFunc(opts, func(_, v string) bool { return v == "" })
	var kv []string
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		field := k + "=" + opts[k]
		if strings.ContainsAny(field, `,"`) {
			field = `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
		}
		kv = append(kv, field)
	}
	cmd := "berth create"
	if t.Builder != "" {
		cmd += " --name " + hint.Quote(t.Builder)
	}
	if t.Node != "" {
		cmd += " --node " + hint.Quote(t.Node)
	}
	cmd += " --driver remote"
	if len(kv) > 0 {
		cmd += " --driver-opt " + hint.Quote(strings.Join(kv, ","))
	}
	return cmd + " " + hint.Quote(t.Endpoint.String())
}

// inPlaceOfFolder names the files of a tlsdir one by one, so that one of them
// can be replaced.
func inPlaceOfFolder(o endpoint.Options, opts map[string]string) {
	delete(opts, endpoint.OptTLSDir)
	where, err := locate(o)
	if err != nil {
		return
	}
	opts[endpoint.OptCACert], opts[endpoint.OptCert], opts[endpoint.OptKey] = where.ca.path, where.cert.path, where.key.path
}

// inEnv is remake for options that the environment gives.
func inEnv(set map[string]string) string {
	var export, unset []string
	for _, option := range slices.Sorted(maps.Keys(set)) {
		switch name := endpoint.EnvName(option); {
		case name == "":
		case set[option] == "":
			unset = append(unset, name)
		default:
			export = append(export, name+"="+hint.Quote(set[option]))
		}
	}
	if len(export) > 0 {
		return "export " + strings.Join(export, " ")
	}
	return "unset " + strings.Join(unset, " ")
}

// withTLS is remake with TLS switched on, by placeholders where nothing is
// known.
func withTLS(t Target) string {
	return remake(t, map[string]string{endpoint.OptCACert: "CA.pem", endpoint.OptCert: "CERT.pem", endpoint.OptKey: "KEY.pem"})
}

// withoutTLS is remake with TLS switched off.
func withoutTLS(t Target) string {
	off := map[string]string{}
	for _, option := range endpoint.TLSOptions() {
		off[option] = ""
	}
	return remake(t, off)
}

// span is a duration for people who compare clocks.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// names lists the names of a certificate: `"a", "b" and 3 more`.
func names(all []string) string {
	const most = 4
	var quoted []string
	for _, n := range all[:min(len(all), most)] {
		quoted = append(quoted, fmt.Sprintf("%q", printable(n, maxShown)))
	}
	s := strings.Join(quoted, ", ")
	if len(all) > most {
		s += fmt.Sprintf(" and %d more", len(all)-most)
	}
	return s
}
