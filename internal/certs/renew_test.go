package certs

import (
	"bytes"
	"encoding/base64"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestAddClient(t *testing.T) {
	dir := made(t, "build.test")
	before := tree(t, dir)
	o := AddClientOptions{Dir: dir, Name: "ci", Days: 10, Kubernetes: true, Now: now()}
	r, err := AddClient(o)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Certs[0]; got.Folder != "client-ci" || !slices.Equal(got.Names, []string{"ci"}) || got.Secret != "buildkit-client-ci-certs.yaml" {
		t.Errorf("got %+v", got)
	}
	after := tree(t, dir)
	for name, text := range before {
		if after[name] != text {
			t.Errorf("%s changed", name)
		}
	}
	if len(after) != len(before)+5 {
		t.Errorf("files: %q", slices.Sorted(maps.Keys(after)))
	}
	if c := cert(t, dir, "client-ci/cert.pem"); c.Subject.CommonName != "ci" {
		t.Errorf("subject %v", c.Subject)
	}
	for _, client := range []string{"client", "client-ci"} {
		if err := shake(t, filepath.Join(dir, "daemon"), filepath.Join(dir, client), "build.test", now()); err != nil {
			t.Errorf("%s: %v", client, err)
		}
	}
	if _, err := AddClient(o); err == nil || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Errorf("a second time: %v", err)
	}
	o.Force = true
	if _, err := AddClient(o); err != nil {
		t.Error(err)
	}
	if readFile(t, dir, "client-ci/key.pem") == after["client-ci/key.pem"] {
		t.Error("--force changed nothing")
	}
}

func TestAddClientRefuses(t *testing.T) {
	dir := made(t, "build.test")
	noCA := t.TempDir()
	swapped := made(t, "build.test")
	writeFile(t, filepath.Join(swapped, "ca/key.pem"), readFile(t, dir, "ca/key.pem"))
	notCA := made(t, "build.test")
	writeFile(t, filepath.Join(notCA, "ca/cert.pem"), readFile(t, notCA, "client/cert.pem"))
	writeFile(t, filepath.Join(notCA, "ca/key.pem"), readFile(t, notCA, "client/key.pem"))
	garbage := made(t, "build.test")
	writeFile(t, filepath.Join(garbage, "ca/key.pem"), "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
	for _, c := range []struct {
		name string
		o    AddClientOptions
		want string
	}{
		{"the first client's name", AddClientOptions{Dir: dir, Name: "client", Days: 1}, "a client called client"},
		{"a path", AddClientOptions{Dir: dir, Name: "../x", Days: 1}, `"../x"`},
		{"days", AddClientOptions{Dir: dir, Name: "x"}, "--days 0"},
		{"a Secret that cannot be", AddClientOptions{Dir: dir, Name: "A_b", Days: 1, Kubernetes: true}, "no Secret called"},
		{"no CA", AddClientOptions{Dir: noCA, Name: "x", Days: 1}, "ca/cert.pem"},
		{"another CA's key", AddClientOptions{Dir: swapped, Name: "x", Days: 1}, "does not belong"},
		{"no CA's certificate", AddClientOptions{Dir: notCA, Name: "x", Days: 1}, "is not a CA's"},
		{"damaged key", AddClientOptions{Dir: garbage, Name: "x", Days: 1}, "damaged"},
		{"expired CA", AddClientOptions{Dir: dir, Name: "x", Days: 1, Now: now().Add((MaxDays + 1) * day)}, "expired on"},
		{"a clock that is behind", AddClientOptions{Dir: dir, Name: "x", Days: 1, Now: now().Add(-day)}, "not valid before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := tree(t, c.o.Dir)
			if c.o.Now.IsZero() {
				c.o.Now = now()
			}
			_, err := AddClient(c.o)
			if err == nil || !strings.Contains(filepath.ToSlash(err.Error()), c.want) || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("got %v", err)
			}
			if len(hint.Of(err)) == 0 && c.name != "another CA's key" {
				t.Errorf("no hint with %v", err)
			}
			if !maps.Equal(before, tree(t, c.o.Dir)) {
				t.Error("something changed")
			}
		})
	}
}

// Nothing outlives the CA, and the result says what that took away.
func TestCAEndsAll(t *testing.T) {
	dir := made(t, "build.test")
	ca := cert(t, dir, "ca/cert.pem")
	late := now().Add((MaxDays - 100) * day)
	r, err := AddClient(AddClientOptions{Dir: dir, Name: "late", Days: 365, Now: late})
	if err != nil {
		t.Fatal(err)
	}
	if c := cert(t, dir, "client-late/cert.pem"); !c.NotAfter.Equal(ca.NotAfter) || r.CutDays != 265 {
		t.Errorf("ends %v, the CA %v; cut %d days", c.NotAfter, ca.NotAfter, r.CutDays)
	}
	if r := mustCreate(t, CreateOptions{Dir: filepath.Join(t.TempDir(), "x"), Names: []string{"a"}, Days: MaxDays}); r.CutDays != 0 {
		t.Errorf("cut %d days of as long as the CA", r.CutDays)
	}
}

func TestRenew(t *testing.T) {
	start := now().Add(-300 * day)
	dir := filepath.Join(t.TempDir(), DefaultDir)
	mustCreate(t, CreateOptions{Dir: dir, Names: []string{"build.test", "10.0.0.1"}, Kubernetes: true, Now: start})
	if _, err := AddClient(AddClientOptions{Dir: dir, Name: "ci", Days: 365, Now: start}); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	r := mustRenew(t, RenewOptions{Dir: dir})
	var folders []string
	for _, i := range r.Certs {
		folders = append(folders, i.Folder)
	}
	if want := []string{"daemon", "client", "client-ci"}; !slices.Equal(folders, want) {
		t.Errorf("renewed %q, want %q", folders, want)
	}
	var changed []string
	after := tree(t, dir)
	for name, text := range before {
		if after[name] != text {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	if want := []string{"buildkit-client-certs.yaml", "buildkit-daemon-certs.yaml", "client-ci/cert.pem", "client/cert.pem", "daemon/cert.pem"}; !slices.Equal(changed, want) || len(after) != len(before) {
		t.Errorf("changed %q, want %q", changed, want)
	}
	// Old and new take each other, at the side of the daemon and the client's.
	old := t.TempDir()
	for name, text := range before {
		if !strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(old, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(old, name), text)
		}
	}
	for _, daemon := range []string{old, dir} {
		for _, client := range []string{old, dir} {
			if err := shake(t, filepath.Join(daemon, "daemon"), filepath.Join(client, "client-ci"), "build.test", now()); err != nil {
				t.Error(err)
			}
		}
	}
	if err := shake(t, filepath.Join(dir, "daemon"), filepath.Join(dir, "client"), "10.0.0.1", now().Add(200*day)); err != nil {
		t.Error("renewed: ", err)
	}
	a, b := cert(t, old, "daemon/cert.pem"), cert(t, dir, "daemon/cert.pem")
	if a.SerialNumber.Cmp(b.SerialNumber) == 0 || !slices.Equal(namesIn(a), namesIn(b)) || a.Subject.String() != b.Subject.String() {
		t.Errorf("before %v %q, after %v %q", a.Subject, namesIn(a), b.Subject, namesIn(b))
	}
	if want := base64.StdEncoding.EncodeToString([]byte(after["daemon/cert.pem"])); !strings.Contains(after["buildkit-daemon-certs.yaml"], "  cert.pem: "+want+"\n") {
		t.Error("the Secret has the old certificate")
	}
}

func TestRenewSome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), DefaultDir)
	mustCreate(t, CreateOptions{Dir: dir, Names: []string{"build.test"}, Client: "laptop"})
	for _, name := range []string{"ci", "client"} {
		if _, err := AddClient(AddClientOptions{Dir: dir, Name: name, Days: 1, Now: now()}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		o    RenewOptions
		want []string
	}{
		{"the daemon", RenewOptions{Daemon: true}, []string{"daemon/cert.pem"}},
		{"a client", RenewOptions{Clients: []string{"ci"}}, []string{"client-ci/cert.pem"}},
		{"the first client, by name", RenewOptions{Clients: []string{"laptop"}}, []string{"client/cert.pem"}},
		{"another one called as its folder", RenewOptions{Clients: []string{"client"}}, []string{"client-client/cert.pem"}},
		{"both", RenewOptions{Daemon: true, Clients: []string{"ci", "ci"}}, []string{"client-ci/cert.pem", "daemon/cert.pem"}},
		{"new key", RenewOptions{Clients: []string{"ci"}, NewKey: true, KeyType: Ed25519}, []string{"client-ci/cert.pem", "client-ci/key.pem"}},
		{"new names", RenewOptions{Daemon: true, Names: []string{"other.test", "::1"}}, []string{"SAN", "daemon/cert.pem"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := tree(t, dir)
			c.o.Dir = dir
			mustRenew(t, c.o)
			var changed []string
			for name, text := range tree(t, dir) {
				if before[name] != text {
					changed = append(changed, name)
				}
			}
			slices.Sort(changed)
			if !slices.Equal(changed, c.want) {
				t.Errorf("changed %q, want %q", changed, c.want)
			}
		})
	}
	if err := shake(t, filepath.Join(dir, "daemon"), filepath.Join(dir, "client-ci"), "other.test", now()); err != nil {
		t.Error(err)
	}
	if got := readFile(t, dir, "SAN"); got != "other.test\n::1\n" {
		t.Errorf("SAN: %q", got)
	}
}

// Renewing the CA keeps its key: what it signed before and after verifies
// against the CA before and after.
func TestRenewCA(t *testing.T) {
	start := now().Add(-(MaxDays - 20) * day)
	dir := filepath.Join(t.TempDir(), DefaultDir)
	mustCreate(t, CreateOptions{Dir: dir, Names: []string{"build.test"}, Days: MaxDays, Kubernetes: true, Now: start})
	for _, name := range []string{"ci", "kept"} {
		if _, err := AddClient(AddClientOptions{Dir: dir, Name: name, Days: MaxDays, Now: start}); err != nil {
			t.Fatal(err)
		}
	}
	// The owner trusts another CA, too.
	stranger := readFile(t, made(t, "x"), "ca/cert.pem")
	writeFile(t, filepath.Join(dir, "daemon/ca.pem"), stranger+readFile(t, dir, "ca/cert.pem"))
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	mustRenew(t, RenewOptions{Dir: dir, CA: true, Clients: []string{"ci"}, Daemon: true})
	a, b := cert(t, old, "ca/cert.pem"), cert(t, dir, "ca/cert.pem")
	if a.Subject.String() != b.Subject.String() || !bytes.Equal(a.SubjectKeyId, b.SubjectKeyId) || a.SerialNumber.Cmp(b.SerialNumber) == 0 || !b.NotAfter.After(a.NotAfter.Add(3000*day)) {
		t.Errorf("CA before: %v until %v, after: %v until %v", a.Subject, a.NotAfter, b.Subject, b.NotAfter)
	}
	for _, client := range []string{"client-ci", "client-kept"} {
		if got, want := readFile(t, dir, client, "ca.pem"), readFile(t, dir, "ca/cert.pem"); got != want {
			t.Errorf("%s/ca.pem is not the new CA", client)
		}
		for _, d := range []string{old, dir} {
			for _, c := range []string{old, dir} {
				if err := shake(t, filepath.Join(d, "daemon"), filepath.Join(c, client), "build.test", now()); err != nil {
					t.Errorf("%s: %v", client, err)
				}
			}
		}
	}
	if got := readFile(t, dir, "daemon/ca.pem"); !strings.HasPrefix(got, stranger) || !strings.HasSuffix(got, readFile(t, dir, "ca/cert.pem")) {
		t.Error("the daemon's other CA is gone")
	}
	if want := base64.StdEncoding.EncodeToString([]byte(readFile(t, dir, "ca/cert.pem"))); !strings.Contains(readFile(t, dir, "buildkit-client-certs.yaml"), want) {
		t.Error("the client's Secret has the old CA")
	}
	if err := shake(t, filepath.Join(dir, "daemon"), filepath.Join(dir, "client-ci"), "build.test", now().Add(300*day)); err != nil {
		t.Error("after the first CA's end: ", err)
	}
	// An expired CA can still be prolonged.
	gone := RenewOptions{Dir: old, Days: 10, Now: now().Add(30 * day)}
	if _, err := Renew(gone); err == nil || !strings.Contains(strings.Join(hint.Of(err), " "), "renew --ca") {
		t.Errorf("an expired CA: %v, %q", err, hint.Of(err))
	}
	gone.CA = true
	if _, err := Renew(gone); err != nil {
		t.Error(err)
	}
}

func TestRenewRefuses(t *testing.T) {
	other := made(t, "other.test")
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, dir string)
		o      RenewOptions
		want   string
		repair *RenewOptions // what the hint says
	}{
		{name: "days", o: RenewOptions{Days: -1}, want: "--days -1"},
		{name: "unknown client", o: RenewOptions{Clients: []string{"nobody"}}, want: `no client called "nobody"`},
		{name: "a path as a client", o: RenewOptions{Clients: []string{"../daemon"}}, want: "no client called"},
		{name: "bad name", o: RenewOptions{Names: []string{"a:1"}}, want: `"a:1"`},
		{name: "names for a client", o: RenewOptions{Names: []string{"a"}, Clients: []string{"client"}}, want: "--san is for the daemon's"},
		{name: "no CA", spoil: remove("ca/key.pem"), want: "ca/key.pem"},
		{
			name: "garbage for the daemon", spoil: put("daemon/cert.pem", "garbage"), want: "daemon/cert.pem: holds no PEM certificate",
			repair: &RenewOptions{Daemon: true, Names: []string{"build.test"}},
		},
		{name: "truncated client", spoil: put("client/cert.pem", "-----BEGIN CERTIFICATE-----\nMIIB"), want: "truncated"},
		{name: "empty client", spoil: put("client/cert.pem", "\n"), want: "is empty"},
		{name: "key is gone", spoil: remove("client/key.pem"), want: "client/key.pem", repair: &RenewOptions{NewKey: true}},
		{name: "key of another", spoil: swap("client/key.pem", "daemon/key.pem"), want: "does not belong", repair: &RenewOptions{NewKey: true}},
		{
			name: "another CA's", spoil: func(t *testing.T, dir string) {
				for _, f := range []string{"ca.pem", "cert.pem", "key.pem"} {
					put("client/"+f, readFile(t, other, "client", f))(t, dir)
				}
			},
			want: "signed by another CA", repair: &RenewOptions{Force: true},
		},
		{
			name: "trusts another CA", spoil: func(t *testing.T, dir string) { put("client/ca.pem", readFile(t, other, "ca/cert.pem"))(t, dir) },
			want: "does not hold the CA", repair: &RenewOptions{Force: true},
		},
		{name: "neither daemon nor client", spoil: func(t *testing.T, dir string) {
			for _, d := range []string{"daemon", "client"} {
				if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
					t.Fatal(err)
				}
			}
		}, want: "nothing to renew"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := made(t, "build.test")
			if c.spoil != nil {
				c.spoil(t, dir)
			}
			before := tree(t, dir)
			c.o.Dir, c.o.Now = dir, now()
			if c.o.Days == 0 {
				c.o.Days = 1
			}
			_, err := Renew(c.o)
			if err == nil || !strings.Contains(filepath.ToSlash(err.Error()), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if !maps.Equal(before, tree(t, dir)) {
				t.Error("something changed")
			}
			if c.repair == nil {
				return
			}
			if len(hint.Of(err)) == 0 {
				t.Error("no hint")
			}
			c.repair.Dir = dir
			mustRenew(t, *c.repair)
			if err := shake(t, filepath.Join(dir, "daemon"), filepath.Join(dir, "client"), "build.test", now()); err != nil {
				t.Error("after the repair: ", err)
			}
		})
	}
}

// The name that was given first is the one to dial, whatever its kind.
func TestDaemonNames(t *testing.T) {
	want := []string{"10.0.0.1", "build.test", "*.build.test", "::1"}
	dir := filepath.Join(t.TempDir(), DefaultDir)
	if r := mustCreate(t, CreateOptions{Dir: dir, Names: []string{"10.0.0.1", "build.test", "*.build.test", "::1"}}); !slices.Equal(r.Certs[0].Names, want) {
		t.Errorf("made for %q, want %q", r.Certs[0].Names, want)
	}
	if got := DaemonNames(dir); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	mustRenew(t, RenewOptions{Dir: dir})
	if got := DaemonNames(dir); !slices.Equal(got, want) {
		t.Errorf("renewed: %q, want %q", got, want)
	}
	if got := DaemonNames(t.TempDir()); got != nil {
		t.Errorf("nothing there: %q", got)
	}
}

func put(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, name), text) }
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func swap(to, from string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { put(to, readFile(t, dir, from))(t, dir) }
}

// A pair that is read while it is renewed always fits.
func TestRenewUnderReaders(t *testing.T) {
	dir := made(t, "build.test")
	stop := make(chan struct{})
	done := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			if d := DescribeFiles(Input{OneCA: true, Role: RoleClient, Now: now()}, filepath.Join(dir, "client/ca.pem"), filepath.Join(dir, "client/cert.pem"), filepath.Join(dir, "client/key.pem")); d.Worst() != "" {
				t.Errorf("read in between: %+v", d.Problems)
			}
			n++
		}
	}()
	for i := range 20 {
		mustRenew(t, RenewOptions{Dir: dir, CA: i%2 == 0})
	}
	close(stop)
	if n := <-done; n == 0 {
		t.Error("nobody read")
	}
}

func TestRenewSecretKeepsWhatItsOwnerWrote(t *testing.T) {
	old := string(secret("daemon", []byte("a"), []byte("b"), []byte("c")))
	mine := strings.Replace(old, "metadata:\n", "metadata:\n  namespace: builds\n", 1)
	got := string(renewSecret([]byte(mine), "daemon", []byte("x"), []byte("y"), []byte("z")))
	if !strings.Contains(got, "namespace: builds\n") || got != strings.Replace(string(secret("daemon", []byte("x"), []byte("y"), []byte("z"))), "metadata:\n", "metadata:\n  namespace: builds\n", 1) {
		t.Errorf("got %s", got)
	}
	if got := string(renewSecret([]byte("something else"), "daemon", []byte("x"), []byte("y"), []byte("z"))); got != string(secret("daemon", []byte("x"), []byte("y"), []byte("z"))) {
		t.Errorf("got %s", got)
	}
}
