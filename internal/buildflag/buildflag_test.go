package buildflag

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/platforms"

	"github.com/berthbuild/berth/internal/hint"
)

// wantError checks that err is there and says all of the parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestParseOutputs(t *testing.T) {
	none := map[string]string{}
	for _, tc := range []struct {
		in   string
		want Output
	}{
		{"out", Output{Type: "local", Attrs: none, Dest: "out"}},
		{"./a=b", Output{Type: "local", Attrs: none, Dest: "./a=b"}},
		{"/tmp/x=y/z", Output{Type: "local", Attrs: none, Dest: "/tmp/x=y/z"}},
		{`"a,b"`, Output{Type: "local", Attrs: none, Dest: "a,b"}},
		{"-", Output{Type: "tar", Attrs: none, Dest: "-"}},
		{"type=local,dest=out", Output{Type: "local", Attrs: none, Dest: "out"}},
		{"type=local,dest=out,mode=delete,platform-split=false", Output{Type: "local", Attrs: map[string]string{"mode": "delete", "platform-split": "false"}, Dest: "out"}},
		{"type=tar", Output{Type: "tar", Attrs: none}},
		{"type=tar,dest=-", Output{Type: "tar", Attrs: none, Dest: "-"}},
		{"type=oci,dest=a b.tar", Output{Type: "oci", Attrs: none, Dest: "a b.tar"}},
		{"type=oci,dest=layout,tar=false", Output{Type: "oci", Attrs: map[string]string{"tar": "false"}, Dest: "layout"}},
		{"type=docker", Output{Type: "docker", Attrs: none}},
		{"type=docker,context=other", Output{Type: "docker", Attrs: map[string]string{"context": "other"}}},
		{"type=image,push=", Output{Type: "image", Attrs: map[string]string{"push": ""}}},
		{`type=image,"name=a,b",push=true`, Output{Type: "image", Attrs: map[string]string{"name": "a,b", "push": "true"}}},
		{"Type=registry", Output{Type: "registry", Attrs: none}},
		{"type=registry,annotation.a=b=c", Output{Type: "registry", Attrs: map[string]string{"annotation.a": "b=c"}}},
		{"type=cacheonly", Output{Type: "cacheonly", Attrs: none}},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, err := ParseOutputs([]string{tc.in})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || !reflect.DeepEqual(got[0], tc.want) {
				t.Errorf("got %#v, want %#v", got, tc.want)
			}
		})
	}
}

func TestParseOutputsRefuses(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{"", []string{"empty"}},
		{" ", []string{"empty"}},
		{`""`, []string{"empty"}},
		{"type=tarball,dest=x", []string{`"tarball"`, "not known"}},
		{"type=", []string{`"type" is missing`}},
		{"dest=out", []string{`"type" is missing`}},
		{"type=local", []string{`needs "dest"`}},
		{"type=local,dest=", []string{`"dest" is empty`}},
		{"type=local,dest=-", []string{"folder", "standard output"}},
		{"type=local,dest=x,mode=move", []string{`"move"`}},
		{"type=image,push", []string{`"push" is not KEY=VALUE`}},
		{"type=image,=x", []string{`"=x" is not KEY=VALUE`}},
		{"type=image,push=maybe", []string{`"push"`, `"maybe"`}},
		{"type=image,dest=x", []string{`does not take "dest"`}},
		{"type=registry,dest=x", []string{`does not take "dest"`}},
		{"type=registry,push=false", []string{"push=false"}},
		{"type=cacheonly,dest=x", []string{`does not take "dest"`}},
		{"type=oci,dest=-,tar=false", []string{"folder"}},
		{"type=tar,dest=a,dest=b", []string{`"dest" is given twice`}},
		{"type=tar,type=oci", []string{`"type" is given twice`}},
		{`type=tar,dest=a"b`, []string{`bare "`}},
		{"type=tar\ntype=oci", []string{"more than one line"}},
	} {
		t.Run(tc.in, func(t *testing.T) {
			_, err := ParseOutputs([]string{"type=cacheonly", tc.in})
			wantError(t, err, append(tc.want, "--output")...)
		})
	}
}

func TestOutputBool(t *testing.T) {
	o := Output{Attrs: map[string]string{"empty": "", "yes": "1", "no": "false", "odd": "x"}}
	for key, want := range map[string]bool{"empty": true, "yes": true, "no": false, "odd": false, "absent": true} {
		if got := o.Bool(key, true); got != want {
			t.Errorf("Bool(%s) = %v, want %v", key, got, want)
		}
	}
	if o.Bool("absent", false) {
		t.Error("an absent attribute must be the default")
	}
}

func TestParsePlatforms(t *testing.T) {
	for _, tc := range []struct {
		in   []string
		want string
	}{
		{nil, ""},
		{[]string{"linux/amd64"}, "linux/amd64"},
		{[]string{"linux/amd64,linux/arm64/v8", "linux/arm64"}, "linux/amd64 linux/arm64"},
		{[]string{" linux/arm/v7 , linux/arm/v6"}, "linux/arm/v7 linux/arm/v6"},
		{[]string{"linux/x86_64,linux/amd64"}, "linux/amd64"},
		{[]string{"windows(10.0.17763)/amd64"}, "windows(10.0.17763)/amd64"},
		{[]string{"riscv64"}, "linux/riscv64"},
	} {
		got, err := ParsePlatforms(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		var text []string
		for _, p := range got {
			text = append(text, platforms.FormatAll(p))
		}
		if s := strings.Join(text, " "); s != tc.want {
			t.Errorf("%q = %q, want %q", tc.in, s, tc.want)
		}
	}
	local, err := ParsePlatforms([]string{"local,LOCAL"})
	if err != nil || len(local) != 1 || local[0].OS == "darwin" || local[0].Architecture == "" {
		t.Errorf("local = %v, %v", local, err)
	}
}

func TestImagePlatformOfADesktop(t *testing.T) {
	if got := platforms.FormatAll(imagePlatform(platforms.MustParse("darwin(15.1)/arm64"))); got != "linux/arm64" {
		t.Errorf("the images of a Mac are for %s", got)
	}
	if got := platforms.FormatAll(imagePlatform(platforms.MustParse("windows(10.0.1)/amd64"))); got != "windows(10.0.1)/amd64" {
		t.Errorf("Windows = %s", got)
	}
}

func TestParsePlatformsRefuses(t *testing.T) {
	for _, in := range []string{"", "linux/amd64,", "linux/", "*", "a/b/c/d", "linux amd64", "nonsense"} {
		_, err := ParsePlatforms([]string{in})
		wantError(t, err, "--platform", `"`+in+`"`)
		if len(hint.Of(err)) == 0 {
			t.Errorf("%q: no hint", in)
		}
	}
}

func TestParseKVs(t *testing.T) {
	got, err := ParseKVs("build-arg", []string{"A=1", "B", "C=", "D=x=y", "A=2"})
	want := []KV{{"A", "1", true}, {"B", "", false}, {"C", "", true}, {"D", "x=y", true}, {"A", "2", true}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = ParseKVs("label", []string{"A=1", "=X"})
	if err == nil || err.Error() != `invalid key-value pair "=X": empty key` {
		t.Errorf("error = %v", err)
	}
	_, err = ParseKVs("label", []string{""})
	wantError(t, err, "empty key")
	if hints := hint.Of(err); len(hints) != 1 || !strings.Contains(hints[0], "--label") {
		t.Errorf("hints = %q", hints)
	}
}

func TestParseTags(t *testing.T) {
	got, err := ParseTags([]string{"test", "test:latest", "docker.io/library/test", "me/app:1", "localhost:5000/x", "ghcr.io/a/b:c"})
	want := []string{"test", "me/app:1", "localhost:5000/x", "ghcr.io/a/b:c"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, in := range []string{"", "Upper", "a b", "x:", ":tag", "x@sha256:" + strings.Repeat("a", 64), strings.Repeat("a", 64)} {
		_, err := ParseTags([]string{in})
		wantError(t, err, "invalid tag", `"`+in+`"`)
	}
}
