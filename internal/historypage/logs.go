package historypage

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/berthbuild/berth/internal/history"
)

// Logs are the lines of all steps, packed: JSON of a []StepLog, which is deflated and
// in base64 where that is shorter.
type Logs struct {
	Lines int    `json:"lines"` // those that are shown
	Plain string `json:"plain,omitempty"`
	Zip   string `json:"zip,omitempty"`
}

// StepLog is the log of one step.
type StepLog struct {
	Step   int     `json:"step"`
	Text   string  `json:"text"`             // its lines
	Times  []int64 `json:"times"`            // of each line, in milliseconds since the one before
	Stderr []int   `json:"stderr,omitempty"` // where the stream changes, beginning with stdout
	Left   int     `json:"left,omitempty"`   // lines that there was no room for
	LeftAt int     `json:"leftAt,omitempty"` // before which line
}

// maxPacked bounds what logs may become when they are unpacked.
const maxPacked = 128 << 20

// plainUpTo is the size up to which logs are not deflated.
const plainUpTo = 2 << 10

func pack(t texts, steps []*history.Step, begun time.Time) Logs {
	logs := Logs{}
	all := []StepLog{}
	for i, s := range steps {
		if len(s.Lines) == 0 {
			continue
		}
		l := StepLog{Step: i, Left: s.Left, LeftAt: s.LeftAt}
		var text bytes.Buffer
		var last int64
		stderr := false
		for n, line := range s.Lines {
			if n > 0 {
				text.WriteByte('\n')
			}
			text.WriteString(t.logLine(line))
			at := max(0, line.Time.Sub(begun).Milliseconds())
			l.Times = append(l.Times, at-last)
			last = at
			if line.Stderr != stderr {
				stderr = line.Stderr
				l.Stderr = append(l.Stderr, n)
			}
		}
		l.Text = text.String()
		logs.Lines += len(s.Lines)
		all = append(all, l)
	}
	data, _ := json.Marshal(all) // texts and numbers can always be written
	if len(data) <= plainUpTo {
		logs.Plain = string(data)
		return logs
	}
	var zipped bytes.Buffer
	w, _ := flate.NewWriter(&zipped, flate.BestCompression) // the level is one
	_, _ = w.Write(data)                                    // a buffer takes everything
	_ = w.Close()
	logs.Zip = base64.StdEncoding.EncodeToString(zipped.Bytes())
	return logs
}

// Unpack gives what was packed.
func (l Logs) Unpack() ([]StepLog, error) {
	data := []byte(l.Plain)
	if l.Zip != "" {
		zipped, err := base64.StdEncoding.DecodeString(l.Zip)
		if err != nil {
			return nil, fmt.Errorf("the log is damaged: %w", err)
		}
		data, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(zipped)), maxPacked))
		if err != nil {
			return nil, fmt.Errorf("the log is damaged: %w", err)
		}
	}
	var all []StepLog
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("the log is damaged: %w", err)
	}
	return all, nil
}
