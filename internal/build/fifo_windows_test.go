package build

import "testing"

func mkfifo(t *testing.T, _ string) { t.Skip("no such files") }
