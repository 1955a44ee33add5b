package dockerconfig

import (
	"bufio"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	clicontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
)

func TestContextNames(t *testing.T) {
	dir := t.TempDir()
	names := func() (string, error) {
		all, err := load(t, Input{ConfigDir: dir}).Contexts()
		return strings.Join(all, " "), err
	}
	if got, err := names(); got != "default" || err != nil {
		t.Errorf("without a folder: %q, %v", got, err)
	}
	contextWith(t, dir, "zz", docker.EndpointMeta{Host: "unix:///z"}, nil)
	contextWith(t, dir, "a+a", docker.EndpointMeta{Host: "unix:///a"}, nil)
	write(t, filepath.Join(dir, "contexts", "meta", "file"), "no folder")
	if err := os.Mkdir(filepath.Join(dir, "contexts", "meta", "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := names()
	if got != "default a+a zz" {
		t.Errorf("two contexts: %q, %v", got, err)
	}
	for _, bad := range []string{"", "garbage", "[]", "{}", `{"Name":"a b"}`, `{"Name":"../x"}`, "{\"Name\":\"a\\u001b[31m\"}", strings.Repeat("x", 11<<20)} {
		path := write(t, filepath.Join(dir, "contexts", "meta", "bad", "meta.json"), bad)
		got, err := names()
		if got != "default a+a zz" || err == nil || !strings.Contains(err.Error(), path) || len(err.Error()) > 1000 {
			t.Errorf("meta.json %.40q: %q, %v", bad, got, err)
		}
	}
}

// asks sends a ping over a connection of Dial.
func asks(t *testing.T, c *Config, name string) error {
	t.Helper()
	e, err := c.Engine(name)
	if err != nil {
		return err
	}
	conn, err := e.Dial(t.Context())
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // a test's
	if _, ok := conn.(interface{ CloseWrite() error }); !ok {
		t.Errorf("a %T cannot be closed half", conn)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	if v := resp.Header.Get("Api-Version"); v != "1.47" {
		t.Errorf("the engine's API is %q", v)
	}
	return resp.Body.Close()
}

func TestDial(t *testing.T) {
	tlsHost, ca := tlsEngine(t)
	dir := t.TempDir()
	contextWith(t, dir, "unix", docker.EndpointMeta{Host: unixEngine(t, nil)}, nil)
	contextWith(t, dir, "tls", docker.EndpointMeta{Host: tlsHost}, &clicontext.TLSData{CA: []byte(ca)})
	contextWith(t, dir, "gone", docker.EndpointMeta{Host: "unix:///nowhere/docker.sock"}, nil)
	c := load(t, Input{ConfigDir: dir})
	for name, good := range map[string]bool{"unix": true, "tls": true, "gone": false} {
		if err := asks(t, c, name); (err == nil) != good {
			t.Errorf("context %s: %v", name, err)
		}
	}
	if err := asks(t, c, "gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v, which is not fs.ErrNotExist", err)
	}
	e, err := c.Engine("tls")
	if err != nil {
		t.Fatal(err)
	}
	e.TLS.RootCAs = x509.NewCertPool() // trusts nobody
	var unknown x509.UnknownAuthorityError
	if _, err := e.Dial(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("an unknown CA: %v", err)
	}
}

func TestDialSSH(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("stands in for ssh by a shell script")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	write(t, filepath.Join(bin, "ssh"), "#!/bin/sh\nexec '"+exe+"'\n")
	if err := os.Chmod(filepath.Join(bin, "ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(envSocket, strings.TrimPrefix(unixEngine(t, nil), "unix://"))
	if err := asks(t, load(t, Input{ConfigDir: t.TempDir(), Host: "ssh://me@build.example"}), ""); err != nil {
		t.Fatal(err)
	}
}

func TestShown(t *testing.T) {
	if got := (Engine{Host: "ssh://me:hunter2@h"}).Shown(); strings.Contains(got, "hunter2") || !strings.HasSuffix(got, "@h") {
		t.Errorf("shown as %s", got)
	}
	if h := (Engine{headers: map[string]string{"x-a": "b"}}).Header(); h.Get("X-A") != "b" {
		t.Errorf("headers %v", h)
	}
}
