package kubeconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// maxFile bounds a kubeconfig and the files that it names, in bytes.
const maxFile = 16 << 20

// file is what we read of a kubeconfig.
type file struct {
	Kind           string         `json:"kind"`
	APIVersion     string         `json:"apiVersion"`
	CurrentContext string         `json:"current-context"`
	Clusters       []namedCluster `json:"clusters"`
	Users          []namedUser    `json:"users"`
	Contexts       []namedContext `json:"contexts"`
}

type namedCluster struct {
	Name    string  `json:"name"`
	Cluster cluster `json:"cluster"`
}

type cluster struct {
	Server             string           `json:"server"`
	TLSServerName      string           `json:"tls-server-name"`
	Insecure           bool             `json:"insecure-skip-tls-verify"`
	CA                 string           `json:"certificate-authority"`
	CAData             []byte           `json:"certificate-authority-data"`
	ProxyURL           string           `json:"proxy-url"`
	DisableCompression bool             `json:"disable-compression"`
	Extensions         []namedExtension `json:"extensions"`

	dir string // of the file, for relative paths
}

type namedExtension struct {
	Name      string          `json:"name"`
	Extension json.RawMessage `json:"extension"`
}

type namedUser struct {
	Name string `json:"name"`
	User user   `json:"user"`
}

type user struct {
	Cert         string              `json:"client-certificate"`
	CertData     []byte              `json:"client-certificate-data"`
	Key          string              `json:"client-key"`
	KeyData      []byte              `json:"client-key-data"`
	Token        string              `json:"token"`
	TokenFile    string              `json:"tokenFile"`
	As           string              `json:"as"`
	AsUID        string              `json:"as-uid"`
	AsGroups     []string            `json:"as-groups"`
	AsExtra      map[string][]string `json:"as-user-extra"`
	Username     string              `json:"username"`
	Password     string              `json:"password"`
	AuthProvider *struct {
		Name string `json:"name"`
	} `json:"auth-provider"`
	Exec *execPlugin `json:"exec"`

	dir string
}

// secret tells whether the user's entry itself lets somebody in.
func (u *user) secret() bool {
	return len(u.KeyData) > 0 || u.Token != "" || u.Password != ""
}

type execPlugin struct {
	Command string   `json:"command"`
	Args    []string `json:"args"`
	Env     []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"env"`
	APIVersion         string `json:"apiVersion"`
	InstallHint        string `json:"installHint"`
	ProvideClusterInfo bool   `json:"provideClusterInfo"`
	InteractiveMode    string `json:"interactiveMode"`
}

type namedContext struct {
	Name    string      `json:"name"`
	Context contextData `json:"context"`
}

type contextData struct {
	Cluster   string `json:"cluster"`
	User      string `json:"user"`
	Namespace string `json:"namespace"`
}

// merged is all files together.
type merged struct {
	files    []string
	warnings []string
	current  string
	clusters map[string]cluster
	users    map[string]user
	contexts map[string]contextData
}

func (m *merged) names() []string { return slices.Sorted(maps.Keys(m.contexts)) }

// readAll merges the files. One that is missing is left out, unless it was
// asked for by name.
func readAll(paths []string, explicit bool) (*merged, error) {
	m := &merged{clusters: map[string]cluster{}, users: map[string]user{}, contexts: map[string]contextData{}}
	for _, p := range paths {
		f, warning, err := readFile(p)
		if errors.Is(err, fs.ErrNotExist) && !explicit {
			continue
		}
		if err != nil {
			return nil, &FileError{Path: p, Err: plain(err)}
		}
		m.files = append(m.files, p)
		if warning != "" {
			m.warnings = append(m.warnings, warning)
		}
		m.add(f, filepath.Dir(p))
	}
	return m, nil
}

// add puts a file's entries in that no earlier file has.
func (m *merged) add(f *file, dir string) {
	if m.current == "" {
		m.current = f.CurrentContext
	}
	for _, c := range f.Clusters {
		if _, has := m.clusters[c.Name]; !has {
			c.Cluster.dir = dir
			m.clusters[c.Name] = c.Cluster
		}
	}
	for _, u := range f.Users {
		if _, has := m.users[u.Name]; !has {
			u.User.dir = dir
			m.users[u.Name] = u.User
		}
	}
	for _, c := range f.Contexts {
		if _, has := m.contexts[c.Name]; !has {
			m.contexts[c.Name] = c.Context
		}
	}
}

// readFile decodes one file. The warning is about who else may read it.
func readFile(path string) (*file, string, error) {
	data, mode, err := readBounded(path)
	if err != nil {
		return nil, "", err
	}
	f := &file{}
	// By way of JSON, as kubectl does: "namespace: yes" is no text there either.
	asJSON, err := yaml.YAMLToJSON(data)
	if err == nil {
		err = json.Unmarshal(asJSON, f)
	}
	if err != nil { // the decoders' own words may repeat a part of the file
		return nil, "", errors.New("is not a kubeconfig: " + reason(err))
	}
	if f.Kind != "" && f.Kind != "Config" || f.APIVersion != "" && f.APIVersion != "v1" {
		return nil, "", fmt.Errorf("is not a kubeconfig: it is a %q of %q", clip(f.Kind), clip(f.APIVersion))
	}
	if name := f.twice(); name != "" {
		return nil, "", fmt.Errorf("has two %s", name)
	}
	if runtime.GOOS != "windows" && mode&0o004 != 0 && slices.ContainsFunc(f.Users, func(u namedUser) bool { return u.User.secret() }) {
		return f, fmt.Sprintf("the kubeconfig %s holds credentials and can be read by everybody: chmod 600 %s", path, path), nil
	}
	return f, "", nil
}

// twice names an entry that a list has two times, which kubectl refuses.
func (f *file) twice() string {
	seen := map[string]bool{}
	var found string
	see := func(kind, name string) {
		what := fmt.Sprintf("%s named %q", kind, clip(name))
		if seen[what] && found == "" {
			found = what
		}
		seen[what] = true
	}
	for _, c := range f.Clusters {
		see("clusters", c.Name)
	}
	for _, u := range f.Users {
		see("users", u.Name)
	}
	for _, c := range f.Contexts {
		see("contexts", c.Name)
	}
	return found
}

// reason says as much as can be said without repeating the file.
func reason(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &wrong):
		return "it cannot be read as YAML"
	case wrong.Field == "":
		return "it is not a YAML mapping"
	}
	kind, _, _ := strings.Cut(wrong.Value, " ") // what follows is the value itself
	return fmt.Sprintf("%q is a %s there, which it cannot be", wrong.Field, kind)
}

func readBounded(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() && !pipe(st.Mode()) {
		return nil, 0, errors.New("is not a file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("is larger than %d MiB", maxFile>>20)
	}
	return data, st.Mode(), err
}

// pipe is what a shell makes of <(command).
func pipe(m fs.FileMode) bool { return m&(fs.ModeNamedPipe|fs.ModeCharDevice) == fs.ModeNamedPipe }

// plain takes the path, which the message names anyway, out of the system's
// errors.
func plain(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
