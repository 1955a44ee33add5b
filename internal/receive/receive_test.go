package receive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/berthbuild/berth/internal/dial/dialtest"
)

// pipe is a stream between two in one process.
type pipe struct {
	in, out chan *types.Packet
	ctx     context.Context
}

func newPipe(ctx context.Context) (here, there *pipe) {
	a, b := make(chan *types.Packet, 8), make(chan *types.Packet, 8)
	return &pipe{a, b, ctx}, &pipe{b, a, ctx}
}

func (p *pipe) Context() context.Context { return p.ctx }

func (p *pipe) SendMsg(m any) error {
	data, err := m.(*types.Packet).MarshalVT()
	if err != nil {
		return err
	}
	sent := &types.Packet{}
	if err := sent.UnmarshalVT(data); err != nil {
		return err
	}
	select {
	case p.out <- sent:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) RecvMsg(m any) error {
	select {
	case got, ok := <-p.in:
		if !ok {
			return io.EOF
		}
		into := m.(*types.Packet)
		into.ResetVT()
		into.Type, into.Stat, into.ID, into.Data = got.Type, got.Stat, got.ID, append(into.Data, got.Data...)
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// receive runs Tree against what send sends, into a new folder.
func receive(t *testing.T, send func(*pipe)) (string, error) {
	t.Helper()
	return receiveFrom(t, &Sender{}, send)
}

func receiveFrom(t *testing.T, s *Sender, send func(*pipe)) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "into")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel() // the stream ends with its handler
	here, there := newPipe(ctx)
	sending.Go(func() { send(there) })
	return dir, s.Tree(ctx, here, root)
}

// listing is what is in a folder: "name mode time content".
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		what := ""
		switch {
		case d.Type() == fs.ModeSymlink:
			what, err = os.Readlink(path)
		case d.Type().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			what = fmt.Sprintf("%x", data)
			if len(data) > 40 {
				what = fmt.Sprint(len(data))
			}
		}
		rel, _ := filepath.Rel(dir, path)
		all = append(all, fmt.Sprintf("%s %v %d %s", filepath.ToSlash(rel), fi.Mode(), fi.ModTime().UnixNano(), what))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fill fills a folder with all that an export can have in it.
func fill(t *testing.T, dir string) {
	t.Helper()
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 300 {
		check(os.MkdirAll(at("many", fmt.Sprint(i%7)), 0o755))
		check(os.WriteFile(at("many", fmt.Sprint(i%7), fmt.Sprint(i)), []byte(fmt.Sprint(i)), 0o644))
	}
	check(os.WriteFile(at("big"), bytes.Repeat([]byte("berth"), 300_000), 0o600))
	check(os.WriteFile(at("empty"), nil, 0o444))
	check(os.MkdirAll(at("none"), 0o700))
	check(os.MkdirAll(at("deep", "er", "est"), 0o755))
	check(os.WriteFile(at("deep", "er", "est", "x"), []byte("x"), 0o755))
	check(os.Symlink("/etc/passwd", at("out")))
	check(os.Symlink("../..", at("deep", "up")))
	check(os.Link(at("big"), at("deep", "again")))
	old := time.Unix(1_000_000_000, 5)
	for _, p := range []string{at("big"), at("many", "1", "1"), at("deep", "er"), at("many")} {
		check(os.Chtimes(p, old, old))
	}
	check(os.Chmod(at("deep", "er"), 0o555)) // no file could be made in it
	check(os.Chmod(at("empty"), 0o4511))
	t.Cleanup(func() { _ = os.Chmod(at("deep", "er"), 0o755) })
}

func TestTree(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and links")
	}
	dialtest.NoLeaks(t)
	src := t.TempDir()
	fill(t, src)
	files, err := fsutil.NewFS(src)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := receive(t, func(p *pipe) {
		if err := fsutil.Send(p.ctx, p, files, nil); err != nil {
			t.Errorf("sending: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "deep", "er"), 0o755) })
	got, want := listing(t, dir), listing(t, src)
	for i, line := range want { // sent are the times of links too
		if i >= len(got) || got[i] != line {
			t.Fatalf("%d things, want %d; first difference: %q", len(got), len(want), line)
		}
	}
	one, err1 := os.Stat(filepath.Join(dir, "big"))
	two, err2 := os.Stat(filepath.Join(dir, "deep", "again"))
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(one, two) {
		t.Errorf("the hard link is another file: %v", err)
	}
}

func stat(path string, mode os.FileMode, size int, link ...string) *types.Packet {
	return &types.Packet{Type: types.PACKET_STAT, Stat: &types.Stat{
		Path: path, Mode: uint32(mode), Size: int64(size), Linkname: strings.Join(link, ""),
	}}
}

func data(id uint32, text string) *types.Packet {
	return &types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte(text)}
}

var (
	endOfList = &types.Packet{Type: types.PACKET_STAT}
	fin       = &types.Packet{Type: types.PACKET_FIN}
)

// What no honest sender does is refused, and touches nothing outside.
func TestRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	dialtest.NoLeaks(t)
	dir, file := os.ModeDir|0o755, os.FileMode(0o644)
	for name, c := range map[string]struct {
		packets []*types.Packet
		why     string
	}{
		"up":                  {[]*types.Packet{stat("../evil", file, 4)}, `the daemon sent "../evil", which is no path below a folder`},
		"up inside":           {[]*types.Packet{stat("a", dir, 0), stat("a/../../evil", file, 4)}, "is no path below"},
		"unclean":             {[]*types.Packet{stat("a", dir, 0), stat("a/./b", file, 4)}, "is no clean path"},
		"absolute":            {[]*types.Packet{stat("/evil", file, 4)}, "is no path below"},
		"itself":              {[]*types.Packet{stat(".", dir, 0)}, "is no path below"},
		"nameless":            {[]*types.Packet{stat("", file, 4)}, "is no path below"},
		"through a link":      {[]*types.Packet{stat("l", os.ModeSymlink|0o777, 0, ".."), stat("l/evil", file, 4)}, "without a folder to be in"},
		"no folder":           {[]*types.Packet{stat("a/b", file, 4)}, "without a folder to be in"},
		"twice":               {[]*types.Packet{stat("a", file, 1), stat("a", file, 1)}, "came twice"},
		"out of order":        {[]*types.Packet{stat("b", file, 1), stat("a", file, 1)}, "out of order"},
		"device":              {[]*types.Packet{stat("null", os.ModeDevice|os.ModeCharDevice|0o666, 0)}, "is a device"},
		"disk":                {[]*types.Packet{stat("sda", os.ModeDevice|0o666, 0)}, "is a device"},
		"pipe":                {[]*types.Packet{stat("p", os.ModeNamedPipe|0o666, 0)}, "is a named pipe"},
		"socket":              {[]*types.Packet{stat("s", os.ModeSocket|0o666, 0)}, "is a socket"},
		"irregular":           {[]*types.Packet{stat("s", os.ModeIrregular, 0)}, "is something special"},
		"negative":            {[]*types.Packet{stat("a", file, -1)}, "negative size"},
		"hard link outside":   {[]*types.Packet{stat("a", file, 0, "../victim")}, "hard link to something outside"},
		"hard link absolute":  {[]*types.Packet{stat("a", file, 0, "/etc/passwd")}, "hard link to something outside"},
		"hard link nowhere":   {[]*types.Packet{stat("a", file, 0, "b"), endOfList}, "no file of the export"},
		"hard link to folder": {[]*types.Packet{stat("a", dir, 0), stat("b", file, 0, "a"), endOfList}, "no file of the export"},
		"hard link by a link": {[]*types.Packet{stat("l", os.ModeSymlink|0o777, 0, ".."), stat("m", file, 0, "l/victim"), endOfList}, "no file of the export"},
		"hard link to a link": {[]*types.Packet{stat("l", os.ModeSymlink|0o777, 0, "../victim"), stat("m", file, 0, "l"), endOfList}, "no file of the export"},
		"longer":              {[]*types.Packet{stat("a", file, 3), data(0, "four")}, "longer than the 3 bytes"},
		"shorter":             {[]*types.Packet{stat("a", file, 10<<30), data(0, "four"), data(0, "")}, "ended after 4 of the 10737418240 bytes"},
		"not asked for":       {[]*types.Packet{data(7, "four")}, "number 7"},
		"data of a folder":    {[]*types.Packet{stat("a", dir, 0), data(0, "four")}, "number 0"},
		"again":               {[]*types.Packet{stat("a", file, 4), data(0, "four"), data(0, ""), data(0, "more")}, "come already"},
		"end, and more":       {[]*types.Packet{stat("a", file, 4), endOfList, stat("b", file, 4)}, "after the end of its list"},
		"two ends":            {[]*types.Packet{stat("a", file, 4), endOfList, endOfList}, "ended its list of files twice"},
		"done too early":      {[]*types.Packet{stat("a", file, 4), endOfList, fin}, "done before it was"},
		"odd":                 {[]*types.Packet{{Type: 99}}, "unknown type"},
	} {
		t.Run(name, func(t *testing.T) {
			var outside []string
			dir, err := receive(t, func(p *pipe) {
				for _, packet := range c.packets {
					if p.SendMsg(packet) != nil {
						return
					}
				}
			})
			var refused *Refused
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, want %q", err, c.why)
			}
			for _, line := range listing(t, filepath.Dir(dir)) {
				if !strings.HasPrefix(line, "into") {
					outside = append(outside, line)
				}
			}
			if len(outside) > 0 {
				t.Errorf("outside: %q", outside)
			}
		})
	}
}

// Two names that are one on this file system cannot both be kept.
func TestClash(t *testing.T) {
	if err := clash("A", fs.ErrExist); !strings.Contains(err.Error(), "same name") {
		t.Error(err)
	}
	if err := clash("A", fs.ErrPermission); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// Files that are announced for ever and never sent do not fill the memory, and
// neither do those of several trees together.
func TestHeld(t *testing.T) {
	s := &Sender{}
	one, two := &transfer{sender: s}, &transfer{sender: s}
	if err := errors.Join(one.hold(maxHeld-10), two.hold(10)); err != nil {
		t.Error(err)
	}
	var refused *Refused
	if err := two.hold(1); !errors.As(err, &refused) {
		t.Error(err)
	}
}

// Folders are remembered until the end, with their attributes, and are counted too.
func TestHeldFolders(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tr := &transfer{sender: &Sender{}, disk: disk{root: root, at: cursor{root: root}}}
	defer tr.disk.close()
	many := map[string][]byte{}
	for i := range 1000 {
		many[fmt.Sprint(i)] = nil
	}
	for i, attrs := range []map[string][]byte{nil, many} {
		before := tr.sender.held.Load()
		if err := tr.announce(&types.Stat{Path: fmt.Sprint(i), Mode: uint32(os.ModeDir | 0o755), Xattrs: attrs}); err != nil {
			t.Fatal(err)
		}
		if got, least := tr.sender.held.Load()-before, int64(300+64*len(attrs)); got < least {
			t.Errorf("%d attributes: %d are counted, want %d at least", len(attrs), got, least)
		}
	}
	tr.sender.held.Store(maxHeld)
	var refused *Refused
	if err := tr.announce(&types.Stat{Path: "more", Mode: uint32(os.ModeDir | 0o755)}); !errors.As(err, &refused) {
		t.Error(err)
	}
	if _, err := root.Stat("more"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was made nevertheless", err)
	}
}

// What a tree has held is free for the next when it is over, however it ended.
func TestHeldIsGivenBack(t *testing.T) {
	dialtest.NoLeaks(t)
	for name, packets := range map[string][]*types.Packet{
		"complete": {stat("d", os.ModeDir|0o755, 0), stat("e", 0o644, 4), stat("f", 0o644, 0, "e"), endOfList, data(1, "four"), data(1, "")},
		"broken":   {stat("d", os.ModeDir|0o755, 0), stat("e", 0o644, 4), {Type: types.PACKET_ERR, Data: []byte("boom")}},
		"refused":  {stat("d", os.ModeDir|0o755, 0), stat("e", 0o644, 4), stat("a", 0o644, 4)},
	} {
		s := &Sender{}
		_, err := receiveFrom(t, s, func(p *pipe) {
			for _, packet := range packets {
				if p.SendMsg(packet) != nil {
					return
				}
			}
			var in types.Packet
			for in.Type != types.PACKET_FIN && p.RecvMsg(&in) == nil {
			}
			close(p.out)
		})
		if (err == nil) != (name == "complete") {
			t.Errorf("%s: %v", name, err)
		}
		if held := s.held.Load(); held != 0 {
			t.Errorf("%s: %d are held", name, held)
		}
	}
}

// A stream that ends is no tree, and says so by itself.
func TestBroken(t *testing.T) {
	dialtest.NoLeaks(t)
	for name, c := range map[string]struct {
		send func(*pipe)
		want string
	}{
		"sender fails": {func(p *pipe) {
			_ = p.SendMsg(stat("a", 0o644, 4))
			_ = p.SendMsg(&types.Packet{Type: types.PACKET_ERR, Data: []byte("boom")})
		}, "boom"},
		"stream ends": {func(p *pipe) {
			_ = p.SendMsg(stat("a", 0o644, 4))
			_ = p.SendMsg(data(0, "fo"))
			close(p.out)
		}, "EOF"},
		"nothing": {func(p *pipe) { close(p.out) }, "EOF"},
	} {
		_, err := receive(t, c.send)
		var broken *Broken
		if !errors.As(err, &broken) || err.Error() != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A tree that is complete is one, also when the build is over before the sender has
// said so.
func TestNotDone(t *testing.T) {
	dialtest.NoLeaks(t)
	dir, err := receive(t, func(p *pipe) {
		for _, packet := range []*types.Packet{stat("a", 0o644, 4), endOfList, data(0, "four"), data(0, "")} {
			_ = p.SendMsg(packet)
		}
		var in types.Packet
		for in.Type != types.PACKET_FIN && p.RecvMsg(&in) == nil {
		}
		close(p.out)
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(text) != "four" {
		t.Errorf("%q, %v", text, err)
	}
}

// All files have come, but hard links and the folders' modes have not been made: a
// sender that says now that it is done does not make the tree one.
func TestDoneBetween(t *testing.T) {
	tr := &transfer{complete: make(chan struct{})}
	close(tr.complete)
	done, err := tr.packet(&types.Packet{Type: types.PACKET_FIN})
	var refused *Refused
	if done || !errors.As(err, &refused) {
		t.Errorf("%v, %v", done, err)
	}
	tr.made = true
	if done, err := tr.packet(&types.Packet{Type: types.PACKET_FIN}); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
}

// The caller can end it while the sender is silent.
func TestCancelled(t *testing.T) {
	dialtest.NoLeaks(t)
	why := errors.New("enough")
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	stream, end := context.WithCancel(t.Context())
	defer end()
	ctx, cancel := context.WithCancelCause(t.Context())
	here, there := newPipe(stream)
	go func() {
		_ = there.SendMsg(stat("a", 0o644, 4))
		_ = there.SendMsg(data(0, "fo"))
		cancel(why)
	}()
	if err := new(Sender).Tree(ctx, here, root); !errors.Is(err, why) {
		t.Error(err)
	}
}

// What the disk does not take is said with its path in the tree.
func TestDisk(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	_, err := receive(t, func(p *pipe) {
		for _, packet := range []*types.Packet{stat("d", os.ModeDir|0o755, 0), stat("d/"+strings.Repeat("x", 300), 0o644, 1), data(1, "x")} {
			_ = p.SendMsg(packet)
		}
	})
	var pe *fs.PathError
	if !errors.As(err, &pe) || !strings.HasPrefix(pe.Path, "d/xxx") {
		t.Error(err)
	}
}

// A sender that only answers questions is asked for all, in order.
func TestAsks(t *testing.T) {
	const n = asked + 100
	var got []uint32
	dir, err := receive(t, func(p *pipe) {
		var sending sync.WaitGroup
		sending.Go(func() {
			for i := range n {
				_ = p.SendMsg(stat(fmt.Sprintf("f%06d", i), 0o644, 0))
			}
			_ = p.SendMsg(endOfList)
		})
		for {
			var in types.Packet
			if p.RecvMsg(&in) != nil {
				break
			}
			if in.Type == types.PACKET_FIN {
				_ = p.SendMsg(fin)
				break
			}
			got = append(got, in.ID)
			_ = p.SendMsg(data(in.ID, ""))
		}
		sending.Wait()
	})
	if err != nil || len(got) != n || !slices.IsSorted(got) || len(listing(t, dir)) != n {
		t.Errorf("%v, asked for %d", err, len(got))
	}
}
