package buildflag

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/platforms"
)

func FuzzParseOutputs(f *testing.F) {
	for _, s := range []string{"", "-", "out", "./a=b", "type=local,dest=x", `type=image,"name=a,b",push=true`, "type=tar\n\n", `"`, `""`, "type=oci,dest= x", "dest=\r\n", "a\rb", "type=docker,=", "\ufeff-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseOutputs([]string{s})
		if err != nil {
			return
		}
		if got[0].Attrs == nil {
			t.Fatal("nil attributes")
		}
		again, err := ParseOutputs([]string{got[0].String()})
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%q: %#v was written as %q and read back as %#v, %v", s, got, got[0].String(), again, err)
		}
	})
}

func FuzzParsePlatforms(f *testing.F) {
	for _, s := range []string{"", "local", "linux/amd64", "linux/arm64/v8,linux/arm/v7", "windows(10.0.17763+win32k)/amd64", "linux(+a%2Cb)/x", ",", "arm64"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParsePlatforms([]string{s})
		if err != nil {
			return
		}
		if len(got) == 0 {
			t.Fatalf("%q: neither a platform nor an error", s)
		}
		seen := map[string]bool{}
		for _, p := range got {
			if text := platforms.FormatAll(p); seen[text] {
				t.Fatalf("%q: %s twice", s, text)
			} else {
				seen[text] = true
			}
		}
	})
}

func FuzzParseSecrets(f *testing.F) {
	for _, s := range []string{"", "id=x", "id=x,src=a", "type=env,id=x,src=T", `id=x,"src=a,b"`, "id=x,env=E", "=,", "id", "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseSecrets([]string{s})
		if err != nil {
			return
		}
		if len(got) != 1 || got[0].ID == "" || (got[0].File != "" && got[0].Env != "") {
			t.Fatalf("%q = %+v", s, got)
		}
	})
}

func FuzzParseSSH(f *testing.F) {
	for _, s := range []string{"", "default", "default=", "a=b,c", "a=,", "=x", "é=x", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseSSH([]string{s})
		if err != nil {
			return
		}
		text := got[0].ID
		if got[0].Paths != nil {
			text += "=" + strings.Join(got[0].Paths, ",")
		}
		if again, err := ParseSSH([]string{text}); err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%q: %+v read back as %+v, %v", s, got, again, err)
		}
	})
}

func FuzzParseKVs(f *testing.F) {
	for _, s := range []string{"", "A", "A=", "A=b=c", "=X", "=", "\x00=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseKVs("build-arg", []string{s})
		if err != nil {
			return
		}
		text := got[0].Key
		if got[0].HasValue {
			text += "=" + got[0].Value
		}
		if text != s {
			t.Fatalf("%q read as %+v", s, got)
		}
	})
}

func FuzzParseTags(f *testing.F) {
	for _, s := range []string{"", "test", "me/app:1", "localhost:5000/x:y", "UPPER", "x@sha256:0", "[::1]:5000/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTags([]string{s})
		if err != nil {
			return
		}
		if again, err := ParseTags(got); err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%q: %q read back as %q, %v", s, got, again, err)
		}
	})
}
