package archives

import (
	"bytes"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
)

// FuzzArchives reads anything as an archive beside a good one. What is taken can
// be written, and what was written can be read again.
func FuzzArchives(f *testing.F) {
	t := &testing.T{}
	f.Add(built("arm64", "x:1").archive(t))
	f.Add(archive(t, "linux_arm64/", "linux_arm64/x=1", "linux_arm64/l@/etc"))
	f.Add(archive(t, "index.json={}", "blobs/sha256/"+digest.FromString("x").Encoded()+"=x"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		good := part("a", built("amd64", "x:1").archive(t))
		if joined, err := OpenOCI([]Part{good, part("b", data)}, nil); err == nil {
			var out bytes.Buffer
			check(t, joined.Write(&out))
			_, err := OpenOCI([]Part{part("c", out.Bytes())}, nil)
			check(t, err)
		}
		files := part("a", archive(t, "linux_amd64/x=1"))
		if joined, err := OpenTar([]Part{files, part("b", data)}); err == nil {
			if err := joined.Write(io.Discard); err != nil {
				t.Log(err) // of a header that Go reads and does not write
			}
		}
	})
}
