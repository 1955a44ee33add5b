package buildflag

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// methodBuild is the word for no call at all.
const methodBuild = "build"

// ParseCall reads the value of --call: a method, and what is to be done with
// its answer. Empty, and "build", are a build. Which methods there are is the
// business of the frontend that is asked.
func ParseCall(value string) (Call, error) {
	if value == "" {
		return Call{}, nil
	}
	c, err := parseCall(value)
	if err != nil {
		return Call{}, hint.Wrap(err, fmt.Sprintf("--call %q", value),
			"write --call METHOD[,format=json][,ignorestatus=true]; the methods are check, outline, targets, and what subrequests.describe lists")
	}
	if c.Method == methodBuild {
		return Call{}, nil // a build has no report that the rest could be about
	}
	return c, nil
}

func parseCall(value string) (Call, error) {
	parts, err := fields(value)
	if err != nil {
		return Call{}, err
	}
	var c Call
	seen := map[string]bool{}
	for _, part := range parts {
		key, val, isPair := splitPair(part)
		if !isPair {
			if c.Method != "" {
				return Call{}, fmt.Errorf("two methods, %q and %q", c.Method, part)
			}
			if err := checkMethod(part); err != nil {
				return Call{}, err
			}
			c.Method = part
			continue
		}
		if seen[key] {
			return Call{}, fmt.Errorf("%q is given twice", key)
		}
		seen[key] = true
		if err := c.set(key, val); err != nil {
			return Call{}, err
		}
	}
	if c.Method == "" {
		return Call{}, errors.New("it names no method")
	}
	return c, nil
}

func (c *Call) set(key, value string) (err error) {
	switch key {
	case "format":
		switch value {
		case "json":
			c.JSON = true
		case "text":
		default:
			return fmt.Errorf("format must be text or json, not %q", value)
		}
	case "ignorestatus":
		if c.IgnoreStatus, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("ignorestatus must be true or false, not %q", value)
		}
	default:
		return fmt.Errorf("%q is not known", key)
	}
	return nil
}

// checkMethod refuses what is no name: it is sent to the frontend, and shown.
func checkMethod(s string) error {
	if s == "" {
		return errors.New("a method is empty")
	}
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_/", r)
	}
	if i := strings.IndexFunc(s, other); i >= 0 {
		return fmt.Errorf("%q is not the name of a method", s)
	}
	return nil
}

// String is the call as ParseCall reads it.
func (c Call) String() string {
	if c.IsBuild() {
		return methodBuild
	}
	s := c.Method
	if c.JSON {
		s += ",format=json"
	}
	if c.IgnoreStatus {
		s += ",ignorestatus=true"
	}
	return s
}

// IsCheck says that the Dockerfile is looked over for mistakes: two names have
// one meaning.
func (c Call) IsCheck() bool { return c.Method == "check" || c.Method == "lint" }

// ReadsAlone says that the frontend reads the Dockerfile and nothing else for it:
// no image, and no context.
func (c Call) ReadsAlone() bool { return c.Method == "targets" || c.Method == "subrequests.describe" }
