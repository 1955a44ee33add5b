package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/gitinfo"
	"github.com/berthbuild/berth/internal/hint"
)

// Filter chooses records: those that all of its conditions hold for. The zero
// value chooses every record.
type Filter struct{ conditions []condition }

type condition func(r *Record, now time.Time) bool

// textKeys are the properties with a text, and timeKeys those that are before or
// after something.
func textKeys() []string { return []string{"ref", "repository", "status"} }
func timeKeys() []string { return []string{"startedAt", "completedAt", "duration"} }

func allStatuses() []string {
	return []string{string(Running), string(Completed), string(Failed), string(Canceled)}
}

// ParseFilter reads the values of --filter: KEY=VALUE and KEY!=VALUE for ref,
// repository and status, and KEY<VALUE, <=, >, >= for startedAt, completedAt and
// duration. now is what times such as 24h are counted back from.
func ParseFilter(values []string, now time.Time) (Filter, error) {
	var f Filter
	for _, v := range values {
		c, err := parseCondition(v, now)
		if err != nil {
			return Filter{}, err
		}
		f.conditions = append(f.conditions, c)
	}
	return f, nil
}

func parseCondition(text string, now time.Time) (condition, error) {
	key, op, value, ok := cutOperator(text)
	switch {
	case !ok:
		return nil, hint.New(fmt.Sprintf("invalid filter %q", text), "filters look like status=error or duration>30s")
	case slices.Contains(textKeys(), key):
		if op != "=" && op != "!=" {
			return nil, fmt.Errorf("invalid separator for %q, expected = or !=", text)
		}
		return textCondition(key, op, value)
	case slices.Contains(timeKeys(), key):
		if op == "=" || op == "!=" {
			return nil, fmt.Errorf("invalid separator for %q, expected <=, <, >= or >", text)
		}
		return timeCondition(key, op, value, now)
	}
	return nil, hint.New(fmt.Sprintf("unsupported filter %q", text), "filters are "+strings.Join(append(textKeys(), timeKeys()...), ", "))
}

// cutOperator cuts at the first operator.
func cutOperator(text string) (key, op, value string, ok bool) {
	at := strings.IndexAny(text, "=!<>")
	if at < 0 {
		return "", "", "", false
	}
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">"} {
		if rest, ok := strings.CutPrefix(text[at:], op); ok {
			return text[:at], op, rest, true
		}
	}
	return "", "", "", false
}

func textCondition(key, op, value string) (condition, error) {
	if value == "" {
		return nil, fmt.Errorf("%q filter has no value", key)
	}
	if key == "status" && !slices.Contains(allStatuses(), value) {
		return nil, hint.New(fmt.Sprintf("%q filter: there is no status %q", key, value), "statuses are "+strings.Join(allStatuses(), ", "))
	}
	return func(r *Record, _ time.Time) bool {
		var is string
		switch key {
		case "ref":
			is = r.Ref
		case "repository":
			is = r.Repository()
		default:
			is = string(r.Status())
		}
		switch {
		case op == "!=":
			return is != value
		case key == "status":
			return is == value
		}
		return strings.Contains(is, value) // part of an id, or of a URL, is enough
	}, nil
}

// Repository is where the sources come from, without what is chosen in it.
func (r *Record) Repository() string {
	if source := r.FrontendAttrs[attrSource]; source != "" {
		return source
	}
	context := r.FrontendAttrs[attrContext]
	if !isRemote(context) {
		return ""
	}
	context, _, _ = strings.Cut(context, "#")
	return gitinfo.WithoutCredentials(context)
}

func timeCondition(key, op, value string, now time.Time) (condition, error) {
	var than int64
	d, err := time.ParseDuration(value)
	switch {
	case key == "duration" && err != nil:
		return nil, hint.New("invalid duration "+value, "give a time such as 30s or 1h30m")
	case key == "duration":
		than = int64(d)
	case err == nil:
		than = now.Add(-d).UnixNano()
	default:
		at, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return nil, hint.New("invalid time "+value, "give a time such as 2026-01-02T15:04:05Z, or how long ago: 24h")
		}
		than = at.UnixNano()
	}
	return func(r *Record, now time.Time) bool {
		var is int64
		switch {
		case key == "duration" && r.CompletedAt == nil:
			is = 0 // it is not known before the end
		case key == "duration":
			is = int64(r.Duration(now))
		case key == "startedAt":
			is = r.Created().UnixNano()
		case r.CompletedAt == nil:
			return false // it has not ended
		default:
			is = r.Ended().UnixNano()
		}
		switch op {
		case "<":
			return is < than
		case "<=":
			return is <= than
		case ">":
			return is > than
		}
		return is >= than
	}, nil
}

// OfRepository adds that the sources come from the repository.
func (f Filter) OfRepository(url string) Filter {
	return Filter{append(slices.Clone(f.conditions), func(r *Record, _ time.Time) bool {
		return strings.Contains(r.Repository(), url)
	})}
}

// All tells whether every record is chosen.
func (f Filter) All() bool { return len(f.conditions) == 0 }

// Match tells whether the record is chosen.
func (f Filter) Match(r *Record, now time.Time) bool {
	for _, c := range f.conditions {
		if !c(r, now) {
			return false
		}
	}
	return true
}
