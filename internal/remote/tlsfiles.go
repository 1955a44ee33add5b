package remote

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// maxPEM bounds a certificate or key file, in bytes.
const maxPEM = 1 << 20

// CheckTLS reads the certificate files that o names, as a connection would,
// and says which one is missing, unreadable, not what it should be, or does
// not fit the other. It does not look at validity in time.
func CheckTLS(o endpoint.Options) error {
	_, err := loadFiles(o)
	return err
}

// tlsFiles is what the files hold.
type tlsFiles struct {
	roots *x509.CertPool   // nil: the system's
	cert  *tls.Certificate // nil: none
}

func loadFiles(o endpoint.Options) (tlsFiles, error) {
	var f tlsFiles
	if o.CACert != "" {
		certs, err := loadCerts(endpoint.OptCACert, o.CACert)
		if err != nil {
			return f, err
		}
		f.roots = x509.NewCertPool()
		for _, c := range certs {
			f.roots.AddCert(c)
		}
	}
	if o.Cert == "" && o.Key == "" {
		return f, nil
	}
	if o.Cert == "" || o.Key == "" {
		return f, hint.New("the driver options cert and key belong together; one of them is missing")
	}
	certs, err := loadCerts(endpoint.OptCert, o.Cert)
	if err != nil {
		return f, err
	}
	key, err := loadKey(o.Key)
	if err != nil {
		return f, err
	}
	if !fits(certs[0], key) {
		return f, hint.New(fmt.Sprintf("the key in %s (driver option key) does not belong to the certificate in %s (driver option cert)", o.Key, o.Cert),
			"compare: openssl x509 -noout -pubkey -in "+hint.Quote(o.Cert)+" ; openssl pkey -pubout -in "+hint.Quote(o.Key))
	}
	f.cert = &tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		f.cert.Certificate = append(f.cert.Certificate, c.Raw)
	}
	return f, nil
}

// fits tells whether key is the private half of what cert certifies.
func fits(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(key.Public())
}

// fileError names option and path; the system's error repeats no path.
func fileError(option, path string, err error, hints ...string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return hint.Wrap(err, fmt.Sprintf("driver option %s: %s", option, path), hints...)
}

func readBounded(option, path string) ([]byte, error) {
	// A pipe would block in Open, so look first.
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fileError(option, path, err, "ls -l "+hint.Quote(path))
	case err != nil:
		return nil, fileError(option, path, err)
	case st.IsDir():
		return nil, fileError(option, path, errors.New("is a directory, not a file"))
	case !st.Mode().IsRegular():
		return nil, fileError(option, path, errors.New("is not a regular file"))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(option, path, err, "ls -l "+hint.Quote(path))
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	switch {
	case err != nil:
		return nil, fileError(option, path, err)
	case len(data) > maxPEM:
		return nil, fileError(option, path, errors.New("is larger than 1 MiB"))
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fileError(option, path, errors.New("is empty"))
	}
	return data, nil
}

// loadCerts reads all certificates of a file; there is at least one.
func loadCerts(option, path string) ([]*x509.Certificate, error) {
	data, err := readBounded(option, path)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts(data)
	if err != nil {
		return nil, fileError(option, path, err)
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
		return nil, errors.New("ends within a PEM block: is it truncated?")
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

func loadKey(path string) (crypto.Signer, error) {
	data, err := readBounded(endpoint.OptKey, path)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		var hints []string
		if errors.Is(err, errEncrypted) {
			hints = []string{"write it without the passphrase: openssl pkey -in " + hint.Quote(path) + " -out key-plain.pem && chmod 600 key-plain.pem"}
		}
		return nil, fileError(endpoint.OptKey, path, err, hints...)
	}
	return key, nil
}

var errEncrypted = errors.New("the key is encrypted, and berth cannot ask for the passphrase")

// parseKey finds the first private key. No part of the file gets into an
// error.
func parseKey(data []byte) (crypto.Signer, error) {
	other := ""
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errEncrypted
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			return parseKeyDER(block)
		}
		other = block.Type // EC PARAMETERS come before an EC key
	}
	switch {
	case bytes.Contains(data, []byte("-----BEGIN")):
		return nil, errors.New("ends within a PEM block: is it truncated?")
	case other != "":
		return nil, fmt.Errorf("holds a %s, not a private key", other)
	}
	return nil, notPEM("private key", data)
}

func parseKeyDER(block *pem.Block) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("holds a damaged or unknown kind of key (%s)", block.Type)
	}
	if s, ok := k.(crypto.Signer); ok {
		return s, nil
	}
	return nil, fmt.Errorf("holds a key that cannot sign (%T)", k)
}
