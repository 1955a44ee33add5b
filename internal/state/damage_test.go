package state

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/hint"
)

func TestDamagedFilesHideNoOthers(t *testing.T) {
	for _, tc := range []struct {
		what string
		make func(t *testing.T, path string) error
		says string
	}{
		{"garbage", content("\x00\xff garbage"), "not a builder"},
		{"empty", content(""), "is empty"},
		{"blank", content(" \n"), "is empty"},
		{"null", content("null"), "not a builder"},
		{"list", content("[]"), "not a builder"},
		{"wrong type", content(`{"Name":"bad","Nodes":"x"}`), "not a builder"},
		{"truncated", content(`{"Name":"bad","Driver":"remote","Nodes":[{"Na`), "not a builder"},
		{"two values", content(`{"Name":"bad"}{}`), "not a builder"},
		{"other name", content(`{"Name":"good","Nodes":[]}`), `named "good"`},
		{"path as name", content(`{"Name":"../bad","Nodes":[]}`), "not a builder"},
		{"bad base64", content(`{"Name":"bad","Nodes":[{"Files":{"a":"!"}}]}`), "not a builder"},
		{"10 MB", func(t *testing.T, path string) error {
			return os.WriteFile(path, []byte(`{"Name":"bad","X":"`+strings.Repeat("x", 10<<20)+`"}`), 0o600)
		}, "at most 1048576"},
		{"directory", func(t *testing.T, path string) error { return os.Mkdir(path, 0o700) }, "is a directory"},
		{"symlink loop", func(t *testing.T, path string) error { return os.Symlink(path, path) }, "levels of symbolic links"},
		{"dangling symlink", func(t *testing.T, path string) error { return os.Symlink("nowhere", path) }, "symbolic link to nothing"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := Open(t.TempDir())
			create(t, s, "a")
			create(t, s, "z")
			path := s.path("instances", "bad")
			if err := tc.make(t, path); err != nil {
				t.Fatal(err)
			}
			groups, damages, err := s.List(t.Context())
			if err != nil || !slices.Equal(names(groups), []string{"a", "z"}) {
				t.Fatalf("List = %q, %v", names(groups), err)
			}
			if len(damages) != 1 || damages[0].Path != path || !strings.Contains(damages[0].Error(), tc.says) {
				t.Errorf("damages %v, want %q about %s", damages, tc.says, path)
			}
			_, gerr := s.Get(t.Context(), "bad")
			cerr := s.Change(t.Context(), "bad", func(*Group) (*Group, error) { panic("called for a damaged builder") })
			for _, err := range []error{gerr, cerr} {
				var d *Damage
				if !errors.As(err, &d) || d.Path != path || strings.Count(err.Error(), path) != 1 || len(hint.Of(err)) == 0 {
					t.Errorf("%v, hints %q", err, hint.Of(err))
				}
			}
			if err := s.Remove(t.Context(), "bad"); err != nil {
				t.Errorf("cannot be removed: %v", err)
			}
			if _, damages, err := s.List(t.Context()); damages != nil || err != nil {
				t.Errorf("after removing it: %v, %v", damages, err)
			}
		})
	}
}

func content(text string) func(*testing.T, string) error {
	return func(_ *testing.T, path string) error { return os.WriteFile(path, []byte(text), 0o600) }
}

func TestFilesThatAreNoBuildersAreNamed(t *testing.T) {
	s := Open(t.TempDir())
	for _, name := range []string{"with space", "Upper", "back~"} {
		put(t, s, "instances/"+name, `{"Name":"`+name+`"}`)
	}
	groups, damages, err := s.List(t.Context())
	if err != nil || groups != nil || len(damages) != 3 {
		t.Errorf("List = %q, %v, %v", names(groups), damages, err)
	}
}

func TestInstancesIsNotAFolder(t *testing.T) {
	s := Open(t.TempDir())
	path := put(t, s, "instances", "x")
	if _, _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("List: %v", err)
	}
	if err := s.Change(t.Context(), "b", func(*Group) (*Group, error) { return &Group{Name: "b"}, nil }); err == nil {
		t.Error("Change succeeded")
	}
}

func TestDamagedActivityIsNoActivity(t *testing.T) {
	s := Open(t.TempDir())
	create(t, s, "b")
	for _, bad := range []string{"", "garbage", "2026-13-99T00:00:00Z", strings.Repeat("9", 2<<20)} {
		put(t, s, "activity/b", bad)
		if g, err := s.Get(t.Context(), "b"); err != nil || !g.LastActivity.IsZero() {
			t.Errorf("activity %.20q: %v, %v", bad, g.LastActivity, err)
		}
	}
}

func TestDamagedCurrentIsNamed(t *testing.T) {
	for _, bad := range []string{"", "garbage", "null", "[]", `{"Name":"../x","Global":true}`, `{"Name":"b"`, strings.Repeat(" ", 10<<20)} {
		s := Open(t.TempDir())
		create(t, s, "b")
		path := put(t, s, "current", bad)
		_, err := s.Current(t.Context(), "k")
		var d *Damage
		if !errors.As(err, &d) || d.Path != path {
			t.Errorf("current %.20q: %v", bad, err)
		}
		if err := s.SetCurrent(t.Context(), "k", "b", false, true); err != nil {
			t.Errorf("choosing again: %v", err)
		}
		if name, err := s.Current(t.Context(), "k"); name != "b" || err != nil {
			t.Errorf("after choosing again: %q, %v", name, err)
		}
	}
	s := Open(t.TempDir())
	path := s.defaultPath("k")
	for _, bad := range []string{"../x", "a b", strings.Repeat("x", 2<<20)} {
		put(t, s, "defaults/"+path[len(path)-20:], bad)
		_, err := s.Current(t.Context(), "k")
		var d *Damage
		if !errors.As(err, &d) || d.Path != path {
			t.Errorf("default %.20q: %v", bad, err)
		}
	}
}

func TestLockIsADirectory(t *testing.T) {
	s := Open(t.TempDir())
	if err := os.Mkdir(s.path(".lock"), 0o700); err != nil {
		t.Fatal(err)
	}
	for what, try := range lockers(s) {
		if err := try(t.Context()); err == nil || !strings.Contains(err.Error(), s.path(".lock")) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
