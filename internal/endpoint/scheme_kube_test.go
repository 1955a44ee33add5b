package endpoint

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/berthbuild/berth/internal/hint"
)

func TestParseKube(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tc := range []struct {
		raw  string
		want Endpoint
		text string // "" when the same as raw
	}{
		{"kube-pod://buildkitd-0", Endpoint{Scheme: "kube-pod", Host: "buildkitd-0"}, ""},
		{"KUBE-POD://a.b", Endpoint{Scheme: "kube-pod", Host: "a.b"}, "kube-pod://a.b"},
		{"kube-pod://p?", Endpoint{Scheme: "kube-pod", Host: "p"}, "kube-pod://p"},
		{"kube-pod://" + long + "." + long, Endpoint{Scheme: "kube-pod", Host: long + "." + long}, ""},
		{"kube-pod://p?namespace=n&context=arn:aws:eks:eu:1:cluster/x@y", Endpoint{Scheme: "kube-pod", Host: "p", Query: "context=arn%3Aaws%3Aeks%3Aeu%3A1%3Acluster%2Fx%40y&namespace=n"},
			"kube-pod://p?context=arn%3Aaws%3Aeks%3Aeu%3A1%3Acluster%2Fx%40y&namespace=n"},
		{"kube-pod://p?via=exec", Endpoint{Scheme: "kube-pod", Host: "p"}, "kube-pod://p"},
		{"kube-pod://p?via=port-forward&port=0123", Endpoint{Scheme: "kube-pod", Host: "p", Query: "port=123&via=port-forward"}, "kube-pod://p?port=123&via=port-forward"},
		{"kube-pod://p?container=c&socket=unix:///run//x.sock", Endpoint{Scheme: "kube-pod", Host: "p", Query: "container=c&socket=%2Frun%2Fx.sock"}, "kube-pod://p?container=c&socket=%2Frun%2Fx.sock"},
		{"kube-pod://p?kubeconfig=/home/me/.kube/config", Endpoint{Scheme: "kube-pod", Host: "p", Query: "kubeconfig=%2Fhome%2Fme%2F.kube%2Fconfig"}, "kube-pod://p?kubeconfig=%2Fhome%2Fme%2F.kube%2Fconfig"},
		{`kube-pod://p?kubeconfig=C:\k`, Endpoint{Scheme: "kube-pod", Host: "p", Query: "kubeconfig=C%3A%5Ck"}, "kube-pod://p?kubeconfig=C%3A%5Ck"},
		{"kube-deployment://d", Endpoint{Scheme: "kube-deployment", Host: "d"}, ""},
		{"kube-statefulset://d", Endpoint{Scheme: "kube-statefulset", Host: "d"}, ""},
		{"kube-service://d", Endpoint{Scheme: "kube-service", Host: "d"}, ""},
		{"kube-selector://?selector=app=buildkitd,tier!=x", Endpoint{Scheme: "kube-selector", Query: "selector=app%3Dbuildkitd%2Ctier%21%3Dx"}, "kube-selector://?selector=app%3Dbuildkitd%2Ctier%21%3Dx"},
	} {
		got, err := Parse(tc.raw)
		if err != nil {
			t.Errorf("Parse(%q): %v", tc.raw, err)
			continue
		}
		if got != tc.want {
			t.Errorf("Parse(%q) = %+v, want %+v", tc.raw, got, tc.want)
		}
		if tc.text == "" {
			tc.text = tc.raw
		}
		if got.String() != tc.text {
			t.Errorf("Parse(%q).String() = %q, want %q", tc.raw, got, tc.text)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%q does not survive a round trip: %+v, %v", tc.raw, again, err)
		}
	}
}

func TestParseKubeRefuses(t *testing.T) {
	for _, tc := range []struct{ raw, says, tip string }{
		{"kube-pod://", "the name of the pod is missing", "kube-pod://NAME?namespace=NAMESPACE"},
		{"kube-pod:///", "has a slash", ""},
		{"kube-pod://ns/pod", "has a slash; its namespace is given with", ""},
		{"kube-pod://Pod", `no 'P'`, ""},
		{"kube-pod://a;b", `no ';'`, ""},
		{"kube-pod://$(id)", `no '$'`, ""},
		{"kube-pod://a b", `no ' '`, ""},
		{"kube-pod://a%20b", `no '%'`, ""},
		{"kube-pod://..", "begins and ends", ""},
		{"kube-pod://a..b", "begins and ends", ""},
		{"kube-pod://-a", "begins and ends", ""},
		{"kube-pod://a#b", `no '#'`, ""},
		{"kube-pod://" + strings.Repeat("a", 254), "at most 253 bytes", ""},
		{"kube-service://" + strings.Repeat("a", 64), "at most 63 bytes", ""},
		{"kube-service://a.b", `no '.'`, ""},
		{"kube-pod://me:hunter2@pod", "user name or password", ""},
		{"kube-pod://p?pod=x", `no parameter "pod"; it has context, namespace, container, kubeconfig, via, port, socket`, ""},
		{"kube-pod://p?selector=a", `no parameter "selector"`, ""},
		{"kube-pod://p?namespace=a&namespace=b", "given twice", ""},
		{"kube-pod://p?namespace=", "parameter namespace is empty", ""},
		{"kube-pod://p?namespace=a.b", `no '.'`, ""},
		{"kube-pod://p?namespace=..%2F..%2Fx", `no '.'`, ""},
		{"kube-pod://p?container=a/b", `no '/'`, ""},
		{"kube-pod://p?context=%00", "U+0000", ""},
		{"kube-pod://p?context=a%0Ab", "U+000A", ""},
		{"kube-pod://p?context=%ff", "U+FFFD", ""},
		{"kube-pod://p?context=" + strings.Repeat("a", 1025), "1025 bytes", ""},
		{"kube-pod://p?context=%zz", "cannot be read", ""},
		{"kube-pod://p?a;b", "cannot be read", ""},
		{"kube-pod://p?context=a#b", "cannot be read", ""},
		{"kube-pod://p?via=ssh", "via=ssh is neither exec nor port-forward", ""},
		{"kube-pod://p?via=port-forward&port=0", `port "0"`, ""},
		{"kube-pod://p?via=port-forward&port=70000", `port "70000"`, ""},
		{"kube-pod://p?port=1", "port= is for via=port-forward", "kube-pod://p?port=1&via=port-forward"},
		{"kube-pod://p?via=exec&port=1", "port= is for via=port-forward", "kube-pod://p?port=1&via=port-forward"},
		{"kube-pod://p?via=port-forward&socket=/x", "socket= is for via=exec", "kube-pod://p?via=port-forward"},
		{"kube-pod://p?via=port-forward&container=c", "container= is for via=exec", "kube-pod://p?via=port-forward"},
		{"kube-pod://p?socket=x", "not an absolute path", ""},
		{"kube-pod://p?socket=/", "no path", ""},
		{"kube-pod://p?socket=/a/../b", "..", ""},
		{"kube-pod://p?socket=/" + strings.Repeat("a", 107), "108 bytes", ""},
		{"kube-pod://p?kubeconfig=x", "not an absolute path; a shell fills in $PWD", ""},
		{"kube-pod://p?kubeconfig=~/x", "a shell fills in $HOME", ""},
		{"kube-selector://", "has no selector", "kube-selector://?selector=app%3Dbuildkitd"},
		{"kube-selector://x?selector=a", "alone", ""},
		{"kube-selector://?selector=a%3D%3D%3Db", "cannot be used", ""},
		{"kube-selector://?selector=a%20b", "not an operator", ""},
		{"kube-selector://?selector=-a", "not the name of a label", ""},
		{"kube-selector://?selector=a%3Db%20c", "a comma is missing", ""},
		{"kube-selector://?selector=a+in+b", "a ( is missing", ""},
		{"kube-selector://?selector=a+in+(b", "a ) is missing", ""},
	} {
		_, err := Parse(tc.raw)
		if err == nil {
			t.Errorf("Parse(%q) accepted", tc.raw)
			continue
		}
		all := err.Error() + strings.Join(hint.Of(err), "\n")
		if !strings.Contains(err.Error(), tc.says) || strings.Contains(all, "hunter2") || len(err.Error()) > 1000 {
			t.Errorf("Parse(%q) says %q, want %q in it", tc.raw, err, tc.says)
		}
		if tips := strings.Join(hint.Of(err), "\n"); !strings.Contains(tips, tc.tip) {
			t.Errorf("Parse(%q) hints %q, want %q in it", tc.raw, tips, tc.tip)
		}
	}
}

// A selector is accepted when Kubernetes itself accepts it.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{
		"a", "!a", "a=b", "a==b", "a!=b", "a in (b,c)", "a notin (b)", "a>1", "a<-1", "a=,b", "x.y/z=1", "a in ()", "a in (,)", "a,", ",a", "a=b,,c",
		"in", "in in (in)", "notin notin (notin)", "a in (b", "a=(b)", "! a", "a = b", "a in (b,,c)", "a in(b)", "(a)", "a!b", "a>=1", "!a=b", "a in (b,)",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.TrimSpace(text) == "" {
			return // everything, for Kubernetes; nothing, for us
		}
		for _, r := range text {
			if r > 0x7e || r < 0x20 && r != '\t' && r != '\n' && r != '\r' {
				return // refused before
			}
		}
		_, err := labels.Parse(text)
		if got := checkSelector(text); (got == nil) != (err == nil) {
			t.Errorf("%q: %v; Kubernetes: %v", text, got, err)
		}
	})
}
