package buildflag

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/platforms"

	"github.com/berthbuild/berth/internal/hint"
)

func TestParseHosts(t *testing.T) {
	got, err := ParseHosts([]string{
		"a=1.2.3.4", "b:1.2.3.5,c:1.1.1.1", "v6=[::1]", "w6:::1", "x6:[FE80::1]", "UPPER_x:1.2.3.4",
		"a:[1.2.3.9]", "gw=host-gateway", "a:b=::", "m=::ffff:1.2.3.4",
	})
	want := []Host{
		{"a", "1.2.3.4"}, {"b", "1.2.3.5"}, {"c", "1.1.1.1"}, {"v6", "::1"}, {"w6", "::1"}, {"x6", "fe80::1"}, {"UPPER_x", "1.2.3.4"},
		{"a", "1.2.3.9"}, {"gw", HostGateway}, {"a:b", "::"}, {"m", "::ffff:1.2.3.4"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestParseHostsRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"": "empty", "a": "not NAME=IP", "a:": "address is empty", "a=": "address is empty", "=1.2.3.4": "name is empty",
		":1.2.3.4": "name is empty", "a=b": "not an IP address", "a= 1.2.3.4": "not an IP address", "a=1.2.3.4=5": "not an IP address",
		"a=[::1": "not an IP address", "a=::1]": "not an IP address", "a=fe80::1%eth0": "not an IP address", "a=HOST-GATEWAY": "not an IP address",
		"a=1.2.3.4,": "empty", "a=1.2.3.4\nb=1.1.1.1": "more than one line", "\"a\nevil 6.6.6.6\"=1.2.3.4": "column",
		"\"a\nevil=6.6.6.6\"": "/etc/hosts", "a b=1.2.3.4": "/etc/hosts", "a#=1.2.3.4": "/etc/hosts", "a\x1b[2J=1.2.3.4": "/etc/hosts",
		"a=01.2.3.4": "not an IP address", "a=256.1.1.1": "not an IP address",
	} {
		_, err := ParseHosts([]string{"ok=::1", in})
		wantError(t, err, "--add-host", want)
		plainText(t, err)
	}
}

// plainText sees that nothing in an error acts on a terminal, and that it is
// not endless.
func plainText(t *testing.T, err error) {
	t.Helper()
	text := strings.Join(append(hint.Of(err), err.Error()), " ")
	if strings.ContainsAny(text, "\x1b\x00\n\r") || len(text) > 2000 {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

func TestParseNetwork(t *testing.T) {
	for in, want := range map[string]string{"default": "", "none": "none", "host": "host"} {
		if got, err := ParseNetwork(in); err != nil || got != want {
			t.Errorf("%s = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "HOST", "bridge", "sandbox", "container:x", "none,host", "a\x1b[0m"} {
		_, err := ParseNetwork(in)
		wantError(t, err, "--network")
		plainText(t, err)
	}
}

func TestParseShmSize(t *testing.T) {
	for in, want := range map[string]int64{"64": 64, "128m": 128 << 20, "1g": 1 << 30, "1.5M": 3 << 19, "10kib": 10 << 10, "1 m": 1 << 20, "0": 0, "1t": 1 << 40} {
		if got, err := ParseShmSize(in); err != nil || got != want {
			t.Errorf("%s = %d, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"": "empty", "-1": "not a size", "x": "not a size", "1e": "not a size", "NaN": "not a size", "1m,2m": "not a size",
		"9999999999999999999": "too large", "9e99": "too large", "99999p": "too large", "1\n": "not a size",
	} {
		_, err := ParseShmSize(in)
		wantError(t, err, "--shm-size", want)
		plainText(t, err)
	}
}

func TestParseUlimits(t *testing.T) {
	got, err := ParseUlimits([]string{"nofile=100", "nproc=5:-1", "nofile=2:3", "core=-1"})
	if want := []Ulimit{{"nofile", 2, 3}, {"nproc", 5, -1}, {"core", -1, -1}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for in, want := range map[string]string{
		"": "empty", "nofile": "nofile", "nofile=": `"" is not a whole number`, "nofile=a": `"a" is not a whole number`, "foo=1": "foo",
		"nofile=200:100": "200 > 100", "nofile=1:2:3": "two", "NOFILE=1": "NOFILE", "=1": "type", "cpu=1.5": "whole number",
		"nofile=99999999999999999999": "whole number", "a\x1b[2J=1": "type",
	} {
		_, err := ParseUlimits([]string{"nproc=1", in})
		wantError(t, err, "--ulimit", want)
		plainText(t, err)
	}
}

func TestParseResources(t *testing.T) {
	got, err := ParseResources([]string{
		"memory=1m", "memory-swap=-1", "cpu-shares=512", "cpu-period=100000", "cpu-quota=50000",
		"cpuset-cpus=0-3,5", "cpuset-mems=0", "memory=1.5g",
	})
	want := []Resource{
		{"memswap", "-1"}, {"cpushares", "512"}, {"cpuperiod", "100000"}, {"cpuquota", "50000"},
		{"cpusetcpus", "0-3,5"}, {"cpusetmems", "0"}, {"memory", "1610612736"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := ParseResources([]string{"memory=1m", "memory=0", "cpu-quota=-1", "cpu-shares=0", "memory-swap=0"}); err != nil || len(got) != 0 {
		t.Errorf("limits that are none: %v, %v", got, err)
	}
	for in, want := range map[string]string{
		"": "not NAME=VALUE", "memory": "not NAME=VALUE", "memory=": "value is empty", "foo=1": `"foo" is not known`, "memswap=1m": "not known", "Memory=1m": "not known",
		"memory=-1": "not a size", "memory=x": "not a size", "memory=1m,cpu-shares=5": "not a size", "memory=99999p": "too large", "memory-swap=-2": "not a size",
		"cpu-shares=-1": "negative", "cpu-quota=-2": "negative", "cpu-quota=1.5": "whole number", "cpu-period=1s": "whole number",
		"cpuset-cpus=x": "numbers and ranges", "cpuset-cpus=3-1": "numbers and ranges", "cpuset-cpus=1,": "numbers and ranges", "cpuset-mems=-1": "numbers and ranges",
		"=1": "not known", "\x1b[2J=1": "not known",
	} {
		_, err := ParseResources([]string{"memory=1m", in})
		wantError(t, err, "--resource", want)
		plainText(t, err)
	}
}

func TestParseCgroupParent(t *testing.T) {
	for _, in := range []string{"x", "/x/y", "a.slice:b:c", "..x/y", "a b"} {
		if got, err := ParseCgroupParent(in); err != nil || got != in {
			t.Errorf("%q = %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{"": "empty", "../x": `".."`, "/a/../../b": `".."`, "a\x00": "character", "a\nb": "character"} {
		_, err := ParseCgroupParent(in)
		wantError(t, err, "--cgroup-parent", want)
		plainText(t, err)
	}
}

func TestParseAllow(t *testing.T) {
	got, err := ParseAllow([]string{
		"network.host", "security.insecure", "network.host", "device", "device=vendor.com/gpu=0", "device=a/b=c,alias=d/e=f", "buildx.local.delete",
	})
	want := Allowed{LocalDelete: true, Daemon: []string{"network.host", "security.insecure", "device", "device=vendor.com/gpu=0", "device=a/b=c,alias=d/e=f"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for in, want := range map[string]string{
		"": "empty", "foo": "no such right", "network.host=1": "no such right", "NETWORK.HOST": "no such right", "fs.read=.": "no such right", "network.host,device": "no such right",
		"device=": "empty", "device=,": "name of the device is empty", "device=a,b=c": "alias=NAME", "device=a,alias=": "alias is empty",
		"device=a,alias=b,alias=c": "twice", "device=a\"b": `bare "`, "device=a\nb": "one line", "\x1b[2J": "no such right",
	} {
		_, err := ParseAllow([]string{"device", in})
		wantError(t, err, "--allow", want)
		plainText(t, err)
	}
}

func TestParseAnnotations(t *testing.T) {
	type flat struct{ level, platform, key, value string }
	for _, tc := range []struct {
		in   string
		want []flat
	}{
		{"a=b", []flat{{"manifest", "", "a", "b"}}},
		{"a=", []flat{{"manifest", "", "a", ""}}},
		{"a=b=c", []flat{{"manifest", "", "a", "b=c"}}},
		{"org.x/y=c:d e", []flat{{"manifest", "", "org.x/y", "c:d e"}}},
		{"index:a=b", []flat{{"index", "", "a", "b"}}},
		{"index,manifest,manifest-descriptor:a=b", []flat{{"index", "", "a", "b"}, {"manifest", "", "a", "b"}, {"manifest-descriptor", "", "a", "b"}}},
		{"manifest[linux/arm64/v8],manifest[linux/arm64],index-descriptor:a:x=b", []flat{{"manifest", "linux/arm64", "a:x", "b"}, {"index-descriptor", "", "a:x", "b"}}},
		{"manifest-descriptor[linux/arm/v7]:a=b", []flat{{"manifest-descriptor", "linux/arm/v7", "a", "b"}}},
		{"index[linux/amd64]:a=b", []flat{{"index", "", "a", "b"}}},
	} {
		got, err := ParseAnnotations([]string{tc.in})
		var flats []flat
		for _, a := range got {
			f := flat{string(a.Level), "", a.Key, a.Value}
			if a.Platform != nil {
				f.platform = platforms.Format(*a.Platform)
			}
			flats = append(flats, f)
		}
		if err != nil || !reflect.DeepEqual(flats, tc.want) {
			t.Errorf("%q = %v, %v; want %v", tc.in, flats, err, tc.want)
		}
	}
	if got, err := ParseAnnotations([]string{"a=1", "a=2"}); err != nil || len(got) != 2 {
		t.Errorf("a repeated one: %v, %v", got, err)
	}
}

func TestParseAnnotationsRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"": "empty", "a": "not KEY=VALUE", "manifest:a": "not KEY=VALUE", "=b": "key is empty", "manifest:=b": "key is empty", "a b=c": "space", "a\x1b[2J=c": "printed",
		"foo:a=b": `"foo" is not known`, "Manifest:a=b": "not known", "index,:a=b": `"" is not known`, ":a=b": "not known", "manifest [linux/amd64]:a=b": "not known",
		"manifest[]:a=b": "LEVEL[PLATFORM]", "manifest[linux/*]:a=b": "LEVEL[PLATFORM]", "manifest[linux/amd64:a=b": "LEVEL[PLATFORM]",
		"manifest[a/b/c/d]:a=b": "a/b/c/d", "manifest[windows(1)/amd64]:a=b": "LEVEL[PLATFORM]",
	} {
		_, err := ParseAnnotations([]string{"ok=1", in})
		wantError(t, err, "--annotation", want)
		plainText(t, err)
	}
	_, err := ParseAnnotations([]string{strings.Repeat("x", 1<<20)})
	plainText(t, err)
}
