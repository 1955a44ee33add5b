package request

import (
	"reflect"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestForNode(t *testing.T) {
	r := local()
	r.Tags = []string{"localhost:5000/a:1", "localhost:5000/a:2", "docker.io/library/b:latest"}
	for _, tc := range []struct{ in, want string }{
		{"type=registry", "type=image,\"name=localhost:5000/a,docker.io/library/b\",push=true,push-by-digest=true,unpack=false"},
		{"type=image,push=true,name=not-used:1", "type=image,\"name=localhost:5000/a,docker.io/library/b\",push=true,push-by-digest=true"},
		{"type=image,push=", "type=image,\"name=localhost:5000/a,docker.io/library/b\",push=true,push-by-digest=true"},
		{"type=image", "type=image"},
		{"type=local,dest=x", "type=local,dest=x,platform-split=true"},
		{"type=local,dest=x,platform-split=false,mode=delete", "type=local,dest=x,mode=delete,platform-split=false"},
		{"type=oci,dest=x", "type=oci,dest=x"},
		{"-", "type=tar,dest=-"},
		{"type=cacheonly", "type=cacheonly"},
	} {
		node, err := r.WithOutputs(outputs(t, tc.in)).ForNode(plats("linux/arm64"), true)
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if got := node.Outputs[0].String(); got != tc.want {
			t.Errorf("%s = %s, want %s", tc.in, got, tc.want)
		}
		if !reflect.DeepEqual(node.Platforms, plats("linux/arm64")) {
			t.Errorf("platforms = %v", node.Platforms)
		}
	}
}

func TestForNodeRefusesWhatNodesCannotShare(t *testing.T) {
	r := local()
	for _, tc := range []struct{ in, want string }{
		{"type=registry", "tag is needed"},
		{"type=registry,name=UPPER", "UPPER"},
	} {
		r := r.WithOutputs(outputs(t, tc.in))
		_, err := r.ForNode(plats("linux/arm64"), true)
		if err == nil || !strings.Contains(err.Error(), tc.want) || (tc.want != "UPPER" && len(hint.Of(err)) == 0) {
			t.Errorf("%s: %v", tc.in, err)
		}
		if node, err := r.ForNode(plats("linux/arm64"), false); err != nil || !reflect.DeepEqual(node.Outputs, r.Outputs) {
			t.Errorf("%s on one node: %v, %v", tc.in, node.Outputs, err)
		}
	}
}

func TestPushTags(t *testing.T) {
	r := local()
	r.Tags = []string{"a:1", "b:2"}
	for _, tc := range []struct {
		outs []string
		want []string
	}{
		{nil, nil},
		{[]string{"type=image", "out"}, nil},
		{[]string{"type=registry"}, []string{"a:1", "b:2"}},
		{[]string{"type=registry", "type=image,push=true"}, []string{"a:1", "b:2"}},
		{[]string{`type=image,push=true,"name=c:3, a:1"`, "type=registry"}, []string{"a:1", "b:2"}},
		{[]string{"type=image,push=true,push-by-digest=true,name=c"}, nil},
	} {
		if got := r.WithOutputs(outputs(t, tc.outs...)).PushTags(); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.outs, got, tc.want)
		}
	}
	own := r
	own.Tags = nil
	own = own.WithOutputs(outputs(t, `type=image,push=true,"name=c:3, a:1"`, "type=registry,name=a:1", "type=registry,name=d"))
	if got := own.PushTags(); !reflect.DeepEqual(got, []string{"c:3", "a:1", "d"}) {
		t.Errorf("without a tag: %q", got)
	}
}

func TestPushInsecure(t *testing.T) {
	r := local()
	for in, want := range map[string]bool{"type=registry": false, "type=registry,registry.insecure=true": true, "type=image,registry.insecure=true": false} {
		if got := r.WithOutputs(outputs(t, in)).PushInsecure(); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}
