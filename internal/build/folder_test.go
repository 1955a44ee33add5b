package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/buildkittest"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/tonistiigi/fsutil/types"
)

func stat(path string, mode os.FileMode, size int, link string) *types.Packet {
	return &types.Packet{Type: types.PACKET_STAT, Stat: &types.Stat{Path: path, Mode: uint32(mode), Size: int64(size), Linkname: link}}
}

func data(id uint32, text string) *types.Packet {
	return &types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte(text)}
}

// packets sends them to the first export, and waits for the client's verdict.
func packets(ctx context.Context, b *buildkittest.Build, all ...*types.Packet) error {
	stream, err := b.Stream(ctx, 0)
	if err != nil {
		return err
	}
	for _, p := range all {
		if stream.SendMsg(p) != nil {
			break // RecvMsg says why
		}
	}
	for {
		var in types.Packet
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
	}
}

// A daemon that tries to get out of the folder, or to leave there what is no file,
// writes nothing, whether it owns up to it or not.
func TestFolderHostile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	dialtest.NoLeaks(t)
	const file, dir, link = os.FileMode(0o644), os.ModeDir | 0o755, os.ModeSymlink | 0o777
	for name, c := range map[string]struct {
		packets []*types.Packet
		want    string
	}{
		"up":             {[]*types.Packet{stat("../evil", file, 4, ""), data(0, "evil"), data(0, "")}, `"../evil"`},
		"absolute":       {[]*types.Packet{stat("/evil", file, 4, ""), data(0, "evil"), data(0, "")}, `"/evil"`},
		"through a link": {[]*types.Packet{stat("l", link, 0, ".."), stat("l/evil", file, 4, ""), data(1, "evil"), data(1, "")}, `"l/evil"`},
		"device":         {[]*types.Packet{stat("null", os.ModeDevice|os.ModeCharDevice|0o666, 0, "")}, `"null", which is a device`},
		"hard link":      {[]*types.Packet{stat("a", file, 0, "../victim")}, `hard link to something outside`},
		"twice":          {[]*types.Packet{stat("a", file, 4, ""), stat("a", file, 4, "")}, `came twice`},
		"short":          {[]*types.Packet{stat("a", file, 10<<30, ""), data(0, "evil"), data(0, "")}, `ended after 4 of the 10737418240 bytes`},
	} {
		for _, lies := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " lies=", lies), func(t *testing.T) {
				above := t.TempDir()
				dest := filepath.Join(above, "out")
				put(t, filepath.Join(above, "victim"), "safe")
				put(t, filepath.Join(dest, "a"), "old")
				s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
					err := packets(ctx, b, c.packets...)
					if lies {
						err = nil
					}
					return nil, err
				})
				_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("local", dest)), options(t))
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "writing to "+dest+": ") {
					t.Errorf("%v, want %q", err, c.want)
				}
				if special := name == "device"; special != (len(hint.Of(err)) > 0) {
					t.Errorf("hints: %q", hint.Of(err))
				}
				equal(t, "above", names(t, above), []string{"out", "victim"})
				equal(t, "in the folder", names(t, dest), []string{"a"})
				if read(t, filepath.Join(above, "victim"))+read(t, filepath.Join(dest, "a")) != "safeold" {
					t.Error("a file was overwritten")
				}
			})
		}
	}
}

// Links that lead out are content, and those that stand in the folder are replaced:
// neither is followed.
func TestFolderLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links")
	}
	above := t.TempDir()
	dest := filepath.Join(above, "out")
	put(t, filepath.Join(above, "victim"), "safe")
	if err := errors.Join(os.Mkdir(dest, 0o755), os.Symlink("../victim", filepath.Join(dest, "planted")), os.Symlink("..", filepath.Join(dest, "plantedDir"))); err != nil {
		t.Fatal(err)
	}
	src := tree(t, map[string]string{"planted": "1", "plantedDir/victim": "2"})
	if err := os.Symlink("/etc", filepath.Join(src, "etc")); err != nil {
		t.Fatal(err)
	}
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, b.SendDir(ctx, 0, src)
	})
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("local", dest)), options(t)); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(dest, "etc")); err != nil || target != "/etc" {
		t.Errorf("%q, %v", target, err)
	}
	if read(t, filepath.Join(dest, "planted")) != "1" || read(t, filepath.Join(dest, "plantedDir", "victim")) != "2" || read(t, filepath.Join(above, "victim")) != "safe" {
		t.Error("a link was followed")
	}
}

// Whatever ends a transfer, the folder is as it was and nothing is left beside it.
func TestFolderBreaks(t *testing.T) {
	dialtest.NoLeaks(t)
	for _, before := range []bool{false, true} {
		for name, end := range map[string]func(*buildkittest.Server, context.CancelCauseFunc){
			"killed":    func(s *buildkittest.Server, _ context.CancelCauseFunc) { s.Kill() },
			"cancelled": func(_ *buildkittest.Server, cancel context.CancelCauseFunc) { cancel(errors.New("interrupted")) },
			"fails":     nil,
		} {
			t.Run(fmt.Sprint(name, " before=", before), func(t *testing.T) {
				above := t.TempDir()
				dest := filepath.Join(above, "new", "out")
				want := []string(nil)
				if before {
					put(t, filepath.Join(dest, "a"), "old")
					want = []string{"new"}
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var s *buildkittest.Server
				s = daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
					stream, err := b.Stream(ctx, 0)
					if err != nil {
						return nil, err
					}
					for _, p := range []*types.Packet{stat("a", 0o644, 8, ""), data(0, "half")} {
						if err := stream.SendMsg(p); err != nil {
							return nil, err
						}
					}
					var in types.Packet
					if err := stream.RecvMsg(&in); err != nil { // it is asked for: it is on its way
						return nil, err
					}
					if end == nil {
						return nil, theirs(ctx, errors.New("boom"))
					}
					go end(s, cancel)
					<-ctx.Done()
					return nil, ctx.Err()
				})
				_, err := Run(ctx, builderOf(node("n0", s.Endpoint())), req(t, output("local", dest)), options(t))
				if err == nil || strings.Contains(err.Error(), "writing to") {
					t.Errorf("%v", err) // it is not the folder's fault
				}
				equal(t, "above", names(t, above), want)
				if before {
					equal(t, "in the folder", names(t, dest), []string{"a"})
					if read(t, filepath.Join(dest, "a")) != "old" {
						t.Error("the old file was touched")
					}
				}
			})
		}
	}
}

// What the daemon sends several times is joined where that is meant, and refused
// where one would write over the other.
func TestFolderSeveralStreams(t *testing.T) {
	dialtest.NoLeaks(t)
	one, two := tree(t, map[string]string{"linux_amd64/x": "1"}), tree(t, map[string]string{"linux_arm64/x": "2"})
	for _, c := range []struct {
		second, want string
	}{{two, ""}, {one, "was sent twice"}} {
		dest := filepath.Join(t.TempDir(), "out")
		s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			return nil, errors.Join(b.SendDir(ctx, 0, one), b.SendDir(ctx, 0, c.second))
		})
		r := req(t, output("local", dest))
		r.Platforms = plats("linux/amd64", "linux/arm64")
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t))
		switch {
		case c.want == "":
			if err != nil || read(t, filepath.Join(dest, "linux_amd64", "x"))+read(t, filepath.Join(dest, "linux_arm64", "x")) != "12" {
				t.Errorf("%v", err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%v, want %q", err, c.want)
		default:
			equal(t, "left", names(t, filepath.Dir(dest)), nil)
		}
	}
}

// A tree that broke off is no part of a success, whatever the daemon says of it, and
// whether another has come or not.
func TestFolderHalf(t *testing.T) {
	dialtest.NoLeaks(t)
	src := tree(t, map[string]string{"x": "1"})
	for name, first := range map[string]func(context.Context, *buildkittest.Build) error{
		"alone":      func(context.Context, *buildkittest.Build) error { return nil },
		"of several": func(ctx context.Context, b *buildkittest.Build) error { return b.SendDir(ctx, 0, src) },
	} {
		dir := t.TempDir()
		s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
			if err := first(ctx, b); err != nil {
				return nil, err
			}
			stream, err := b.Stream(ctx, 0)
			if err != nil {
				return nil, err
			}
			for _, p := range []*types.Packet{stat("half", 0o644, 8, ""), data(0, "half")} {
				if err := stream.SendMsg(p); err != nil {
					return nil, err
				}
			}
			var in types.Packet
			if err := stream.RecvMsg(&in); err != nil { // it is asked for: it is on its way
				return nil, err
			}
			_ = stream.CloseSend()
			for stream.RecvMsg(&in) == nil { // to the client's verdict
			}
			return nil, nil
		})
		_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, output("local", filepath.Join(dir, "out"))), options(t))
		if err == nil || !strings.Contains(err.Error(), "node n0 ended 1 of the ") {
			t.Errorf("%s: %v", name, err)
		}
		equal(t, name, names(t, dir), nil)
	}
}

// A daemon that sends trees without end is stopped, and cannot hide that it was.
func TestFolderManyStreams(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := t.TempDir()
	src := tree(t, nil)
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		for i := range moreTrees + 2 { // one is for the platform
			if err := b.SendDir(ctx, 0, src); (err != nil) != (i > moreTrees) {
				t.Errorf("tree %d: %v", i, err)
			}
		}
		return nil, nil
	})
	r := req(t, output("local", filepath.Join(dir, "out")))
	r.Platforms = plats("linux/amd64")
	_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("node n0 sends more than %d trees", moreTrees+1)) {
		t.Error(err)
	}
	equal(t, "left", names(t, dir), nil)
}

// mode=delete is this side's affair: it works with every daemon, and only when all
// has come.
func TestFolderDelete(t *testing.T) {
	dialtest.NoLeaks(t)
	src := tree(t, map[string]string{"x": "new"})
	var fails error
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		if mode, told := b.Request.Exporters[0].Attrs["mode"]; told || b.Request.Exporters[0].Type != "local" {
			t.Errorf("the daemon was told %q, %q", mode, b.Request.Exporters[0].Type)
		}
		return nil, errors.Join(b.SendDir(ctx, 0, src), fails)
	})
	dest := filepath.Join(t.TempDir(), "out")
	put(t, filepath.Join(dest, "stale", "y"), "old")
	r := req(t, output("local", dest, "mode", "delete"))
	fails = errors.New("boom")
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t)); err == nil {
		t.Error("no error")
	}
	equal(t, "after a failure", names(t, dest), []string{"stale"})
	fails = nil
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t)); err != nil {
		t.Error(err)
	}
	equal(t, "after a success", names(t, dest), []string{"x"})
}

// A build that fails in one output leaves all others as they were.
func TestAllOrNothing(t *testing.T) {
	dialtest.NoLeaks(t)
	dir := t.TempDir()
	src := tree(t, map[string]string{"x": "new"})
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		return nil, errors.Join(b.SendDir(ctx, 0, src), b.SendFile(ctx, 1, []byte("tar"))) // and nothing of the third
	})
	outs := []buildflag.Output{output("local", filepath.Join(dir, "out")), output("tar", filepath.Join(dir, "a.tar")), output("oci", filepath.Join(dir, "b.tar"))}
	_, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), req(t, outs...), options(t))
	if err == nil || err.Error() != "writing "+filepath.Join(dir, "b.tar")+": the daemon sent nothing" {
		t.Errorf("%v", err)
	}
	equal(t, "left", names(t, dir), nil)
}

// What is staged while the build context is read, or was left by a crash, is no
// part of it.
func TestStagedIsNotSent(t *testing.T) {
	r := req(t, output("tar", ""))
	dir := r.Context.Dir
	put(t, filepath.Join(dir, "sub", ".berth-CRASH.tmp", "0", "x"), "half")
	put(t, filepath.Join(dir, ".berth-CRASH.tmp"), "half")
	put(t, filepath.Join(dir, "sub", ".berth-other"), "mine")
	r.Outputs[0].Dest = filepath.Join(dir, "new.tar")
	var got []string
	s := daemon(t, func(ctx context.Context, b *buildkittest.Build) (map[string]string, error) {
		dest := t.TempDir()
		err := b.FetchDir(ctx, request.LocalContext, dest)
		got = append(names(t, dest), names(t, filepath.Join(dest, "sub"))...)
		return nil, errors.Join(err, b.SendFile(ctx, 0, []byte("tar")))
	})
	if _, err := Run(t.Context(), builderOf(node("n0", s.Endpoint())), r, options(t)); err != nil {
		t.Fatal(err)
	}
	equal(t, "context", got, []string{"Dockerfile", "sub", ".berth-other"})
}
