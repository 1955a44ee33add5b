package remote

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // what openssl wrote for decades; it protects a file, not a connection
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // within HMAC, as PKCS 5 has it
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/scrypt"
)

// An encrypted key in PKCS 8: RFC 5958, and RFC 8018 for the scheme PBES2. The
// standard library reads what is inside only.

// What decrypting can fail with. A wrong passphrase cannot always be told from
// a damaged file; what can is said so.
var (
	errPassphrase = errors.New("the passphrase is wrong")
	errCipher     = errors.New("is encrypted in a way that berth cannot read")
)

// Bounds of the work that a file can ask for: an hour of it helps nobody.
const (
	maxIterations = 50_000_000
	maxScryptMem  = 1 << 30 // bytes
)

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct {
	KDF, Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

// oid is an object identifier in text.
func oid(a pkix.AlgorithmIdentifier) string { return a.Algorithm.String() }

const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
	oidScrypt = "1.3.6.1.4.1.11591.4.11"
)

// blockCipher is how the cipher of the OID is made.
type blockCipher struct {
	keySize int
	block   func(key []byte) (cipher.Block, error)
}

func blockCiphers() map[string]blockCipher {
	return map[string]blockCipher{
		"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
		"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
		"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
		"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
	}
}

// hashes are the functions that PBKDF2 may be told to use within HMAC.
func hashes() map[string]func() hash.Hash {
	return map[string]func() hash.Hash{
		"":                       sha1.New, // nothing said
		"1.2.840.113549.2.7":     sha1.New,
		"1.2.840.113549.2.8":     sha256.New224,
		"1.2.840.113549.2.9":     sha256.New,
		"1.2.840.113549.2.10":    sha512.New384,
		"1.2.840.113549.2.11":    sha512.New,
		"2.16.840.1.101.3.4.2.1": sha256.New, // some write the bare hash
	}
}

// lockedKey is an encrypted key whose outside has been read, so that it is known
// that the right passphrase will open it.
type lockedKey struct {
	derive func(phrase []byte) ([]byte, error)
	cipher blockCipher
	iv     []byte
	data   []byte
}

// parsePBES2 reads all but the key itself.
func parsePBES2(der []byte) (lockedKey, error) {
	var e encryptedKey
	var scheme pbes2
	if rest, err := asn1.Unmarshal(der, &e); err != nil || len(rest) > 0 {
		return lockedKey{}, errors.New("holds a damaged encrypted key")
	}
	if oid(e.Algorithm) != oidPBES2 {
		return lockedKey{}, fmt.Errorf("%w (%s)", errCipher, oid(e.Algorithm))
	}
	if _, err := asn1.Unmarshal(e.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return lockedKey{}, errors.New("holds a damaged encrypted key")
	}
	c, ok := blockCiphers()[oid(scheme.Cipher)]
	if !ok {
		return lockedKey{}, fmt.Errorf("%w (%s)", errCipher, oid(scheme.Cipher))
	}
	l := lockedKey{cipher: c, data: e.Data}
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &l.iv); err != nil {
		return lockedKey{}, errors.New("holds a damaged encrypted key")
	}
	probe, err := c.block(make([]byte, c.keySize))
	if err != nil {
		return lockedKey{}, err
	}
	if size := probe.BlockSize(); len(l.iv) != size || len(l.data) == 0 || len(l.data)%size != 0 {
		return lockedKey{}, errors.New("holds a damaged encrypted key")
	}
	l.derive, err = parseKDF(scheme.KDF, c.keySize)
	return l, err
}

func parseKDF(a pkix.AlgorithmIdentifier, size int) (func([]byte) ([]byte, error), error) {
	switch oid(a) {
	case oidPBKDF2:
		var p pbkdf2Params
		if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &p); err != nil || p.Iterations < 1 {
			return nil, errors.New("holds a damaged encrypted key")
		}
		h, ok := hashes()[oid(p.PRF)]
		if !ok || p.Iterations > maxIterations || p.KeyLength != 0 && p.KeyLength != size {
			return nil, fmt.Errorf("%w (PBKDF2 with %d rounds of %s)", errCipher, p.Iterations, oid(p.PRF))
		}
		return func(phrase []byte) ([]byte, error) { return pbkdf2.Key(h, string(phrase), p.Salt, p.Iterations, size) }, nil
	case oidScrypt:
		var p scryptParams
		if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &p); err != nil || p.N < 2 || p.R < 1 || p.P < 1 {
			return nil, errors.New("holds a damaged encrypted key")
		}
		if p.R > maxScryptMem/128 || p.N > maxScryptMem/128/p.R || p.P > 64 || p.KeyLength != 0 && p.KeyLength != size {
			return nil, fmt.Errorf("%w (scrypt with N %d, r %d, p %d)", errCipher, p.N, p.R, p.P)
		}
		return func(phrase []byte) ([]byte, error) { return scrypt.Key(phrase, p.Salt, p.N, p.R, p.P, size) }, nil
	}
	return nil, fmt.Errorf("%w (%s)", errCipher, oid(a))
}

// open decrypts the key, which comes back as PKCS 8. What does not end as it
// must was opened with a wrong passphrase.
func (l lockedKey) open(phrase []byte) ([]byte, error) {
	key, err := l.derive(phrase)
	if err != nil {
		return nil, err
	}
	block, err := l.cipher.block(key)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(l.data))
	cipher.NewCBCDecrypter(block, l.iv).CryptBlocks(plain, l.data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > block.BlockSize() || pad > len(plain) {
		return nil, errPassphrase
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return nil, errPassphrase
		}
	}
	return plain[:len(plain)-pad], nil
}
