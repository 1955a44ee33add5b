package manifests

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"

	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func defaults() Options {
	return Options{
		Name: DefaultName, Namespace: DefaultNamespace, Replicas: DefaultReplicas, Port: DefaultPort,
		Storage: DefaultStorage, Access: Exec, Drain: DefaultDrain,
	}
}

func everything() Options {
	o := defaults()
	o.Name, o.Namespace, o.Replicas, o.Image, o.Rootless = "fast", "build", 2, "registry.example:5000/buildkit:v1-rootless", true
	o.Storage, o.StorageClass, o.Parallelism, o.Drain = "1.5Ti", "local.ssd", 4, 0
	o.Requests, o.Limits = []string{"memory=4Gi", "cpu=500m"}, []string{"memory=16Gi"}
	o.NodeSelector = []string{"pool=builds", "kubernetes.io/arch=arm64"}
	o.Tolerations = []string{"builds=only:NoSchedule", "spot"}
	o.TLS = certificates(o, "*.fast.build.svc")
	return o
}

func forwarded() Options {
	o := defaults()
	o.Access, o.Port, o.Replicas = PortForward, 4321, 1
	return o
}

// certificates are Secrets as internal/certs writes them.
func certificates(o Options, names ...string) *TLS {
	t := &TLS{Names: names, DriverOpt: "tlsdir=.certs/client"}
	for _, side := range []string{"daemon", "client"} {
		t.Secrets = append(t.Secrets, fmt.Appendf(nil, "apiVersion: v1\ndata:\n  ca.pem: Y2E=\n  cert.pem: Y2VydA==\n  key.pem: a2V5\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %q\n",
			SecretName(o.Name, side), o.Namespace))
	}
	return t
}

func TestGolden(t *testing.T) {
	for name, o := range map[string]Options{"default": defaults(), "everything": everything(), "forward": forwarded()} {
		t.Run(name, func(t *testing.T) {
			got, err := Kubernetes(o)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))) {
				t.Errorf("%s is not what is printed; run the test with -update and look at the difference\n%s", path, got)
			}
		})
	}
}

// object is what is looked at in a manifest.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Rules    []struct{ APIGroups, Resources, ResourceNames, Verbs []string }
	Spec     struct {
		Template struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     struct {
				TerminationGracePeriodSeconds int
				Containers                    []struct {
					Args      []string
					Lifecycle struct {
						PreStop struct{ Exec struct{ Command []string } }
					}
				}
			}
		}
	}
}

// objects reads YAML as kubectl does, 1.1 with its many ways to say true.
func objects(t testing.TB, text []byte) map[string]object {
	t.Helper()
	all := map[string]object{}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		j, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		if string(j) == "null" {
			continue // the comment
		}
		var o object
		if err := json.Unmarshal(j, &o); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		key := o.Kind + "/" + o.Metadata.Name
		if _, twice := all[key]; twice {
			t.Fatalf("%s is there twice", key)
		}
		all[key] = o
	}
	return all
}

func objectsOf(t testing.TB, o Options) map[string]object {
	t.Helper()
	text, err := Kubernetes(o)
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, text)
}

// Names that YAML would read as something else than a word.
func TestNamesAreWords(t *testing.T) {
	for _, name := range []string{"true", "on", "y", "null", "no", "e1"} {
		o := defaults()
		o.Name, o.Namespace = name, name
		o.NodeSelector, o.Tolerations = []string{"on=1e3", "null=0x10"}, []string{"yes=no"}
		all := objectsOf(t, o)
		if all["StatefulSet/"+name].Metadata.Namespace != name {
			t.Errorf("%s: %v", name, all)
		}
	}
}

// The configuration has the keys of BuildKit's docs/buildkitd.toml.md; that a
// daemon takes it is seen in TestKubeManifests.
func TestConfig(t *testing.T) {
	type oci struct {
		GC          bool  `toml:"gc"`
		Reserved    int64 `toml:"reservedSpace"`
		MaxUsed     int64 `toml:"maxUsedSpace"`
		MinFree     int64 `toml:"minFreeSpace"`
		Parallelism int   `toml:"max-parallelism"`
	}
	var c struct {
		Worker struct {
			OCI oci `toml:"oci"`
		} `toml:"worker"`
	}
	d := toml.NewDecoder(strings.NewReader(objectsOf(t, everything())["ConfigMap/fast-config"].Data["buildkitd.toml"])).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	const size = 3 << 39 // 1.5 TiB
	if want := (oci{true, size / 10, size * 85 / 100, size / 10, 4}); c.Worker.OCI != want {
		t.Errorf("%+v, want %+v", c.Worker.OCI, want)
	}
}

// The default image is that of the BuildKit in go.mod.
func TestVersion(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "github.com/moby/buildkit "+version+"\n") {
		t.Errorf("go.mod has another BuildKit than %s", version)
	}
}

// Pods are replaced when what buildkitd reads once has changed, and only then.
func TestChecksums(t *testing.T) {
	sums := func(change func(*Options)) string {
		o := everything()
		change(&o)
		return fmt.Sprint(objectsOf(t, o)["StatefulSet/fast"].Spec.Template.Metadata.Annotations)
	}
	as := sums(func(*Options) {})
	if sums(func(o *Options) { o.Replicas = 5 }) != as {
		t.Error("more replicas replace all pods")
	}
	if sums(func(o *Options) { o.Parallelism = 9 }) == as {
		t.Error("another configuration does not replace the pods")
	}
	if sums(func(o *Options) {
		o.TLS.Secrets[0] = bytes.Replace(o.TLS.Secrets[0], []byte("a2V5"), []byte("a2V6"), 1)
	}) == as {
		t.Error("new certificates do not replace the pods")
	}
}

// Rights are for the set's own objects.
func TestRights(t *testing.T) {
	for access, resource := range map[Access]string{Exec: "pods/exec", PortForward: "pods/portforward"} {
		o := defaults()
		o.Access = access
		var got []string
		for _, r := range objectsOf(t, o)["Role/buildkitd-client"].Rules {
			got = append(got, fmt.Sprint(r.Resources, r.ResourceNames, r.Verbs))
		}
		want := []string{
			"[statefulsets] [buildkitd] [get]", "[services] [buildkitd] [get]", "[pods] [] [get list]",
			"[" + resource + "] [buildkitd-0 buildkitd-1 buildkitd-2] [create]",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", access, got)
		}
	}
	o := defaults()
	o.Access = None
	for key := range objectsOf(t, o) {
		if strings.HasPrefix(key, "Role") || strings.HasPrefix(key, "ServiceAccount") {
			t.Errorf("--access none prints %s", key)
		}
	}
}

// createLines are those of the comment.
func createLines(t *testing.T, o Options) []string {
	t.Helper()
	text, err := Kubernetes(o)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range regexp.MustCompile(`(?m)^#   (berth create .*)$`).FindAllStringSubmatch(string(text), -1) {
		lines = append(lines, m[1])
	}
	return lines
}

func TestCreateLines(t *testing.T) {
	withNames := func(names ...string) Options {
		o := everything()
		o.Access, o.Port = None, 4000
		o.TLS = certificates(o, names...)
		return o
	}
	for _, c := range []struct {
		o    Options
		want []string
	}{
		{defaults(), []string{"berth create --name buildkitd --driver remote 'kube-statefulset://buildkitd?namespace=default'"}},
		{forwarded(), []string{"berth create --name buildkitd --driver remote 'kube-statefulset://buildkitd?namespace=default&port=4321&via=port-forward'"}},
		{withNames("*.fast.build.svc"), []string{
			"berth create --name fast --driver remote --driver-opt tlsdir=.certs/client tcp://fast-0.fast.build.svc:4000",
			"berth create --name fast --driver remote --append --driver-opt tlsdir=.certs/client tcp://fast-1.fast.build.svc:4000",
		}},
		{withNames("10.0.0.1", "buildkitd.example"), []string{
			"berth create --name fast --driver remote --driver-opt tlsdir=.certs/client,servername=buildkitd.example tcp://fast-0.fast.build.svc:4000",
			"berth create --name fast --driver remote --append --driver-opt tlsdir=.certs/client,servername=buildkitd.example tcp://fast-1.fast.build.svc:4000",
		}},
	} {
		got := createLines(t, c.o)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q", got)
		}
		for _, line := range got {
			words := strings.Fields(line)
			if _, err := endpoint.Parse(strings.Trim(words[len(words)-1], "'")); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	if got := createLines(t, everything()); len(got) != 3 {
		t.Errorf("with both ways in: %q", got)
	}
	_, err := Kubernetes(withNames("*.elsewhere"))
	if err == nil || !strings.Contains(fmt.Sprint(hint.Of(err)), "berth certs create --kubernetes '*.fast.build.svc'") {
		t.Errorf("a certificate that is for none of the pods: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		change func(*Options)
		says   string
	}{
		{func(o *Options) { o.Name = "Build" }, `--name "Build" is no name that Kubernetes takes`},
		{func(o *Options) { o.Name = "" }, `--name "" is no name`},
		{func(o *Options) { o.Name = "1st" }, `--name "1st" does not begin with a letter`},
		{func(o *Options) { o.Name = strings.Repeat("x", 53) }, "is no name that Kubernetes takes"},
		{func(o *Options) { o.Namespace = "a.b" }, `--namespace "a.b" is no name`},
		{func(o *Options) { o.StorageClass = "a..b" }, `--storage-class "a..b" is no name`},
		{func(o *Options) { o.Replicas = 0 }, "--replicas 0 is not between 1 and 500"},
		{func(o *Options) { o.Port = 70000 }, "--port 70000 is not between"},
		{func(o *Options) { o.Rootless, o.Port = true, 80 }, "--port 80 is not for a daemon without root"},
		{func(o *Options) { o.Parallelism = -1 }, "--max-parallelism -1 is below 0"},
		{func(o *Options) { o.Drain = -time.Second }, "--drain -1s is not between"},
		{func(o *Options) { o.Drain = time.Millisecond }, "--drain 1ms is no whole number of seconds"},
		{func(o *Options) { o.Image = "a b" }, `--image "a b": invalid reference format`},
		{func(o *Options) { o.Storage = "lots" }, `--storage "lots" is no quantity such as`},
		{func(o *Options) { o.Storage = "50" }, "--storage 50 is below 1Gi"},
		{func(o *Options) { o.Storage = "99Ei" }, "--storage 99Ei is more than Kubernetes counts"},
		{func(o *Options) { o.Requests = []string{"gpu=1"} }, `--requests "gpu=1" is not NAME=QUANTITY`},
		{func(o *Options) { o.Limits = []string{"cpu=-1"} }, `--limits cpu: "-1" is no quantity`},
		{func(o *Options) { o.Limits = []string{"cpu=0"} }, `--limits cpu: "0" is not above 0`},
		{func(o *Options) { o.Limits = []string{"cpu=1", "cpu=2"} }, "--limits has cpu twice"},
		{func(o *Options) { o.Requests, o.Limits = []string{"memory=2G"}, []string{"memory=1Gi"} }, "--requests memory=2G is above --limits memory=1Gi"},
		{func(o *Options) { o.NodeSelector = []string{"a"} }, `--node-selector "a" is no label`},
		{func(o *Options) { o.NodeSelector = []string{"A/b=c"} }, `--node-selector "A/b=c" is no label`},
		{func(o *Options) { o.Tolerations = []string{"a=b:Sometimes"} }, `--toleration "a=b:Sometimes" is not`},
		{func(o *Options) { o.Tolerations = []string{"a\n- b"} }, "--toleration"},
		{func(o *Options) { o.Access = "ssh" }, `--access "ssh" is unknown`},
		{func(o *Options) { o.Access = PortForward; o.TLS = certificates(*o, "x") }, "--certs has the daemons speak TLS"},
		{func(o *Options) { o.TLS = certificates(*o, "x"); o.TLS.DriverOpt = "tlsdir=a\nb" }, "has a control character"},
	} {
		o := defaults()
		c.change(&o)
		if text, err := Kubernetes(o); err == nil || !strings.Contains(err.Error(), c.says) || text != nil {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
}

// The script that a pod runs before it ends waits for builds and for no longer
// than it may; the template in it tells builds that run.
func TestDrain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it is a script for sh")
	}
	o := defaults()
	o.Drain = 10 * time.Second
	pod := objectsOf(t, o)["StatefulSet/buildkitd"].Spec.Template.Spec
	if pod.TerminationGracePeriodSeconds != 5+10+60 {
		t.Errorf("%d seconds", pod.TerminationGracePeriodSeconds)
	}
	command := pod.Containers[0].Lifecycle.PreStop.Exec.Command
	format := regexp.MustCompile(`--format '([^']*)'`).FindStringSubmatch(command[2])[1]
	tmpl := template.Must(template.New("").Parse(format))
	show := func(r *controlapi.BuildHistoryRecord) string {
		var b strings.Builder
		if err := tmpl.Execute(&b, &controlapi.BuildHistoryEvent{Record: r}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if running, done := show(&controlapi.BuildHistoryRecord{}), show(&controlapi.BuildHistoryRecord{CompletedAt: timestamppb.Now()}); running == "" || done != "" || show(nil) != "" {
		t.Errorf("running %q, done %q", running, done)
	}
	for name, c := range map[string]struct {
		buildctl string // what it prints, by the number of the call in $n
		looks    int
	}{
		"nothing runs":    {"echo; echo", 1},
		"ends":            {"[ $n -ge 3 ] || echo running", 3},
		"does not end":    {"echo; echo running", 5},
		"no such command": {"echo unknown >&2; exit 1", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{
				"buildctl": "#!/bin/sh\necho . >>" + dir + "/looks\nn=$(wc -l <" + dir + "/looks)\n" + c.buildctl + "\n",
				"sleep":    "#!/bin/sh\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v: %s", err, out)
			}
			looks, err := os.ReadFile(filepath.Join(dir, "looks"))
			if got := bytes.Count(looks, []byte("\n")); err != nil || got != c.looks && got != c.looks+1 {
				t.Errorf("%d looks, want %d (%v)", got, c.looks, err)
			}
		})
	}
}
