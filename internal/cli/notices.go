package cli

import "sync"

// notices are lines for standard error that wait while a display has it: in
// the middle of a redrawn screen, or of JSON, they would be lost or in the way.
// The zero value is ready, and holds nothing back.
type notices struct {
	mu      sync.Mutex
	holding bool
	lines   []string
}

// hold has lines wait from now on.
func (n *notices) hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holding = true
}

// take keeps a line; false when nothing is held back and it can be written.
func (n *notices) take(line string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.holding {
		n.lines = append(n.lines, line)
	}
	return n.holding
}

// release gives what has waited, and holds no more.
func (n *notices) release() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	lines := n.lines
	n.holding, n.lines = false, nil
	return lines
}
