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

func FuzzParseCall(f *testing.F) {
	for _, s := range []string{"", "build", "check", "check,format=json", "targets,ignorestatus=1,format=text", "format=json", ",", `"check,x"`, "a\x1bb", "check\n", "=", "che=ck"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseCall(s)
		if err != nil {
			return
		}
		if got.IsBuild() && got != (Call{}) {
			t.Fatalf("%q is a build with something else: %+v", s, got)
		}
		if again, err := ParseCall(got.String()); err != nil || again != got {
			t.Fatalf("%q: %+v was written as %q and read back as %+v, %v", s, got, got.String(), again, err)
		}
	})
}

func FuzzParseCaches(f *testing.F) {
	for _, s := range []string{"", "a", "a,b", "type=local,src=x", "type=registry,ref=a", "type=inline", `type=gha,"token=a,b"`, "type=,", "=", "type=s3;x=y", "type=x,=", "A=\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, flag := range []string{FlagCacheFrom, FlagCacheTo} {
			got, err := ParseCaches(flag, []string{s})
			if err != nil {
				plainText(t, err)
				continue
			}
			if len(got) == 0 {
				t.Fatalf("%q: neither a cache nor an error", s)
			}
			for _, c := range got {
				if c.Type == "" || c.Attrs == nil || c.Type == CacheLocal && c.Dir(flag) == "" || c.Type == CacheRegistry && c.Attrs["ref"] == "" {
					t.Fatalf("%q = %+v", s, c)
				}
				parts := []string{"type=" + c.Type}
				for _, k := range sortedKeys(c.Attrs) {
					parts = append(parts, k+"="+c.Attrs[k])
				}
				if again, err := ParseCaches(flag, []string{joinFields(parts)}); err != nil || !reflect.DeepEqual(again, []Cache{c}) {
					t.Fatalf("%q: %+v read back as %+v, %v", s, c, again, err)
				}
			}
		}
	})
}

func FuzzParseAnnotations(f *testing.F) {
	for _, s := range []string{"", "a=b", "index,manifest:a=b", "manifest[linux/arm64]:a=b", "manifest[]:a", "x:y=z", "a:=", "=", "index[:a=b", "a\u200b=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseAnnotations([]string{s})
		if err != nil {
			plainText(t, err)
			return
		}
		for _, a := range got {
			text := string(a.Level)
			if a.Platform != nil {
				text += "[" + platforms.Format(*a.Platform) + "]"
			}
			text += ":" + a.Key + "=" + a.Value
			if again, err := ParseAnnotations([]string{text}); err != nil || !reflect.DeepEqual(again, []Annotation{a}) {
				t.Fatalf("%q: %+v read back as %+v, %v", s, a, again, err)
			}
		}
	})
}

func FuzzParseHosts(f *testing.F) {
	for _, s := range []string{"", "a=1.2.3.4", "a:::1", "a=[::1],b=host-gateway", "=,", "a=1.2.3.4\nb=::1", `"a=::1"`, "a\r=::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseHosts([]string{s})
		if err != nil {
			plainText(t, err)
			return
		}
		var parts []string
		for _, h := range got {
			if strings.ContainsAny(h.Name, " \t\r\n,\"#") || h.Name == "" || h.IP == "" {
				t.Fatalf("%q = %+v", s, h)
			}
			parts = append(parts, h.Name+"="+h.IP)
		}
		if again, err := ParseHosts([]string{strings.Join(parts, ",")}); err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%q: %+v read back as %+v, %v", s, got, again, err)
		}
	})
}

func FuzzParseLimits(f *testing.F) {
	for _, s := range []string{"", "1g", "-1", "nofile=1:2", "memory=1g", "cpuset-cpus=0-3,5", "cpu-quota=-1", "core=-1:-1", "9e99", "memory=9999999999p"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseShmSize(s); err != nil {
			plainText(t, err)
		} else if n < 0 {
			t.Fatalf("--shm-size %q = %d", s, n)
		}
		if _, err := ParseUlimits([]string{s}); err != nil {
			plainText(t, err)
		}
		got, err := ParseResources([]string{s})
		if err != nil {
			plainText(t, err)
			return
		}
		for _, r := range got {
			if r.Key == "" || r.Value == "" || r.Value == "0" && !strings.HasPrefix(r.Key, "cpuset") || strings.HasPrefix(r.Value, "-") && r.Key != "memswap" {
				t.Fatalf("--resource %q = %+v", s, r)
			}
		}
	})
}

func FuzzParseAllow(f *testing.F) {
	for _, s := range []string{"", "network.host", "device", "device=a/b=c,alias=d", "device=", "buildx.local.delete", "fs=/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseAllow([]string{s})
		if err != nil {
			plainText(t, err)
			return
		}
		if got.LocalDelete == (len(got.Daemon) > 0) || len(got.Daemon) > 0 && got.Daemon[0] != s {
			t.Fatalf("%q = %+v", s, got)
		}
	})
}

func FuzzParseWords(f *testing.F) {
	for _, s := range []string{"", "a,b", "none", "host", "/x/../y", "a\x00", " a "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseNetwork(s); err != nil {
			plainText(t, err)
		}
		if got, err := ParseCgroupParent(s); err != nil {
			plainText(t, err)
		} else if got != s || strings.Contains("/"+s+"/", "/../") {
			t.Fatalf("--cgroup-parent %q = %q", s, got)
		}
		stages, err := ParseNoCacheFilter([]string{s})
		if err != nil {
			plainText(t, err)
			return
		}
		if again, err := ParseNoCacheFilter([]string{strings.Join(stages, ",")}); err != nil || !reflect.DeepEqual(again, stages) {
			t.Fatalf("%q: %q read back as %q, %v", s, stages, again, err)
		}
	})
}
