//go:build !windows

package receive

import "os"

func setFileMode(f *os.File, mode os.FileMode) error { return f.Chmod(mode) }

func setFolderMode(root *os.Root, path string, mode os.FileMode) error {
	return root.Chmod(path, mode)
}
