package buildflag

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseSecrets(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Secret
	}{
		{"id=x", Secret{ID: "x"}},
		{"id=x,src=a/b", Secret{ID: "x", File: "a/b"}},
		{"id=x,source=a/b", Secret{ID: "x", File: "a/b"}},
		{`id=x,"src=a,b"`, Secret{ID: "x", File: "a,b"}},
		{"ID=x,Env=TOKEN", Secret{ID: "x", Env: "TOKEN"}},
		{"type=file,id=x,src=a", Secret{ID: "x", File: "a"}},
		{"type=file,id=x", Secret{ID: "x", File: "x"}},
		{"type=env,id=x", Secret{ID: "x", Env: "x"}},
		{"type=env,id=x,src=TOKEN", Secret{ID: "x", Env: "TOKEN"}},
		{"type=env,id=x,env=TOKEN", Secret{ID: "x", Env: "TOKEN"}},
	} {
		got, err := ParseSecrets([]string{tc.in})
		if err != nil || len(got) != 1 || got[0] != tc.want {
			t.Errorf("%q = %+v, %v; want %+v", tc.in, got, err, tc.want)
		}
	}
}

func TestParseSecretsRefuses(t *testing.T) {
	for _, tc := range []struct {
		in   []string
		want string
	}{
		{[]string{""}, "empty"},
		{[]string{"src=a"}, `"id" is missing`},
		{[]string{"id=,src=a"}, `"id" is empty`},
		{[]string{"id=x,src="}, `"src" is empty`},
		{[]string{"id=x,env="}, `"env" is empty`},
		{[]string{"id=x,value=hunter2"}, `key "value" is not known`},
		{[]string{"id=x,hunter2"}, "part 2 is not KEY=VALUE"},
		{[]string{"id=x,type=vault"}, `type "vault" is not known`},
		{[]string{"id=x,src=a,env=B"}, `both "src" and "env"`},
		{[]string{"id=x,type=env,src=A,env=B"}, `both "src" and "env"`},
		{[]string{"id=x,type=file,env=B"}, "type=file"},
		{[]string{"id=x,id=y"}, `"id" is given twice`},
		{[]string{"id=x,src=a,source=b"}, `"src" is given twice`},
		{[]string{"id=x,src=a", "id=x,src=b"}, `id "x" is given twice`},
		{[]string{`id=x,src="hunter2`}, `column`},
	} {
		_, err := ParseSecrets(tc.in)
		wantError(t, err, "--secret", tc.want)
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error repeats what may be the secret: %v", tc.in, err)
		}
	}
}

func TestParseSSH(t *testing.T) {
	got, err := ParseSSH([]string{"default", "git=/run/agent.sock", "keys=a,b", "empty=", "eq=a=b"})
	want := []SSH{{ID: "default"}, {"git", []string{"/run/agent.sock"}}, {"keys", []string{"a", "b"}}, {ID: "empty"}, {"eq", []string{"a=b"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseSSHRefuses(t *testing.T) {
	for _, tc := range []struct {
		in   []string
		want string
	}{
		{[]string{""}, "id is missing"},
		{[]string{"=path"}, "id is missing"},
		{[]string{"a b=path"}, "not allowed"},
		{[]string{"a,b"}, "not allowed"},
		{[]string{"a\x00=p"}, "not allowed"},
		{[]string{"a\xff=p"}, "not allowed"},
		{[]string{"a=b,"}, "empty"},
		{[]string{"default", "default=x"}, `id "default" is given twice`},
	} {
		_, err := ParseSSH(tc.in)
		wantError(t, err, "--ssh", tc.want)
	}
}
