package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAgreement(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "state"))
	const file = "/repo/berth.yaml"
	if _, err := s.Agreement(t.Context(), file); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before: %v", err)
	}
	if all, damages, err := s.Agreements(t.Context()); len(all)+len(damages) > 0 || err != nil {
		t.Fatalf("before: %v %v %v", all, damages, err)
	}
	if err := s.Revoke(t.Context(), file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("revoke before: %v", err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("asking made the folder: %v", err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, a := range []Agreement{{file, "sha256:1", at}, {"/a/berth.yaml", "sha256:2", at}, {file, "sha256:3", at}} {
		if err := s.Agree(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Agreement(t.Context(), file)
	if err != nil || got != (Agreement{file, "sha256:3", at}) {
		t.Errorf("%+v %v", got, err)
	}
	all, damages, err := s.Agreements(t.Context())
	if err != nil || damages != nil || len(all) != 2 || all[0].Path != "/a/berth.yaml" {
		t.Errorf("%v %v %v", all, damages, err)
	}
	info, err := os.Stat(s.trustPath(file))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if err := s.Revoke(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Agreement(t.Context(), file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after: %v", err)
	}
}

// A record that cannot be read is no agreement, says so, and can be revoked.
func TestAgreementDamaged(t *testing.T) {
	s := Open(t.TempDir())
	const file = "/repo/berth.yaml"
	for _, text := range []string{"", "{", "[]", `{"Path":"/other","Digest":"sha256:1"}`, `{"Path":"/repo/berth.yaml"}`, `{"Path":"/repo/berth.yaml","Digest":"md5:1"}`} {
		put(t, s, "trust/"+filepath.Base(s.trustPath(file)), text)
		_, err := s.Agreement(t.Context(), file)
		var d *Damage
		if !errors.As(err, &d) || !strings.Contains(err.Error(), s.trustPath(file)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	put(t, s, "trust/.berth-x.tmp", "{")
	put(t, s, "trust/"+filepath.Base(s.trustPath(file)), "{")
	if all, damages, err := s.Agreements(t.Context()); len(all) != 0 || len(damages) != 1 || err != nil {
		t.Errorf("%v %v %v", all, damages, err)
	}
	if err := s.Revoke(t.Context(), file); err != nil {
		t.Error(err)
	}
}

func TestAdd(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "state"))
	g := &Group{Name: "Team", Driver: "remote", Nodes: []Node{{Name: "n", Endpoint: "tcp://h:1"}}}
	certs := []CertFile{{"n", "ca.pem", []byte("CA")}, {"n", "key.pem", []byte("KEY")}}
	put(t, s, "certs/team/old/key.pem", "of one that is gone")
	if err := s.Add(t.Context(), g, certs); err != nil {
		t.Fatal(err)
	}
	path := s.CertPath("Team", "n", "key.pem")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || read(t, path) != "KEY" {
		t.Errorf("%v %v", info, err)
	}
	if _, err := os.Stat(s.CertPath("team", "old", "key.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an older builder's key stays")
	}
	if err := s.Add(t.Context(), g, nil); !errors.Is(err, ErrExists) || read(t, path) != "KEY" {
		t.Errorf("again: %v", err)
	}
	for _, bad := range []CertFile{{"..", "ca.pem", nil}, {"n", "../x", nil}, {"n", "", nil}} {
		if err := s.Add(t.Context(), &Group{Name: "x"}, []CertFile{bad}); !errors.Is(err, ErrInvalidName) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := s.Get(t.Context(), "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a refused one is there: %v", err)
	}
	if err := s.Remove(t.Context(), "team"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.path(certsDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the certificates stay: %v", err)
	}
}

// When the builder cannot be written, its certificates are not there either.
func TestAddFails(t *testing.T) {
	s := Open(t.TempDir())
	put(t, s, "instances", "a file where a folder belongs")
	if err := s.Add(t.Context(), &Group{Name: "b"}, []CertFile{{"n", "ca.pem", []byte("CA")}}); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(s.path(certsDir, "b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("certificates are left: %v", err)
	}
}

func TestPeekNodeID(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "state"))
	id, err := s.PeekNodeID()
	if err != nil || len(id) != 16 {
		t.Fatalf("%q %v", id, err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was written: %v", err)
	}
	kept, err := s.NodeID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if id, err := s.PeekNodeID(); err != nil || id != kept {
		t.Errorf("%q %v, kept is %q", id, err, kept)
	}
}

func FuzzAgreement(f *testing.F) {
	for _, seed := range []string{"", "null", "{}", `{"Path":"/a","Digest":"sha256:0","At":"2026-01-02T03:04:05Z"}`, `{"At":1}`, "[]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAgreement(data)
		if err == nil && (a.Path == "" || !strings.HasPrefix(a.Digest, "sha256:")) {
			t.Fatalf("%q gives %+v", data, a)
		}
	})
}
