package remote

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

const (
	// maxPEM bounds a certificate or key file, in bytes.
	maxPEM = 1 << 20
	// settleFor is how long files that do not fit together are read again:
	// whoever renews them replaces one after the other.
	settleFor = 500 * time.Millisecond
	// settleStep is between two readings.
	settleStep = 25 * time.Millisecond
)

// TLSFiles is what the TLS options name, as a connection would use it.
type TLSFiles struct {
	CAFrom, CertFrom, KeyFrom string              // the file, else the variable; "" where there is none
	CAs                       []*x509.Certificate // nil where only the system's count
	SystemCAs                 bool                // the system's count
	Chain                     []*x509.Certificate // ours, its own first; nil without one
	KeyLocked                 bool                // the key needs a passphrase that is not known, so whether it fits is not known either

	where sources
	key   crypto.Signer
}

// ReadTLS reads the certificate files that o names, and says which one is
// missing, unreadable, not what it should be, or does not fit the other. It does
// not look at validity in time. Files that look half-replaced are read again for
// a moment. keys, which may be nil, knows the passphrase of an encrypted key, or
// not.
func ReadTLS(ctx context.Context, o endpoint.Options, keys *dial.Keyring) (TLSFiles, error) {
	f, err := settled(ctx, o, keys)
	if errors.Is(err, errLocked) {
		return f, nil
	}
	return f, err
}

// CheckTLS is ReadTLS for its error, where no passphrase is known.
func CheckTLS(o endpoint.Options) error {
	_, err := ReadTLS(context.Background(), o, nil)
	return err
}

// What a file may look like while it is being replaced.
var (
	errTruncated = errors.New("ends within a PEM block: is it truncated?")
	errEmpty     = errors.New("is empty")
	errMismatch  = errors.New("does not belong to the certificate")
)

// errLocked says that a passphrase is missing.
var errLocked = errors.New("the key is encrypted")

// settled reads the files until they are whole and fit together, or for as long
// as somebody may take to replace them.
func settled(ctx context.Context, o endpoint.Options, keys *dial.Keyring) (TLSFiles, error) {
	until := time.Now().Add(settleFor)
	return settle(func() (TLSFiles, error) { return readTLS(o, keys) }, func() bool {
		return time.Now().Before(until) && sleep(ctx, settleStep)
	})
}

// settle reads again what may be half-replaced, as long as wait says so.
func settle(read func() (TLSFiles, error), wait func() bool) (TLSFiles, error) {
	for {
		f, err := read()
		changing := errors.Is(err, errTruncated) || errors.Is(err, errEmpty) || errors.Is(err, errMismatch)
		if !changing || !wait() {
			return f, err
		}
	}
}

func readTLS(o endpoint.Options, keys *dial.Keyring) (TLSFiles, error) {
	where, err := locate(o)
	if err != nil {
		return TLSFiles{}, err
	}
	f := TLSFiles{
		CAFrom: where.ca.short(), CertFrom: where.cert.short(), KeyFrom: where.key.short(),
		SystemCAs: where.system || !where.ca.given(), where: where,
	}
	if where.ca.given() {
		if f.CAs, err = readCerts(where.ca); err != nil {
			return f, err
		}
	}
	if !where.cert.given() {
		return f, nil
	}
	if f.Chain, err = readCerts(where.cert); err != nil {
		return f, err
	}
	if f.key, err = readKey(where.key, keys); err != nil {
		f.KeyLocked = errors.Is(err, errLocked)
		return f, err
	}
	if !fits(f.Chain[0], f.key) {
		return f, mismatch(where)
	}
	return f, nil
}

// roots is the CAs to trust; nil is the system's.
func (f TLSFiles) roots() (*x509.CertPool, error) {
	if len(f.CAs) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if f.SystemCAs {
		var err error
		if pool, err = x509.SystemCertPool(); err != nil {
			return nil, hint.Wrap(err, "the system's CAs cannot be read", "leave ca=system out, and name all CAs by cacert")
		}
	}
	for _, c := range f.CAs {
		pool.AddCert(c)
	}
	return pool, nil
}

// certificate is ours, nil without one.
func (f TLSFiles) certificate() *tls.Certificate {
	if len(f.Chain) == 0 {
		return nil
	}
	c := &tls.Certificate{PrivateKey: f.key, Leaf: f.Chain[0]}
	for _, one := range f.Chain {
		c.Certificate = append(c.Certificate, one.Raw)
	}
	return c
}

// fits tells whether key is the private half of what cert certifies.
func fits(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(key.Public())
}

func mismatch(where sources) error {
	named := func(s source) string {
		if s.path == "" {
			return s.label
		}
		return fmt.Sprintf("%s (%s)", s.path, s.label)
	}
	var hints []string
	if where.cert.path != "" && where.key.path != "" {
		hints = []string{"compare: openssl x509 -noout -pubkey -in " + hint.Quote(where.cert.path) + " ; openssl pkey -pubout -in " + hint.Quote(where.key.path)}
	}
	return hint.Wrap(fmt.Errorf("the key in %s does not belong to the certificate in %s%w", named(where.key), named(where.cert), hint.Quietly(errMismatch)), "", hints...)
}

// fileError names option and path; the system's error repeats no path.
func fileError(s source, err error, hints ...string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return hint.Wrap(err, s.String(), hints...)
}

func readBounded(s source) ([]byte, error) {
	if s.path == "" {
		return []byte(s.text.Reveal()), nil
	}
	// A pipe would block in Open, so look first.
	st, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fileError(s, err, "ls -l "+hint.Quote(s.path))
	case err != nil:
		return nil, fileError(s, err)
	case st.IsDir():
		return nil, fileError(s, errors.New("is a directory, not a file"), "a folder with certificates is named by tlsdir="+s.path)
	case !st.Mode().IsRegular():
		return nil, fileError(s, errors.New("is not a regular file"))
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fileError(s, err, "ls -l "+hint.Quote(s.path))
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	switch {
	case err != nil:
		return nil, fileError(s, err)
	case len(data) > maxPEM:
		return nil, fileError(s, errors.New("is larger than 1 MiB"))
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fileError(s, errEmpty)
	}
	return data, nil
}

// readCerts reads all certificates of a file; there is at least one.
func readCerts(s source) ([]*x509.Certificate, error) {
	data, err := readBounded(s)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts(data)
	if err != nil {
		return nil, fileError(s, err)
	}
	return certs, nil
}

func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	other := ""
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			other = block.Type
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a damaged certificate: %w", err)
		}
		certs = append(certs, c)
	}
	switch {
	case bytes.Contains(data, []byte("-----BEGIN")):
		return nil, errTruncated
	case len(certs) > 0:
		return certs, nil
	case other != "":
		return nil, fmt.Errorf("holds a %s, not a certificate", other)
	}
	return nil, notPEM("certificate", data)
}

// notPEM helps with the usual mistake: the binary form of the same thing.
func notPEM(what string, data []byte) error {
	if len(data) > 2 && data[0] == 0x30 && data[1] >= 0x80 {
		return hint.New("holds no PEM "+what+"; it looks like DER",
			"convert it: openssl x509 -inform DER -in FILE -out FILE.pem (a key: openssl pkey)")
	}
	return fmt.Errorf("holds no PEM %s", what)
}

// readKey reads a key, and opens it where its passphrase is known.
func readKey(s source, keys *dial.Keyring) (crypto.Signer, error) {
	data, err := readBounded(s)
	if err != nil {
		return nil, err
	}
	warnOpen(s.path, keys)
	k, err := parseKey(data)
	if err != nil {
		var hints []string
		if errors.Is(err, errCipher) {
			hints = []string{"encrypt it anew: openssl pkey -in " + hint.Quote(s.short()) + " -aes256 -out key.pem && chmod 600 key.pem"}
		}
		return nil, fileError(s, err, hints...)
	}
	if k.signer != nil {
		return k.signer, nil
	}
	return unlock(s, k, keys)
}

func unlock(s source, k privateKey, keys *dial.Keyring) (crypto.Signer, error) {
	phrase, file, err := keys.Phrase(s.short())
	if err != nil {
		return nil, fileError(s, fmt.Errorf("the key is encrypted, but %w", err))
	}
	if phrase != nil {
		signer, err := k.unlock(phrase)
		switch {
		case err == nil:
			return signer, nil
		case file != "" && errors.Is(err, errPassphrase):
			return nil, fileError(s, fmt.Errorf("the passphrase in %s (%s) does not open it%w", file, dial.EnvPassphraseFile, hint.Quietly(err)),
				"the file's only line must be the passphrase, without quotes")
		case !errors.Is(err, errPassphrase):
			return nil, fileError(s, err)
		}
	}
	locked := &dial.Error{
		Class: dial.KeyLocked, Err: errLocked,
		Text: s.String() + ": the key is encrypted, and nobody was asked for its passphrase",
		Tries: []string{
			"run berth in a terminal, which asks for it, or put it into a file that is named by " + dial.EnvPassphraseFile,
		},
	}
	if keys.CanAsk() {
		locked.Ask = func(ctx context.Context) error {
			return keys.Ask(ctx, s.short(), func(phrase []byte) error {
				_, err := k.unlock(phrase)
				return err
			})
		}
	}
	return nil, locked
}

// warnOpen says once that others can read a key. It is used all the same: in a
// container, its mode is often not the user's to choose.
func warnOpen(path string, keys *dial.Keyring) {
	if path == "" || runtime.GOOS == "windows" {
		return
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm()&0o044 == 0 {
		return
	}
	tip := "chmod 600 " + hint.Quote(path)
	if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "..data/") {
		tip = "give the volume of the Secret the defaultMode 0400"
	}
	keys.Warn(path, fmt.Sprintf("the key %s can be read by others (mode %04o): %s", path, st.Mode().Perm(), tip))
}
