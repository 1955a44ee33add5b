package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Input is the three files of one side of mutual TLS, and what they are held
// against. Each may be missing: the zero File.
type Input struct {
	CA, Cert, Key File

	Role Role // what Cert is for; empty: its uses are not looked at
	// OneCA says that Cert has to come from CA, as in the folders that this
	// package makes. Without it, as for a builder, CA is whom the other side's
	// certificate is checked against, and Cert from elsewhere is only noted.
	OneCA bool

	Now  time.Time
	Warn time.Duration // what ends within it counts as Expiring
}

// Level is how bad a problem is.
type Level string

// The levels, the worst first.
const (
	Broken   Level = "broken"   // it does not work
	Expiring Level = "expiring" // it will soon not work; see Input.Warn
	Note     Level = "note"     // worth knowing
)

// Kind is what a problem is about, for programs.
type Kind string

// The kinds.
const (
	KindFile        Kind = "file"          // missing, unreadable, or not what it should be
	KindEncrypted   Kind = "encrypted-key" // a passphrase is needed to look at it
	KindKeyMismatch Kind = "key-mismatch"  // the key is another certificate's
	KindUntrusted   Kind = "untrusted"     // the chain does not lead to the CA
	KindUse         Kind = "use"           // not for what it is used for
	KindExpired     Kind = "expired"
	KindNotYet      Kind = "not-yet-valid"
	KindExpiring    Kind = "expiring"
	KindExposed     Kind = "exposed-key" // others can read the key
	KindNames       Kind = "no-names"    // a daemon's certificate for no name
)

// Problem is one thing that is wrong.
type Problem struct {
	Level Level
	Kind  Kind
	File  string `json:",omitempty"` // its path, when it is one file's
	Text  string // what, in words, with the file where that matters
	Err   error  `json:"-"` // the cause, where there is one
}

// Cert is what a certificate says of itself. Strings are safe to print.
type Cert struct {
	Subject   string
	Issuer    string
	Serial    string   // hexadecimal
	Names     []string `json:",omitempty"` // DNS names, addresses and others
	NotBefore time.Time
	NotAfter  time.Time
	IsCA      bool
	Uses      []string `json:",omitempty"` // "server", "client", "sign certificates", …
	Key       string   // such as "ECDSA P-256"
	SHA256    string   // the fingerprint, hexadecimal
}

// Description is what Describe found.
type Description struct {
	Role   Role   `json:",omitempty"`
	Cert   *Cert  `json:",omitempty"` // the first of the certificate file
	Chain  []Cert `json:",omitempty"` // what follows it in the file
	CAs    []Cert `json:",omitempty"`
	HasKey bool   // there is a key that could be read

	KeyMatches bool      // the key belongs to Cert; false also when either is missing
	Verifies   bool      // Cert leads to one of CAs, apart from whether it is valid now
	ValidUntil time.Time // the first end of Cert and what it depends on; zero without Cert

	Problems []Problem `json:",omitempty"` // the worst first
}

func sortProblems(all []Problem) {
	order := []Level{Broken, Expiring, Note}
	slices.SortStableFunc(all, func(a, b Problem) int { return slices.Index(order, a.Level) - slices.Index(order, b.Level) })
}

// Worst is the level of the worst problem; empty when there is none.
func (d Description) Worst() Level {
	if len(d.Problems) == 0 {
		return ""
	}
	return d.Problems[0].Level
}

// DescribeFiles is Describe for files on the disk; a path may be empty.
func DescribeFiles(in Input, ca, cert, key string) Description {
	in.CA, in.Cert, in.Key = ReadFile(ca), ReadFile(cert), ReadFile(key)
	return Describe(in)
}

// Describe says what certificate files hold, and what is wrong with them. It
// reads nothing and asks nobody.
func Describe(in Input) Description {
	e := &examiner{in: in, d: Description{Role: in.Role}}
	var chain, cas []*x509.Certificate
	if in.Cert.named() {
		chain = e.certificates(in.Cert)
	}
	if in.CA.named() {
		cas = e.certificates(in.CA)
		e.d.CAs = describeAll(cas)
	}
	if in.Key.named() {
		e.key(chain)
	}
	if len(chain) > 0 {
		e.leaf(chain, cas)
	} else {
		e.cas(cas)
	}
	sortProblems(e.d.Problems)
	return e.d
}

// examiner collects what is found.
type examiner struct {
	in Input
	d  Description
}

func (e *examiner) problem(level Level, kind Kind, f File, err error, format string, args ...any) {
	e.d.Problems = append(e.d.Problems, Problem{Level: level, Kind: kind, File: f.Path, Err: err, Text: fmt.Sprintf(format, args...)})
}

func (e *examiner) certificates(f File) []*x509.Certificate {
	certs, err := f.certificates()
	if err != nil {
		e.problem(Broken, KindFile, f, err, "%s", printable(err.Error()))
	}
	return certs
}

func (e *examiner) key(chain []*x509.Certificate) {
	key, err := e.in.Key.privateKey()
	switch {
	case errors.Is(err, ErrEncrypted):
		e.problem(Note, KindEncrypted, e.in.Key, err, "%s", printable(err.Error()))
		e.exposed()
		return
	case err != nil:
		e.problem(Broken, KindFile, e.in.Key, err, "%s", printable(err.Error()))
		return
	}
	e.d.HasKey = true
	e.exposed()
	if len(chain) == 0 {
		return
	}
	if e.d.KeyMatches = fits(chain[0], key); !e.d.KeyMatches {
		e.problem(Broken, KindKeyMismatch, e.in.Key, nil, "the key in %s does not belong to the certificate in %s", e.in.Key.Path, e.in.Cert.Path)
	}
}

// exposed warns of a key that others than its owner can read. Where the
// permissions are not known, as on Windows, they say nothing.
func (e *examiner) exposed() {
	if k := e.in.Key; k.Mode&0o077 != 0 && runtime.GOOS != "windows" {
		e.problem(Note, KindExposed, k, nil, "%s can be read by others than its owner (mode %04o)", k.Path, k.Mode)
	}
}

// leaf looks at the certificate and what it depends on.
func (e *examiner) leaf(chain, cas []*x509.Certificate) {
	c := chain[0]
	first := describe(c)
	e.d.Cert, e.d.Chain = &first, describeAll(chain[1:])
	e.d.ValidUntil = c.NotAfter
	e.time(e.in.Cert, c, "certificate")
	e.use(c)
	if e.in.Role == RoleCA {
		e.d.Verifies = c.CheckSignatureFrom(c) == nil // a root signs itself
		return
	}
	if len(cas) == 0 {
		return
	}
	path, err := verify(chain, cas)
	e.d.Verifies = err == nil
	if err != nil {
		e.untrusted(c, cas, err)
		e.cas(cas)
		return
	}
	for i, up := range path[1:] {
		file := e.in.CA
		if i < len(path)-2 {
			file = e.in.Cert // an intermediate
		}
		if up.NotAfter.Before(e.d.ValidUntil) {
			e.d.ValidUntil = up.NotAfter
		}
		e.time(file, up, "its CA")
	}
}

func (e *examiner) untrusted(c *x509.Certificate, cas []*x509.Certificate, err error) {
	level, more := Broken, ""
	if !e.in.OneCA {
		level, more = Note, "; right only where the daemon trusts another CA for its clients"
	}
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		e.problem(level, KindUntrusted, e.in.Cert, err, "the certificate cannot be verified: %s%s", printable(err.Error()), more)
		return
	}
	e.problem(level, KindUntrusted, e.in.Cert, err, "the certificate is signed by %s, and not by the CA in %s (%s)%s",
		shortName(c.Issuer), e.in.CA.Path, shortName(cas[0].Subject), more)
}

// cas looks at the CAs when no certificate hangs on one of them: each may be
// what the other side's certificate hangs on.
func (e *examiner) cas(cas []*x509.Certificate) {
	for _, c := range cas {
		if e.d.Cert == nil && (e.d.ValidUntil.IsZero() || c.NotAfter.Before(e.d.ValidUntil)) {
			e.d.ValidUntil = c.NotAfter
		}
		e.time(e.in.CA, c, "CA "+shortName(c.Subject))
	}
}

func (e *examiner) time(f File, c *x509.Certificate, what string) {
	switch left := c.NotAfter.Sub(e.in.Now); {
	case left < 0:
		e.problem(Broken, KindExpired, f, nil, "%s expired on %s", what, stamp(c.NotAfter))
	case e.in.Now.Before(c.NotBefore):
		e.problem(Broken, KindNotYet, f, nil, "%s is not valid before %s: is the clock right?", what, stamp(c.NotBefore))
	case left <= e.in.Warn:
		e.problem(Expiring, KindExpiring, f, nil, "%s expires on %s, in %s", what, stamp(c.NotAfter), Left(left))
	}
}

// use holds what the certificate may be used for against its role.
func (e *examiner) use(c *x509.Certificate) {
	bad := func(format string, args ...any) { e.problem(Broken, KindUse, e.in.Cert, nil, format, args...) }
	switch e.in.Role {
	case RoleCA:
		if !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			bad("the certificate may not sign others: it is no CA's")
		}
	case RoleDaemon:
		if !may(c, x509.ExtKeyUsageServerAuth) {
			bad("the certificate is not for servers, so clients refuse a daemon that shows it")
		}
		if len(c.DNSNames)+len(c.IPAddresses) == 0 {
			e.problem(Broken, KindNames, e.in.Cert, nil, "the certificate is for no name, so clients refuse a daemon that shows it")
		}
	case RoleClient:
		if !may(c, x509.ExtKeyUsageClientAuth) {
			bad("the certificate is not for clients, so daemons refuse it")
		}
	}
}

// may tells whether a certificate is for a use; one that says nothing is for
// all.
func may(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == use || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// verify gives the way from chain[0] to one of cas, apart from time: it is
// looked for at each moment at which one of the certificates begins or ends.
func verify(chain, cas []*x509.Certificate) (path []*x509.Certificate, err error) {
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	var moments []time.Time
	for i, c := range append(chain[:len(chain):len(chain)], cas...) {
		switch {
		case i >= len(chain):
			o.Roots.AddCert(c)
		case i > 0:
			o.Intermediates.AddCert(c)
		}
		moments = append(moments, c.NotAfter, c.NotBefore)
	}
	const most = 64 // of a hostile file with very many certificates
	for _, at := range moments[:min(len(moments), most)] {
		o.CurrentTime = at
		paths, failed := chain[0].Verify(o)
		if failed == nil {
			return paths[0], nil
		}
		var invalid x509.CertificateInvalidError
		if err == nil || !(errors.As(failed, &invalid) && invalid.Reason == x509.Expired) {
			err = failed // that it is not the time says the least
		}
	}
	return nil, err
}

func describeAll(certs []*x509.Certificate) []Cert {
	var all []Cert
	for _, c := range certs {
		all = append(all, describe(c))
	}
	return all
}

func describe(c *x509.Certificate) Cert {
	sum := sha256.Sum256(c.Raw)
	d := Cert{
		Subject: shortName(c.Subject), Issuer: shortName(c.Issuer), Serial: hex.EncodeToString(c.SerialNumber.Bytes()),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), IsCA: c.IsCA,
		Uses: uses(c), Key: keyName(c.PublicKey), SHA256: hex.EncodeToString(sum[:]),
	}
	for _, n := range namesIn(c) {
		d.Names = append(d.Names, printable(n))
	}
	return d
}

func uses(c *x509.Certificate) []string {
	var all []string
	if c.IsCA {
		all = append(all, "sign certificates")
	}
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			all = append(all, "server")
		case x509.ExtKeyUsageClientAuth:
			all = append(all, "client")
		case x509.ExtKeyUsageAny:
			all = append(all, "any")
		default:
			all = append(all, "other")
		}
	}
	return all
}

func keyName(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return "unknown"
}

// Left is a length of time as people say it.
func Left(d time.Duration) string {
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", int(d/day))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	}
	return "a minute"
}

// printable is text out of a file or a certificate, safe for a terminal and of
// bounded length.
func printable(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}
