package build

import (
	"fmt"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/request"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// syncTeller adds to a daemon's statuses what became of the local folders of a part:
// that one had not changed, or what was sent of it. A daemon ends the step of a
// folder once when it knows its name, and again when it has fetched it: so that a
// folder is unchanged is only known when a step that needs it has been done.
type syncTeller struct {
	p       part
	in      *inputs
	waiting map[digest.Digest]string // step → the folder that it loads
}

// add completes a status.
func (t *syncTeller) add(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		if t.p.outs != nil && v.Started != nil && strings.HasPrefix(v.Name, "exporting ") {
			t.p.outs.exporting.Store(true)
		}
		if v.Error != "" && loadsFolder(v.Name) {
			t.in.unsent.note(v.Digest)
		}
		if v.Completed == nil || v.Error != "" {
			continue
		}
		for _, in := range v.Inputs {
			t.tell(s, in, *v.Completed)
		}
		name, ok := syncedFolder(v.Name)
		session, known := t.p.sessions[name]
		switch {
		case !ok || !known || session.snapshot == nil:
		case session.Sent(name).Asked && !session.Sent(name).Busy:
			t.waiting[v.Digest] = name
			t.tell(s, v.Digest, *v.Completed)
		default:
			t.waiting[v.Digest] = name
		}
	}
}

// tell adds what became of the folder that a step loads, if that is waited for.
func (t *syncTeller) tell(s *client.SolveStatus, step digest.Digest, at time.Time) {
	name, ok := t.waiting[step]
	if !ok || t.p.sessions[name].Sent(name).Busy {
		return
	}
	delete(t.waiting, step)
	if _, ok := t.in.direct.Load(name); ok {
		return // by the build's own session, which does not count
	}
	text := t.p.sessions[name].became()
	s.Statuses = append(s.Statuses, &client.VertexStatus{ID: text, Vertex: step, Name: text, Timestamp: at, Started: &at, Completed: &at})
}

// loadsFolder tells whether a frontend's step fetches a local folder, or a file of
// one.
func loadsFolder(step string) bool {
	_, ok := syncedFolder(step)
	return ok || strings.HasSuffix(step, "] load "+ignoreName) || strings.HasPrefix(step, "[internal] load build definition from ")
}

// syncedFolder is the local folder that a frontend's step loads, by the names that
// BuildKit gives those steps.
func syncedFolder(step string) (string, bool) {
	if step == "[internal] load build context" {
		return request.LocalContext, true
	}
	if rest, ok := strings.CutPrefix(step, "[context "); ok {
		if name, ok := strings.CutSuffix(rest, "] load from client"); ok {
			name, _, _ = strings.Cut(name, "::") // the platform
			return request.NamedLocal(name), true
		}
	}
	return "", false
}

// became is what a person is told of a folder that a build has used.
func (f folderSession) became() string {
	sent, files := f.Sent(f.name), f.snapshot.Files()
	if !sent.Asked {
		return fmt.Sprintf("context unchanged (%s checked in %s)", counted(files), seconds(f.snapshot.Took()))
	}
	return fmt.Sprintf("sent %s of %s, %s", grouped(sent.Files), counted(files), units.HumanSize(float64(sent.Bytes)))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func counted(files int) string {
	if files == 1 {
		return "1 file"
	}
	return grouped(files) + " files"
}

// grouped is a number with a comma between each three digits.
func grouped[N int | int64](n N) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
