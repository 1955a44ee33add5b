// Package manifests writes what Kubernetes needs to run a set of BuildKit
// daemons for berth: a StatefulSet whose pods keep their caches, its Service,
// configuration, certificates, disruption budget, and the rights of clients.
//
// It is not for talking to a cluster, and reads no file: certificates come as
// Secrets that internal/certs wrote.
//
// Rules: equal options give equal bytes. Everything that a user chose is held
// against Kubernetes' own grammar first, and what is no plain word is written
// as a JSON string, which YAML reads as it is; so no value can become structure.
// The rights are for the named pods and objects only.
package manifests

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"text/template"
	"time"
)

// Access is how clients outside of the cluster's network come to the daemons.
type Access string

// The ways. Exec needs nothing but the API server; in a privileged pod it makes
// a client root of the pod's node. PortForward gives no more than buildkitd does
// for its clients. None gives no rights to anybody.
const (
	Exec        Access = "exec"
	PortForward Access = "port-forward"
	None        Access = "none"
)

// Accesses lists them, the default first.
func Accesses() []string { return []string{string(Exec), string(PortForward), string(None)} }

// The defaults of Options, which the flags show.
const (
	DefaultName      = "buildkitd"
	DefaultNamespace = "default"
	DefaultReplicas  = 3
	DefaultPort      = 1234
	DefaultStorage   = "50Gi"
	DefaultDrain     = 30 * time.Minute
	// version is that of the BuildKit which berth is tested with.
	version = "v0.34.2"
)

// DefaultImage is BuildKit's own image, of the version that berth is tested with.
func DefaultImage(rootless bool) string {
	if rootless {
		return "moby/buildkit:" + version + "-rootless"
	}
	return "moby/buildkit:" + version
}

// Options is what is asked for. Kubernetes checks it.
type Options struct {
	Name         string // of all objects, and what their names begin with
	Namespace    string // the rights of a service account can only be given by it
	Replicas     int
	Image        string // "" for DefaultImage
	Rootless     bool
	Port         int
	Storage      string // the size of each cache volume
	StorageClass string // "" for the cluster's default
	Parallelism  int    // steps that a daemon runs at once; 0 for no limit
	Requests     []string
	Limits       []string // such as cpu=2 and memory=8Gi
	NodeSelector []string // KEY=VALUE
	Tolerations  []string // KEY[=VALUE][:EFFECT]
	Access       Access
	Drain        time.Duration // what a running build has to end, when its pod is taken away
	TLS          *TLS          // nil for no TCP outside of the pods
}

// TLS is the certificates with which daemons listen on the cluster's network.
type TLS struct {
	Secrets   [][]byte // manifests, of the names that SecretName gives
	Names     []string // in the daemon's certificate
	DriverOpt string   // the value of --driver-opt with which clients use theirs
}

// SecretName is the Secret of a side's certificate, "daemon" or "client". For
// the default name it is what `berth certs create --kubernetes` calls it, so
// that what `berth certs renew` writes replaces it; others have their own, so
// that two sets can live in one namespace.
func SecretName(name, side string) string {
	if name == DefaultName {
		return "buildkit-" + side + "-certs"
	}
	return name + "-" + side + "-certs"
}

// Kubernetes gives the objects as YAML, in an order in which they can be
// applied, below a comment that says how to use them. The error names the flag
// that cannot be.
func Kubernetes(o Options) ([]byte, error) {
	v, err := check(o)
	if err != nil {
		return nil, err
	}
	v.fill(o)
	if v.Head, err = head(o); err != nil {
		return nil, err
	}
	t, err := template.New("").Delims("[[", "]]").Funcs(template.FuncMap{"q": quote}).Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, v)
	return b.Bytes(), err
}

// view is what the template sees: values that were checked.
type view struct {
	Name, Namespace, Image, Storage, StorageClass string

	Head         []string // lines of the comment
	Replicas     int
	Port         int
	Rootless     bool
	Requests     []pair
	Limits       []pair
	NodeSelector []pair
	Tolerations  []toleration
	Access       Access
	Pods         []string

	Socket, State  string // where the image has them
	Args           []string
	Config         []string // lines of buildkitd.toml
	DrainSteps     int      // looks, drainEvery apart
	Grace          int      // seconds
	Secrets        []string
	DaemonSecret   string
	ConfigSum, TLS string // checksums, so that pods are replaced when the content changes
}

type pair struct{ Key, Value string }

const (
	// drainEvery is how many seconds lie between two looks at whether builds run.
	drainEvery = 2
	// settle is how long a pod that is taken away still takes what its clients
	// began before they knew, in seconds.
	settle = 5
	// reserve is what is left for an orderly end after Drain, in seconds.
	reserve = 60
)

// fill derives what is written from what was asked for.
func (v *view) fill(o Options) {
	v.Name, v.Namespace, v.Replicas, v.Port, v.Rootless = o.Name, o.Namespace, o.Replicas, o.Port, o.Rootless
	v.Storage, v.StorageClass, v.Access = o.Storage, o.StorageClass, o.Access
	if v.Image = o.Image; v.Image == "" {
		v.Image = DefaultImage(o.Rootless)
	}
	for i := range o.Replicas {
		v.Pods = append(v.Pods, podName(o.Name, i))
	}
	v.Socket, v.State = "/run/buildkit/buildkitd.sock", "/var/lib/buildkit"
	if o.Rootless {
		v.Socket, v.State = "/run/user/1000/buildkit/buildkitd.sock", "/home/user/.local/share/buildkit"
	}
	drain := int(o.Drain / time.Second)
	v.DrainSteps, v.Grace = drain/drainEvery, settle+drain+reserve
	v.Args = args(o, v.Socket)
	v.ConfigSum = sum([]byte(strings.Join(v.Config, "\n")))
	if o.TLS != nil {
		v.DaemonSecret = SecretName(o.Name, "daemon")
		v.TLS = sum(o.TLS.Secrets...)
		for _, s := range o.TLS.Secrets {
			v.Secrets = append(v.Secrets, strings.TrimSuffix(string(s), "\n"))
		}
	}
}

func podName(name string, i int) string { return fmt.Sprintf("%s-%d", name, i) }

// args are buildkitd's. The TCP port without certificates is one that only the
// pod itself can reach.
func args(o Options, socket string) []string {
	all := []string{"--config=/etc/buildkit/buildkitd.toml", "--addr=unix://" + socket}
	switch {
	case o.TLS != nil:
		all = append(all, fmt.Sprintf("--addr=tcp://0.0.0.0:%d", o.Port),
			"--tlscacert=/certs/ca.pem", "--tlscert=/certs/cert.pem", "--tlskey=/certs/key.pem")
	case o.Access == PortForward:
		all = append(all, fmt.Sprintf("--addr=tcp://127.0.0.1:%d", o.Port))
	}
	if o.Rootless {
		all = append(all, "--oci-worker-no-process-sandbox")
	}
	return all
}

// config is buildkitd.toml. The limits are of the volume's own size and not
// percents of the disk: volumes that are folders of a node share its disk.
func config(size *big.Int, parallelism int) []string {
	part := func(percent int64) string {
		n := new(big.Int).Mul(size, big.NewInt(percent))
		return n.Div(n, big.NewInt(100)).String()
	}
	lines := []string{
		"[worker.oci]",
		"gc = true",
		"# 10, 85 and 10 percent of the volume, in bytes",
		"reservedSpace = " + part(10),
		"maxUsedSpace = " + part(85),
		"minFreeSpace = " + part(10),
	}
	if parallelism > 0 {
		lines = append(lines, fmt.Sprintf("max-parallelism = %d", parallelism))
	}
	return lines
}

func sum(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// quote is a string for YAML, whose flow scalars include JSON's.
func quote(s string) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return strings.TrimSuffix(b.String(), "\n"), err
}
