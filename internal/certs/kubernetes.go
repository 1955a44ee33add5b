package certs

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// secretName is the Secret of a folder's certificate, named as in BuildKit's
// Kubernetes examples: buildkit-daemon-certs.
func secretName(folder string) string { return "buildkit-" + folder + "-certs" }

// checkSecretName says why Kubernetes would not take a Secret of this name.
func checkSecretName(name string) error {
	for part := range strings.SplitSeq(name, ".") {
		ok := part != "" && strings.Trim(part, "-") == part
		for _, r := range part {
			ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
		}
		if !ok {
			return hint.New(fmt.Sprintf("Kubernetes takes no Secret called %s", name),
				"name the client in lower-case letters, digits, - and .; or leave --kubernetes out")
		}
	}
	return nil
}

// secret is the manifest of a folder's certificate. All that stands in it is
// of the alphabets that need no quoting.
func secret(folder string, ca, cert, key []byte) []byte {
	return manifest(secretName(folder), ca, cert, key)
}

func manifest(name string, ca, cert, key []byte) []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\ndata:\n")
	for _, f := range secretData(ca, cert, key) {
		b.WriteString(f.prefix + f.value + "\n")
	}
	fmt.Fprintf(&b, "kind: Secret\nmetadata:\n  name: %s\n", name)
	return b.Bytes()
}

type secretLine struct{ prefix, value string }

func secretData(ca, cert, key []byte) []secretLine {
	enc := base64.StdEncoding.EncodeToString
	return []secretLine{
		{"  " + caFile + ": ", enc(ca)},
		{"  " + certFile + ": ", enc(cert)},
		{"  " + keyFile + ": ", enc(key)},
	}
}

// renewSecret is a manifest with new data and otherwise as it was, such as a
// namespace that its owner wrote into it. One that is no longer of the form
// that secret gives it is made anew.
func renewSecret(old []byte, folder string, ca, cert, key []byte) []byte {
	lines := strings.Split(string(old), "\n")
	for _, f := range secretData(ca, cert, key) {
		seen := 0
		for i, line := range lines {
			if strings.HasPrefix(line, f.prefix) {
				lines[i] = f.prefix + f.value
				seen++
			}
		}
		if seen != 1 {
			return secret(folder, ca, cert, key)
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

// Bundle is what a side of mutual TLS needs, as it lies in its folder.
type Bundle struct {
	Folder        string   // daemon, client
	Names         []string // the daemon's, the one first that was given first
	ca, cert, key []byte
}

// ForKubernetes reads the certificates of the daemon and of the first client
// in a folder that Create made, for Secrets. Those that would not work in a pod
// (halves that do not fit, a key with a passphrase, what has expired) are
// refused.
func ForKubernetes(dir string, now time.Time) (daemon, client Bundle, err error) {
	if err := checkDir(dir); err != nil {
		return Bundle{}, Bundle{}, err
	}
	sets, err := InspectDir(dir, now, 0)
	if err != nil {
		return Bundle{}, Bundle{}, err
	}
	for i := range sets {
		switch sets[i].Name {
		case daemonDir:
			daemon, err = bundle(sets[i])
		case clientDir:
			client, err = bundle(sets[i])
		}
		if err != nil {
			return Bundle{}, Bundle{}, err
		}
	}
	if daemon.Folder == "" || client.Folder == "" {
		return Bundle{}, Bundle{}, hint.New(fmt.Sprintf("the folder %s has not both daemon and client", dir),
			"make them: berth certs create --dir DIR NAME")
	}
	daemon.Names = DaemonNames(dir)
	return daemon, client, nil
}

// bundle reads the files that were looked at.
func bundle(s Set) (Bundle, error) {
	for _, p := range s.Problems {
		if p.Level == Broken || p.Kind == KindEncrypted {
			return Bundle{}, hint.Wrap(errors.New(p.Text), s.Name, "all that is wrong with them: berth certs inspect "+hint.Quote(filepath.Dir(filepath.Dir(s.Files.Cert))))
		}
	}
	b := Bundle{Folder: s.Name}
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{s.Files.CA, &b.ca}, {s.Files.Cert, &b.cert}, {s.Files.Key, &b.key}} {
		file := ReadFile(f.path)
		if file.Err != nil {
			return Bundle{}, file.wrap(file.Err)
		}
		*f.to = file.Data
	}
	return b, nil
}

// Secret is the manifest of the bundle, as Create writes it, in a namespace.
func (b Bundle) Secret(name, namespace string) []byte {
	return append(manifest(name, b.ca, b.cert, b.key), "  namespace: \""+namespace+"\"\n"...)
}
