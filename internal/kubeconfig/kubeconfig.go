// Package kubeconfig finds out how to reach a Kubernetes API server and with
// whose credentials: from a kubeconfig file or several, as kubectl reads them,
// or from within a pod.
//
// It is not for talking to the server, and it writes no file. It is not
// client-go's clientcmd, which with what it needs would make berth a third
// larger and slower to start; a test holds it against clientcmd, file by file.
//
// Rules: a file is read when it is asked for and never kept; relative paths in
// a file are relative to that file; an error names the file, and never repeats
// a secret of it. The first file to say something is right, as for kubectl. A
// credential plugin ends when its context ends, and says nothing on the
// terminal: what it writes to its standard error is in the error.
package kubeconfig

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Source is where to look.
type Source struct {
	Home   string              // the user's folder
	Dir    string              // what relative paths are relative to
	Getenv func(string) string // the environment; nil for an empty one

	File    string // the kubeconfig; "" for $KUBECONFIG, or ~/.kube/config, or the pod that we are in
	Context string // "" for the current one

	// ServiceAccount is the folder with a pod's credentials; "" for the one that
	// Kubernetes mounts.
	ServiceAccount string
}

// Config is how to reach one API server, and who we are there.
type Config struct {
	Context   string   // its name; "" within a pod
	Namespace string   // never empty
	Files     []string // what was read
	Warnings  []string // what is wrong with them but does not matter now

	Server     *url.URL // https://host:port/path
	ServerName string   // in the server's certificate; "" for the host
	CA         []byte   // PEM; nil for the system's
	Insecure   bool     // the server's certificate is not checked
	Proxy      *url.URL // nil for what the environment says

	User        string // its name in the kubeconfig, for messages
	Cert, Key   []byte // PEM; nil for none
	Token       string
	Username    string
	Password    string
	Impersonate Impersonate
	Plugin      *Plugin // gives token or certificate; nil for none
}

// Impersonate is whom to act as.
type Impersonate struct {
	User, UID string
	Groups    []string
	Extra     map[string][]string
}

// ErrNone is the error where there is no kubeconfig and we are in no pod.
var ErrNone = errors.New("there is no kubeconfig")

// NoneError is ErrNone with where was looked.
type NoneError struct{ Looked []string }

// Error names the places.
func (e *NoneError) Error() string {
	return fmt.Sprintf("%v (looked for %s)", ErrNone, strings.Join(e.Looked, ", "))
}

// Is makes it ErrNone.
func (e *NoneError) Is(target error) bool { return target == ErrNone }

// FileError is a file that cannot be used.
type FileError struct {
	Path string
	Err  error // a few words, or the system's
}

// Error names the file and what is wrong with it.
func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

// Unwrap gives what is wrong.
func (e *FileError) Unwrap() error { return e.Err }

// ContextError is a context that no file has; Name is "" where none was asked
// for and none is current.
type ContextError struct {
	Name  string
	Known []string // what there is, sorted
	Files []string
}

// Error names the context, and those that there are.
func (e *ContextError) Error() string {
	const most = 8
	known := "there is none"
	if n := len(e.Known); n > most {
		known = fmt.Sprintf("there are %s and %d more", strings.Join(e.Known[:most], ", "), n-most)
	} else if n > 0 {
		known = "there are: " + strings.Join(e.Known, ", ")
	}
	if e.Name == "" {
		return fmt.Sprintf("the kubeconfig %s has no current context; %s", strings.Join(e.Files, ", "), known)
	}
	return fmt.Sprintf("no context %q in the kubeconfig %s; %s", e.Name, strings.Join(e.Files, ", "), known)
}

// Load reads the files and resolves the context. The error is a *NoneError,
// *FileError or *ContextError.
func Load(s Source) (*Config, error) {
	paths, explicit := s.paths()
	m, err := readAll(paths, explicit)
	if err != nil {
		return nil, err
	}
	name := s.Context
	if name == "" {
		name = m.current
	}
	if name == "" && !explicit { // nothing was chosen: where we are counts
		if c, err := s.inCluster(); c != nil || err != nil {
			return c, err
		}
	}
	if len(m.files) == 0 {
		return nil, &NoneError{Looked: append(paths, "the service account of a pod")}
	}
	if _, ok := m.contexts[name]; !ok || name == "" {
		return nil, &ContextError{Name: name, Known: m.names(), Files: m.files}
	}
	return resolve(m, name)
}

// paths are the files to read, and whether they must be there.
func (s Source) paths() (paths []string, explicit bool) {
	if s.File != "" {
		return []string{s.abs(s.File)}, true
	}
	if list := s.getenv("KUBECONFIG"); list != "" {
		for _, p := range filepath.SplitList(list) {
			if p != "" && !slices.Contains(paths, s.abs(p)) {
				paths = append(paths, s.abs(p))
			}
		}
		return paths, false
	}
	return []string{filepath.Join(s.Home, ".kube", "config")}, false
}

func (s Source) abs(p string) string {
	if filepath.IsAbs(p) || s.Dir == "" {
		return p
	}
	return filepath.Join(s.Dir, p)
}

func (s Source) getenv(name string) string {
	if s.Getenv == nil {
		return ""
	}
	return s.Getenv(name)
}
