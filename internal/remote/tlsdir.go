package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// source is where one part of what TLS needs is: a file, or text.
type source struct {
	label string // the option or variable that gives it
	path  string
	text  endpoint.Secret // instead of a path
}

func (s source) given() bool { return s.path != "" || !s.text.IsZero() }

// String names it in a message: "driver option key: /etc/certs/key.pem".
func (s source) String() string {
	if s.path == "" {
		return s.label
	}
	return s.label + ": " + s.path
}

// short names it where it is clear what it is: the file, else the variable.
func (s source) short() string {
	if s.path == "" {
		return s.label
	}
	return s.path
}

// sources is where everything is.
type sources struct {
	ca, cert, key source
	system        bool // the system's CAs count, too
}

// trust says which CAs the daemon's certificate is checked against.
func (s sources) trust() string {
	const system = "the system's CAs"
	switch {
	case !s.ca.given() && s.system:
		return system
	case !s.ca.given():
		return system + " (no cacert is set)"
	case s.system:
		return system + " and " + s.ca.String()
	}
	return strings.Replace(s.ca.String(), "driver option cacert:", "cacert", 1)
}

// locate finds out what the options name. Only a tlsdir is looked at for it.
func locate(o endpoint.Options) (sources, error) {
	label := func(option string) string {
		if name := endpoint.EnvName(option); o.FromEnv && name != "" {
			return name
		}
		return "driver option " + option
	}
	file := func(option, path string, text endpoint.Secret) source {
		switch {
		case path != "":
			return source{label: label(option), path: path}
		case !text.IsZero() && o.FromEnv:
			return source{label: endpoint.EnvName(option) + "_PEM", text: text}
		case !text.IsZero():
			return source{label: "the " + option + " that is embedded in the builder's file", text: text}
		}
		return source{}
	}
	if o.TLSDir != "" {
		s, err := inFolder(o.TLSDir, label(endpoint.OptTLSDir), o.SystemCA)
		s.system = o.SystemCA
		return s, err
	}
	s := sources{
		ca:     file(endpoint.OptCACert, o.CACert, o.Inline.CACert),
		cert:   file(endpoint.OptCert, o.Cert, o.Inline.Cert),
		key:    file(endpoint.OptKey, o.Key, o.Inline.Key),
		system: o.SystemCA,
	}
	if s.cert.given() != s.key.given() {
		return s, hint.New("the driver options cert and key belong together; one of them is missing")
	}
	return s, nil
}

// layout is how a folder may call the three files.
type layout struct{ ca, cert, key string }

func layouts() []layout {
	return []layout{
		{"ca.pem", "cert.pem", "key.pem"}, // BuildKit's guides
		{"ca.crt", "tls.crt", "tls.key"},  // a Secret of Kubernetes
	}
}

// clientDir is the folder for a client's files where there is one for the
// daemon's beside it.
const clientDir = "client"

// inFolder finds the files of a tlsdir: in the folder itself, else in its
// folder client. A CA alone does not make a folder the one that is meant: that
// of the guides has both.
func inFolder(dir, label string, system bool) (sources, error) {
	bad := func(why string, hints ...string) error {
		return hint.Wrap(errors.New(why), label+": "+dir, hints...)
	}
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		return sources{}, fileError(source{label: label, path: dir}, err)
	case !st.IsDir():
		return sources{}, bad("is not a folder", "a single file is named by cacert, cert or key")
	}
	client := filepath.Join(dir, clientDir)
	for _, d := range []string{dir, client} {
		found, err := lookIn(d, bad)
		if err != nil {
			return sources{}, err
		}
		if found.cert == "" && found.key == "" && (d != dir || found.ca == "" || hasOwn(client)) {
			continue
		}
		return found.complete(label, system, bad)
	}
	var hints []string
	if exists(filepath.Join(dir, "daemon")) {
		hints = []string{"it has a folder for the daemon's certificate, but none for a client's: " + client}
	}
	return sources{}, bad("has neither ca.pem, cert.pem and key.pem nor ca.crt, tls.crt and tls.key, also not in "+client, hints...)
}

// hasOwn tells whether the folder has a certificate or a key.
func hasOwn(dir string) bool {
	for _, l := range layouts() {
		if exists(filepath.Join(dir, l.cert)) || exists(filepath.Join(dir, l.key)) {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// found is the paths of what a folder has, "" for what it has not.
type found struct {
	dir           string
	names         layout
	ca, cert, key string
}

// lookIn says what one folder has, by the one way of naming that it follows.
func lookIn(dir string, bad func(string, ...string) error) (found, error) {
	var all []found
	for _, l := range layouts() {
		f := found{dir: dir, names: l}
		for name, to := range map[string]*string{l.ca: &f.ca, l.cert: &f.cert, l.key: &f.key} {
			path := filepath.Join(dir, name)
			switch _, err := os.Stat(path); {
			case err == nil:
				*to = path
			case errors.Is(err, fs.ErrPermission):
				return found{}, bad("permission denied in "+dir, "ls -ld "+hint.Quote(dir))
			}
		}
		if f.ca != "" || f.cert != "" || f.key != "" {
			all = append(all, f)
		}
	}
	switch {
	case len(all) == 0:
		return found{}, nil
	case len(all) > 1:
		return found{}, bad(fmt.Sprintf("is ambiguous: %s has files of two layouts, such as %s and %s", dir, all[0].first(), all[1].first()),
			"name the files instead: cacert=…,cert=…,key=…")
	}
	return all[0], nil
}

func (f found) first() string {
	for _, p := range []string{f.ca, f.cert, f.key} {
		if p != "" {
			return filepath.Base(p)
		}
	}
	return ""
}

// complete refuses what is there in part. A folder without a CA is good where
// the system's CAs were asked for; one with nothing but a CA is for a daemon
// that lets everybody in.
func (f found) complete(label string, system bool, bad func(string, ...string) error) (sources, error) {
	lacks := func(have, name string) (sources, error) {
		return sources{}, bad(fmt.Sprintf("has %s but no %s", filepath.Join(f.dir, have), name))
	}
	switch {
	case f.cert != "" && f.key == "":
		return lacks(f.names.cert, f.names.key)
	case f.key != "" && f.cert == "":
		return lacks(f.names.key, f.names.cert)
	case f.ca == "" && !system:
		return sources{}, bad(fmt.Sprintf("has %s but no %s", filepath.Join(f.dir, f.names.cert), f.names.ca),
			"if the daemon's certificate comes from a CA that the system trusts: tlsdir=…,ca=system")
	}
	s := sources{ca: source{label: label, path: f.ca}}
	if f.cert != "" {
		s.cert, s.key = source{label: label, path: f.cert}, source{label: label, path: f.key}
	}
	return s, nil
}
