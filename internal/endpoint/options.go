package endpoint

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/berthbuild/berth/internal/hint"
)

// The driver options' names, as typed and as stored.
const (
	OptCACert         = "cacert"
	OptCert           = "cert"
	OptKey            = "key"
	OptServerName     = "servername"
	OptDefaultLoad    = "default-load"
	OptConnectTimeout = "connect-timeout"
)

// Options is how to talk to an endpoint. CACert, Cert and Key are paths of
// PEM files; they are not opened here.
type Options struct {
	CACert         string
	Cert           string
	Key            string
	ServerName     string        // "" means the endpoint's host
	DefaultLoad    bool          // load a result into Docker when no output was asked for
	ConnectTimeout time.Duration // 0 means the default budget

	// loadOff remembers default-load=false, which is stored as typed, while
	// the zero value means that nothing was said.
	loadOff bool
}

// TLS tells whether the connection is encrypted: any of the four TLS options
// switches it on.
func (o Options) TLS() bool {
	return o.CACert != "" || o.Cert != "" || o.Key != "" || o.ServerName != ""
}

// ServerNameFor is the name that the daemon's certificate must be valid for:
// servername, otherwise the endpoint's host without a final dot.
func (o Options) ServerNameFor(e Endpoint) string {
	if o.ServerName != "" {
		return o.ServerName
	}
	return strings.TrimSuffix(e.Hostname(), ".")
}

// Map is the stored form: only what was set. It is never nil.
func (o Options) Map() map[string]string {
	m := make(map[string]string)
	for k, v := range map[string]string{OptCACert: o.CACert, OptCert: o.Cert, OptKey: o.Key, OptServerName: o.ServerName} {
		if v != "" {
			m[k] = v
		}
	}
	if o.DefaultLoad || o.loadOff {
		m[OptDefaultLoad] = strconv.FormatBool(o.DefaultLoad)
	}
	if o.ConnectTimeout > 0 {
		m[OptConnectTimeout] = o.ConnectTimeout.String()
	}
	return m
}

// SplitOptions reads the values of --driver-opt: "k=v,k=v", or repeated, or
// both. A field with a comma in it is quoted as a whole, as in CSV:
// "cacert=/a,b",cert=/c. The names are not looked at; see ParseOptions.
func SplitOptions(flags []string) (map[string]string, error) {
	all := make(map[string]string)
	for _, flag := range flags {
		fields, err := splitCSV(flag)
		if err != nil {
			return nil, err
		}
		for _, field := range fields {
			key, value, ok := strings.Cut(field, "=")
			key = strings.TrimSpace(key)
			if !ok || key == "" {
				return nil, hint.New(fmt.Sprintf("driver option %q is not of the form name=value", clip(field)),
					"a value with a comma is quoted as a whole: --driver-opt '\"cacert=/a,b/ca.pem\",cert=…'")
			}
			if old, dup := all[key]; dup && old != value {
				return nil, fmt.Errorf("driver option %q is given twice with different values", clip(key))
			}
			all[key] = value
		}
	}
	return all, nil
}

func splitCSV(flag string) ([]string, error) {
	if flag == "" { // an unset variable in a script
		return nil, nil
	}
	bad := func(why string) error {
		return hint.New(fmt.Sprintf("driver options %q: %s", clip(flag), why),
			"quotes go around a whole field: --driver-opt '\"cacert=/a,b/ca.pem\",cert=…'")
	}
	if strings.ContainsAny(flag, "\r\n\x00") {
		return nil, bad("contains a line break or NUL")
	}
	r := csv.NewReader(strings.NewReader(flag))
	fields, err := r.Read()
	if err != nil {
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, bad(err.Error())
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		return nil, bad("has more than one line")
	}
	return fields, nil
}

// ParseOptions checks stored or typed options against the endpoint that they
// are for. The error names the option.
func ParseOptions(e Endpoint, kv map[string]string) (Options, error) {
	var o Options
	for _, key := range slices.Sorted(maps.Keys(kv)) {
		if err := o.set(key, kv[key]); err != nil {
			return Options{}, err
		}
		if e.Scheme != SchemeTCP && isTLS(key) {
			return Options{}, hint.New(fmt.Sprintf("driver option %q is for TLS, which a %s:// endpoint does not speak", key, e.Scheme),
				"leave it out, or use a tcp:// endpoint")
		}
	}
	switch {
	case o.Cert != "" && o.Key == "":
		return Options{}, hint.New(`driver option "cert" needs "key" too`, "--driver-opt cert=CERT.pem,key=KEY.pem")
	case o.Key != "" && o.Cert == "":
		return Options{}, hint.New(`driver option "key" needs "cert" too`, "--driver-opt cert=CERT.pem,key=KEY.pem")
	}
	return o, nil
}

func isTLS(key string) bool {
	return key == OptCACert || key == OptCert || key == OptKey || key == OptServerName
}

func (o *Options) set(key, value string) error {
	bad := func(why string, hints ...string) error {
		return hint.New(fmt.Sprintf("driver option %q %s", key, why), hints...)
	}
	known := []string{OptCACert, OptCert, OptKey, OptServerName, OptDefaultLoad, OptConnectTimeout}
	switch {
	case !slices.Contains(known, key):
		return unknownOption(key, known)
	case value == "":
		return bad("is empty")
	case len(value) > maxLen:
		return bad(fmt.Sprintf("is longer than %d bytes", maxLen))
	case strings.ContainsFunc(value, unicode.IsControl):
		return bad("contains a control character")
	}
	switch key {
	case OptCACert:
		o.CACert = value
	case OptCert:
		o.Cert = value
	case OptKey:
		o.Key = value
	case OptServerName:
		if err := checkServerName(value); err != nil {
			return bad(fmt.Sprintf("is not a DNS name or IP address: %v", err), serverNameHint(value)...)
		}
		o.ServerName = value
	case OptDefaultLoad:
		on, err := strconv.ParseBool(value)
		if err != nil {
			return bad(fmt.Sprintf("must be true or false, not %q", clip(value)))
		}
		o.DefaultLoad, o.loadOff = on, !on
	case OptConnectTimeout:
		d, err := parseTimeout(value)
		if err != nil {
			return hint.Wrap(err, fmt.Sprintf("driver option %q", key))
		}
		o.ConnectTimeout = d
	}
	return nil
}

func parseTimeout(value string) (time.Duration, error) {
	if _, err := strconv.ParseUint(value, 10, 63); err == nil {
		if strings.Trim(value, "0") == "" {
			return 0, errors.New("must be more than 0")
		}
		return 0, hint.New(fmt.Sprintf("%q has no unit", clip(value)), OptConnectTimeout+"="+clip(value)+"s")
	}
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return 0, hint.New(fmt.Sprintf("%q is not a duration", clip(value)), OptConnectTimeout+"=20s")
	case d <= 0:
		return 0, errors.New("must be more than 0")
	}
	return d, nil
}

// serverNameHint corrects what was probably copied from an address.
func serverNameHint(value string) []string {
	if e, err := parseAuthority(value); err == nil {
		return []string{OptServerName + "=" + e.Hostname()}
	}
	if host, err := parseHost(value); err == nil {
		host, _, _ = strings.Cut(host, "%")
		return []string{OptServerName + "=" + host}
	}
	return nil
}

func unknownOption(key string, known []string) error {
	remedy := "known are: " + strings.Join(known, ", ")
	plain := strings.NewReplacer("-", "", "_", "", "tls", "", ".", "")
	for _, k := range known {
		if plain.Replace(strings.ToLower(key)) == plain.Replace(k) {
			remedy = "did you mean " + k + "?"
		}
	}
	return hint.New(fmt.Sprintf("driver option %q is unknown", clip(key)), remedy)
}

func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
