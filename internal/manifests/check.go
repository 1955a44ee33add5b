package manifests

import (
	"bytes"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/distribution/reference"

	"github.com/berthbuild/berth/internal/hint"
)

const (
	// maxName leaves room for what Kubernetes adds to a StatefulSet's name in
	// labels, which have 63 bytes.
	maxName     = 52
	maxReplicas = 500
	maxDrain    = 24 * time.Hour
	// minStorage holds at least one image that is worth a cache.
	minStorage = 1 << 30
)

// check holds the options against what Kubernetes takes, and gives the parts of
// them that had to be read for it.
func check(o Options) (*view, error) {
	v := &view{}
	for _, f := range []func(Options) error{checkNames, checkNumbers, checkImage, checkAccess} {
		if err := f(o); err != nil {
			return nil, err
		}
	}
	size, err := storageSize(o.Storage)
	if err != nil {
		return nil, err
	}
	v.Config = config(size, o.Parallelism)
	if v.Requests, err = resources("--requests", o.Requests); err != nil {
		return nil, err
	}
	if v.Limits, err = resources("--limits", o.Limits); err != nil {
		return nil, err
	}
	if err := fits(v.Requests, v.Limits); err != nil {
		return nil, err
	}
	if v.NodeSelector, err = selector(o.NodeSelector); err != nil {
		return nil, err
	}
	v.Tolerations, err = tolerations(o.Tolerations)
	return v, err
}

func checkNames(o Options) error {
	if err := label("--name", o.Name, maxName); err != nil {
		return err
	}
	if c := o.Name[0]; c < 'a' || c > 'z' {
		return hint.New(fmt.Sprintf("--name %q does not begin with a letter, as a Service's has to", clip(o.Name)), "such as --name b"+o.Name)
	}
	if err := label("--namespace", o.Namespace, 63); err != nil {
		return err
	}
	if o.StorageClass == "" {
		return nil
	}
	if len(o.StorageClass) > 253 {
		return fmt.Errorf("--storage-class %q is longer than 253 bytes", clip(o.StorageClass))
	}
	for part := range strings.SplitSeq(o.StorageClass, ".") {
		if err := label("--storage-class", part, 253); err != nil {
			return fmt.Errorf("--storage-class %q is no name that Kubernetes takes%w", clip(o.StorageClass), hint.Quietly(err))
		}
	}
	return nil
}

// label checks a name of RFC 1123: a DNS label.
func label(flag, name string, most int) error {
	ok := name != "" && len(name) <= most && strings.Trim(name, "-") == name
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return hint.New(fmt.Sprintf("%s %q is no name that Kubernetes takes", flag, clip(name)),
			fmt.Sprintf("take lower-case letters, digits and - between them, %d at most", most))
	}
	return nil
}

func checkNumbers(o Options) error {
	switch {
	case o.Replicas < 1 || o.Replicas > maxReplicas:
		return fmt.Errorf("--replicas %d is not between 1 and %d", o.Replicas, maxReplicas)
	case o.Port < 1 || o.Port > 65535:
		return fmt.Errorf("--port %d is not between 1 and 65535", o.Port)
	case o.Rootless && o.Port < 1024:
		return hint.New(fmt.Sprintf("--port %d is not for a daemon without root", o.Port), "take one from 1024 on")
	case o.Parallelism < 0:
		return hint.New(fmt.Sprintf("--max-parallelism %d is below 0", o.Parallelism), "leave it out for no limit")
	case o.Drain < 0 || o.Drain > maxDrain:
		return fmt.Errorf("--drain %s is not between 0 and %s", o.Drain, maxDrain)
	case o.Drain%time.Second != 0:
		return fmt.Errorf("--drain %s is no whole number of seconds", o.Drain)
	}
	return nil
}

func checkImage(o Options) error {
	if o.Image == "" {
		return nil
	}
	if _, err := reference.ParseNormalizedNamed(o.Image); err != nil {
		return hint.Wrap(err, fmt.Sprintf("--image %q", clip(o.Image)), "such as --image "+DefaultImage(o.Rootless))
	}
	return nil
}

func checkAccess(o Options) error {
	if !slices.Contains(Accesses(), string(o.Access)) {
		return hint.New(fmt.Sprintf("--access %q is unknown", clip(string(o.Access))), "take one of "+strings.Join(Accesses(), ", "))
	}
	if o.TLS == nil {
		return nil
	}
	if o.Access == PortForward {
		return hint.New("--certs has the daemons speak TLS on their port, which berth does not through a forwarded one",
			"leave out --certs: then only the pod itself, and who may forward its port, can reach it",
			"or take --access exec, or --access none where all clients have certificates")
	}
	if strings.ContainsFunc(o.TLS.DriverOpt, unicode.IsControl) {
		return fmt.Errorf("--certs %q has a control character in its name", o.TLS.DriverOpt)
	}
	for _, s := range o.TLS.Secrets {
		if bytes.Contains(s, []byte("\n---")) {
			return fmt.Errorf("a Secret is more than one document")
		}
	}
	return nil
}

func storageSize(s string) (*big.Int, error) {
	n, err := parseQuantity(s)
	if err != nil {
		return nil, fmt.Errorf("--storage %q %w", clip(s), err)
	}
	size := new(big.Int).Div(n.Num(), n.Denom())
	if size.Cmp(big.NewInt(minStorage)) < 0 {
		return nil, hint.New(fmt.Sprintf("--storage %s is below 1Gi, too little for a cache", s), "such as --storage "+DefaultStorage)
	}
	if !size.IsInt64() {
		return nil, fmt.Errorf("--storage %s is more than Kubernetes counts", s)
	}
	return size, nil
}

// resources reads NAME=QUANTITY, and gives them in the order of their names.
func resources(flag string, given []string) ([]pair, error) {
	known := []string{"cpu", "memory", "ephemeral-storage"}
	var all []pair
	for _, g := range given {
		name, value, ok := strings.Cut(g, "=")
		if !ok || !slices.Contains(known, name) {
			return nil, hint.New(fmt.Sprintf("%s %q is not NAME=QUANTITY with a NAME out of %s", flag, clip(g), strings.Join(known, ", ")),
				"such as "+flag+" cpu=2,memory=8Gi")
		}
		if _, err := parseQuantity(value); err != nil {
			return nil, fmt.Errorf("%s %s: %q %w", flag, name, clip(value), err)
		}
		all = append(all, pair{name, value})
	}
	return inOrder(flag, all)
}

// inOrder sorts by key; one that is there twice is refused.
func inOrder(flag string, all []pair) ([]pair, error) {
	slices.SortStableFunc(all, func(a, b pair) int { return strings.Compare(a.Key, b.Key) })
	for i := range all[min(1, len(all)):] {
		if all[i].Key == all[i+1].Key {
			return nil, fmt.Errorf("%s has %s twice", flag, all[i].Key)
		}
	}
	return all, nil
}

// fits refuses a request above its limit, which no pod may have.
func fits(requests, limits []pair) error {
	for _, r := range requests {
		for _, l := range limits {
			a, errA := parseQuantity(r.Value)
			b, errB := parseQuantity(l.Value)
			if r.Key == l.Key && errA == nil && errB == nil && a.Cmp(b) > 0 {
				return fmt.Errorf("--requests %s=%s is above --limits %[1]s=%[3]s", r.Key, r.Value, l.Value)
			}
		}
	}
	return nil
}

func selector(given []string) ([]pair, error) {
	var all []pair
	for _, g := range given {
		key, value, ok := strings.Cut(g, "=")
		if !ok || !isLabelKey(key) || !isLabelValue(value) {
			return nil, hint.New(fmt.Sprintf("--node-selector %q is no label KEY=VALUE", clip(g)), "such as --node-selector kubernetes.io/arch=arm64")
		}
		all = append(all, pair{key, value})
	}
	return inOrder("--node-selector", all)
}

// toleration is of a node's taint.
type toleration struct{ Key, Operator, Value, Effect string }

func tolerations(given []string) ([]toleration, error) {
	effects := []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}
	var all []toleration
	for _, g := range given {
		rest, effect, hasEffect := strings.Cut(g, ":")
		key, value, hasValue := strings.Cut(rest, "=")
		if !isLabelKey(key) || !isLabelValue(value) || hasEffect && !slices.Contains(effects, effect) {
			return nil, hint.New(fmt.Sprintf("--toleration %q is not KEY[=VALUE][:EFFECT]", clip(g)),
				"such as --toleration builds=only:NoSchedule; effects are "+strings.Join(effects, ", "))
		}
		t := toleration{Key: key, Operator: "Exists", Effect: effect}
		if hasValue {
			t.Operator, t.Value = "Equal", value
		}
		all = append(all, t)
	}
	return all, nil
}

func isLabelKey(s string) bool {
	prefix, name, ok := strings.Cut(s, "/")
	if !ok {
		name = s
	} else if len(prefix) > 253 || !regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`).MatchString(prefix) {
		return false
	}
	return name != "" && isLabelValue(name)
}

func isLabelValue(s string) bool {
	return s == "" || len(s) <= 63 && regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`).MatchString(s)
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
