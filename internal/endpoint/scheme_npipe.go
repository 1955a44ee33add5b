package endpoint

import (
	"errors"
	"strings"
)

// SchemeNpipe is a named pipe of Windows.
const SchemeNpipe = "npipe"

// pipeRoot is how the name of every pipe of this machine begins.
const pipeRoot = "//./pipe/"

// parseNpipe reads //./pipe/NAME, in which backslashes are slashes.
func parseNpipe(raw, rest string) (Endpoint, error) {
	example := SchemeNpipe + "://" + pipeRoot + "buildkitd"
	p := strings.ReplaceAll(rest, `\`, "/")
	name, ok := strings.CutPrefix(p, pipeRoot)
	if !ok {
		hints := []string{example}
		if name := p[strings.LastIndexByte(p, '/')+1:]; checkPipe(name) == nil {
			hints = []string{SchemeNpipe + "://" + pipeRoot + name}
		}
		return Endpoint{}, refuse(raw, errors.New("a pipe is named "+pipeRoot+"NAME, after the // of the scheme"), hints...)
	}
	if err := checkPipe(name); err != nil {
		return Endpoint{}, refuse(raw, err, example)
	}
	return Endpoint{Scheme: SchemeNpipe, Path: pipeRoot + name}, nil
}

// checkPipe says why name cannot be a pipe's. Windows takes more; nobody else
// does.
func checkPipe(name string) error {
	if strings.Contains(name, "@") {
		return errors.New("has an @, which the name of a pipe cannot have")
	}
	return checkName("pipe", name, "_.-")
}
