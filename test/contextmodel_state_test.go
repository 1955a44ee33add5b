//go:build e2e && linux

package test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/berthbuild/berth/test/lab"
	"github.com/containerd/continuity/sysx"
	"github.com/moby/patternmatcher"
)

// holding is what a folder or an image holds: path → what is there.
type holding map[string]thing

// thing is a file, a folder or a symbolic link. Times, and that two paths are one
// file, do not count.
type thing struct {
	kind   fs.FileMode // 0, fs.ModeDir or fs.ModeSymlink
	mode   fs.FileMode // permissions; not of links
	text   string      // what a file holds, or a link's target
	xattrs string      // those of users
}

func (n thing) String() string {
	text := n.text
	if len(text) > 40 {
		text = fmt.Sprintf("%s… (%d bytes)", text[:40], len(text))
	}
	return fmt.Sprintf("%v %v %q %q", n.kind, n.mode, text, n.xattrs)
}

const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// treeOf reads a folder.
func treeOf(dir string) (holding, error) {
	t := holding{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		n := thing{kind: fi.Mode().Type(), mode: fi.Mode() & modeBits}
		switch n.kind {
		case fs.ModeSymlink:
			n.mode = 0
			n.text, err = os.Readlink(p)
		case 0:
			var data []byte
			data, err = os.ReadFile(p)
			n.text = string(data)
		}
		if err != nil {
			return err
		}
		if n.kind != fs.ModeSymlink {
			n.xattrs = userAttributes(p)
		}
		rel, _ := filepath.Rel(dir, p)
		t[rel] = n
		return nil
	})
	return t, err
}

func userAttributes(p string) string {
	all := map[string]string{}
	names, _ := sysx.LListxattr(p)
	for _, n := range names {
		if v, err := sysx.LGetxattr(p, n); err == nil && strings.HasPrefix(n, "user.") {
			all[n] = string(v)
		}
	}
	return attributesText(all)
}

func attributesText(all map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s=%s ", k, all[k])
	}
	return b.String()
}

// treeOfTar reads an image's files.
func treeOfTar(data []byte) (holding, error) {
	t := holding{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.Trim(path.Clean(head.Name), "/")
		if name == "" || name == "." {
			continue
		}
		fi := head.FileInfo()
		n := thing{kind: fi.Mode().Type(), mode: fi.Mode() & modeBits}
		attributes := map[string]string{}
		for k, v := range head.PAXRecords {
			if k, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && strings.HasPrefix(k, "user.") {
				attributes[k] = v
			}
		}
		n.xattrs = attributesText(attributes)
		switch head.Typeflag {
		case tar.TypeLink:
			n = t[strings.Trim(path.Clean(head.Linkname), "/")]
		case tar.TypeSymlink:
			n.mode, n.text = 0, head.Linkname
		case tar.TypeReg:
			text, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			n.text = string(text)
		}
		t[name] = n
	}
}

// without is a tree without what patterns leave out, as builds do it: a folder stays
// for what is in it.
func (t holding) without(patterns []string) holding {
	if len(patterns) == 0 {
		return t
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		panic(err) // the patterns are the test's own
	}
	left := holding{}
	for p, n := range t {
		out, err := m.MatchesOrParentMatches(p)
		if err != nil {
			panic(err)
		}
		if out {
			continue
		}
		for ; p != "."; p = path.Dir(p) {
			left[p], n = n, t[path.Dir(p)]
		}
	}
	return left
}

// below is what is in a folder of the tree.
func (t holding) below(folder string) holding {
	in := holding{}
	for p, n := range t {
		if rest, ok := strings.CutPrefix(p, folder+"/"); ok {
			in[rest] = n
		}
	}
	return in
}

// follow is where a path leads to, by links in the tree.
func (t holding) follow(p string) string {
	for range 10 {
		n, ok := t[p]
		if !ok || n.kind != fs.ModeSymlink {
			return p
		}
		p = strings.Trim(path.Clean(n.text), "/") // links of the test are at the top, or absolute
	}
	return p
}

// put adds a tree at a place. The place itself is made by the copy, and not compared.
func (t holding) put(at string, in holding) {
	t[at] = thing{kind: fs.ModeDir}
	for p, n := range in {
		t[at+"/"+p] = n
	}
}

// image is what a Dockerfile makes of a folder, and of the one that is named extra.
func (v variant) image(main, extra holding) holding {
	made := holding{}
	switch v {
	case copyAll:
		return main
	case copyParts:
		made.put("d0", main.below("d0"))
		made["w"] = thing{kind: fs.ModeDir}
		for p, n := range main {
			if ok, _ := path.Match("w*.dat", p); ok {
				made["w/"+p] = n
			}
		}
		at := main.follow("lnk")
		if n := main[at]; n.kind == fs.ModeDir {
			made.put("lnk", main.below(at))
		} else {
			made["lnk"] = n
		}
	case copyNamed:
		made.put("d1", main.below("d1"))
		made.put("extra", extra)
	}
	return made
}

// uncompared are the folders that a copy makes by itself.
func (v variant) uncompared(p string) bool {
	return v != copyAll && !strings.Contains(p, "/")
}

// modelBuild is a build that runs.
type modelBuild struct {
	h       *history
	f, with *folder
	made    variant
	ignore  []string
	cmd     *exec.Cmd
	out     bytes.Buffer
	said    bytes.Buffer
	took    time.Duration
	left    bool // by one of the same content that was killed
	done    chan struct{}
	what    string
	others  holding // of with, as it was at the start
}

func (h *history) start(f *folder) *modelBuild { return h.startOn(f, h.rnd.IntN(len(h.daemons))) }

// startOn begins a build of f on a daemon.
func (h *history) startOn(f *folder, daemon int) *modelBuild {
	b := &modelBuild{h: h, f: f, made: f.made, ignore: f.ignore, done: make(chan struct{})}
	args := []string{"build", "--builder", fmt.Sprint("b", daemon), "--progress", "plain", "-o", "type=tar,dest=-"}
	if f.made == copyNamed {
		b.with = h.folders[(slices.Index(h.folders, f)+1)%len(h.folders)]
		args = append(args, "--build-context", "extra="+b.with.dir)
		b.others = b.with.state().without(b.with.ignore)
	}
	if h.chance(40) {
		args = append(args, "--context-sync", "full")
	}
	args = append(args, f.dir)
	b.what = strings.Join(args, " ")
	h.say("%s", b.what)
	b.cmd = exec.Command(h.berth.Bin, args...)
	b.cmd.Dir = h.berth.Work
	b.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.berth.Home, "BUILDX_CONFIG=" + h.berth.BuildxConfig, "DOCKER_CONFIG=" + h.berth.DockerConfig,
		"XDG_CACHE_HOME=" + join(h.berth.Home, ".cache"), "LANG=C.UTF-8", "BUILDX_NO_DEFAULT_ATTESTATIONS=1", lab.Mark(h.dir),
		"GORACE=" + lab.GoRace,
	}
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.said
	h.run.made.Add(1)
	began := time.Now()
	if err := b.cmd.Start(); err != nil {
		h.fail("%v", err)
		close(b.done)
		return b
	}
	go func() {
		limit := time.AfterFunc(10*time.Minute, func() { _ = b.cmd.Process.Signal(syscall.SIGQUIT) })
		_ = b.cmd.Wait() // its code tells
		limit.Stop()
		b.took = time.Since(began)
		close(b.done)
	}()
	return b
}

func (b *modelBuild) code() int {
	if b.cmd.ProcessState == nil {
		return -1
	}
	return b.cmd.ProcessState.ExitCode()
}

// holds is what was built.
func (b *modelBuild) holds() (holding, bool) {
	<-b.done
	b.count()
	if strings.Contains(b.said.String(), "WARNING: DATA RACE") {
		b.h.fail("%s: data race\n%s", b.what, b.said.String())
		return nil, false
	}
	if b.code() != 0 {
		return nil, false
	}
	got, err := treeOfTar(b.out.Bytes())
	if err != nil {
		b.h.fail("%s: %v", b.what, err)
		return nil, false
	}
	return got, true
}

// count keeps the statistics.
func (b *modelBuild) count() {
	if b.took > 5*time.Second { // as long as a daemon waits for a session that has gone
		b.h.run.count("builds that took more than 5 s")
	}
	said := b.said.String()
	for text, what := range map[string]string{
		"context unchanged (": "folders found unchanged", "] sending the context as it is": "builds made again", " files, ": "folders sent",
	} {
		if strings.Contains(said, text) {
			b.h.run.count(what)
		}
	}
}

// exact compares with what the folder holds now.
func (h *history) exact(b *modelBuild, now holding) {
	got, ok := b.holds()
	if !ok {
		h.fail("%s: code %d\n%s", b.what, b.code(), b.said.String())
		return
	}
	want := b.made.image(now.without(b.ignore), b.others)
	if diff := b.compare(got, []holding{want}); diff != "" {
		h.fail("%s: the image is not what the folder holds:\n%s\nwhat berth said:\n%s", b.what, diff, b.said.String())
	}
	if strings.Contains(b.said.String(), "sending the context as it is") && !b.left {
		h.fail("%s: it was built again, and nothing had moved:\n%s", b.what, b.said.String())
	}
	h.run.count("images compared with one state")
}

// loose compares with all that a folder held while it was built: each path must be
// as it was at some time.
func (h *history) loose(b *modelBuild, raced *folder, states []holding) {
	got, ok := b.holds()
	if !ok {
		if b.code() != 1 {
			h.fail("%s: code %d\n%s", b.what, b.code(), b.said.String())
		}
		h.run.count("racing builds that failed: " + failureKind(b.said.String()))
		return
	}
	var wants []holding
	for _, s := range states {
		main, extra := s, b.others
		if b.f != raced {
			main, extra = b.f.state(), s.without(raced.ignore)
		}
		wants = append(wants, b.made.image(main.without(b.ignore), extra))
	}
	if diff := b.compare(got, wants); diff != "" {
		h.fail("%s: the image has what the folder never held:\n%s\nwhat berth said:\n%s", b.what, diff, b.said.String())
	}
	h.run.count("images compared with several states")
}

// failureKind is the last line without names.
func failureKind(said string) string {
	line := lastLine(said)
	for _, kind := range []string{"no such file", "changed while it was sent", "not found", "is no plain file"} {
		if strings.Contains(line, kind) {
			return kind
		}
	}
	return line
}

// compare tells what differs from every one of the wanted trees.
func (b *modelBuild) compare(got holding, wants []holding) string {
	paths := maps.Clone(got)
	for _, w := range wants {
		maps.Copy(paths, w)
	}
	var diff []string
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		n, there := got[p]
		if there && n.kind == fs.ModeDir && b.made.uncompared(p) {
			n.mode, n.xattrs = 0, ""
		}
		match := slices.ContainsFunc(wants, func(w holding) bool {
			want, ok := w[p]
			if ok && want.kind == fs.ModeDir && b.made.uncompared(p) {
				want.mode, want.xattrs = 0, ""
			}
			return ok == there && want == n
		})
		if match {
			continue
		}
		text := "is not there"
		if there {
			text = n.String()
		}
		line := fmt.Sprintf("%s: %s", p, text)
		for _, w := range wants {
			if want, ok := w[p]; ok {
				line += fmt.Sprintf("\n    wanted %v", want)
			} else {
				line += "\n    wanted nothing"
			}
			if len(wants) > 3 {
				line += " …"
			}
		}
		diff = append(diff, line)
	}
	return strings.Join(diff, "\n")
}
