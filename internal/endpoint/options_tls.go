package endpoint

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// The variables that give TLS options to endpoints for which no builder was
// made. What ends in PEM holds the text itself, the others hold paths.
const (
	EnvCACert     = "BERTH_TLS_CACERT"
	EnvCert       = "BERTH_TLS_CERT"
	EnvKey        = "BERTH_TLS_KEY"
	EnvDir        = "BERTH_TLS_DIR"
	EnvServerName = "BERTH_TLS_SERVERNAME"
	EnvCACertPEM  = "BERTH_TLS_CACERT_PEM"
	EnvCertPEM    = "BERTH_TLS_CERT_PEM"
	EnvKeyPEM     = "BERTH_TLS_KEY_PEM"
)

// maxInline bounds a PEM text in bytes.
const maxInline = 1 << 20

// EnvName is the variable that gives the option, "" where none does.
func EnvName(option string) string {
	return map[string]string{
		OptCACert: EnvCACert, OptCert: EnvCert, OptKey: EnvKey, OptTLSDir: EnvDir, OptServerName: EnvServerName,
	}[option]
}

// Absolute is options with the paths in them made to mean the same from
// everywhere: dir is what relative ones are relative to, home is what ~ stands
// for. Either may be "", and then nothing is known of it. The options
// themselves stay as they are.
func Absolute(kv map[string]string, dir, home string) map[string]string {
	all := make(map[string]string, len(kv))
	for k, v := range kv {
		if v != "" && slices.Contains([]string{OptCACert, OptCert, OptKey, OptTLSDir}, k) {
			v = absolutePath(v, dir, home)
		}
		all[k] = v
	}
	return all
}

// Absolute is o with its paths made to mean the same from everywhere; see the
// function of that name.
func (o Options) Absolute(dir, home string) Options {
	for _, path := range []*string{&o.CACert, &o.Cert, &o.Key, &o.TLSDir} {
		if *path != "" {
			*path = absolutePath(*path, dir, home)
		}
	}
	return o
}

func absolutePath(path, dir, home string) string {
	if home != "" {
		if path == "~" {
			return home
		}
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			return filepath.Join(home, rest)
		}
	}
	if dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// TLSFromEnv reads the variables above; an empty one counts as not set. Paths
// come back as they stand there (see Absolute); the text of the PEM variables
// is kept in memory only. What contradicts itself is refused by the variables'
// names.
func TLSFromEnv(getenv func(string) string) (Options, error) {
	if err := checkEnv(getenv); err != nil {
		return Options{}, err
	}
	o := Options{
		CACert: getenv(EnvCACert), Cert: getenv(EnvCert), Key: getenv(EnvKey), TLSDir: getenv(EnvDir),
		ServerName: getenv(EnvServerName),
	}
	for name, to := range map[string]*Secret{EnvCACertPEM: &o.Inline.CACert, EnvCertPEM: &o.Inline.Cert, EnvKeyPEM: &o.Inline.Key} {
		text, err := inlinePEM(name, getenv(name))
		if err != nil {
			return Options{}, err
		}
		*to = NewSecret(text)
	}
	if o.ServerName != "" {
		if err := checkServerName(o.ServerName); err != nil {
			return Options{}, hint.Wrap(err, EnvServerName+" is not a DNS name or IP address", serverNameHint(o.ServerName)...)
		}
	}
	o.FromEnv = o.identity()
	return o, nil
}

// checkEnv refuses contradictions. It names variables, never what is in them.
func checkEnv(getenv func(string) string) error {
	var files, texts []string
	for _, name := range []string{EnvCACert, EnvCert, EnvKey} {
		text := name + "_PEM"
		switch {
		case getenv(name) != "" && getenv(text) != "":
			return hint.New(fmt.Sprintf("%s and %s are both set", name, text), "unset one: the first holds a path, the other the text itself")
		case getenv(name) != "":
			files = append(files, name)
		case getenv(text) != "":
			texts = append(texts, text)
		}
	}
	others := append(files, texts...)
	if getenv(EnvDir) != "" && len(others) > 0 {
		return hint.New(fmt.Sprintf("%s stands for CA, certificate and key, and cannot be set together with %s", EnvDir, strings.Join(others, ", ")),
			"unset "+EnvDir+", or the others")
	}
	cert := getenv(EnvCert) != "" || getenv(EnvCertPEM) != ""
	key := getenv(EnvKey) != "" || getenv(EnvKeyPEM) != ""
	switch {
	case cert && !key:
		return hint.New("the environment has a client certificate but no key for it", "set "+EnvKey+" or "+EnvKeyPEM)
	case key && !cert:
		return hint.New("the environment has a client's key but no certificate for it", "set "+EnvCert+" or "+EnvCertPEM)
	}
	return nil
}

// inlinePEM is the text of a variable. What CI systems do to line breaks is
// undone: no PEM text has a backslash in it.
func inlinePEM(name, text string) (string, error) {
	switch {
	case text == "":
		return "", nil
	case len(text) > maxInline:
		return "", fmt.Errorf("%s is larger than 1 MiB", name)
	case !strings.Contains(text, "-----BEGIN"):
		return "", hint.New(name+" holds no PEM text", "a path belongs into "+strings.TrimSuffix(name, "_PEM"))
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, `\r`, ""), `\n`, "\n"), nil
}

// WithTLSFrom is o with what it leaves unsaid about TLS taken from other: whom
// to trust and who we are as a whole, never mixed, and the server's name.
func (o Options) WithTLSFrom(other Options) Options {
	if !o.identity() {
		o.CACert, o.Cert, o.Key, o.TLSDir, o.SystemCA = other.CACert, other.Cert, other.Key, other.TLSDir, other.SystemCA
		o.Inline, o.FromEnv = other.Inline, other.FromEnv
	}
	if o.ServerName == "" {
		o.ServerName = other.ServerName
	}
	return o
}
