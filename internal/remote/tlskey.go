package remote

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// privateKey is a key as a file has it: open, or locked by a passphrase.
type privateKey struct {
	signer crypto.Signer                              // nil while it is locked
	unlock func(phrase []byte) (crypto.Signer, error) // nil where it is not
}

// parseKey finds the first private key. No part of the file gets into an
// error.
func parseKey(data []byte) (privateKey, error) {
	other := ""
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY":
			return lockedPKCS8(block)
		case block.Headers["DEK-Info"] != "":
			return lockedPEM(block)
		case block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY"):
			s, err := parseKeyDER(block.Type, block.Bytes)
			return privateKey{signer: s}, err
		}
		other = block.Type // EC PARAMETERS come before an EC key
	}
	switch {
	case bytes.Contains(data, []byte("-----BEGIN")):
		return privateKey{}, errTruncated
	case other != "":
		return privateKey{}, fmt.Errorf("holds a %s, not a private key", other)
	}
	return privateKey{}, notPEM("private key", data)
}

// lockedPKCS8 is a key as `openssl genpkey -aes256` and most others write it.
func lockedPKCS8(block *pem.Block) (privateKey, error) {
	l, err := parsePBES2(block.Bytes)
	if err != nil {
		return privateKey{}, err
	}
	return privateKey{unlock: func(phrase []byte) (crypto.Signer, error) {
		der, err := l.open(phrase)
		if err != nil {
			return nil, err
		}
		return opened(block.Type, der)
	}}, nil
}

// lockedPEM is a key as `openssl rsa -aes256` and ssh-keygen wrote it before.
func lockedPEM(block *pem.Block) (privateKey, error) {
	algorithm, _, _ := strings.Cut(block.Headers["DEK-Info"], ",")
	// There is no known text in it, so a cipher that is not known is told only
	// by trying. A damaged header is told in the same way.
	_, err := x509.DecryptPEMBlock(block, []byte("x")) //nolint:staticcheck // insecure by design, as is the file; there are such files
	if err != nil && !errors.Is(err, x509.IncorrectPasswordError) {
		return privateKey{}, fmt.Errorf("%w (%s)", errCipher, printable(algorithm, maxShown))
	}
	return privateKey{unlock: func(phrase []byte) (crypto.Signer, error) {
		der, err := x509.DecryptPEMBlock(block, phrase) //nolint:staticcheck // see above
		if err != nil {
			return nil, errPassphrase
		}
		return opened(block.Type, der)
	}}, nil
}

// opened reads a key that was decrypted. By chance, a wrong passphrase leaves
// something that looks decrypted, but never a key.
func opened(kind string, der []byte) (crypto.Signer, error) {
	s, err := parseKeyDER(kind, der)
	if err != nil {
		return nil, errPassphrase
	}
	return s, nil
}

func parseKeyDER(kind string, der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("holds a damaged or unknown kind of key (%s)", kind)
	}
	if s, ok := k.(crypto.Signer); ok {
		return s, nil
	}
	return nil, fmt.Errorf("holds a key that cannot sign (%T)", k)
}
