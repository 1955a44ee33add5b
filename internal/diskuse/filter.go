package diskuse

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/moby/buildkit/client"
)

// Filter chooses records: those that all of its conditions hold for. The zero
// value chooses every record.
type Filter struct {
	conditions []condition
	until      time.Duration // not used for at least so long; 0 means that it does not matter
	untilKey   string        // how it was called; "" where it was not given
	inUse      string        // "true", "false", or "" where it does not matter
}

// condition is one selector in BuildKit's own language.
type condition struct{ key, op, value string }

// String is how the daemon reads it. A condition without an operator asks
// whether the record has the property.
func (c condition) String() string {
	if c.op == "" {
		return c.key
	}
	if plain(c.value) {
		return c.key + c.op + c.value
	}
	return c.key + c.op + strconv.Quote(c.value)
}

// plain tells whether a value needs no quotes, by a stricter rule than the
// daemon's.
func plain(s string) bool {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	return s != "" && letter(rune(s[0])) && !strings.ContainsFunc(s, func(r rune) bool { return !letter(r) && !strings.ContainsRune("._-", r) })
}

// textKeys are the properties with a text, and flagKeys those that a record has
// or has not, each with its opposite ("" where the daemon knows none).
func textKeys() []string { return []string{"id", "parents", "description", "type"} }

func flagKeys() map[string]string {
	return map[string]string{"inuse": "", "mutable": "immutable", "immutable": "mutable", "shared": "private", "private": "shared"}
}

func isUntil(key string) bool { return key == "until" || key == "unused-for" } // the second is its older name

// types are the kinds of records.
func types() []string {
	return []string{
		string(client.UsageRecordTypeInternal), string(client.UsageRecordTypeFrontend),
		string(client.UsageRecordTypeLocalSource), string(client.UsageRecordTypeGitCheckout),
		string(client.UsageRecordTypeCacheMount), string(client.UsageRecordTypeRegular),
	}
}

// ParseFilter reads the values of --filter, each KEY=VALUE, KEY!=VALUE or
// KEY~=REGEXP; several in one value, apart by commas, are as several values.
// Keys may be in any case. An empty value says nothing. Two conditions that
// exclude each other, keys and types that no record has, and malformed regular
// expressions and durations are errors.
func ParseFilter(values []string) (Filter, error) {
	var f Filter
	for _, v := range values {
		if err := f.add(v); err != nil {
			return Filter{}, err
		}
	}
	return f, nil
}

// errFormat is what users of docker's filters know.
var errFormat = errors.New("bad format of filter (expected name=value)")

func (f *Filter) add(value string) error {
	for _, one := range split(value) {
		if err := f.addOne(one); err != nil {
			return err
		}
	}
	return nil
}

// split cuts a value at the commas that are followed by another condition. Other
// commas are part of what is compared.
func split(value string) []string {
	if strings.TrimSpace(value) == "" {
		return nil
	}
	var all []string
	quote := byte(0)
	start := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quote != 0:
			switch c {
			case '\\':
				i++
			case quote:
				quote = 0
			}
		case c == '"' && i > start && value[i-1] == '=':
			quote = c
		case c == ',' && beginsCondition(value[i+1:]):
			all = append(all, value[start:i])
			start = i + 1
		}
	}
	return append(all, value[start:])
}

// beginsCondition tells whether text goes on with a key that we know and an
// operator, or with a property alone.
func beginsCondition(text string) bool {
	text = strings.TrimLeft(text, " ")
	end := strings.IndexAny(text, "=!~,")
	if end < 0 {
		end = len(text)
	}
	key := strings.ToLower(strings.TrimSpace(text[:end]))
	_, isFlag := flagKeys()[key]
	if end == len(text) || text[end] == ',' {
		return isFlag
	}
	return isFlag || slices.Contains(textKeys(), key) || isUntil(key)
}

func (f *Filter) addOne(text string) error {
	name, value, ok := strings.Cut(text, "=")
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	if !ok {
		if _, isFlag := flagKeys()[name]; !isFlag {
			return errFormat
		}
		value = "true"
	}
	key, op := strings.TrimRight(name, "!~ "), "=="
	switch rest := strings.TrimSpace(name[len(key):]); rest {
	case "":
		value = strings.TrimSpace(strings.TrimPrefix(value, "=")) // KEY==VALUE, as BuildKit itself has it
	case "!", "~":
		op = rest + "="
	default:
		return fmt.Errorf("filter %q: %q is no operator; =, != and ~= are", text, rest+"=")
	}
	flag, isFlag := flagKeys()[key]
	switch {
	case isUntil(key):
		return f.addUntil(key, op, value)
	case isFlag:
		return f.addFlag(key, flag, op, value)
	case slices.Contains(textKeys(), key):
		return f.addText(key, op, value)
	case key == "":
		return fmt.Errorf("filter %q has no name", text)
	}
	return hint.New(fmt.Sprintf("no record has a %q", key),
		"filters are "+strings.Join(append(textKeys(), "until", "inuse", "mutable", "immutable", "shared", "private"), ", "))
}

// addUntil takes a condition on when a record was last used.
func (f *Filter) addUntil(key, op, value string) error {
	if op != "==" {
		return fmt.Errorf("%q filter takes a duration by =, not by %s", key, op)
	}
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		err = fmt.Errorf("%q filter expects a duration (e.g., '24h'): %w", key, err)
		return hint.Wrap(err, "", "units are h, m and s: a week is 168h")
	case d < 0:
		return fmt.Errorf("%q filter: %s is negative", key, value)
	case f.untilKey != "" && f.untilKey != key:
		return errors.New(`conflicting filters "until" and "unused-for"`)
	case f.untilKey != "" && f.until != d:
		return fmt.Errorf("%q filter expects only one value", key)
	}
	f.until, f.untilKey = d, key
	return nil
}

// addFlag takes a property: KEY, KEY=true or KEY=false.
func (f *Filter) addFlag(key, opposite, op, value string) error {
	want := true
	if value != "" {
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q filter: %q is neither true nor false", key, value)
		}
		want = b
	}
	switch op {
	case "~=":
		return fmt.Errorf("%q filter is true or false, and takes no regular expression", key)
	case "!=":
		want = !want
	}
	if key == "inuse" {
		said := strconv.FormatBool(want)
		if f.inUse != "" && f.inUse != said {
			return fmt.Errorf("%q filter expects only one value", key)
		}
		f.inUse = said
		return nil
	}
	if !want {
		key, opposite = opposite, key
	}
	if slices.Contains(f.conditions, condition{key: opposite}) {
		return fmt.Errorf("conflicting filters %q and %q", opposite, key)
	}
	f.put(condition{key: key})
	return nil
}

// addText takes a comparison with a text.
func (f *Filter) addText(key, op, value string) error {
	value, err := unquote(op, value)
	switch {
	case err != nil:
		return fmt.Errorf("%q filter: %w", key, err)
	case value == "":
		return fmt.Errorf("%q filter has no value", key)
	case key == "id" && op == "==":
		op = "~=" // part of an id is enough
	case key == "type" && op != "~=" && !slices.Contains(types(), value):
		return hint.New(fmt.Sprintf("%q filter: there is no type %q", key, value), "types are "+strings.Join(types(), ", "))
	}
	if op == "~=" {
		if _, err := regexp.Compile(value); err != nil {
			return hint.Wrap(err, fmt.Sprintf("%q filter", key), `a character that is meant as it is wants a backslash, as in \[`)
		}
	}
	c := condition{key, op, value}
	for _, other := range f.conditions {
		if op == "==" && other.key == key && other.op == op && other != c {
			return fmt.Errorf("%q filter expects only one value", key)
		}
	}
	f.put(c)
	return nil
}

func (f *Filter) put(c condition) {
	if !slices.Contains(f.conditions, c) {
		f.conditions = append(f.conditions, c)
	}
}

// unquote takes the quotes off a value that was written as BuildKit wants it; a
// regular expression may stand between slashes or bars, too.
func unquote(op, value string) (string, error) {
	if len(value) == 0 {
		return value, nil
	}
	switch q := value[0]; {
	case q == '"':
		text, err := strconv.Unquote(value)
		if err != nil {
			return "", fmt.Errorf("%s is not a quoted text", value)
		}
		return text, nil
	case op == "~=" && (q == '/' || q == '|') && len(value) > 2 && strings.IndexByte(value[1:], q) == len(value)-2:
		return value[1 : len(value)-1], nil
	}
	return value, nil
}

// Empty tells whether the filter chooses every record.
func (f Filter) Empty() bool {
	return len(f.conditions) == 0 && f.untilKey == "" && f.inUse == ""
}

// With is the filter with what docker's configuration file says under
// pruneFilters. What that has for other kinds of objects no record of a cache
// has: it is passed on, so that it means the same as elsewhere, and told of.
func (f Filter) With(configured []string) (all Filter, unknown []string, err error) {
	all = f
	all.conditions = slices.Clone(f.conditions)
	for _, text := range configured {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			continue
		}
		name := strings.ToLower(strings.TrimSpace(strings.TrimRight(key, "!~")))
		if _, isFlag := flagKeys()[name]; isFlag || isUntil(name) || slices.Contains(textKeys(), name) {
			if err := all.add(text); err != nil {
				return Filter{}, nil, err
			}
			continue
		}
		unknown = append(unknown, key)
		op := "=="
		if rest := key[len(strings.TrimRight(key, "!~")):]; rest != "" {
			op = rest[:1] + "="
		}
		all.put(condition{strconv.Quote(name), op, value})
	}
	return all, unknown, nil
}

// selector is the filter as the daemon reads it, without what it cannot tell;
// "" chooses every record.
func (f Filter) selector() string {
	var all []string
	for _, c := range f.conditions {
		all = append(all, c.String())
	}
	if f.inUse == "true" {
		all = append(all, "inuse")
	}
	return strings.Join(all, ",")
}

func selectors(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// byParents tells whether parents matter.
func (f Filter) byParents() bool {
	return slices.ContainsFunc(f.conditions, func(c condition) bool { return c.key == "parents" })
}

// CheckPrune refuses a filter by which nothing can be removed.
func (f Filter) CheckPrune() error {
	if f.inUse == "true" {
		return hint.New(`"inuse" filter: what is in use is never removed`, "leave it out")
	}
	return nil
}
