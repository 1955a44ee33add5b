package certs

import (
	"cmp"
	"crypto/x509/pkix"
	"fmt"
	"path/filepath"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// AddClientOptions says what AddClient makes.
type AddClientOptions struct {
	Dir        string // the folder, absolute
	Name       string // the client's; see CheckClient
	Days       int
	KeyType    KeyType
	Kubernetes bool // its Secret, too
	Force      bool // overwrite what is there
	Now        time.Time
}

// AddClient makes a certificate for one more client, in Dir/client-NAME. The
// result has that one, and the daemon's names where they can be told.
func AddClient(o AddClientOptions) (*Result, error) {
	folder := clientPrefix + o.Name
	if err := cmp.Or(CheckClient(o.Name), checkDays(o.Days), checkDir(o.Dir)); err != nil {
		return nil, err
	}
	if o.Kubernetes {
		if err := checkSecretName(secretName(folder)); err != nil {
			return nil, err
		}
	}
	ca, err := openAuthority(o.Dir, o.Now)
	if err != nil {
		return nil, err
	}
	if err := ca.alive(o.Dir, o.Now); err != nil {
		return nil, err
	}
	if err := nameIsFree(o.Dir, o.Name); err != nil {
		return nil, err
	}
	p, r := &plan{}, &Result{CAUntil: ca.cert.NotAfter}
	err = ca.addLeaf(p, r, o.Dir, want{
		folder: folder, role: RoleClient, subject: pkix.Name{CommonName: o.Name},
		kind: o.KeyType, days: o.Days, now: o.Now, secret: o.Kubernetes,
	})
	if err != nil {
		return nil, err
	}
	if err := p.mayWrite(o.Force, "prolong it: berth certs renew --client "+o.Name+" --dir "+hint.Quote(o.Dir),
		"or overwrite it with --force; the old certificate stays valid until it expires"); err != nil {
		return nil, err
	}
	return r, doing("writing the certificate", p.apply())
}

// nameIsFree refuses a name that a client in another folder has: who is who
// shows in the certificate, not in the folder.
func nameIsFree(dir, name string) error {
	folders, err := clientDirs(dir)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if folder != clientPrefix+name && clientName(dir, folder) == name {
			return hint.New(fmt.Sprintf("a client called %s is there already, in %s", name, filepath.Join(dir, folder)), "choose another name")
		}
	}
	return nil
}

// clientName is the name in a client's certificate; empty when it cannot be
// read.
func clientName(dir, folder string) string {
	certs, err := ReadFile(filepath.Join(dir, folder, certFile)).certificates()
	if err != nil {
		return ""
	}
	return certs[0].Subject.CommonName
}

// DaemonNames is the names in the daemon's certificate in dir, the first that
// its owner gave first; none when it cannot be read.
func DaemonNames(dir string) []string {
	certs, err := ReadFile(filepath.Join(dir, daemonDir, certFile)).certificates()
	if err != nil {
		return nil
	}
	return firstFirst(certs[0])
}
