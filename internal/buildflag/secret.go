package buildflag

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/berthbuild/berth/internal/hint"
)

// Secret is one --secret. With neither File nor Env, the secret is the
// environment variable of that ID if there is one, else the file of that name;
// whoever opens it decides, as nothing is looked up here.
type Secret struct {
	ID   string
	File string // path as typed; "" when Env is set
	Env  string // name of a variable; "" when File is set
}

const secretShape = "write id=NAME,src=FILE or id=NAME,env=VARIABLE"

// ParseSecrets reads the values of --secret, in their order. The values are
// not repeated in errors: people put secrets themselves there by mistake.
func ParseSecrets(vals []string) ([]Secret, error) {
	var out []Secret
	for i, v := range vals {
		s, err := parseSecret(v)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("--secret (number %d)", i+1), secretShape)
		}
		if slices.ContainsFunc(out, func(o Secret) bool { return o.ID == s.ID }) {
			return nil, hint.New(fmt.Sprintf("--secret: id %q is given twice", s.ID))
		}
		out = append(out, s)
	}
	return out, nil
}

func parseSecret(value string) (Secret, error) {
	parts, err := fields(value)
	if err != nil {
		return Secret{}, err
	}
	got := map[string]string{}
	for i, part := range parts {
		key, val, ok := splitPair(part)
		if !ok {
			return Secret{}, fmt.Errorf("part %d is not KEY=VALUE", i+1)
		}
		if key == "source" {
			key = "src"
		}
		if !slices.Contains([]string{"id", "type", "src", "env"}, key) {
			return Secret{}, fmt.Errorf("key %q is not known", key)
		}
		if _, twice := got[key]; twice {
			return Secret{}, fmt.Errorf("%q is given twice", key)
		}
		if val == "" {
			return Secret{}, fmt.Errorf("%q is empty", key)
		}
		got[key] = val
	}
	if got["id"] == "" {
		return Secret{}, hint.New(`"id" is missing`)
	}
	return secretOf(got)
}

// secretOf settles where the secret comes from.
func secretOf(got map[string]string) (Secret, error) {
	s := Secret{ID: got["id"], File: got["src"], Env: got["env"]}
	if s.File != "" && s.Env != "" {
		return Secret{}, fmt.Errorf(`id %q has both "src" and "env"`, s.ID)
	}
	switch typ := got["type"]; typ {
	case "":
	case "file":
		if s.Env != "" {
			return Secret{}, fmt.Errorf(`id %q has type=file and "env"`, s.ID)
		}
		if s.File == "" {
			s.File = s.ID
		}
	case "env":
		switch {
		case s.Env != "":
		case s.File != "":
			s.Env, s.File = s.File, ""
		default:
			s.Env = s.ID
		}
	default:
		return Secret{}, fmt.Errorf("type %q is not known: file or env", typ)
	}
	return s, nil
}

// SSH is one --ssh: an agent socket or keys, under an id. Without paths it is
// the agent that SSH_AUTH_SOCK names.
type SSH struct {
	ID    string
	Paths []string
}

// ParseSSH reads the values of --ssh: ID, or ID=PATH[,PATH…].
func ParseSSH(vals []string) ([]SSH, error) {
	var out []SSH
	for _, v := range vals {
		s, err := parseSSH(v)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("--ssh %q", v), "write default, or ID=SOCKET, or ID=KEY[,KEY]")
		}
		if slices.ContainsFunc(out, func(o SSH) bool { return o.ID == s.ID }) {
			return nil, hint.New(fmt.Sprintf("--ssh: id %q is given twice", s.ID), "give the keys of one id together: ID=KEY,KEY")
		}
		out = append(out, s)
	}
	return out, nil
}

func parseSSH(value string) (SSH, error) {
	id, paths, _ := strings.Cut(value, "=")
	if id == "" {
		return SSH{}, hint.New("the id is missing")
	}
	if i := strings.IndexFunc(id, badInID); i >= 0 {
		return SSH{}, fmt.Errorf("the id has a character that is not allowed: %q", []rune(id[i:])[0])
	}
	s := SSH{ID: id}
	if paths == "" { // "default=$SSH_AUTH_SOCK" without an agent: the same as "default"
		return s, nil
	}
	s.Paths = strings.Split(paths, ",")
	if slices.Contains(s.Paths, "") {
		return SSH{}, hint.New("one of the paths is empty")
	}
	return s, nil
}

// badInID tells the characters that a Dockerfile's --mount=type=ssh,id=… could
// not carry.
func badInID(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`,"'`, r)
}
