package filesession

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// A long way is compressed from the first file on; a short one when two questions
// behind what was sent have taken long; one that took long may have met a busy daemon.
func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		takes []time.Duration // by itself, then behind half a megabyte each
		want  int
		asked int
	}{
		"long":            {[]time.Duration{50 * time.Millisecond}, gzip.BestSpeed, 1},
		"short and wide":  {[]time.Duration{time.Millisecond, 2 * time.Millisecond}, gzip.NoCompression, 2},
		"short, narrow":   {[]time.Duration{time.Millisecond, time.Second, time.Second}, gzip.BestSpeed, 3},
		"busy for once":   {[]time.Duration{time.Millisecond, time.Second, 2 * time.Millisecond}, gzip.NoCompression, 3},
		"faster than two": {[]time.Duration{4 * time.Millisecond, 3 * time.Millisecond}, gzip.NoCompression, 2},
	} {
		asked := 0
		p := &pace{ctx: context.Background()}
		next := func() time.Duration {
			asked++
			return c.takes[asked-1]
		}
		travel := next()
		p.travel, p.timed = func() time.Duration { return travel }, next
		if p.level() != gzip.NoCompression {
			t.Errorf("%s: compresses before there is anything to send", name)
		}
		for range 64 {
			p.sent(64 << 10)
		}
		if p.level() != c.want || asked != c.asked {
			t.Errorf("%s: level %d after %d questions", name, p.level(), asked)
		}
	}
}

// Whatever the level, what comes out is what went in, and writers that are used
// again know nothing of earlier messages.
func TestCompressor(t *testing.T) {
	c := &compressor{}
	for i, text := range []string{strings.Repeat("text ", 10_000), "", "x", strings.Repeat("more text ", 5_000)} {
		for _, level := range []int{gzip.NoCompression, gzip.BestSpeed} {
			var b bytes.Buffer
			err := c.with(level, func() error {
				w, err := c.Compress(&b)
				if err != nil {
					return err
				}
				if _, err := io.WriteString(w, text); err != nil {
					return err
				}
				return w.Close()
			})
			if err != nil {
				t.Fatal(err)
			}
			if small := b.Len() < len(text)/2; len(text) > 100 && small != (level == gzip.BestSpeed) {
				t.Errorf("%d: %d bytes became %d at level %d", i, len(text), b.Len(), level)
			}
			r, err := c.Decompress(&b)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != text {
				t.Errorf("%d: %d bytes came back, %v", i, len(got), err)
			}
		}
	}
}
