package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// RenewOptions says what Renew prolongs: the daemon's certificate, those of the
// named clients, or all when neither is asked for.
type RenewOptions struct {
	Dir     string // the folder, absolute
	Daemon  bool
	Clients []string
	CA      bool     // the CA's own certificate, too
	Names   []string // the daemon's names from now on; none: as they are
	Days    int
	NewKey  bool    // new private keys as well
	KeyType KeyType // of new keys; empty: as the old ones
	Force   bool    // also what another CA signed
	Now     time.Time
}

// Renew issues certificates again, with the names that they have, by the CA
// that they have: the ones before stay valid until they expire. Private keys
// stay unless NewKey is set; without it, each file is replaced by one rename.
func Renew(o RenewOptions) (*Result, error) {
	if err := cmp.Or(checkDays(o.Days), checkDir(o.Dir)); err != nil {
		return nil, err
	}
	if len(o.Names) > 0 {
		names, err := ParseNames(o.Names)
		if err != nil {
			return nil, err
		}
		o.Names = names
	}
	ca, err := openAuthority(o.Dir, o.Now)
	if err != nil {
		return nil, err
	}
	folders, err := o.folders()
	if err != nil {
		return nil, err
	}
	p := &plan{}
	if o.CA {
		if ca, err = ca.renewed(o.Now); err != nil {
			return nil, doing("renewing the CA", err)
		}
		p.add(filepath.Join(o.Dir, caDir, certFile), encodeCert(ca.cert), publicMode)
	} else if err := ca.alive(o.Dir, o.Now); err != nil {
		return nil, err
	}
	r := &Result{CAUntil: ca.cert.NotAfter}
	for _, folder := range folders {
		if err := o.renewLeaf(p, r, ca, folder); err != nil {
			return nil, err
		}
	}
	if o.CA {
		if err := o.handOut(p, ca, folders); err != nil {
			return nil, err
		}
	}
	return r, doing("writing the certificates", p.apply())
}

// folders are those whose certificates are renewed.
func (o RenewOptions) folders() ([]string, error) {
	if len(o.Names) > 0 && !o.Daemon && len(o.Clients) > 0 {
		return nil, hint.New("--san is for the daemon's certificate, which is not among those to renew", "add --daemon, or leave --client out")
	}
	clients, err := clientDirs(o.Dir)
	if err != nil {
		return nil, err
	}
	var all []string
	if o.Daemon || len(o.Clients) == 0 && isDir(filepath.Join(o.Dir, daemonDir)) {
		all = append(all, daemonDir)
	}
	if !o.Daemon && len(o.Clients) == 0 {
		all = append(all, clients...)
	}
	for _, name := range o.Clients {
		folder, err := findClient(o.Dir, clients, name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, folder) {
			all = append(all, folder)
		}
	}
	if len(all) == 0 && !o.CA {
		return nil, hint.New("nothing to renew: "+o.Dir+" has neither daemon nor client", "make certificates: berth certs create NAME")
	}
	return all, nil
}

// findClient is the folder of a client: client-NAME, or client when it is
// called so or its certificate says so.
func findClient(dir string, folders []string, name string) (string, error) {
	if slices.Contains(folders, clientPrefix+name) {
		return clientPrefix + name, nil
	}
	for _, folder := range folders {
		if clientName(dir, folder) == name {
			return folder, nil
		}
	}
	if name == DefaultClient && slices.Contains(folders, clientDir) {
		return clientDir, nil
	}
	var known []string
	for _, folder := range folders {
		if n := clientName(dir, folder); n != "" {
			known = append(known, n)
		}
	}
	tries := "make one: berth certs add-client NAME"
	if len(known) > 0 {
		tries = "there are: " + strings.Join(known, ", ")
	}
	return "", hint.New(fmt.Sprintf("no client called %q in %s", clip(name), dir), tries)
}

// renewLeaf plans the new files of one folder.
func (o RenewOptions) renewLeaf(p *plan, r *Result, ca *authority, folder string) error {
	at := filepath.Join(o.Dir, folder)
	role, _ := roleOf(folder)
	subject, names, err := o.identity(ca, folder, role)
	if err != nil {
		return err
	}
	pub, keyPEM, err := o.key(p, folder)
	if err != nil {
		return err
	}
	cert, err := ca.issue(leaf{
		role: role, subject: subject, names: names, key: pub,
		from: o.Now, to: o.Now.Add(time.Duration(o.Days) * day),
	})
	if err != nil {
		return doing("signing the certificate for "+folder, err)
	}
	certPEM := encodeCert(cert)
	p.add(filepath.Join(at, certFile), certPEM, publicMode)
	caPEM, changed, err := o.trust(ca, folder)
	if err != nil {
		return err
	}
	if changed {
		p.add(filepath.Join(at, caFile), caPEM, publicMode)
	}
	if role == RoleDaemon && len(o.Names) > 0 {
		p.add(filepath.Join(o.Dir, sanFile), []byte(strings.Join(names, "\n")+"\n"), publicMode)
	}
	made := Issued{Folder: folder, Role: role, Names: shownNames(cert, role), NotAfter: cert.NotAfter}
	made.Secret, err = p.renewSecret(o.Dir, folder, caPEM, certPEM, keyPEM)
	if err != nil {
		return err
	}
	r.add(made, o.Days, o.Now)
	return nil
}

// identity is whom the folder's certificate is for.
func (o RenewOptions) identity(ca *authority, folder string, role Role) (pkix.Name, []string, error) {
	rename := role == RoleDaemon && len(o.Names) > 0
	file := ReadFile(filepath.Join(o.Dir, folder, certFile))
	certs, err := file.certificates()
	switch {
	case err != nil && rename:
		return subjectOf(o.Names), o.Names, nil
	case err != nil:
		again := "make it anew: berth certs add-client NAME --force"
		if role == RoleDaemon {
			again = "say the daemon's names, and it is made anew: berth certs renew --daemon --san NAME"
		}
		return pkix.Name{}, nil, hint.Wrap(err, "whom to renew the certificate for is not known", again)
	case certs[0].CheckSignatureFrom(ca.cert) != nil && !o.Force:
		return pkix.Name{}, nil, hint.New(fmt.Sprintf("%s was signed by another CA (%s), not by the one in %s",
			file.Path, shortName(certs[0].Issuer), filepath.Join(o.Dir, caDir)), "to have it signed by this one: --force")
	}
	if rename {
		return subjectOf(o.Names), o.Names, nil
	}
	old := certs[0]
	names := hostNames(old)
	switch {
	case role == RoleDaemon && len(names) == 0:
		return pkix.Name{}, nil, hint.New(file.Path+" is for no name", "say the daemon's names: --san NAME")
	case role == RoleClient && old.Subject.CommonName == "":
		return pkix.Name{}, nil, hint.New(file.Path+" names no client", "make it anew: berth certs add-client NAME")
	}
	return old.Subject, names, nil
}

// key is the folder's public key, and its private one as it stands in the
// file: the one that is there, or a new one, which is planned.
func (o RenewOptions) key(p *plan, folder string) (crypto.PublicKey, []byte, error) {
	at := filepath.Join(o.Dir, folder)
	file := ReadFile(filepath.Join(at, keyFile))
	key, err := file.privateKey()
	if !o.NewKey {
		if err != nil {
			return nil, nil, hint.Wrap(err, "renewing the certificate for "+folder, "take a new key: --new-key")
		}
		certs, cerr := ReadFile(filepath.Join(at, certFile)).certificates()
		if cerr == nil && !fits(certs[0], key) {
			return nil, nil, hint.New(fmt.Sprintf("the key in %s does not belong to the certificate beside it", file.Path), "take a new key: --new-key")
		}
		return key.Public(), file.Data, nil
	}
	kind := o.KeyType
	if kind == "" {
		kind = kindOf(key) // ECDSA when there is none
	}
	if key, err = newKey(kind); err != nil {
		return nil, nil, doing("making a key", err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	p.add(filepath.Join(at, keyFile), data, secretMode)
	return key.Public(), data, nil
}

// trust is what the folder's ca.pem is to hold, and whether that is new: the CA
// in the place of its own older certificate, and whatever other CAs the owner
// put there.
func (o RenewOptions) trust(ca *authority, folder string) (data []byte, changed bool, err error) {
	file := ReadFile(filepath.Join(o.Dir, folder, caFile))
	certs, err := file.certificates()
	if err != nil {
		return encodeCert(ca.cert), true, nil
	}
	at := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return fits(c, ca.key) })
	switch {
	case at < 0 && !o.Force:
		return nil, false, hint.New(fmt.Sprintf("%s does not hold the CA in %s", file.Path, filepath.Join(o.Dir, caDir)), "to add it: --force")
	case at < 0:
		certs = append([]*x509.Certificate{ca.cert}, certs...)
	case certs[at].Equal(ca.cert):
		return file.Data, false, nil
	default:
		certs[at] = ca.cert
	}
	return encodeCert(certs...), true, nil
}

// handOut gives a renewed CA to the folders whose certificates stay.
func (o RenewOptions) handOut(p *plan, ca *authority, done []string) error {
	all, err := clientDirs(o.Dir)
	if err != nil {
		return err
	}
	if isDir(filepath.Join(o.Dir, daemonDir)) {
		all = append(all, daemonDir)
	}
	for _, folder := range all {
		if slices.Contains(done, folder) {
			continue
		}
		data, changed, err := o.trust(ca, folder)
		if err != nil {
			return err
		}
		if changed {
			p.add(filepath.Join(o.Dir, folder, caFile), data, publicMode)
		}
		cert, key := ReadFile(filepath.Join(o.Dir, folder, certFile)), ReadFile(filepath.Join(o.Dir, folder, keyFile))
		if cert.Err != nil || key.Err != nil {
			continue
		}
		if _, err := p.renewSecret(o.Dir, folder, data, cert.Data, key.Data); err != nil {
			return err
		}
	}
	return nil
}

// renewSecret plans the folder's manifest where there is one, and gives its
// name.
func (p *plan) renewSecret(dir, folder string, ca, cert, key []byte) (string, error) {
	name := secretName(folder) + ".yaml"
	old, err := os.ReadFile(filepath.Join(dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	}
	if data := renewSecret(old, folder, ca, cert, key); !bytes.Equal(data, old) {
		p.add(filepath.Join(dir, name), data, secretMode)
	}
	return name, nil
}

// shortName is a subject or issuer for a sentence.
func shortName(n pkix.Name) string {
	if s := n.String(); s != "" {
		return printable(s)
	}
	return "no name"
}
