package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// inputs reads the three files of a folder.
func inputs(dir string, role Role) Input {
	return Input{
		CA: ReadFile(filepath.Join(dir, caFile)), Cert: ReadFile(filepath.Join(dir, certFile)), Key: ReadFile(filepath.Join(dir, keyFile)),
		Role: role, OneCA: true, Now: now(),
	}
}

func TestDescribe(t *testing.T) {
	dir := made(t, "build.test", "127.0.0.1")
	d := Describe(inputs(filepath.Join(dir, "daemon"), RoleDaemon))
	if len(d.Problems) != 0 || !d.KeyMatches || !d.Verifies || !d.HasKey {
		t.Errorf("a good one: %+v", d)
	}
	want := cert(t, dir, "daemon/cert.pem")
	if c := d.Cert; c.Subject != "CN=build.test" || !slices.Equal(c.Names, []string{"build.test", "127.0.0.1"}) || !slices.Equal(c.Uses, []string{"server"}) ||
		c.Key != "ECDSA P-256" || !c.NotAfter.Equal(want.NotAfter) || c.IsCA || len(c.SHA256) != 64 || c.Serial != want.SerialNumber.Text(16) && "0"+want.SerialNumber.Text(16) != c.Serial {
		t.Errorf("got %+v", c)
	}
	if len(d.CAs) != 1 || d.CAs[0].Subject != d.Cert.Issuer || !d.ValidUntil.Equal(want.NotAfter) {
		t.Errorf("CAs %+v, until %v", d.CAs, d.ValidUntil)
	}
}

func TestDescribeFindsFaults(t *testing.T) {
	dir, other := made(t, "build.test"), made(t, "other.test")
	of := func(elem ...string) File { return ReadFile(filepath.Join(elem...)) }
	type fault struct {
		level Level
		kind  Kind
		text  string
	}
	encrypted := File{Path: "k", Data: pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})}
	for _, c := range []struct {
		name   string
		role   Role
		change func(in *Input)
		want   []fault
	}{
		{"good", RoleClient, func(*Input) {}, nil},
		{"expired", RoleClient, func(in *Input) { in.Now = now().Add(400 * day) }, []fault{{Broken, KindExpired, "certificate expired on"}}},
		{"all expired", RoleClient, func(in *Input) { in.Now = now().Add(4000 * day) }, []fault{{Broken, KindExpired, "certificate expired"}, {Broken, KindExpired, "its CA expired"}}},
		{"not yet", RoleClient, func(in *Input) { in.Now = now().Add(-day) }, []fault{{Broken, KindNotYet, "certificate is not valid before"}, {Broken, KindNotYet, "its CA"}}},
		{"soon", RoleClient, func(in *Input) { in.Warn = 366 * day }, []fault{{Expiring, KindExpiring, "in 36"}}},
		{"not so soon", RoleClient, func(in *Input) { in.Warn = 364 * day }, nil},
		{"wrong CA", RoleClient, func(in *Input) { in.CA = of(other, "ca/cert.pem") }, []fault{{Broken, KindUntrusted, "signed by CN=BuildKit CA"}}},
		{"perhaps the wrong CA", RoleClient, func(in *Input) { in.CA, in.OneCA = of(other, "ca/cert.pem"), false }, []fault{{Note, KindUntrusted, "right only where"}}},
		{"wrong CA and expired", RoleClient, func(in *Input) { in.CA, in.Now = of(other, "ca/cert.pem"), now().Add(400*day) }, []fault{{Broken, KindExpired, ""}, {Broken, KindUntrusted, ""}}},
		{"right among CAs", RoleClient, func(in *Input) { in.CA.Data = append(of(other, "ca/cert.pem").Data, in.CA.Data...) }, nil},
		{"key of another", RoleClient, func(in *Input) { in.Key = of(other, "client/key.pem") }, []fault{{Broken, KindKeyMismatch, "does not belong"}}},
		{"daemon's as client's", RoleClient, func(in *Input) { in.Cert, in.Key = of(dir, "daemon/cert.pem"), of(dir, "daemon/key.pem") }, []fault{{Broken, KindUse, "not for clients"}}},
		{"client's as daemon's", RoleDaemon, func(*Input) {}, []fault{{Broken, KindUse, "not for servers"}, {Broken, KindNames, "for no name"}}},
		{"client's as CA", RoleCA, func(*Input) {}, []fault{{Broken, KindUse, "no CA's"}}},
		{"CA as CA", RoleCA, func(in *Input) { in.CA, in.Cert, in.Key = File{}, of(dir, "ca/cert.pem"), of(dir, "ca/key.pem") }, nil},
		{"missing", RoleClient, func(in *Input) { in.Cert = of(dir, "no.pem") }, []fault{{Broken, KindFile, "no.pem"}}},
		{"folder", RoleClient, func(in *Input) { in.Cert = of(dir, "client") }, []fault{{Broken, KindFile, "is a directory"}}},
		{"garbage", RoleClient, func(in *Input) { in.Cert.Data = []byte("\x1b[31mhello\x00") }, []fault{{Broken, KindFile, "holds no PEM certificate"}}},
		{"DER", RoleClient, func(in *Input) { in.Cert.Data = cert(t, dir, "client/cert.pem").Raw }, []fault{{Broken, KindFile, "looks like DER"}}},
		{"truncated", RoleClient, func(in *Input) { in.Cert.Data = in.Cert.Data[:len(in.Cert.Data)/2] }, []fault{{Broken, KindFile, "truncated"}}},
		{"damaged", RoleClient, func(in *Input) {
			in.Cert.Data = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")})
		}, []fault{{Broken, KindFile, "damaged certificate"}}},
		{"key for a certificate", RoleClient, func(in *Input) { in.Cert = in.Key }, []fault{{Broken, KindFile, `holds a "PRIVATE KEY" block`}}},
		{"certificate for a key", RoleClient, func(in *Input) { in.Key = in.Cert }, []fault{{Broken, KindFile, `holds a "CERTIFICATE" block`}}},
		{"encrypted", RoleClient, func(in *Input) { in.Key = encrypted }, []fault{{Note, KindEncrypted, "encrypted"}}},
		{"only a CA", RoleClient, func(in *Input) { in.Cert, in.Key = File{}, File{} }, nil},
		{"only an expired CA", RoleClient, func(in *Input) { in.Cert, in.Key, in.Now = File{}, File{}, now().Add(4000*day) }, []fault{{Broken, KindExpired, "CA CN=BuildKit CA"}}},
		{"exposed", RoleClient, func(in *Input) { in.Key.Mode = 0o644 }, []fault{{Note, KindExposed, "mode 0644"}}},
		{"nothing", RoleClient, func(in *Input) { *in = Input{Now: now()} }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "exposed" && runtime.GOOS == "windows" {
				return
			}
			in := inputs(filepath.Join(dir, "client"), c.role)
			c.change(&in)
			d := Describe(in)
			if len(d.Problems) != len(c.want) {
				t.Fatalf("got %+v, want %v", d.Problems, c.want)
			}
			for i, p := range d.Problems {
				if w := c.want[i]; p.Level != w.level || p.Kind != w.kind || !strings.Contains(p.Text, w.text) || strings.ContainsAny(p.Text, "\x00\x1b\n") {
					t.Errorf("got %+v, want %v", p, w)
				}
			}
			worst := Level("")
			if len(c.want) > 0 {
				worst = c.want[0].level
			}
			if d.Worst() != worst {
				t.Errorf("worst %q", d.Worst())
			}
		})
	}
}

// A chain over an intermediate in the certificate file, whose end counts.
func TestDescribeIntermediate(t *testing.T) {
	root, err := newAuthority(ECDSA, now())
	if err != nil {
		t.Fatal(err)
	}
	between, err := newAuthority(ECDSA, now())
	if err != nil {
		t.Fatal(err)
	}
	tmpl := *between.cert
	tmpl.NotAfter = now().Add(20 * day)
	tmpl.MaxPathLen, tmpl.MaxPathLenZero = 0, true
	rootTmpl := *root.cert
	rootTmpl.MaxPathLen, rootTmpl.MaxPathLenZero = 1, false
	if root.cert, err = resign(&rootTmpl, &rootTmpl, root, root); err != nil {
		t.Fatal(err)
	}
	if between.cert, err = resign(&tmpl, root.cert, between, root); err != nil {
		t.Fatal(err)
	}
	key, err := newKey(ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	mid := *between
	mid.cert = between.cert
	leafCert, err := mid.issue(leaf{role: RoleClient, subject: subjectOf([]string{"c"}), key: key.Public(), from: now(), to: now().Add(10 * day)})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{CA: File{Path: "ca", Data: encodeCert(root.cert)}, Cert: File{Path: "cert", Data: encodeCert(leafCert, between.cert)}, Role: RoleClient, OneCA: true, Now: now()}
	if d := Describe(in); !d.Verifies || len(d.Problems) != 0 || len(d.Chain) != 1 {
		t.Errorf("got %+v", d)
	}
	in.Warn = 21 * day
	if d := Describe(in); len(d.Problems) != 2 || d.Problems[1].File != "cert" || !strings.Contains(d.Problems[1].Text, "its CA") {
		t.Errorf("got %+v", d.Problems)
	}
	in.Cert.Data, in.Warn = encodeCert(leafCert), 0
	if d := Describe(in); d.Verifies || d.Worst() != Broken || d.Problems[0].Kind != KindUntrusted {
		t.Errorf("without the intermediate: %+v", d)
	}
}

func resign(tmpl, parent *x509.Certificate, holder, signer *authority) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(bytes.NewReader(make([]byte, 256)), tmpl, parent, holder.key.Public(), signer.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func TestInspectDir(t *testing.T) {
	dir := made(t, "build.test")
	if _, err := AddClient(AddClientOptions{Dir: dir, Name: "ci", Days: 5, Now: now()}); err != nil {
		t.Fatal(err)
	}
	look := func(warn time.Duration) map[string][]Problem {
		t.Helper()
		sets, err := InspectDir(dir, now(), warn)
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		all := map[string][]Problem{}
		for _, s := range sets {
			order = append(order, s.Name)
			all[s.Name] = s.Problems
		}
		if want := []string{"ca", "daemon", "client", "client-ci"}; !slices.Equal(order, want) {
			t.Errorf("sets %q, want %q", order, want)
		}
		return all
	}
	for name, p := range look(0) {
		if len(p) != 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for name, p := range look(30 * day) {
		if (len(p) == 1 && p[0].Kind == KindExpiring) != (name == "client-ci") {
			t.Errorf("%s, within 30 days: %+v", name, p)
		}
	}
	// The CA's key may be kept elsewhere.
	remove("ca/key.pem")(t, dir)
	if p := look(0)["ca"]; len(p) != 1 || p[0].Level != Note {
		t.Errorf("no CA key: %+v", p)
	}
	// A client that an older CA signed fits in itself, and not the daemon.
	old := made(t, "build.test")
	for _, f := range []string{"ca.pem", "cert.pem", "key.pem"} {
		put("client-ci/"+f, readFile(t, old, "client", f))(t, dir)
	}
	p := look(0)["client-ci"]
	if len(p) != 2 || p[0].Level != Broken || !strings.Contains(p[0].Text, "the daemon refuses this client") || !strings.Contains(p[1].Text, "this client refuses the daemon") {
		t.Errorf("a client of an older CA: %+v", p)
	}
}

func TestInspectFlatFolders(t *testing.T) {
	dir := made(t, "build.test")
	kube := t.TempDir()
	for from, to := range map[string]string{"ca.pem": "ca.crt", "cert.pem": "tls.crt", "key.pem": "tls.key"} {
		put(to, readFile(t, dir, "daemon", from))(t, kube)
	}
	caOnly := t.TempDir()
	put("ca.pem", readFile(t, dir, "ca/cert.pem"))(t, caOnly)
	noKey := t.TempDir()
	put("cert.pem", readFile(t, dir, "client/cert.pem"))(t, noKey)
	for _, c := range []struct {
		dir      string
		role     Role
		verifies bool
		problems int
	}{
		{filepath.Join(dir, "client"), RoleClient, true, 0},
		{filepath.Join(dir, "daemon"), RoleDaemon, true, 0},
		{kube, RoleDaemon, true, 0},
		{caOnly, RoleClient, false, 0},
		{noKey, RoleClient, false, 1},
	} {
		if !IsCertDir(c.dir) {
			t.Errorf("%s has no certificates", c.dir)
		}
		sets, err := InspectDir(c.dir, now(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if s := sets[0]; len(sets) != 1 || s.Role != c.role || s.Verifies != c.verifies || len(s.Problems) != c.problems {
			t.Errorf("%s: %+v", c.dir, sets)
		}
	}
	empty := t.TempDir()
	for _, bad := range []string{empty, filepath.Join(empty, "no"), filepath.Join(dir, "SAN")} {
		if _, err := InspectDir(bad, now(), 0); err == nil || IsCertDir(bad) {
			t.Errorf("%s: no error", bad)
		}
	}
	if tr, ok := FindTrio(dir); !ok || tr.Cert != filepath.Join(dir, "client", "cert.pem") {
		t.Errorf("the layout's own: %+v", tr)
	}
}

func TestReadFileBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.pem")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), maxPEM+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := ReadFile(path); f.Err == nil || f.Data != nil {
		t.Errorf("got %d bytes, %v", len(f.Data), f.Err)
	}
	if f := ReadFile(path + "no"); !errors.Is(f.Err, os.ErrNotExist) {
		t.Errorf("got %v", f.Err)
	}
}

// FuzzDescribe: no file makes it fail, and what it says can be printed.
func FuzzDescribe(f *testing.F) {
	ca, err := newAuthority(Ed25519, now())
	if err != nil {
		f.Fatal(err)
	}
	key, err := encodeKey(ca.key)
	if err != nil {
		f.Fatal(err)
	}
	good := encodeCert(ca.cert)
	at := now()
	for _, s := range [][]byte{good, key, append(slices.Clone(good), key...), []byte("-----BEGIN CERTIFICATE-----"), ca.cert.Raw, {}, []byte("\x00")} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, asCA bool) {
		caPEM, certPEM, keyPEM := good, data, data
		if asCA {
			caPEM, certPEM, keyPEM = data, good, key
		}
		for _, role := range []Role{"", RoleCA, RoleDaemon, RoleClient} {
			in := Input{CA: File{Path: "ca", Data: caPEM}, Cert: File{Path: "cert", Data: certPEM}, Key: File{Path: "key", Data: keyPEM}, Role: role, OneCA: true, Now: at, Warn: day}
			d := Describe(in)
			for _, p := range d.Problems {
				if p.Text == "" || strings.ContainsFunc(p.Text, func(r rune) bool { return r < ' ' }) || len(p.Text) > 2000 {
					t.Errorf("cannot be printed: %q", p.Text)
				}
			}
			if d.Cert != nil && strings.ContainsFunc(d.Cert.Subject+d.Cert.Issuer+strings.Join(d.Cert.Names, ""), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("cannot be printed: %+v", d.Cert)
			}
			if d.KeyMatches && (d.Cert == nil || !d.HasKey) {
				t.Errorf("a key that fits nothing: %+v", d)
			}
		}
	})
}
