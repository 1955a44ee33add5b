package snapshot

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// addOddFiles adds what only some systems have, and of that what this one lets us.
func addOddFiles(t testing.TB, dir string) {
	t.Helper()
	at := func(p string) string { return filepath.Join(dir, p) }
	ok(t,
		unix.Mkfifo(at("pipe"), 0o600), os.Link(at("pipe"), at("pipe-hard")),
		os.Chmod(at("B"), 0o755|os.ModeSetuid), os.Chmod(at("nothing"), 0o777|os.ModeSticky),
	)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at("socket"), Net: "unix"})
	ok(t, err)
	l.SetUnlinkOnClose(false)
	ok(t, l.Close())
	for _, p := range []string{"a/b", "a/c", "w0.txt"} {
		if err := unix.Setxattr(at(p), "user.berth", []byte("of "+p), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
	}
	for p, mode := range map[string]uint32{"block": unix.S_IFBLK | 0o600, "char": unix.S_IFCHR | 0o600} {
		if err := unix.Mknod(at(p), mode, int(unix.Mkdev(1, 300))); err != nil && !errors.Is(err, unix.EPERM) { //nolint:gosec // a small number
			t.Fatal(err)
		}
	}
}
