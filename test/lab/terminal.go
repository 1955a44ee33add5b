//go:build e2e && linux

package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Size is that of a terminal, in characters.
type Size struct{ Columns, Lines int }

// openTerminal makes a pseudo-terminal. The caller closes both ends.
func openTerminal(size Size) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	slave, err = openSlave(fd, size)
	if err != nil {
		_ = master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

func openSlave(master int, size Size) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlocking the terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("the terminal's number: %w", err)
	}
	if err := setSize(master, size); err != nil {
		return nil, err
	}
	return os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
}

func setSize(fd int, size Size) error {
	ws := &unix.Winsize{Row: uint16(size.Lines), Col: uint16(size.Columns)}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, ws); err != nil {
		return fmt.Errorf("the terminal's size: %w", err)
	}
	return nil
}
