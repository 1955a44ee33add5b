package request

import (
	"reflect"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
)

func TestWithCall(t *testing.T) {
	r := everything(t)
	r.CacheTo = []buildflag.Cache{{Type: "inline"}}
	r.CacheFrom = []buildflag.Cache{{Type: "registry"}}
	r.Attests = []buildflag.Attest{{Type: "sbom"}}
	r.Annotations = []buildflag.Annotation{{Key: "k"}}
	r.Entitlements = []string{"network.host"}
	before := r.clone()

	if got := r.WithCall(buildflag.Call{}); !reflect.DeepEqual(got, r) {
		t.Errorf("a build is another one: %+v", got)
	}
	got := r.WithCall(buildflag.Call{Method: "outline", JSON: true})
	if !reflect.DeepEqual(r, before) {
		t.Error("the request was changed")
	}
	opt, err := got.Solve(newest())
	if err != nil {
		t.Fatal(err)
	}
	if len(opt.Exports)+len(opt.CacheExports)+len(opt.CacheImports)+len(opt.AllowedEntitlements) != 0 {
		t.Errorf("a question has results: %+v", opt)
	}
	for key, want := range map[string]string{
		"requestid": "frontend.outline", "frontend.caps": "moby.buildkit.frontend.subrequests+forward",
		"target": "final", "build-arg:A": "2", "filename": "prod.Dockerfile", "platform": "linux/amd64,linux/arm/v7,windows(10.0.17763)/amd64",
		"attest:provenance": "", "attest:sbom": "",
	} {
		if opt.FrontendAttrs[key] != want {
			t.Errorf("%s is %q, want %q", key, opt.FrontendAttrs[key], want)
		}
	}
}

func TestCallNames(t *testing.T) {
	for method, want := range map[string]string{"check": "frontend.lint", "lint": "frontend.lint", "targets": "frontend.targets", "subrequests.describe": "frontend.subrequests.describe", "": ""} {
		opt, err := local().WithCall(buildflag.Call{Method: method}).Solve(newest())
		if err != nil || opt.FrontendAttrs["requestid"] != want || (want == "") != (opt.FrontendAttrs["frontend.caps"] == "") {
			t.Errorf("%q: %v, %v", method, opt.FrontendAttrs, err)
		}
	}
}
