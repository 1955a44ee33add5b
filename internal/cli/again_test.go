package cli

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What is to be pasted is the whole command line, without secrets.
func TestAgain(t *testing.T) {
	env := []string{"GITHUB_TOKEN=ghp_0123456789", "GITHUB_TOKEN_MORE=ghp_0123456789-more", "HOME=/home/user", "SHORT_TOKEN=abc", "BAD-TOKEN=whatever-it-is"}
	for args, want := range map[string]string{
		"berth bake":       "berth bake --allow 'fs.read=/a b'",
		"./bin/berth f":    "./bin/berth f --allow 'fs.read=/a b'",
		"berth.exe bake x": "berth bake x --allow 'fs.read=/a b'",
		"berth --builder r bake -f a.hcl app --set *.platform=linux/arm64 --print": "berth --builder r bake -f a.hcl app --set '*.platform=linux/arm64' --print --allow 'fs.read=/a b'",
		"berth bake -- app":                                         "berth bake --allow 'fs.read=/a b' -- app",
		"berth bake --var NAME=it's":                                `berth bake --var 'NAME=it'\''s' --allow 'fs.read=/a b'`,
		"berth bake --var X=":                                       "berth bake --var X= --allow 'fs.read=/a b'",
		"berth bake https://user:pw@host/x.git#main:base app":       "! berth bake 'https://host/x.git#main:base' app",
		"berth bake https://host/x.tar?a=b&X-Amz-Signature=f00&c=d": "! berth bake 'https://host/x.tar?a=b&X-Amz-Signature=…'",
		"berth bake https://host/x.git":                             "berth bake https://host/x.git --allow 'fs.read=/a b'",
		"berth bake git@host:x.git":                                 "berth bake git@host:x.git --allow 'fs.read=/a b'",
		"berth bake ssh://git@host/x.git":                           "berth bake ssh://git@host/x.git --allow 'fs.read=/a b'",
		"berth bake --set a.contexts.x=docker-image://alpine@sha256:00 --set=b.context=cwd://x": "berth bake --set a.contexts.x=docker-image://alpine@sha256:00 --set=b.context=cwd://x --allow",
		"berth bake --set a.context=https://me:pw@host/y.git":                                   "! berth bake --set a.context=https://host/y.git --allow",
		"berth bake --var NPM_TOKEN=s3cr3t,x":                                                   "! berth bake --var 'NPM_TOKEN=…' --allow",
		"berth bake --var=DB_PASSWORD=hunter2":                                                  "! berth bake '--var=DB_PASSWORD=…' --allow",
		"berth bake --set a.args.API_KEY=hunter2":                                               "! berth bake --set 'a.args.API_KEY=…' --allow",
		"berth bake --set a.cache-to=type=s3,secret_access_key=hunter2,bucket=b":                "! berth bake --set 'a.cache-to=type=s3,secret_access_key=…' --allow",
		"berth bake --set a.secret=id=token,src=f --set=a.secret.x=env=TOKEN --allow env=TOKEN": "berth bake --set a.secret=id=token,src=f --set=a.secret.x=env=TOKEN --allow env=TOKEN --allow",
		"berth bake --var X=ghp_0123456789":                                                     `berth bake --var X="$GITHUB_TOKEN" --allow`,
		"berth bake --var NPM_TOKEN=ghp_0123456789":                                             `berth bake --var NPM_TOKEN="$GITHUB_TOKEN" --allow`,
		"berth bake --var X=a&ghp_0123456789-more.":                                             `berth bake --var 'X=a&'"$GITHUB_TOKEN_MORE". --allow`,
		"berth bake https://ghp_0123456789@host/x.git":                                          `berth bake https://"$GITHUB_TOKEN"@host/x.git --allow`,
		"berth bake https://me:ghp_0123456789@host/x.git":                                       `berth bake https://me:"$GITHUB_TOKEN"@host/x.git --allow`,
		"berth bake https://me:pw@host/ghp_0123456789.git":                                      `! berth bake https://host/"$GITHUB_TOKEN".git --allow`,
		"berth bake --var X=abc":                                                                "berth bake --var X=abc --allow",
		"docker-buildx buildx bake -f x.hcl":                                                    "docker buildx bake -f x.hcl --allow",
	} {
		a := bakeApp(t.TempDir(), nil)
		a.args, a.environ = strings.Fields(args), func() []string { return env }
		a.asPlugin = strings.HasPrefix(args, "docker-buildx buildx")
		got, complete := a.again("--allow", "fs.read=/a b")
		want, hidden := strings.CutPrefix(want, "! ")
		if !strings.HasPrefix(got, want) || complete == hidden || len(a.grantLine("ssh")) != map[bool]int{true: 1, false: 2}[complete] {
			t.Errorf("%s\ngot  %s (complete: %v)\nwant %s", args, got, complete, want)
		}
		for _, secret := range []string{"hunter2", "s3cr3t", "ghp_", "f00&", "pw@"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s is in %s", secret, got)
			}
		}
	}
}

// A shell makes of the line the arguments that there were.
func TestAgainInAShell(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no shell")
	}
	args := []string{"berth", "bake", "", " ", "it's", "a\nb", `\`, `"$HOME"`, "$(id)", "*", "--set", "x.args.A=ghp_0123456789 and 'more'", "x;y"}
	a := bakeApp(t.TempDir(), nil)
	a.args, a.environ = args, func() []string { return []string{"A_TOKEN=ghp_0123456789"} }
	line, complete := a.again("--allow", "fs.read=/a b")
	if !complete {
		t.Error("something was left out")
	}
	cmd := exec.CommandContext(t.Context(), shell, "-c", "berth() { printf '%s\\0' berth \"$@\"; }\n"+line)
	cmd.Env = []string{"A_TOKEN=ghp_0123456789"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if want := append(args, "--allow", "fs.read=/a b"); !slices.Equal(got, want) {
		t.Errorf("%s\ngot  %q\nwant %q", line, got, want)
	}
}
