package kubeapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	execProtocol    = "v5.channel.k8s.io" // of WebSocket; the first with half-close
	execProtocolOld = "v4.channel.k8s.io" // of SPDY
	forwardProtocol = "portforward.k8s.io"

	// lastWords is how long the rest of a process's output may take once the
	// server has said that it ended. A server that waits for standard input to
	// be read would otherwise never close.
	lastWords = 500 * time.Millisecond
)

// Process is a command that runs in a container, or a connection to a port of a
// pod. The caller kills it.
type Process struct {
	In  io.WriteCloser // Close tells that no more comes
	Out io.Reader      // one reader; it ends with io.EOF in any case

	conn  *taken
	extra func() // ends what is above conn; may be nil
	kill  sync.Once
	done  chan struct{}

	mu     sync.Mutex
	ended  bool
	status []byte // what the server said about the end
	err    error  // what ended the connection; nil for a good end
}

// ExitError is a command that did not end well, or was not started.
type ExitError struct {
	Code    int    // of its exit; 0 where it was not started
	Message string // the server's words, on one line
}

// Error is the server's words.
func (e *ExitError) Error() string { return e.Message }

// Kill ends the connection; what runs in the container may go on for a while.
// It returns at once: TLS says goodbye in the background, which can take 5 s
// where the network is stuck. It may be called again.
func (p *Process) Kill() {
	p.kill.Do(func() {
		go func() {
			_ = p.conn.Close()
			if p.extra != nil {
				p.extra()
			}
		}()
	})
}

// Done is closed when the server has said how it ended, or will not any more.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells, after Done, how it ended: nil for a good end, an *ExitError, or
// what happened to the connection.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.status) == 0 {
		return p.err
	}
	return verdict(p.status)
}

// say keeps a piece of the server's words about the end.
func (p *Process) say(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if room := maxStatus - len(p.status); room < len(b) {
		b = b[:room]
	}
	p.status = append(p.status, b...)
}

// finish closes Done.
func (p *Process) finish(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended, p.err = true, err
		close(p.done)
	}
}

// hurry gives the rest of the output a bounded time.
func (p *Process) hurry() { time.AfterFunc(lastWords, func() { _ = p.conn.Close() }) }

// verdict reads what the server says about the end: a Status for a command,
// plain words for a port.
func verdict(said []byte) error {
	var s status
	if json.Unmarshal(said, &s) != nil || s.Status == "" {
		return &ExitError{Message: printable(string(said))}
	}
	if s.Status == "Success" {
		return nil
	}
	e := &ExitError{Message: printable(s.Message)}
	for _, c := range s.Details.Causes {
		if c.Reason == "ExitCode" {
			e.Code, _ = strconv.Atoi(c.Message) // 0 for nonsense
		}
	}
	return e
}

// Exec runs a command in a container, "" for the pod's only one. What it writes
// to its standard error goes to stderr, which must take everything.
func (c *Client) Exec(ctx context.Context, namespace, pod, container string, command []string, stderr io.Writer) (*Process, error) {
	path := podPath(namespace, pod) + "/exec"
	q := url.Values{"command": command, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
	if container != "" {
		q.Set("container", container)
	}
	ws, err := c.websocket(ctx, path, q, "pods/exec", execProtocol)
	if err == nil {
		return execWebSocket(ws, stderr), nil
	}
	if !otherWay(err) {
		return nil, err
	}
	conn, err2 := c.spdy(ctx, path, q, "pods/exec", execProtocolOld)
	if err2 != nil {
		return nil, clearer(err, err2)
	}
	return execSPDY(ctx, conn, stderr)
}

// Forward connects to a port of a pod.
func (c *Client) Forward(ctx context.Context, namespace, pod, port string) (*Process, error) {
	path := podPath(namespace, pod) + "/portforward"
	ws, err := c.websocket(ctx, path, nil, "pods/portforward", spdy31+"+"+forwardProtocol)
	if err == nil {
		return forwardSPDY(ctx, ws.conn, &tunnel{taken: ws.conn, w: ws}, port)
	}
	if !otherWay(err) {
		return nil, err
	}
	conn, err2 := c.spdy(ctx, path, nil, "pods/portforward", forwardProtocol)
	if err2 != nil {
		return nil, clearer(err, err2)
	}
	return forwardSPDY(ctx, conn, conn, port)
}

func podPath(namespace, pod string) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", url.PathEscape(namespace), url.PathEscape(pod))
}
