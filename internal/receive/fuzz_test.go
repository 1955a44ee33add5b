package receive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tonistiigi/fsutil/types"
)

// FuzzTree sends any packets. The input is a row of them, each with its length in
// a byte before it. Whatever they are, nothing is made outside the folder, and
// only what an export may have in it.
func FuzzTree(f *testing.F) {
	row := func(packets ...*types.Packet) []byte {
		var all []byte
		for _, p := range packets {
			b, _ := p.MarshalVT()
			all = append(append(all, byte(len(b))), b...)
		}
		return all
	}
	file, dir := os.FileMode(0o644), os.ModeDir|0o755
	f.Add(row(stat("a", dir, 0), stat("a/b", file, 4), endOfList, data(1, "four"), data(1, ""), fin))
	f.Add(row(stat("../a", file, 4), data(0, "four"), data(0, "")))
	f.Add(row(stat("l", os.ModeSymlink|0o777, 0, "../victim"), stat("m", file, 0, "l"), endOfList, fin))
	f.Add(row(stat("n", os.ModeDevice|0o666, 0), endOfList, fin))
	f.Fuzz(func(t *testing.T, in []byte) {
		dir, err := receive(t, func(p *pipe) {
			defer close(p.out)
			for len(in) > 0 {
				n := min(int(in[0]), len(in)-1)
				packet := &types.Packet{}
				if packet.UnmarshalVT(in[1:1+n]) != nil || p.SendMsg(packet) != nil {
					return
				}
				in = in[1+n:]
			}
		})
		var refused *Refused
		var broken *Broken
		var pe *fs.PathError
		if err != nil && !errors.As(err, &refused) && !errors.As(err, &broken) && !errors.As(err, &pe) {
			t.Errorf("%T: %v", err, err)
		}
		entries, rerr := os.ReadDir(filepath.Dir(dir))
		if rerr != nil || len(entries) != 1 {
			t.Errorf("%v, %v", entries, rerr)
		}
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				_ = os.Chmod(filepath.Dir(path), 0o700) // a folder that its mode closes
				return nil
			}
			if d.Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
				t.Errorf("%s is %v", path, d.Type())
			}
			return nil
		})
	})
}
