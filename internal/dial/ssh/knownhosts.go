package ssh

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" // known_hosts hashes names with it
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxKnown bounds a known_hosts file in bytes.
const maxKnown = 16 << 20

// knownKey is a line of known_hosts that is about the host in question.
type knownKey struct {
	key       ssh.PublicKey
	authority bool // it signs host keys
	revoked   bool
	file      string
	line      int
}

// where is FILE:LINE.
func (k knownKey) where() string { return fmt.Sprintf("%s:%d", k.file, k.line) }

// known is what the files say about one host.
type known struct {
	keys []knownKey
	bad  []string // FILE:LINE of what is about the host and cannot be read, and why
}

// readKnown reads what the files say about the host. The plain name counts
// where nothing is known of its port, as with ssh.
func readKnown(s *settings) (known, error) {
	var exact, plain known
	for _, path := range s.known {
		text, err := readFile(path, maxKnown)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return known{}, badConfig(path, "%w", err)
		}
		for n, line := range bytes.Split(text, []byte("\n")) {
			exact.add(line, s.name(), path, n+1)
			if s.alias == "" && s.name() != s.hostName {
				plain.add(line, s.hostName, path, n+1)
			}
		}
	}
	if len(exact.keys) > 0 {
		return exact, nil
	}
	plain.bad = append(exact.bad, plain.bad...)
	return plain, nil
}

// add reads one line. One that is about another host is not looked at closely:
// it may be of a kind that is not known here.
func (k *known) add(line []byte, name, path string, n int) {
	fields := bytes.Fields(line)
	if len(fields) == 0 || fields[0][0] == '#' {
		return
	}
	one := knownKey{file: path, line: n}
	if marker := string(fields[0]); marker[0] == '@' {
		one.authority, one.revoked = marker == "@cert-authority", marker == "@revoked"
		fields = fields[1:]
	}
	if len(fields) == 0 || !matchHosts(string(fields[0]), name) {
		return
	}
	var err error
	one.key, err = parseKnown(fields)
	if err != nil {
		k.bad = append(k.bad, fmt.Sprintf("%s: %v", one.where(), err))
		return
	}
	k.keys = append(k.keys, one)
}

func parseKnown(fields [][]byte) (ssh.PublicKey, error) {
	if len(fields) < 3 {
		return nil, errors.New("is not a line of known_hosts")
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(fields[2])))
	n, err := base64.StdEncoding.Decode(raw, fields[2])
	if err != nil {
		return nil, errors.New("has a key that cannot be read")
	}
	key, err := ssh.ParsePublicKey(raw[:n])
	if err != nil || key.Type() != string(fields[1]) {
		return nil, errors.New("has a key that cannot be read")
	}
	return key, nil
}

// matchHosts is the first field of a line: patterns, or one hashed name.
func matchHosts(field, name string) bool {
	if !strings.HasPrefix(field, "|") {
		return matchList(field, name)
	}
	parts := strings.Split(field, "|") // |1|SALT|HASH
	if len(parts) != 4 || parts[1] != "1" {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	hash, err := base64.StdEncoding.DecodeString(parts[3])
	if err != nil {
		return false
	}
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return hmac.Equal(mac.Sum(nil), hash)
}

// algorithms are what the server may prove itself with, in the order that we
// want: those of the keys that are known first, so that a server with several
// keys shows one of them.
func (k known) algorithms() []string {
	var first []string
	for _, one := range k.keys {
		switch {
		case one.revoked:
		case one.authority:
			first = append(first, ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01,
				ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01)
		case one.key.Type() == ssh.KeyAlgoRSA:
			first = append(first, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			first = append(first, one.key.Type())
		}
	}
	all := append(first, ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
	seen := map[string]bool{}
	unique := all[:0:0]
	for _, name := range all {
		if !seen[name] {
			seen[name] = true
			unique = append(unique, name)
		}
	}
	return unique
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
