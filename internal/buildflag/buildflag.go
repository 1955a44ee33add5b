// Package buildflag is the grammar of build's flags: --output, --platform,
// --secret, --ssh, --attest, --build-arg, --label and --tag, from text to values.
//
// It is not for deciding whether the values make sense together (that is
// internal/request), nor for opening what they name (that is internal/build).
//
// Rules: nothing here does I/O or reads the environment; what a flag leaves
// open ("id=x" may be a file or a variable) stays open in the value. Whatever
// is wrong is named; a secret's text is never repeated.
package buildflag

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// fields splits one flag value at its commas. A comma inside double quotes
// does not split, as in any CSV.
func fields(value string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(value))
	r.FieldsPerRecord = -1
	first, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	}
	if err != nil {
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			err = fmt.Errorf("column %d: %w", parse.Column, parse.Err)
		}
		return nil, err
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one line")
	}
	return first, nil
}

// joinFields is the inverse of fields.
func joinFields(parts []string) string {
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteByte(',')
		}
		if strings.ContainsAny(part, ",\"\r\n") || strings.HasPrefix(part, " ") {
			part = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
		}
		b.WriteString(part)
	}
	return b.String()
}

// splitPair cuts "key=value"; keys are case-insensitive.
func splitPair(field string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(field, "=")
	return strings.ToLower(strings.TrimSpace(key)), value, ok
}

// KV is one NAME=VALUE of --build-arg or --label.
type KV struct {
	Key      string
	Value    string
	HasValue bool // false for a bare NAME, whose value somebody else must find
}

// ParseKVs reads the values of flag ("build-arg", "label"), in their order. A
// repeated name stays; the last one counts, as in docker.
func ParseKVs(flag string, vals []string) ([]KV, error) {
	var out []KV
	for _, v := range vals {
		key, value, has := strings.Cut(v, "=")
		if key == "" {
			return nil, hint.New(fmt.Sprintf("invalid key-value pair %q: empty key", v),
				fmt.Sprintf("write --%s NAME=VALUE", flag))
		}
		out = append(out, KV{Key: key, Value: value, HasValue: has})
	}
	return out, nil
}

// sortedKeys are m's keys in a fixed order.
func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
