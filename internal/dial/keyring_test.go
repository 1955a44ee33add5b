package dial

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestPhraseFile(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct{ text, want, says string }{
		{"open sesame", "open sesame", ""},
		{"open sesame\n", "open sesame", ""},
		{"open sesame\r\n\n", "open sesame", ""},
		{" open sesame ", " open sesame ", ""},
		{"", "", "is empty"},
		{"\n", "", "is empty"},
		{"hunter2\nmore", "", "more than one line"},
		{strings.Repeat("x", maxPhrase+1), "", "too long"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "phrase"), []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		k := NewKeyring(Env{Dir: dir, LookupEnv: func(name string) (string, bool) { return "phrase", name == EnvPassphraseFile }})
		got, from, err := k.Phrase("key.pem")
		if tc.says != "" {
			if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), EnvPassphraseFile) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%.20q: %v", tc.text, err)
			}
			continue
		}
		if err != nil || string(got) != tc.want || from != "phrase" {
			t.Errorf("%.20q: %q from %q, %v", tc.text, got, from, err)
		}
	}
}

func TestKeyringOfNobody(t *testing.T) {
	for _, k := range []*Keyring{nil, NewKeyring(Env{})} {
		if phrase, from, err := k.Phrase("x"); phrase != nil || from != "" || err != nil {
			t.Errorf("%q %q %v", phrase, from, err)
		}
		if k.CanAsk() || k.Ask(t.Context(), "x", nil) == nil {
			t.Error("nobody was asked")
		}
		k.Warn("x", "y")
	}
}

// Several connections that need the same key ask once.
func TestKeyringAsksOnce(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	k := NewKeyring(Env{Ask: func(context.Context, string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return "right", nil
	}})
	opens := func(phrase []byte) error {
		if string(phrase) != "right" {
			return errors.New("wrong")
		}
		return nil
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := k.Ask(t.Context(), "key", opens); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	phrase, from, err := k.Phrase("key")
	if asked != 1 || string(phrase) != "right" || from != "" || err != nil {
		t.Errorf("asked %d times; %q %q %v", asked, phrase, from, err)
	}
	if err := k.Ask(t.Context(), "other", func([]byte) error { return errors.New("no") }); err == nil || asked != 1+maxGuesses {
		t.Errorf("asked %d times, %v", asked, err)
	}
}
