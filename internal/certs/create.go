package certs

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// CreateOptions says what Create makes.
type CreateOptions struct {
	Dir        string   // the folder, absolute
	Names      []string // the daemon's names as typed; see ParseNames
	Client     string   // the first client's name; empty is DefaultClient
	Days       int      // how long the daemon's and the client's live
	KeyType    KeyType
	Kubernetes bool // the Secrets, too
	Force      bool // overwrite what is there
	Now        time.Time
}

// Issued is one certificate that was made.
type Issued struct {
	Folder   string // its folder in Dir, such as client-ci
	Role     Role
	Names    []string // the daemon's names, or the client's one
	NotAfter time.Time
	Secret   string // the file of its Secret in Dir; empty when there is none
}

// Files are the paths of its three files, in Dir as the caller writes it.
func (i Issued) Files(dir string) (ca, cert, key string) {
	at := filepath.Join(dir, i.Folder)
	return filepath.Join(at, caFile), filepath.Join(at, certFile), filepath.Join(at, keyFile)
}

// Result is what was made.
type Result struct {
	CAUntil time.Time // the end of the CA
	Certs   []Issued  // the daemon's first
	CutDays int       // how many of the days asked for the CA's end took away, 0 mostly
}

// Create makes a CA, a certificate for the daemon and one for a client, with
// their keys. An error names what was refused, and then nothing is changed.
func Create(o CreateOptions) (*Result, error) {
	names, err := ParseNames(o.Names)
	if err != nil {
		return nil, err
	}
	if o.Client == "" {
		o.Client = DefaultClient
	}
	if err := cmp.Or(CheckClient(o.Client), checkDays(o.Days), checkDir(o.Dir)); err != nil {
		return nil, err
	}
	p := &plan{}
	p.reserve(o.Dir, o.Kubernetes)
	if err := p.mayWrite(o.Force, existsHints(o.Dir)...); err != nil {
		return nil, err
	}
	ca, err := newAuthority(o.KeyType, o.Now)
	if err != nil {
		return nil, doing("making the CA", err)
	}
	if p, err = ca.files(o.Dir); err != nil {
		return nil, err
	}
	r := &Result{CAUntil: ca.cert.NotAfter}
	for _, w := range []want{
		{folder: daemonDir, role: RoleDaemon, subject: subjectOf(names), names: names},
		{folder: clientDir, role: RoleClient, subject: pkix.Name{CommonName: o.Client}},
	} {
		w.kind, w.days, w.now, w.secret = o.KeyType, o.Days, o.Now, o.Kubernetes
		if err := ca.addLeaf(p, r, o.Dir, w); err != nil {
			return nil, err
		}
	}
	p.add(filepath.Join(o.Dir, sanFile), []byte(strings.Join(names, "\n")+"\n"), publicMode)
	return r, doing("writing the certificates", p.apply())
}

// reserve names all files that Create writes, so that it can be refused before
// keys are made, which takes a while for RSA.
func (p *plan) reserve(dir string, secrets bool) {
	for _, f := range []string{
		"ca/cert.pem", "ca/key.pem", "daemon/ca.pem", "daemon/cert.pem", "daemon/key.pem",
		"client/ca.pem", "client/cert.pem", "client/key.pem", sanFile,
	} {
		p.add(filepath.Join(dir, filepath.FromSlash(f)), nil, 0)
	}
	if secrets {
		for _, folder := range []string{daemonDir, clientDir} {
			p.add(filepath.Join(dir, secretName(folder)+".yaml"), nil, 0)
		}
	}
}

func existsHints(dir string) []string {
	return []string{
		"prolong what is there: berth certs renew --dir " + hint.Quote(dir),
		"make new ones elsewhere: --dir DIR; or overwrite them with --force, after which no client of the old CA gets in",
	}
}

// doing says what failed, with the path once.
func doing(what string, err error) error { return hint.Wrap(err, what) }

// files is a plan with the CA's own two files.
func (a *authority) files(dir string) (*plan, error) {
	key, err := encodeKey(a.key)
	if err != nil {
		return nil, err
	}
	p := &plan{}
	p.add(filepath.Join(dir, caDir, keyFile), key, secretMode)
	p.add(filepath.Join(dir, caDir, certFile), encodeCert(a.cert), publicMode)
	return p, nil
}

// want is a certificate with a new key that is to be made.
type want struct {
	folder  string
	role    Role
	subject pkix.Name
	names   []string
	kind    KeyType
	days    int
	now     time.Time
	secret  bool
}

// addLeaf issues a certificate with a new key and plans its files.
func (a *authority) addLeaf(p *plan, r *Result, dir string, w want) error {
	key, err := newKey(w.kind)
	if err != nil {
		return doing("making a key", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	cert, err := a.issue(leaf{
		role: w.role, subject: w.subject, names: w.names, key: key.Public(),
		from: w.now, to: w.now.Add(time.Duration(w.days) * day),
	})
	if err != nil {
		return doing("signing the certificate for "+w.folder, err)
	}
	at := filepath.Join(dir, w.folder)
	caPEM := encodeCert(a.cert)
	p.add(filepath.Join(at, caFile), caPEM, publicMode)
	p.add(filepath.Join(at, certFile), encodeCert(cert), publicMode)
	p.add(filepath.Join(at, keyFile), keyPEM, secretMode)
	made := Issued{Folder: w.folder, Role: w.role, Names: w.names, NotAfter: cert.NotAfter}
	if w.role == RoleClient {
		made.Names = shownNames(cert, w.role)
	}
	if w.secret {
		made.Secret = secretName(w.folder) + ".yaml"
		p.add(filepath.Join(dir, made.Secret), secret(w.folder, caPEM, encodeCert(cert), keyPEM), secretMode)
	}
	r.add(made, w.days, w.now)
	return nil
}

func (r *Result) add(made Issued, days int, now time.Time) {
	r.Certs = append(r.Certs, made)
	const rounding = time.Minute // certificates know no fractions of a second
	if cut := now.Add(time.Duration(days) * day).Sub(made.NotAfter); cut > rounding {
		r.CutDays = max(r.CutDays, int((cut+day-rounding)/day))
	}
}

// shownNames is whom a certificate is for.
func shownNames(cert *x509.Certificate, role Role) []string {
	if role == RoleDaemon {
		return firstFirst(cert)
	}
	return []string{cert.Subject.CommonName}
}

// firstFirst is the names in a daemon's certificate, which has DNS names before
// addresses, but with the one before all that its owner gave first: it is the
// common name.
func firstFirst(cert *x509.Certificate) []string {
	names := namesIn(cert)
	if at := slices.Index(names, cert.Subject.CommonName); at > 0 {
		names = slices.Insert(slices.Delete(names, at, at+1), 0, cert.Subject.CommonName)
	}
	return names
}

// namesIn is all names that a certificate carries, in the order of their kinds.
func namesIn(cert *x509.Certificate) []string {
	all := append(hostNames(cert), cert.EmailAddresses...)
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	return all
}

// hostNames is the DNS names and addresses among them.
func hostNames(cert *x509.Certificate) []string {
	all := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// openAuthority reads the CA of dir, with its key, for signing at the time now.
func openAuthority(dir string, now time.Time) (*authority, error) {
	certAt, keyAt := ReadFile(filepath.Join(dir, caDir, certFile)), ReadFile(filepath.Join(dir, caDir, keyFile))
	fail := func(err error) (*authority, error) {
		return nil, hint.Wrap(err, "the CA that signs", "the CA is made by: berth certs create; its key is never in daemon/ or client/")
	}
	all, err := certAt.certificates()
	if err != nil {
		return fail(err)
	}
	key, err := keyAt.privateKey()
	if err != nil {
		return fail(err)
	}
	ca := &authority{cert: all[0], key: key}
	switch {
	case !fits(ca.cert, key):
		return fail(fmt.Errorf("the key in %s does not belong to the certificate in %s", keyAt.Path, certAt.Path))
	case !ca.cert.IsCA:
		return fail(fmt.Errorf("the certificate in %s is not a CA's", certAt.Path))
	case now.Before(ca.cert.NotBefore):
		return nil, hint.New(fmt.Sprintf("the CA in %s is not valid before %s", certAt.Path, stamp(ca.cert.NotBefore)), "is this machine's clock right? date")
	}
	return ca, nil
}

// alive refuses to sign with a CA that has expired.
func (a *authority) alive(dir string, now time.Time) error {
	if now.Before(a.cert.NotAfter) {
		return nil
	}
	return hint.New(fmt.Sprintf("the CA in %s expired on %s", filepath.Join(dir, caDir), stamp(a.cert.NotAfter)),
		"prolong it, and what it signed: berth certs renew --ca --dir "+hint.Quote(dir))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
