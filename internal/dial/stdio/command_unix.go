//go:build unix

package stdio

import (
	"os/exec"
	"syscall"
)

// detach gives the program a session, and with it a process group, of its own.
func detach(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
}

// kill ends the program and what it has started. The program must not have been
// waited for: its number stands for its group.
func kill(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nobody may be left
	_ = cmd.Process.Kill()
}
