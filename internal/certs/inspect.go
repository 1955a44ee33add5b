package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// Set is the files of one side, and what was found in them.
type Set struct {
	Name  string // its folder, or the node that uses it
	Files Trio   // what was looked at
	Description
}

// Trio is the paths of a CA, a certificate and its key. One that is empty is
// not used.
type Trio struct{ CA, Cert, Key string }

// FindTrio finds a client's three files in a folder: ca.pem, cert.pem and
// key.pem, or as Kubernetes names them, ca.crt, tls.crt and tls.key; in the
// folder itself, else in its folder client. A CA that is not there, and a
// certificate with its key, are left empty; it is false when all are.
func FindTrio(dir string) (Trio, bool) {
	var ca Trio // a CA alone is what is meant only when nothing says more
	for _, folder := range []string{dir, filepath.Join(dir, clientDir)} {
		for _, t := range []Trio{{caFile, certFile, keyFile}, {"ca.crt", "tls.crt", "tls.key"}} {
			at := func(name string) string { return filepath.Join(folder, name) }
			found := Trio{}
			if exists(at(t.CA)) {
				found.CA = at(t.CA)
			}
			if exists(at(t.Cert)) || exists(at(t.Key)) {
				found.Cert, found.Key = at(t.Cert), at(t.Key)
				return found, true
			}
			if ca == (Trio{}) {
				ca = found
			}
		}
	}
	return ca, ca != Trio{}
}

// IsCertDir tells whether dir holds certificates in a layout that InspectDir
// knows.
func IsCertDir(dir string) bool {
	if _, ok := FindTrio(dir); ok {
		return true
	}
	return exists(filepath.Join(dir, caDir, certFile)) || exists(filepath.Join(dir, daemonDir, certFile))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// InspectDir looks at the certificates in dir: the CA's, the daemon's and each
// client's, or the one set of files that it holds. The error is for a folder
// without any; what is wrong with them is in the sets.
func InspectDir(dir string, now time.Time, warn time.Duration) ([]Set, error) {
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, hint.New(fmt.Sprintf("no certificates: the folder %s does not exist", dir), "make some: berth certs create NAME")
	case err != nil:
		return nil, err
	case !fi.IsDir():
		return nil, fmt.Errorf("%s is not a folder", dir)
	}
	clients, err := clientDirs(dir)
	if err != nil {
		return nil, err
	}
	var sets []Set
	for _, folder := range append([]string{caDir, daemonDir}, clients...) {
		if at := filepath.Join(dir, folder); isDir(at) {
			sets = append(sets, inspectFolder(dir, folder, now, warn))
		}
	}
	if len(sets) > 0 {
		crossCheck(sets)
		return sets, nil
	}
	t, ok := FindTrio(dir)
	if !ok {
		return nil, hint.New(fmt.Sprintf("no certificates in %s: neither daemon/ and client/, nor cert.pem, nor tls.crt", dir), "make some: berth certs create NAME --dir DIR")
	}
	return []Set{InspectFiles(filepath.Base(dir), t, now, warn)}, nil
}

func inspectFolder(dir, folder string, now time.Time, warn time.Duration) Set {
	at := filepath.Join(dir, folder)
	t := Trio{filepath.Join(at, caFile), filepath.Join(at, certFile), filepath.Join(at, keyFile)}
	in := Input{OneCA: true, Now: now, Warn: warn}
	in.Role, _ = roleOf(folder)
	away := false
	if in.Role == RoleCA {
		t.CA = ""
		if away = !exists(t.Key); away {
			t.Key = ""
		}
	}
	s := Set{Name: folder, Files: t, Description: DescribeFiles(in, t.CA, t.Cert, t.Key)}
	if away {
		s.Problems = append(s.Problems, Problem{Level: Note, Kind: KindFile, Text: "the CA's key is not in " + at + ", so nothing can be signed here"})
	}
	return s
}

// InspectFiles looks at one set of files, each path possibly empty. A missing
// certificate is no fault: not every daemon wants one of its clients.
func InspectFiles(name string, t Trio, now time.Time, warn time.Duration) Set {
	return Inspect(name, ReadFile(t.CA), ReadFile(t.Cert), ReadFile(t.Key), now, warn)
}

// Inspect is InspectFiles for contents that are known already.
func Inspect(name string, ca, cert, key File, now time.Time, warn time.Duration) Set {
	in := Input{CA: ca, Cert: cert, Key: key, Role: RoleClient, Now: now, Warn: warn}
	if c, err := cert.certificates(); err == nil && !may(c[0], x509.ExtKeyUsageClientAuth) {
		in.Role = RoleDaemon
	}
	return Set{Name: name, Files: Trio{ca.Path, cert.Path, key.Path}, Description: Describe(in)}
}

// crossCheck holds the sides against each other: the daemon has to take the
// clients' certificates, and they the daemon's.
func crossCheck(sets []Set) {
	var daemon *Set
	for i := range sets {
		if sets[i].Role == RoleDaemon {
			daemon = &sets[i]
		}
	}
	if daemon == nil {
		return
	}
	for i := range sets {
		s := &sets[i]
		if s.Role != RoleClient {
			continue
		}
		refuses(daemon, s, "the daemon refuses this client")
		refuses(s, daemon, "this client refuses the daemon")
		sortProblems(s.Problems)
	}
}

// refuses notes with the client among the two that one does not trust the
// other's certificate. What cannot be read was said before.
func refuses(one, other *Set, what string) {
	cas, err := ReadFile(one.Files.CA).certificates()
	if err != nil {
		return
	}
	chain, err := ReadFile(other.Files.Cert).certificates()
	if err != nil {
		return
	}
	if _, err := verify(chain, cas); err == nil {
		return
	}
	client := one
	if other.Role == RoleClient {
		client = other
	}
	client.Problems = append(client.Problems, Problem{
		Level: Broken, Kind: KindUntrusted, File: one.Files.CA,
		Text: fmt.Sprintf("%s: %s was not signed by the CA in %s", what, other.Files.Cert, one.Files.CA),
	})
}
