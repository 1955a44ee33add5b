package dockercontainer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dockerengine"
	"github.com/berthbuild/berth/internal/dial/stdio"
)

// The classes of failures, besides those of an engine that is not reached and
// of a helper (stdio).
const (
	// NoContainer is a container that the engine does not know.
	NoContainer dial.Class = "no-container"
	// NotRunning is one that is stopped, paused, or starting.
	NotRunning dial.Class = "container-not-running"
	// Refused is an engine that does not do what it was asked.
	Refused dial.Class = "docker-refused"
)

const (
	// inquest bounds finding out why a connection ended. It is less than what
	// stdio waits for the reason, so that which of them ends first is no race.
	inquest = 1500 * time.Millisecond
	// again is when to ask again whether the exec is over: its streams end
	// before the engine has noted that.
	again = 10 * time.Millisecond
	// dying is how long the end of the container itself is waited for where a
	// signal ended the command, or the daemon ended the connection: both come
	// just before that.
	dying = 500 * time.Millisecond
	// signalled is what the exit code of such a command is above.
	signalled = 128
)

// refused reads the answer of an engine that does not run the command.
func (x *execution) refused(api dockerengine.API, a dockerengine.Answer) error {
	switch a.Status {
	case http.StatusNotFound:
		return x.noContainer(api)
	case http.StatusConflict:
		if err := x.notRunning(api); err != nil {
			return err
		}
	}
	e := &dial.Error{
		Class: Refused, Heals: a.Status == http.StatusServiceUnavailable || a.Status == http.StatusConflict,
		Text:  fmt.Sprintf("the Docker engine at %s does not run buildctl in the container: HTTP %d", api.Host(), a.Status),
		Tries: []string{x.docker("exec " + x.container + " buildctl --version")},
	}
	if a.Said != "" {
		e.Text += " (" + a.Said + ")"
	}
	return e
}

func (x *execution) noContainer(api dockerengine.API) error {
	return &dial.Error{
		Class: NoContainer, Heals: true,
		Text: "no such container in the Docker engine at " + api.Host(),
		Tries: []string{
			"is this its name, and its engine? " + x.docker("ps --all"),
			"the engine is chosen with DOCKER_HOST, docker context use NAME, or ?context=NAME in the endpoint",
		},
	}
}

func (x *execution) notDocker(api dockerengine.API) error {
	return &dial.Error{
		Class: dockerengine.NotDocker,
		Text:  fmt.Sprintf("what listens at %s does not answer as a Docker engine", api.Host()),
	}
}

// notRunning is the account of a container's state, nil where it runs.
func (x *execution) notRunning(api dockerengine.API) error {
	answer, err := api.Ask(http.MethodGet, x.path("json"), nil)
	if err != nil {
		return err
	}
	var c struct {
		State struct {
			Status                      string
			Running, Paused, Restarting bool
			ExitCode                    int
		}
	}
	switch {
	case answer.Status == http.StatusNotFound:
		return x.noContainer(api)
	case answer.Status != http.StatusOK || answer.Decode(&c) != nil:
		return nil // the caller knows something, too
	}
	e := &dial.Error{Class: NotRunning, Heals: true}
	start, logs := x.docker("start "+x.container), x.docker("logs "+x.container)
	switch s := c.State; {
	case s.Paused:
		e.Text, e.Tries = "the container is paused", []string{x.docker("unpause " + x.container)}
	case s.Restarting:
		e.Text = fmt.Sprintf("the container is restarting; it ended with code %d", s.ExitCode)
		e.Tries = []string{"see why: " + logs}
	case s.Running:
		return nil
	case s.Status == "created":
		e.Text, e.Tries = "the container has not been started", []string{start}
	default:
		e.Text = fmt.Sprintf("the container is not running: it ended with code %d", s.ExitCode)
		e.Tries = []string{start, "see why it ended: " + logs}
	}
	return e
}

// docker is a command of docker's, for the same engine.
func (x *execution) docker(command string) string {
	if x.context != "" {
		return "docker --context " + x.context + " " + command
	}
	return "docker " + command
}

// end is what the engine says of the exec.
type end struct {
	Running  bool
	ExitCode int
}

// exit is the code that a command in a container ended with.
type exit int

// Error implements error.
func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// ExitCode is for stdio.ExitCode.
func (e exit) ExitCode() int { return int(e) }

// errGone is an exec that the engine has forgotten, or will not speak of: its
// container is not running any more.
var errGone = errors.New("the engine does not know the exec")

// end asks how the exec is.
func (x *execution) end(ctx context.Context) (end, error) {
	var e end
	return e, x.ask(ctx, func(api dockerengine.API) error {
		answer, err := api.Ask(http.MethodGet, "/exec/"+url.PathEscape(x.id)+"/json", nil)
		switch {
		case err != nil:
			return err
		case answer.Status == http.StatusNotFound || answer.Status == http.StatusConflict:
			return errGone
		case answer.Status != http.StatusOK:
			return fmt.Errorf("HTTP %d", answer.Status)
		}
		return answer.Decode(&e)
	})
}

// ask talks with the engine on a connection of its own.
func (x *execution) ask(ctx context.Context, say func(dockerengine.API) error) error {
	c, err := dockerengine.Open(ctx, x.env, x.context, say)
	if err == nil {
		_ = c.Close() // all was said
	}
	return err
}

// reason is why the streams have ended: nil where the command has worked and
// ended well, in a container that lives, or goes on.
func (x *execution) reason(ctx context.Context, stderr string, heard bool) error {
	ctx, cancel := context.WithTimeout(ctx, inquest)
	defer cancel()
	e, err := x.end(ctx)
	for err == nil && e.Running {
		if !sleep(ctx, again) {
			return nil
		}
		if e, err = x.end(ctx); err != nil && ctx.Err() != nil {
			return nil // it was running when it was last seen: the time is over, not the engine
		}
	}
	switch {
	case err == nil && e.ExitCode == 0 && !heard:
		return x.hints(stdio.Explain("buildctl", stdio.ErrMute, stderr))
	case err != nil && !errors.Is(err, errGone):
		return err
	}
	until := time.Now()
	if err == nil && (e.ExitCode == 0 || e.ExitCode > signalled) {
		until = until.Add(dying)
	}
	for {
		if state := x.ask(ctx, x.notRunning); state != nil {
			return state
		}
		if !time.Now().Before(until) || !sleep(ctx, again) {
			break
		}
	}
	if err != nil || e.ExitCode == 0 {
		return err
	}
	return x.failed(exit(e.ExitCode), stderr)
}

// sleep tells whether ctx still lives after the time.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// failed is for a command that ran, or could not.
func (x *execution) failed(code exit, stderr string) error {
	if code != stdio.CannotRun && code != stdio.NotFound {
		return x.hints(stdio.Explain("buildctl", code, stderr))
	}
	e := &dial.Error{
		Class: stdio.NoBuildctl, Text: "there is no buildctl in the container", Err: code,
		Tries: []string{
			"is it a container of moby/buildkit, or another with buildctl on its PATH? " + x.docker("exec "+x.container+" buildctl --version"),
		},
	}
	if code == stdio.CannotRun {
		e.Text = "buildctl cannot be run in the container"
	}
	if stderr != "" {
		e.Text += ": " + stderr
	}
	return e
}

func (x *execution) hints(e *dial.Error) error {
	e.Tries = []string{
		"is buildkitd running in the container? " + x.docker("logs "+x.container),
		"where its socket is elsewhere, the container's BUILDKIT_HOST must say so: unix:///PATH",
	}
	return e
}
