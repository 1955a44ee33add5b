package dial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// EnvPassphraseFile names a file that holds the passphrase of an encrypted key.
const EnvPassphraseFile = "BERTH_TLS_KEY_PASSPHRASE_FILE"

const (
	// maxGuesses is how often a passphrase is asked for.
	maxGuesses = 3
	// maxPhrase bounds the file of a passphrase in bytes.
	maxPhrase = 64 << 10
)

// Keyring is what one process knows about the keys of TLS, so that nobody is
// asked or warned twice: the passphrases that were typed, and the warnings that
// were given. It is safe for several goroutines; nil is one that knows nothing,
// asks nobody and warns of nothing.
type Keyring struct {
	env Env

	mu      sync.Mutex
	phrases map[string][]byte // by key
	warned  map[string]bool

	asking sync.Mutex // one question at a time
}

// NewKeyring is an empty one that asks and warns by env.
func NewKeyring(env Env) *Keyring {
	return &Keyring{env: env, phrases: map[string][]byte{}, warned: map[string]bool{}}
}

// Phrase is the passphrase of the key, as far as it is known: the one that was
// typed, or what the file holds that EnvPassphraseFile names, which is then
// from. nil is one that is not known; the error says why the file cannot be
// used.
func (k *Keyring) Phrase(key string) (phrase []byte, from string, err error) {
	if k == nil {
		return nil, "", nil
	}
	k.mu.Lock()
	phrase = k.phrases[key]
	k.mu.Unlock()
	if phrase != nil {
		return phrase, "", nil
	}
	file := k.env.Getenv(EnvPassphraseFile)
	if file == "" {
		return nil, "", nil
	}
	phrase, err = readPhrase(k.absolute(file))
	if err != nil {
		return nil, file, fmt.Errorf("%s: %s: %w", EnvPassphraseFile, file, err)
	}
	return phrase, file, nil
}

func (k *Keyring) absolute(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(k.env.Dir, file)
}

// readPhrase reads the file up to the end of its first line. It may be a pipe,
// such as a shell makes of <(command).
func readPhrase(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxPhrase+1))
	if err != nil {
		return nil, errors.New("cannot be read")
	}
	line, rest, _ := strings.Cut(string(data), "\n")
	line = strings.TrimSuffix(line, "\r")
	switch {
	case len(data) > maxPhrase:
		return nil, errors.New("is too long for a passphrase")
	case strings.TrimSpace(rest) != "":
		return nil, errors.New("has more than one line")
	case line == "":
		return nil, errors.New("is empty")
	}
	return []byte(line), nil
}

// CanAsk tells whether there is somebody at a terminal.
func (k *Keyring) CanAsk() bool { return k != nil && k.env.Ask != nil }

// Ask asks for the passphrase of the key until opens accepts it, three times at
// most, and keeps it. The error says that it was not given, or is ctx's.
func (k *Keyring) Ask(ctx context.Context, key string, opens func(phrase []byte) error) error {
	if !k.CanAsk() {
		return errors.New("nobody can be asked for the passphrase of the key " + key)
	}
	k.asking.Lock()
	defer k.asking.Unlock()
	k.mu.Lock()
	known := k.phrases[key]
	k.mu.Unlock()
	if known != nil && opens(known) == nil { // given for another connection, while we were waiting
		return nil
	}
	question := fmt.Sprintf("Passphrase for the key %s: ", key)
	for range maxGuesses {
		phrase, err := k.env.Ask(ctx, question)
		if err != nil {
			return err
		}
		if phrase == "" {
			break
		}
		if opens([]byte(phrase)) == nil {
			k.mu.Lock()
			k.phrases[key] = []byte(phrase)
			k.mu.Unlock()
			return nil
		}
		question = fmt.Sprintf("That is not it. Passphrase for the key %s: ", key)
	}
	return fmt.Errorf("the passphrase for the key %s was not given", key)
}

// Warn says text once per what.
func (k *Keyring) Warn(what, text string) {
	if k == nil {
		return
	}
	k.mu.Lock()
	seen := k.warned[what]
	k.warned[what] = true
	k.mu.Unlock()
	if !seen {
		k.env.Warning(text)
	}
}
