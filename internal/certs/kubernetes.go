package certs

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

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
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\ndata:\n")
	for _, f := range secretData(ca, cert, key) {
		b.WriteString(f.prefix + f.value + "\n")
	}
	fmt.Fprintf(&b, "kind: Secret\nmetadata:\n  name: %s\n", secretName(folder))
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
