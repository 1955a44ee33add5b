//go:build e2e && linux

package lab

import "os/exec"

// Exec is the call as a command that the test runs itself, for one whose
// standard input and output are a connection. What it leaves behind is ended,
// and told of, as with Start.
func (m *Cmd) Exec() *exec.Cmd {
	cmd := exec.Command(m.c.Bin, m.args...)
	cmd.Dir, cmd.Env = m.dir, environ(m.c.dir, m.env)
	return cmd
}
