package endpoint

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/google/shlex"

	"github.com/berthbuild/berth/internal/hint"
)

// SchemeExec is a command of the user's own that speaks BuildKit on its
// standard input and output.
const SchemeExec = "exec"

// ExecCommand is the parameter of exec:// that holds the command line.
const ExecCommand = "cmd"

func parseExec(raw, rest string) (Endpoint, error) {
	name, query, _ := strings.Cut(rest, "?")
	if name != "" {
		return Endpoint{}, refuse(raw, errors.New("the command is a parameter of the endpoint"), execExample())
	}
	q, err := parseQuery(SchemeExec, query, ExecCommand)
	if err != nil {
		return Endpoint{}, refuse(raw, err, execExample())
	}
	if !q.Has(ExecCommand) {
		return Endpoint{}, refuse(raw, errors.New("has no command"), execExample())
	}
	if _, err := splitCommand(q.Get(ExecCommand)); err != nil {
		return Endpoint{}, refuse(raw, err)
	}
	e := ExecEndpoint(q.Get(ExecCommand))
	if n := len(e.String()); n > maxLen {
		return Endpoint{}, refuse(raw, fmt.Errorf("is %d bytes long when its special characters are written as %%XX; at most %d are allowed", n, maxLen))
	}
	return e, nil
}

func execExample() string { return ExecEndpoint("ssh HOST buildctl dial-stdio").String() }

// ExecEndpoint is the endpoint of a command line, which is not looked at. What
// need not be escaped in a query is left for people to read.
func ExecEndpoint(line string) Endpoint {
	readable := strings.NewReplacer("%2F", "/", "%3A", ":", "%3D", "=", "%2C", ",", "%40", "@", "%27", "'")
	return Endpoint{Scheme: SchemeExec, Query: readable.Replace(url.Values{ExecCommand: {line}}.Encode())}
}

// Command is the program and the arguments of an exec:// endpoint, nil for any
// other.
func (e Endpoint) Command() []string {
	if e.Scheme != SchemeExec {
		return nil
	}
	args, err := splitCommand(e.Param(ExecCommand))
	if err != nil {
		return nil // Parse has refused it
	}
	return args
}

// splitCommand reads a command line by a shell's rules for quoting. Nothing
// else of a shell is there, so what only a shell would understand is refused.
func splitCommand(line string) ([]string, error) {
	for _, r := range line {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return nil, fmt.Errorf("the command contains the character %U", r)
		}
	}
	args, err := shlex.Split(line)
	switch {
	case err != nil:
		return nil, errors.New("a quote in the command is not closed, or nothing follows its last \\")
	case len(args) == 0 || args[0] == "":
		return nil, errors.New("the command is empty")
	case tokens(line) != len(args):
		return nil, hint.New("the command has a word that begins with #, which would be a comment", "put the word into quotes")
	}
	for _, arg := range args {
		if slices.Contains([]string{"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>>", "2>&1"}, arg) {
			return nil, hint.New(fmt.Sprintf("the command has a %s, which only a shell understands, and it is run without one", arg),
				ExecEndpoint("sh -c 'FIRST | SECOND'").String())
		}
	}
	return args, checkProgram(args[0])
}

// tokens counts the words of a line, a comment being one.
func tokens(line string) int {
	t := shlex.NewTokenizer(strings.NewReader(line))
	for n := 0; ; n++ {
		if _, err := t.Next(); err != nil {
			if !errors.Is(err, io.EOF) {
				return -1
			}
			return n
		}
	}
}

// checkProgram refuses a program that depends on the folder that berth is run
// in: an endpoint is kept and used from other folders later.
func checkProgram(name string) error {
	slashed := strings.ReplaceAll(name, `\`, "/")
	drive := len(slashed) > 2 && slashed[1] == ':' && slashed[2] == '/'
	if strings.Contains(slashed, "/") && !path.IsAbs(slashed) && !drive {
		return hint.New("the command's program has a relative path", "name it by its absolute path, or by a name on PATH")
	}
	return nil
}
