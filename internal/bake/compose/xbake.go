package compose

import (
	"fmt"
	"slices"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// extend adds what x-bake says: what Compose has no key for, and more of what it
// has. Keys that buildx does not document are left alone, as it leaves them.
func extend(t *eval.Target, x any) error {
	m, ok := x.(map[string]any)
	if !ok {
		if x == nil {
			return nil
		}
		return fmt.Errorf("it is a %T, not a mapping", x)
	}
	for _, list := range []struct {
		key string
		add func([]string) error
	}{
		{"tags", texts(&t.Tags)}, {"platforms", texts(&t.Platforms)}, {"no-cache-filter", texts(&t.NoCacheFilter)},
		{"cache-from", parsed(&t.CacheFrom, eval.ParseCache)}, {"cache-to", parsed(&t.CacheTo, eval.ParseCache)},
		{"secret", parsed(&t.Secrets, one(eval.ParseSecret))}, {"ssh", parsed(&t.SSH, one(eval.ParseSSH))},
		{"output", parsed(&t.Outputs, one(eval.ParseOutput))},
	} {
		values, err := stringList(m[list.key])
		if err == nil && len(values) > 0 {
			err = list.add(values)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", list.key, err)
		}
	}
	for key, field := range map[string]**bool{"pull": &t.Pull, "no-cache": &t.NoCache} {
		switch v := m[key].(type) {
		case nil:
		case bool:
			*field = &v
		default:
			return fmt.Errorf("%s: it is neither true nor false", key)
		}
	}
	return addContexts(t, m["contexts"])
}

func addContexts(t *eval.Target, x any) error {
	if x == nil {
		return nil
	}
	m, ok := x.(map[string]any)
	if !ok {
		return fmt.Errorf("contexts: it is a %T, not a mapping", x)
	}
	more := map[string]string{}
	for name, v := range m {
		value, err := scalar(v)
		if err != nil {
			return fmt.Errorf("contexts: %s: %w", name, err)
		}
		more[name] = value
	}
	for name, value := range contexts(more) {
		if t.Contexts == nil {
			t.Contexts = map[string]string{}
		}
		t.Contexts[name] = value
	}
	return nil
}

func texts(field *[]string) func([]string) error {
	return func(values []string) error {
		for _, v := range values {
			if !slices.Contains(*field, v) {
				*field = append(*field, v)
			}
		}
		return nil
	}
}

func parsed[T any](field *[]T, parse func(string) ([]T, error)) func([]string) error {
	return func(values []string) error {
		for _, v := range values {
			entries, err := parse(v)
			if err != nil {
				return err
			}
			*field = append(*field, entries...)
		}
		return nil
	}
}

func one[T any](parse func(string) (T, error)) func(string) ([]T, error) {
	return func(s string) ([]T, error) {
		entry, err := parse(s)
		return []T{entry}, err
	}
}

// stringList is a text, or a list of them.
func stringList(x any) ([]string, error) {
	switch v := x.(type) {
	case nil:
		return nil, nil
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			s, err := scalar(e)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, nil
	}
	s, err := scalar(x)
	return []string{s}, err
}

func scalar(x any) (string, error) {
	switch v := x.(type) {
	case string:
		return v, nil
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("a value is a %T, not a text", x)
}
