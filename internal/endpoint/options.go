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
	OptTLSDir         = "tlsdir"
	OptCA             = "ca"
	OptServerName     = "servername"
	OptProxy          = "proxy"
	OptDefaultLoad    = "default-load"
	OptConnectTimeout = "connect-timeout"
	OptPool           = "pool"
	OptResolve        = "resolve"
	OptMaxBuilds      = "max-builds"
	OptQueueTimeout   = "queue-timeout"
	OptRetries        = "retries"
	OptDrained        = "drained"
)

// Pool is how a build's daemon is chosen out of several that could build it.
type Pool string

// The ways to choose.
const (
	PoolAffinity  Pool = "affinity"   // the same work on the same daemon, which has it in its cache
	PoolLeastBusy Pool = "least-busy" // the one with the fewest builds
	PoolFirst     Pool = "first"      // the first that can, as docker buildx does
)

// ResolveAll is the one value of OptResolve: every address of the endpoint's name
// is a daemon of its own.
const ResolveAll = "all"

// The bounds of what is counted.
const (
	maxMaxBuilds = 10_000
	maxRetries   = 10
)

// CASystem is the one value of OptCA: trust the CAs that the system trusts.
const CASystem = "system"

// Options is how to talk to an endpoint. CACert, Cert and Key are paths of
// PEM files, TLSDir is that of a folder with all three; they are not opened
// here.
type Options struct {
	CACert         string
	Cert           string
	Key            string
	TLSDir         string        // in place of the three
	SystemCA       bool          // trust the system's CAs, besides those of CACert or TLSDir
	ServerName     string        // "" means the endpoint's host
	Proxy          Proxy         // tcp only
	DefaultLoad    bool          // load a result into Docker when no output was asked for
	ConnectTimeout time.Duration // 0 means the default budget

	Pool         Pool          // "" means that nothing was said
	ResolveAll   bool          // tcp only: each address of the name is a daemon
	MaxBuilds    int           // how many builds a daemon may have at once; 0 is any number
	QueueTimeout time.Duration // how long to wait for a daemon that has room; 0 means the default
	Retries      Count         // how often a build is solved again whose daemon is lost
	Drained      bool          // it gets no new builds

	// Inline is certificates and key as text, in place of the files. It comes
	// from the environment only, and Map leaves it out: it is never stored.
	Inline Inline
	// FromEnv says that files and Inline come from the variables of TLSFromEnv,
	// so that messages name those.
	FromEnv bool

	// loadOff remembers default-load=false, which is stored as typed, while
	// the zero value means that nothing was said.
	loadOff bool
}

// Count is a number that may not have been said. The zero value was not.
type Count struct {
	n    int
	said bool
}

// Times is a Count that was said.
func Times(n int) Count { return Count{n, true} }

// Said tells whether there is a number.
func (c Count) Said() bool { return c.said }

// Or is the number, or another one where none was said.
func (c Count) Or(other int) int {
	if c.said {
		return c.n
	}
	return other
}

// Inline is PEM text.
type Inline struct{ CACert, Cert, Key Secret }

// TLS tells whether the connection is encrypted: any of the TLS options
// switches it on.
func (o Options) TLS() bool { return o.identity() || o.ServerName != "" }

// identity tells whether anything was said about whom to trust, or who we are.
func (o Options) identity() bool {
	return o.CACert != "" || o.Cert != "" || o.Key != "" || o.TLSDir != "" || o.SystemCA || o.Inline != Inline{}
}

// ServerNameFor is the name that the daemon's certificate must be valid for:
// servername, otherwise the endpoint's host without a final dot.
func (o Options) ServerNameFor(e Endpoint) string {
	if o.ServerName != "" {
		return o.ServerName
	}
	return strings.TrimSuffix(e.Hostname(), ".")
}

// Map is the stored form: only what was set, and with a proxy's password in it;
// see Redacted for what is shown. It is never nil.
func (o Options) Map() map[string]string {
	m := make(map[string]string)
	for k, v := range map[string]string{
		OptCACert: o.CACert, OptCert: o.Cert, OptKey: o.Key, OptTLSDir: o.TLSDir,
		OptServerName: o.ServerName, OptProxy: o.Proxy.stored(),
	} {
		if v != "" {
			m[k] = v
		}
	}
	if o.SystemCA {
		m[OptCA] = CASystem
	}
	if o.DefaultLoad || o.loadOff {
		m[OptDefaultLoad] = strconv.FormatBool(o.DefaultLoad)
	}
	if o.ConnectTimeout > 0 {
		m[OptConnectTimeout] = o.ConnectTimeout.String()
	}
	if o.Pool != "" {
		m[OptPool] = string(o.Pool)
	}
	if o.ResolveAll {
		m[OptResolve] = ResolveAll
	}
	if o.MaxBuilds > 0 {
		m[OptMaxBuilds] = strconv.Itoa(o.MaxBuilds)
	}
	if o.QueueTimeout > 0 {
		m[OptQueueTimeout] = o.QueueTimeout.String()
	}
	if o.Drained {
		m[OptDrained] = "true"
	}
	if o.Retries.said {
		m[OptRetries] = strconv.Itoa(o.Retries.n)
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
				return nil, hint.New(fmt.Sprintf("driver option %q is not of the form name=value", masked(field)),
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
		return hint.New(fmt.Sprintf("driver options %q: %s", masked(flag), why),
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
		if e.Scheme != SchemeTCP && key == OptProxy {
			return Options{}, noProxy(e)
		}
		if e.Scheme != SchemeTCP && key == OptResolve {
			return Options{}, hint.New(fmt.Sprintf("driver option %q is for tcp:// endpoints, not for %s://", OptResolve, e.Scheme),
				"leave it out: the ready pods behind a Kubernetes endpoint are all used as it is")
		}
	}
	switch {
	case o.TLSDir != "" && (o.CACert != "" || o.Cert != "" || o.Key != ""):
		return Options{}, hint.New(`driver option "tlsdir" stands for "cacert", "cert" and "key", and cannot be given together with one of them`,
			"leave tlsdir out, or the others; with tlsdir, ca=system trusts the system's CAs too")
	case o.Cert != "" && o.Key == "":
		return Options{}, hint.New(`driver option "cert" needs "key" too`, "--driver-opt cert=CERT.pem,key=KEY.pem")
	case o.Key != "" && o.Cert == "":
		return Options{}, hint.New(`driver option "key" needs "cert" too`, "--driver-opt cert=CERT.pem,key=KEY.pem")
	case o.ResolveAll && !o.Proxy.IsZero():
		return Options{}, hint.New(`driver options "resolve" and "proxy" exclude each other: it is the proxy that resolves the name`,
			"leave one of them out")
	}
	return o, nil
}

// OptionNames are the names of all driver options.
func OptionNames() []string {
	return append(TLSOptions(), OptProxy, OptDefaultLoad, OptConnectTimeout, OptPool, OptResolve, OptMaxBuilds, OptQueueTimeout, OptRetries, OptDrained)
}

// TLSOptions are the names of the options that switch TLS on.
func TLSOptions() []string {
	return []string{OptCACert, OptCert, OptKey, OptTLSDir, OptCA, OptServerName}
}

func isTLS(key string) bool { return slices.Contains(TLSOptions(), key) }

// noProxy refuses a proxy where there is no connection for it to make.
func noProxy(e Endpoint) error {
	var hints []string
	switch e.Scheme {
	case SchemeSSH:
		hints = []string{"ssh goes through others by its own configuration: ProxyJump in ~/.ssh/config"}
	case SchemeKubePod, SchemeKubeDeployment, SchemeKubeStatefulSet, SchemeKubeService, SchemeKubeSelector:
		hints = []string{"a cluster's proxy is set in the kubeconfig: proxy-url"}
	default:
		hints = []string{"leave it out, or use a tcp:// endpoint"}
	}
	return hint.New(fmt.Sprintf("driver option %q is for tcp:// endpoints, not for %s://", OptProxy, e.Scheme), hints...)
}

func (o *Options) set(key, value string) error {
	bad := func(why string, hints ...string) error {
		return hint.New(fmt.Sprintf("driver option %q %s", key, why), hints...)
	}
	known := OptionNames()
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
	case OptTLSDir:
		o.TLSDir = value
	case OptCA:
		if value != CASystem {
			return bad(fmt.Sprintf("knows only the value %q", CASystem), "a CA of your own is named by its file: "+OptCACert+"=CA.pem")
		}
		o.SystemCA = true
	case OptProxy:
		p, err := ParseProxy(value)
		if err != nil {
			return hint.Wrap(err, fmt.Sprintf("driver option %q", key))
		}
		o.Proxy = p
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
	case OptConnectTimeout, OptQueueTimeout:
		d, err := parseTimeout(key, value)
		if err != nil {
			return hint.Wrap(err, fmt.Sprintf("driver option %q", key))
		}
		if key == OptQueueTimeout {
			o.QueueTimeout = d
			return nil
		}
		o.ConnectTimeout = d
	case OptDrained:
		on, err := strconv.ParseBool(value)
		if err != nil {
			return bad(fmt.Sprintf("must be true or false, not %q", clip(value)))
		}
		o.Drained = on
	case OptPool:
		if o.Pool = Pool(value); !slices.Contains([]Pool{PoolAffinity, PoolLeastBusy, PoolFirst}, o.Pool) {
			return bad(fmt.Sprintf("must be %s, %s or %s, not %q", PoolAffinity, PoolLeastBusy, PoolFirst, clip(value)))
		}
	case OptResolve:
		if value != ResolveAll {
			return bad(fmt.Sprintf("knows only the value %q", ResolveAll), "leave it out to use the first address that answers")
		}
		o.ResolveAll = true
	case OptMaxBuilds:
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxMaxBuilds {
			return bad(fmt.Sprintf("must be a number from 1 to %d, not %q", maxMaxBuilds, clip(value)), "leave it out for no limit")
		}
		o.MaxBuilds = n
	case OptRetries:
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > maxRetries {
			return bad(fmt.Sprintf("must be a number from 0 to %d, not %q", maxRetries, clip(value)))
		}
		o.Retries = Times(n)
	}
	return nil
}

func parseTimeout(key, value string) (time.Duration, error) {
	if _, err := strconv.ParseUint(value, 10, 63); err == nil {
		if strings.Trim(value, "0") == "" {
			return 0, errors.New("must be more than 0")
		}
		return 0, hint.New(fmt.Sprintf("%q has no unit", clip(value)), key+"="+clip(value)+"s")
	}
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return 0, hint.New(fmt.Sprintf("%q is not a duration", clip(value)), key+"=20s")
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
	return hint.New(fmt.Sprintf("driver option %q is unknown", masked(key)), remedy)
}

// masked is clip for what may hold a proxy's password: what stands before the
// last @ is left out.
func masked(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		s = "…" + s[i:]
	}
	return clip(s)
}

func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
