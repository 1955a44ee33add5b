package manifests

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// quantities are of every form.
func quantities() []string {
	return []string{"1", "500m", "8Gi", "1.5G", ".5Ti", "1e3", "1E3", "2E", "2Ei", "1e-2", "1.", "0", "-1", "+1", "1Kb", "1K", "", "m", "1e", "1n", "1u", "00012k", "9999999999999999999999"}
}

// What is read as a quantity is one in Kubernetes, too, and as much.
func FuzzQuantity(f *testing.F) {
	for _, q := range quantities() {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ours, err := parseQuantity(s)
		if err != nil {
			return
		}
		theirs, err := resource.ParseQuantity(s)
		if err != nil {
			t.Fatalf("%q: Kubernetes says %v", s, err)
		}
		// Kubernetes rounds up to a billionth, and cuts what is beyond 2^63.
		exact, ok := new(big.Rat).SetString(theirs.AsDec().String())
		if !ok || ours.Cmp(new(big.Rat).SetInt64(1<<60)) > 0 {
			return
		}
		diff := new(big.Rat).Sub(exact, ours)
		if diff.Abs(diff).Cmp(big.NewRat(1, 1_000_000_000)) > 0 {
			t.Errorf("%q is %s, and %s in Kubernetes", s, ours.FloatString(9), theirs.String())
		}
	})
}

// Every form that Kubernetes takes for amounts above 0 is taken, but those
// below a thousandth and with signs.
func TestQuantities(t *testing.T) {
	for _, q := range quantities() {
		_, err := parseQuantity(q)
		theirs, theirErr := resource.ParseQuantity(q)
		want := theirErr == nil && theirs.Sign() > 0 && !strings.ContainsAny(q, "+nu")
		if (err == nil) != want {
			t.Errorf("%q: %v", q, err)
		}
	}
}

// Whatever is printed has the same objects with the names that were asked for:
// no value becomes structure.
func FuzzKubernetes(f *testing.F) {
	f.Add("buildkitd", "default", "moby/buildkit:latest", "50Gi", "fast", "cpu=1", "a/b=c", "x=y:NoSchedule", "tlsdir=.certs/client", "b.example")
	f.Add("on", "true", "", "1Ti", "", "memory=1e10", "a=", "x", "\"tlsdir=a, b\"", "*.on.true.svc")
	f.Add("a", "b\n---\nkind: X", "a@sha256:x", "1Gi\n", "a: b", "cpu=1\n", "a=\"", "x: y", "a\n---", "b")
	f.Fuzz(func(t *testing.T, name, namespace, image, storage, class, limit, label, taint, opt, dns string) {
		o := Options{
			Name: name, Namespace: namespace, Replicas: 2, Image: image, Port: 1234, Storage: storage, StorageClass: class,
			Limits: []string{limit}, NodeSelector: []string{label}, Tolerations: []string{taint}, Access: Exec, Drain: time.Minute,
		}
		if text, err := Kubernetes(o); err == nil {
			all := objects(t, text)
			if len(all) != 7 || all["StatefulSet/"+name].Metadata.Namespace != namespace {
				t.Errorf("%d objects:\n%s", len(all), text)
			}
			o.TLS = certificates(o, dns)
			o.TLS.DriverOpt = opt
			if text, err = Kubernetes(o); err == nil {
				if all = objects(t, text); len(all) != 9 {
					t.Errorf("%d objects:\n%s", len(all), text)
				}
			}
		}
	})
}
