package buildflag

import (
	"net/url"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// checkHTTP refuses a URL that cannot be fetched.
func checkHTTP(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return hint.New("it cannot be read as a URL") // the error would repeat it, with the password
	}
	if u.Host == "" {
		return hint.New("the URL names no host")
	}
	return nil
}

// RedactURL takes the password, and what may be a token in the place of the
// user, out of a URL that is to be shown or kept. Anything else stays as it is,
// even if it cannot be read as a URL.
func RedactURL(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		// "https://user:pass/word@host": a password that ought to have been escaped.
		if last := strings.LastIndexByte(rest, '@'); last > end && strings.Contains(rest[:end], ":") {
			if _, err := url.Parse(s); err != nil {
				return scheme + "://" + redacted + rest[last:]
			}
		}
		return s
	}
	user, _, password := strings.Cut(rest[:at], ":")
	switch {
	case scheme != "ssh":
		user = redacted
	case password:
		user += ":" + redacted // the user of ssh alone is no secret
	}
	return scheme + "://" + user + rest[at:]
}

const redacted = "xxxxx"

// redactPair is RedactURL on the value of NAME=VALUE.
func redactPair(s string) string {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return RedactURL(s)
	}
	return name + "=" + RedactURL(value)
}
