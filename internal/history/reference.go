package history

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// Reference says which record is meant. The zero value is the newest.
type Reference struct {
	Builder, Node string // where it is; empty where that was not said
	ID            string // an id, or how it begins
	Offset        int    // without an ID: how many newer ones there are
	text          string
}

// String is the reference as it was typed.
func (r Reference) String() string { return r.text }

// maxReference bounds what is typed.
const maxReference = 512

// ParseReference reads builder/node/id, an id, the beginning of one, ^N, or
// nothing for the newest; ^0 is that, too.
func ParseReference(text string) (Reference, error) {
	r := Reference{text: text}
	if len(text) > maxReference {
		return r, fmt.Errorf("a reference of %d bytes is too long", len(text))
	}
	if rest, ok := strings.CutPrefix(text, "^"); ok {
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 || strings.HasPrefix(rest, "+") {
			return r, hint.New(fmt.Sprintf("invalid offset %q", text), "^0 is the newest record, ^1 the one before it")
		}
		r.Offset = n
		return r, nil
	}
	r.ID = text
	if strings.Contains(text, "/") {
		parts := strings.Split(text, "/")
		if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
			return r, hint.New(fmt.Sprintf("%q is no reference to a record", text), "a reference is builder/node/id, an id, or ^N")
		}
		r.Builder, r.Node, r.ID = parts[0], parts[1], parts[2]
	}
	return r, nil
}

// idLength is how long BuildKit's own ids are; a shorter one may be the beginning
// of several.
const idLength = 25

// NotFound is a reference that no record has.
type NotFound struct{ Reference Reference }

// Error is what users of buildx know.
func (e *NotFound) Error() string {
	if e.Reference.text == "" {
		return "no records found"
	}
	return fmt.Sprintf("no record found for ref %q", e.Reference.text)
}

// Hints implements hint.Hinter.
func (e *NotFound) Hints() []string { return []string{"list the records: berth history ls"} }

// IsNotFound tells whether err is a *NotFound.
func IsNotFound(err error) bool {
	var missing *NotFound
	return errors.As(err, &missing)
}

// OnlyNotFound tells whether err says no more than that there is no such record:
// every node was asked.
func OnlyNotFound(err error) bool {
	_, ok := err.(*NotFound) //nolint:errorlint // what wraps it says that nodes are missing
	return ok
}

// choose finds the record in all those that there are, the newest first.
func (r Reference) choose(all []*Record) (*Record, error) {
	if r.ID == "" {
		if r.Offset < len(all) {
			return all[r.Offset], nil
		}
		return nil, &NotFound{r}
	}
	var found []*Record
	for _, rec := range all {
		if rec.Ref == r.ID {
			return rec, nil
		}
		if strings.HasPrefix(rec.Ref, r.ID) {
			found = append(found, rec)
		}
	}
	switch len(found) {
	case 0:
		return nil, &NotFound{r}
	case 1:
		return found[0], nil
	}
	return nil, hint.New(fmt.Sprintf("ref %q is ambiguous: %d records begin with it", r.text, len(found)), "give more of it, such as "+found[0].Ref)
}
