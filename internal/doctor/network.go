package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/dial"
)

// probeTimeout bounds connecting to one address, as an attempt does.
const probeTimeout = 5 * time.Second

// maxAddresses bounds how many addresses of a name are connected to.
const maxAddresses = 16

// address is one address of the endpoint's name.
type address struct {
	addr string // host:port
	took time.Duration
	err  error
}

// probe connects to every address that the name stands for. A build takes the
// first that answers, so that one which does not would show only as a delay.
func (t *trail) probe(ctx context.Context, addrs []string) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	all := make([]address, min(len(addrs), maxAddresses))
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			a := &all[i]
			a.addr = net.JoinHostPort(addrs[i], t.w.target.Endpoint.Port)
			began := time.Now()
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", a.addr)
			a.took, a.err = time.Since(began), err
			if err == nil {
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addresses = all
}

// connected is StepConnect of an attempt that came through.
func (t *trail) connected() Step {
	s := t.step(StepConnect)
	if len(t.addresses) == 0 {
		if len(s.Facts) == 1 { // the only address; the text says it
			s.Facts = nil
		}
		return s
	}
	s.Facts = factsOf(t.addresses)
	dead := len(slices.DeleteFunc(slices.Clone(t.addresses), func(a address) bool { return a.err == nil }))
	s.Text = fmt.Sprintf("%s; %d of %d addresses answer", s.Text, len(t.addresses)-dead, len(t.addresses))
	if dead > 0 {
		s.Status = Warning
		s.Hints = []string{"whoever gets such an address first waits for it, or fails: correct the name's records, or start the daemon there"}
	}
	return s
}

func factsOf(all []address) []dial.Fact {
	var facts []dial.Fact
	for _, a := range all {
		text := dial.Short(a.took)
		if a.err != nil {
			text = plainText(a.err) + " (" + text + ")"
		}
		facts = append(facts, dial.Fact{Name: a.addr, Value: text})
	}
	return facts
}

// plainText is the system's own word, without the address that is said anyway.
func plainText(err error) string {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return "no answer"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}
