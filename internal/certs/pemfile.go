package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// maxPEM bounds a certificate or key file, in bytes.
const maxPEM = 1 << 20

// ErrEncrypted is the reason why a key cannot be looked at: it wants a
// passphrase.
var ErrEncrypted = errors.New("the key is encrypted")

// File is the content of one PEM file, or why it could not be read. The zero
// File is one that nobody named.
type File struct {
	Path string // for messages
	Data []byte
	Mode fs.FileMode // the permissions on disk; 0 when they are not known
	Err  error       // why Data is missing
}

// named tells whether there is, or should be, such a file.
func (f File) named() bool { return f.Path != "" || f.Data != nil || f.Err != nil }

// ReadFile reads a certificate or key file; why it could not is in its Err. An
// empty path is the zero File.
func ReadFile(path string) File {
	if path == "" {
		return File{}
	}
	data, mode, err := readBounded(path)
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // the path is said where the error is
	}
	return File{Path: path, Data: data, Mode: mode, Err: err}
}

func readBounded(path string) ([]byte, fs.FileMode, error) {
	// A pipe would block in Open, so look first.
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, 0, err
	case fi.IsDir():
		return nil, 0, errors.New("is a directory, not a file")
	case !fi.Mode().IsRegular():
		return nil, 0, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	switch {
	case err != nil:
		return nil, 0, err
	case len(data) > maxPEM:
		return nil, 0, errors.New("is larger than 1 MiB")
	case len(bytes.TrimSpace(data)) == 0:
		return nil, 0, errors.New("is empty")
	}
	return data, fi.Mode().Perm(), nil
}

// certificates reads all certificates of a file; there is at least one, or an
// error that names the file.
func (f File) certificates() ([]*x509.Certificate, error) {
	if f.Err != nil {
		return nil, f.wrap(f.Err)
	}
	certs, err := ParseCertificates(f.Data)
	return certs, f.wrap(err)
}

func (f File) privateKey() (crypto.Signer, error) {
	if f.Err != nil {
		return nil, f.wrap(f.Err)
	}
	key, err := ParseKey(f.Data)
	return key, f.wrap(err)
}

// wrap names the file in an error.
func (f File) wrap(err error) error {
	if f.Path == "" {
		return err
	}
	return hint.Wrap(err, f.Path)
}

// ParseCertificates reads the certificates in PEM; there is at least one, or an
// error. Other blocks, such as a key, are passed over.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
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
		return nil, errTruncated()
	case len(certs) > 0:
		return certs, nil
	case other != "":
		return nil, fmt.Errorf("holds a %q block, not a certificate", clip(other))
	}
	return nil, notPEM("certificate", data)
}

func errTruncated() error { return errors.New("ends within a PEM block: is it truncated?") }

// notPEM helps with the usual mistake: the binary form of the same thing.
func notPEM(what string, data []byte) error {
	if len(data) > 2 && data[0] == 0x30 && data[1] >= 0x80 {
		return hint.New("holds no PEM "+what+"; it looks like DER",
			"convert it: openssl x509 -inform DER -in FILE -out FILE.pem (a key: openssl pkey)")
	}
	return fmt.Errorf("holds no PEM %s", what)
}

// ParseKey reads the first private key in PEM: PKCS#8, PKCS#1 or SEC 1. The
// error is ErrEncrypted for one with a passphrase; no part of the data gets
// into it.
func ParseKey(data []byte) (crypto.Signer, error) {
	other := ""
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, ErrEncrypted
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			return parseKeyDER(block.Bytes)
		}
		other = block.Type // EC PARAMETERS come before an EC key
	}
	switch {
	case bytes.Contains(data, []byte("-----BEGIN")):
		return nil, errTruncated()
	case other != "":
		return nil, fmt.Errorf("holds a %q block, not a private key", clip(other))
	}
	return nil, notPEM("private key", data)
}

func parseKeyDER(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("holds a damaged or unknown kind of private key")
	}
	if s, ok := k.(crypto.Signer); ok {
		return s, nil
	}
	return nil, errors.New("holds a private key that cannot sign")
}
