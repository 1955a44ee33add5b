package dockerengine

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// maxAnswer bounds in bytes what is read of an answer in JSON.
const maxAnswer = 1 << 20

// API is a talk with an engine on one connection, for schemes that reach a
// daemon through the engine's API and not in it. Paths have no version: the
// engine takes its own.
type API struct{ t *talk }

// Answer is what an engine answers to one request.
type Answer struct {
	Status int    // of HTTP
	Said   string // the engine's words where Status is an error, on one line and fit for a terminal
	body   []byte
}

// Open connects to the engine of a docker context, "" being the one in force,
// and lets say talk to it. The connection is what say has made of it; where say
// fails it is closed. The error of a connection that cannot be made is a
// *dial.Error, or ctx's. The caller closes the connection.
func Open(ctx context.Context, env dial.Env, dockerContext string, say func(API) error) (net.Conn, error) {
	return dialler{env}.upgraded(ctx, endpoint.DockerEngine(dockerContext), func(t *talk) error { return say(API{t}) })
}

// Host is where the engine is, fit for a message.
func (a API) Host() string { return a.t.engine.Shown() }

// Context is the name of the engine's docker context.
func (a API) Context() string { return a.t.engine.Name }

// Ask sends a request, with a body in JSON unless that is nil. The error is
// that of a connection that broke; a refusal is an Answer.
func (a API) Ask(method, path string, body any) (Answer, error) {
	return a.ask(method, path, http.Header{}, body)
}

// Upgrade sends a POST after which the connection speaks proto. It does so only
// when the answer's Status is http.StatusSwitchingProtocols.
func (a API) Upgrade(path, proto string, body any) (Answer, error) {
	return a.ask(http.MethodPost, path, http.Header{"Connection": {"Upgrade"}, "Upgrade": {proto}}, body)
}

// Decode reads the answer.
func (a Answer) Decode(into any) error { return json.Unmarshal(a.body, into) }

func (a API) ask(method, path string, h http.Header, body any) (Answer, error) {
	var send io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		send = bytes.NewReader(text)
		h.Set("Content-Type", "application/json")
	}
	req, err := http.NewRequest(method, "http://docker"+path, send) //nolint:noctx // the connection is closed when the context ends
	if err != nil {
		return Answer{}, err
	}
	req.Header = a.t.engine.Header()
	for k, v := range h {
		req.Header[k] = v
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "berth")
	}
	if err := req.Write(a.t.conn.Conn); err != nil {
		return Answer{}, broken(a.t.engine, err)
	}
	resp, err := http.ReadResponse(a.t.conn.buffered, req)
	if err != nil {
		return Answer{}, broken(a.t.engine, err)
	}
	answer := Answer{Status: resp.StatusCode}
	if answer.Status == http.StatusSwitchingProtocols {
		return answer, nil
	}
	answer.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // up to the next answer
	_ = resp.Body.Close()                             // only read
	if err != nil {
		return Answer{}, broken(a.t.engine, err)
	}
	if answer.Status >= http.StatusBadRequest {
		answer.Said = message(answer.body)
	}
	return answer, nil
}
