package buildflag

import (
	"reflect"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestParseCaches(t *testing.T) {
	registry := func(ref string) Cache { return Cache{CacheRegistry, map[string]string{"ref": ref}} }
	for _, tc := range []struct {
		flag string
		in   []string
		want []Cache
	}{
		{FlagCacheFrom, nil, nil},
		{FlagCacheFrom, []string{"user/app:cache"}, []Cache{registry("user/app:cache")}},
		{FlagCacheFrom, []string{"a,localhost:5000/b:1"}, []Cache{registry("a"), registry("localhost:5000/b:1")}},
		{FlagCacheFrom, []string{"a", "type=registry,ref=a"}, []Cache{registry("a")}},
		{FlagCacheFrom, []string{"a@sha256:" + strings.Repeat("0", 64)}, []Cache{registry("a@sha256:" + strings.Repeat("0", 64))}},
		{FlagCacheFrom, []string{"TYPE=local,SRC=x=y"}, []Cache{{CacheLocal, map[string]string{"src": "x=y"}}}},
		{FlagCacheFrom, []string{`type=local,"src=a,b",digest=sha256:1`}, []Cache{{CacheLocal, map[string]string{"src": "a,b", "digest": "sha256:1"}}}},
		{FlagCacheTo, []string{"type=local,dest=x,mode=max,ignore-error=true,reset=0"}, []Cache{{CacheLocal, map[string]string{"dest": "x", "mode": "max", "ignore-error": "true", "reset": "0"}}}},
		{FlagCacheTo, []string{"type=inline", "type=inline"}, []Cache{{CacheInline, map[string]string{}}}},
		{FlagCacheTo, []string{"type=gha,mode=min,scope=x"}, []Cache{{CacheGHA, map[string]string{"mode": "min", "scope": "x"}}}},
		{FlagCacheTo, []string{"type=s3,bucket=b,access_key_id="}, []Cache{{CacheS3, map[string]string{"bucket": "b", "access_key_id": ""}}}},
		{FlagCacheTo, []string{"type=azblob,name=x"}, []Cache{{CacheAzblob, map[string]string{"name": "x"}}}},
		{FlagCacheTo, []string{"type=newer,mode=odd"}, []Cache{{"newer", map[string]string{"mode": "odd"}}}},
	} {
		got, err := ParseCaches(tc.flag, tc.in)
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s %q = %v, %v; want %v", tc.flag, tc.in, got, err, tc.want)
		}
	}
}

func TestParseCachesRefuses(t *testing.T) {
	for _, tc := range []struct {
		flag string
		in   []string
		want string
	}{
		{FlagCacheFrom, []string{""}, "it is empty"},
		{FlagCacheFrom, []string{"a", " "}, "(number 2)"},
		{FlagCacheFrom, []string{"a b"}, `"a b" is not the name of an image`},
		{FlagCacheFrom, []string{"a,"}, `needs "ref"`},
		{FlagCacheFrom, []string{"UPPER"}, "not the name of an image"},
		{FlagCacheFrom, []string{"ref=a"}, `"type" is missing`},
		{FlagCacheFrom, []string{"type="}, `"type" is missing`},
		{FlagCacheFrom, []string{"type=a b"}, "not one word"},
		{FlagCacheFrom, []string{"type=registry"}, `type=registry needs "ref"`},
		{FlagCacheFrom, []string{"type=registry,ref=a b"}, "not the name of an image"},
		{FlagCacheFrom, []string{"type=local,dest=x"}, `type=local needs "src"`},
		{FlagCacheTo, []string{"type=local,src=x"}, `type=local needs "dest"`},
		{FlagCacheTo, []string{"type=local,dest="}, `type=local needs "dest"`},
		{FlagCacheTo, []string{"type=local,dest=a,dest=b"}, `"dest" is given twice`},
		{FlagCacheTo, []string{"type=gha,type=s3"}, `"type" is given twice`},
		{FlagCacheTo, []string{"type=gha,hunter2"}, "part 2 is not KEY=VALUE"},
		{FlagCacheTo, []string{"type=gha,=hunter2"}, "part 2 is not KEY=VALUE"},
		{FlagCacheTo, []string{"type=gha,mode=hunter2"}, `"mode" must be min or max`},
		{FlagCacheTo, []string{"type=gha,ignore-error=hunter2"}, `"ignore-error" must be true or false`},
		{FlagCacheTo, []string{"type=gha;token=hunter2"}, "not one word"},
		{FlagCacheTo, []string{`type=gha,token="hunter2`}, "column"},
		{FlagCacheTo, []string{"type=gha\ntoken=hunter2"}, "more than one line"},
		{FlagCacheTo, []string{"a", "type=registry,ref=a"}, "given twice"},
		{FlagCacheTo, []string{"type=gha", "type=gha"}, "given twice"},
	} {
		_, err := ParseCaches(tc.flag, tc.in)
		wantError(t, err, tc.flag, tc.want)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error repeats what may be a token: %v", tc.in, err)
		}
	}
}

func TestCacheDir(t *testing.T) {
	c := Cache{CacheLocal, map[string]string{"src": "from", "dest": "to"}}
	moved := c.WithDir(FlagCacheFrom, "/abs")
	if c.Dir(FlagCacheFrom) != "from" || c.Dir(FlagCacheTo) != "to" || moved.Dir(FlagCacheFrom) != "/abs" || moved.Dir(FlagCacheTo) != "to" {
		t.Errorf("%v, %v", c, moved)
	}
	if got := (Cache{"s3", map[string]string{"src": "x"}}).Dir(FlagCacheFrom); got != "" {
		t.Errorf("an S3 cache has the folder %q", got)
	}
	if (Cache{Type: "newer"}).KnownType() || !(Cache{Type: CacheAzblob}).KnownType() {
		t.Error("KnownType")
	}
}

func TestParseNoCacheFilter(t *testing.T) {
	got, err := ParseNoCacheFilter([]string{"a,b", " a , 0", "c_d.e-f"})
	if want := []string{"a", "b", "0", "c_d.e-f"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, in := range []string{"", "a,", ",", "a b", "a\nb", `"a"`, "a=b"} {
		_, err := ParseNoCacheFilter([]string{"ok", in})
		wantError(t, err, "--no-cache-filter", "not the name of a stage")
		if len(hint.Of(err)) == 0 {
			t.Errorf("%q: no hint", in)
		}
	}
}
