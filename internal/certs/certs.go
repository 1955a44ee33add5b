// Package certs makes, renews and looks at the certificates of mutual TLS
// between a BuildKit daemon and its clients: a CA, certificates that are for
// the daemon only, and certificates that are for clients only.
//
// The layout is that of BuildKit's own guides, with the CA beside it:
//
//	DIR/ca/{cert,key}.pem           the CA; its key signs more, and stays here
//	DIR/daemon/{ca,cert,key}.pem    for buildkitd
//	DIR/client/{ca,cert,key}.pem    for the first client
//	DIR/client-NAME/{ca,…}.pem      for each further one
//	DIR/SAN                         the daemon's names, one a line
//	DIR/buildkit-daemon-certs.yaml  and -client-certs.yaml: Secrets, on demand
//
// It is not for connections: it dials nobody, runs no program and reads no
// builder's state. What it prints is up to its caller.
//
// Rules: keys are readable by their owner alone and never part of an error.
// What cannot be done is refused before a file is touched; several files are
// written all or none. A renewal keeps the private key unless a new one is
// asked for, because a certificate alone is replaced by one rename: nobody who
// reads the pair meanwhile can get halves that do not fit. The clock is a
// value.
package certs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
)

// DefaultDir is where certificates are kept unless the user says otherwise, as
// in BuildKit's guides.
const DefaultDir = ".certs"

// How long certificates live, in days.
const (
	DefaultDays = 365  // the daemon's and the clients'
	MaxDays     = 3650 // the CA's, which no other outlives
)

// DefaultClient names the first client where the user does not.
const DefaultClient = "client"

// backdate is how long before now a certificate begins to be valid, for peers
// whose clocks are behind.
const backdate = 5 * time.Minute

const day = 24 * time.Hour

// The names of files and folders.
const (
	caDir        = "ca"
	daemonDir    = "daemon"
	clientDir    = "client"
	clientPrefix = "client-"

	caFile   = "ca.pem"
	certFile = "cert.pem"
	keyFile  = "key.pem"
	sanFile  = "SAN"
)

// Modes of what is written.
const (
	dirMode    = 0o700
	secretMode = 0o600
	publicMode = 0o644
)

// Role is what a certificate is for.
type Role string

// The roles.
const (
	RoleCA     Role = "ca"
	RoleDaemon Role = "daemon"
	RoleClient Role = "client"
)

// roleOf tells the role from a folder's name in the layout.
func roleOf(folder string) (Role, bool) {
	switch {
	case folder == caDir:
		return RoleCA, true
	case folder == daemonDir:
		return RoleDaemon, true
	case folder == clientDir, strings.HasPrefix(folder, clientPrefix) && folder != clientPrefix:
		return RoleClient, true
	}
	return "", false
}

// clientDirs lists the folders of clients in dir, the first client's first. A
// dir that is not there has none.
func clientDirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		role, known := roleOf(e.Name())
		if known && role == RoleClient && isDir(filepath.Join(dir, e.Name())) {
			all = append(all, e.Name())
		}
	}
	slices.Sort(all)
	return all, nil
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// checkDays refuses a number of days that cannot be meant.
func checkDays(days int) error {
	if days < 1 || days > MaxDays {
		return hint.New(fmt.Sprintf("--days %d is not between 1 and %d", days, MaxDays),
			fmt.Sprintf("leave it out for %d days; certs renew prolongs them", DefaultDays))
	}
	return nil
}

// checkDir refuses a folder whose name cannot stand in the lines that are
// printed for pasting.
func checkDir(dir string) error {
	if strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("the folder %q has a control character in its name", dir)
	}
	return nil
}
