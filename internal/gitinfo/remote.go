package gitinfo

import (
	"net/url"
	"strings"
)

// WithoutCredentials is a remote's URL without what only its owner may know:
// whoever it is fetched as over HTTP, which may be a token, and passwords. The
// user of ssh stays, as it is a part of the address. A folder, and what is no
// URL at all, stays as it is, but for a password.
func WithoutCredentials(remote string) string {
	scheme, rest, isURL := strings.Cut(remote, "://")
	if !isURL {
		return withoutPassword(remote)
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	at := strings.LastIndexByte(authority, '@')
	if strings.Contains(path, "@") && at < 0 && strings.Contains(authority, ":") {
		// "https://user:pass/word@host": a password that ought to have been
		// escaped. Nothing of it is to be trusted.
		if _, err := url.Parse(remote); err != nil {
			return scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
		}
	}
	if at < 0 {
		return remote
	}
	user, host := authority[:at], authority[at+1:]
	if name, _, _ := strings.Cut(user, ":"); name != "" && strings.Contains(strings.ToLower(scheme), "ssh") {
		host = name + "@" + host
	}
	return scheme + "://" + host + path
}

// withoutPassword treats "user:password@host:path", which no program
// understands, but people write.
func withoutPassword(remote string) string {
	user, rest, ok := strings.Cut(remote, "@")
	name, _, has := strings.Cut(user, ":")
	if !ok || !has || strings.ContainsAny(user, `/\`) {
		return remote
	}
	return name + "@" + rest
}
