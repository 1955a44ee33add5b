package endpoint

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// checkSelector checks a label selector of Kubernetes: requirements separated
// by commas, each "key", "!key", "key=value", "key==value", "key!=value",
// "key in (a,b)", "key notin (a,b)", "key>1" or "key<1".
func checkSelector(text string) error {
	s := &selector{tokens: selectorTokens(text)}
	if err := s.requirements(); err != nil {
		return fmt.Errorf("the selector %q cannot be used: %w", clip(text), err)
	}
	return nil
}

// selector reads tokens from the front.
type selector struct{ tokens []string }

// next takes a token away, "" at the end.
func (s *selector) next() string {
	if len(s.tokens) == 0 {
		return ""
	}
	t := s.tokens[0]
	s.tokens = s.tokens[1:]
	return t
}

// take takes the token away if it is the next.
func (s *selector) take(token string) bool {
	if len(s.tokens) == 0 || s.tokens[0] != token {
		return false
	}
	s.tokens = s.tokens[1:]
	return true
}

func (s *selector) requirements() error {
	for {
		if err := s.requirement(); err != nil {
			return err
		}
		if len(s.tokens) == 0 {
			return nil
		}
		if !s.take(",") {
			return fmt.Errorf("a comma is missing before %q", clip(s.next()))
		}
	}
}

func (s *selector) requirement() error {
	not := s.take("!")
	key := s.next()
	if err := checkLabelKey(key); err != nil {
		return err
	}
	if not || len(s.tokens) == 0 || s.tokens[0] == "," {
		return nil
	}
	switch op := s.next(); op {
	case "=", "==", "!=":
		return s.value()
	case ">", "<":
		number := s.next()
		if _, err := strconv.ParseInt(number, 10, 64); err != nil {
			return fmt.Errorf("%q after %s is not a number", clip(number), op)
		}
		return checkLabelValue(number)
	case "in", "notin":
		return s.values(op)
	default:
		return fmt.Errorf("%q is not an operator", clip(op))
	}
}

// value is the one after an equals sign; it may be empty.
func (s *selector) value() error {
	if len(s.tokens) == 0 || s.tokens[0] == "," {
		return nil
	}
	return checkLabelValue(s.next())
}

func (s *selector) values(op string) error {
	if !s.take("(") {
		return fmt.Errorf("a ( is missing after %s", op)
	}
	for {
		switch t := s.next(); t {
		case "":
			return errors.New("a ) is missing")
		case ")": // the last one was empty
			return nil
		case ",":
			continue
		default:
			if err := checkLabelValue(t); err != nil {
				return err
			}
		}
		if s.take(")") {
			return nil
		}
		if !s.take(",") {
			return errors.New("a ) is missing")
		}
		if s.take(")") {
			return nil
		}
	}
}

// selectorTokens cuts a selector into words and operators.
func selectorTokens(text string) []string {
	var tokens []string
	word := func(r rune) bool { return !unicode.IsSpace(r) && !strings.ContainsRune("=!(),><", r) }
	for text = strings.TrimLeftFunc(text, unicode.IsSpace); text != ""; text = strings.TrimLeftFunc(text, unicode.IsSpace) {
		n := strings.IndexFunc(text, func(r rune) bool { return !word(r) })
		switch {
		case n < 0:
			n = len(text)
		case n > 0:
		case strings.HasPrefix(text, "==") || strings.HasPrefix(text, "!="):
			n = 2
		default:
			n = 1
		}
		tokens = append(tokens, text[:n])
		text = text[n:]
	}
	return tokens
}

// checkLabelKey checks "name" or "prefix/name".
func checkLabelKey(key string) error {
	if key == "" {
		return errors.New("a label's name is missing")
	}
	name := key
	if prefix, rest, has := strings.Cut(key, "/"); has {
		if err := kubeName("prefix", prefix, 253); err != nil {
			return err
		}
		name = rest
	}
	if name == "" || !labelText(name) {
		return fmt.Errorf("%q is not the name of a label", clip(key))
	}
	return nil
}

func checkLabelValue(value string) error {
	if value != "" && !labelText(value) {
		return fmt.Errorf("%q is not the value of a label", clip(value))
	}
	return nil
}

// labelText is up to 63 letters, digits, dashes, underscores and dots, with a
// letter or digit at both ends.
func labelText(text string) bool {
	alnum := func(b byte) bool {
		return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
	}
	for i := range len(text) {
		if !alnum(text[i]) && text[i] != '-' && text[i] != '_' && text[i] != '.' {
			return false
		}
	}
	return len(text) <= 63 && alnum(text[0]) && alnum(text[len(text)-1])
}
