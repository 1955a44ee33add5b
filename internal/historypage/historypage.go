// Package historypage shows builds in a browser: as a page that a server on this
// machine's loopback keeps up to date (Server), and as one file that needs nothing
// else (Report). Both are the same page; the file has one build in it.
//
// It is not for finding builds: internal/history does that, and the surface says
// which one. What is shown is a Build, a value that is made once (Make) and that pure
// functions look at: lanes, the critical path, the comparison of two.
//
// Rules: all text of a build is hostile. It is cleaned here (text), put into the page
// as JSON that cannot end its element, and shown by textContent only. The page runs no
// script and takes no style but its own, which its policy names by their hashes, and
// fetches nothing from anywhere else. The server only reads; it is told the secret in
// the path, and answers no other name than its own. What is read has a bound, and
// every wait a budget.
package historypage

import (
	"time"

	"github.com/berthbuild/berth/internal/history"
)

// The states of a step.
const (
	StepWaiting  = "waiting"
	StepRunning  = "running"
	StepDone     = "done"
	StepCached   = "cached"
	StepFailed   = "failed"
	StepCanceled = "canceled"
)

// Build is all that is shown of one build. Times are milliseconds since it began. All
// of its text is clean.
type Build struct {
	Ref      string `json:"ref"` // builder/node/id
	ID       string `json:"id"`
	Builder  string `json:"builder"`
	Node     string `json:"node"`
	Name     string `json:"name"`
	Status   string `json:"status"` // running, completed, failed, canceled
	Started  string `json:"started"`
	Duration int64  `json:"duration"`
	Total    int    `json:"total"` // steps, as the daemon counts them
	Cached   int    `json:"cached"`

	Error *Failure `json:"error,omitempty"`

	Steps    []Step   `json:"steps"`
	Lanes    int      `json:"lanes"`
	Critical int64    `json:"critical"` // how long the critical path is
	Left     int      `json:"left,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Notes    []string `json:"notes,omitempty"` // what could not be read, and what is not shown

	Inputs      []Pair       `json:"inputs,omitempty"`
	Platforms   []string     `json:"platforms,omitempty"`
	Args        []Pair       `json:"args,omitempty"`
	Labels      []Pair       `json:"labels,omitempty"`
	Settings    []Pair       `json:"settings,omitempty"`
	Outputs     []Output     `json:"outputs,omitempty"`
	Materials   []Material   `json:"materials,omitempty"`
	Attachments []Attachment `json:"attachments,omitempty"`

	Logs Logs `json:"logs"`
}

// Failure is why a build failed.
type Failure struct {
	Message string `json:"message"`
	Step    int    `json:"step"` // its index; -1 where none is known
	Sources string `json:"sources,omitempty"`
}

// Step is one step of a build.
type Step struct {
	Name     string     `json:"name"`
	Stage    string     `json:"stage,omitempty"` // what its name says in brackets
	Text     string     `json:"text"`            // the rest of the name
	State    string     `json:"state"`
	Start    int64      `json:"start"` // -1: it has not begun
	End      int64      `json:"end"`
	Spans    [][2]int64 `json:"spans,omitempty"` // when it ran, where that was several times
	Busy     int64      `json:"busy"`            // how long it ran
	Lane     int        `json:"lane"`
	Critical int64      `json:"critical,omitempty"` // its share of the critical path
	Inputs   []int      `json:"inputs,omitempty"`
	Error    string     `json:"error,omitempty"`
	Parts    []Part     `json:"parts,omitempty"`
	Lines    int        `json:"lines,omitempty"` // of log, those that are not shown among them
}

// Part is something that a step did.
type Part struct {
	Name    string `json:"name"`
	Current int64  `json:"current,omitempty"`
	Total   int64  `json:"total,omitempty"`
	Took    int64  `json:"took,omitempty"`
}

// Pair is a name and a value.
type Pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Output is something that the build was asked to make.
type Output struct {
	Type  string `json:"type"`
	Attrs []Pair `json:"attrs,omitempty"`
}

// Material is something that the build was made of.
type Material struct {
	URI     string   `json:"uri"`
	Digests []string `json:"digests,omitempty"`
}

// Attachment is something that hangs on the record. Content is there where it was
// wanted, and small enough.
type Attachment struct {
	Digest   string `json:"digest"`
	Platform string `json:"platform,omitempty"`
	Type     string `json:"type"`
	Content  string `json:"content,omitempty"`
}

// Facts are what a Build is made of. A running build has a Course that goes on; whoever
// changes it meanwhile must not do so during Make.
type Facts struct {
	Record   *history.Record
	Detail   history.Detail
	Course   *history.Course
	Contents map[string][]byte // of attachments, by digest
	Notes    []string
	Now      time.Time
}
