package doctor

import (
	"regexp"
	"strings"

	"github.com/berthbuild/berth/internal/endpoint"
)

// shownCommand is an exec:// endpoint without the arguments, which may hold
// anything.
func shownCommand(e endpoint.Endpoint) string {
	args := e.Command()
	switch len(args) {
	case 0:
		return endpoint.SchemeExec + "://"
	case 1:
		return endpoint.ExecEndpoint(args[0]).String()
	}
	return endpoint.ExecEndpoint(args[0]).String() + "+(" + count(len(args)-1, "argument") + ")"
}

// commandSecrets is what of an exec:// endpoint must not be printed where
// others pass it on: the whole, and the arguments that look like secrets.
func commandSecrets(e endpoint.Endpoint) []string {
	if len(e.Command()) < 2 {
		return nil
	}
	all := []string{e.String(), e.Query, e.Param(endpoint.ExecCommand)}
	named := regexp.MustCompile(`(?i)(token|passw|secret|key|auth|cred|bearer)`)
	next := false
	for _, arg := range e.Command()[1:] {
		name, value, assigned := strings.Cut(arg, "=")
		switch {
		case assigned && named.MatchString(name):
			all = append(all, value)
		case next, len(arg) >= 20 && !strings.ContainsAny(arg, "/."):
			all = append(all, arg)
		}
		next = !assigned && strings.HasPrefix(arg, "-") && named.MatchString(arg)
	}
	return all
}
