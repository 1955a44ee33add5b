package kube

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
)

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	_ = l.Close()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialtest.ServeListener(t, plain, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	for _, tc := range []struct {
		server, ca string
		class      dial.Class
		heals      bool
		text       string
	}{
		{refused, "", APIServer, true, "is not reachable: connection refused"},
		{"nobody.invalid:6443", "", APIServer, true, "is not reachable: "},
		{plain.Addr().String(), "", APITLS, false, "does not speak TLS"},
		{"", "none", APITLS, false, "shows a certificate that is not trusted"},
	} {
		f := newFake(t)
		path := filepath.Join(f.dir, "config")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if tc.server != "" {
			text = strings.Replace(text, f.server.Listener.Addr().String(), tc.server, 1)
		}
		if tc.ca != "" {
			text = strings.Replace(text, "certificate-authority: ca.pem", "tls-server-name: other.example", 1)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = dialWith(t, f.env(), "kube-pod://bk")
		wantError(t, err, tc.class, tc.heals, tc.text, "")
		if tc.server == refused {
			var op *net.OpError
			if !errors.As(err, &op) {
				t.Errorf("the system's error is not in the chain of %v", err)
			}
		}
	}
}

func TestConfigProblems(t *testing.T) {
	f := newFake(t)
	env := f.env()
	vars := map[string]string{}
	env.LookupEnv = func(k string) (string, bool) { v, ok := vars[k]; return v, ok }
	_, err := dialWith(t, env, "kube-pod://bk")
	wantError(t, err, NoConfig, false, "there is no kubeconfig", "KUBECONFIG")

	bad := filepath.Join(f.dir, "bad")
	if err := os.WriteFile(bad, []byte("secret: [hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = dialWith(t, env, "kube-pod://bk?kubeconfig="+bad)
	wantError(t, err, NoConfig, false, bad+": is not a kubeconfig", "")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error repeats the file: %v", err)
	}

	_, err = dialWith(t, env, "kube-pod://bk?kubeconfig="+f.config("wrong", "token: other"))
	wantError(t, err, Unauthorized, false, `does not accept the credentials of "me"`, "auth whoami")
}

func TestReadableByAll(t *testing.T) {
	f := newFake(t)
	var warned []string
	env := f.env()
	env.Warn = func(text string) { warned = append(warned, text) }
	path := filepath.Join(f.dir, "config")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	s := scheme(env, "kube-pod")
	for range 2 { // told once
		_, err := s.Dial(t.Context(), mustParse(t, "kube-pod://bk"))
		wantError(t, err, NotFound, false, "", "")
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "chmod 600 "+path) {
		t.Errorf("warned: %q", warned)
	}
}

// What a credential plugin gave is used until the server refuses it.
func TestPluginIsAskedAgain(t *testing.T) {
	f := newFake(t)
	f.exec = talk
	f.put(podsPath+"/bk", object("bk"))
	plugin := filepath.Join(f.dir, "plugin")
	script := `#!/bin/sh
echo x >>"$0.calls"
test "$(wc -l <"$0.calls")" -gt 1 && token=` + fakeToken + `
echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"'${token:-old}'"}}'
`
	if err := os.WriteFile(plugin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	f.config("config", "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never}")
	s := scheme(f.env(), "kube-pod")
	for range 3 {
		c, err := s.Dial(t.Context(), mustParse(t, "kube-pod://bk"))
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, c)
		_ = c.Close()
	}
	calls, err := os.ReadFile(plugin + ".calls")
	if err != nil || string(calls) != "x\nx\n" {
		t.Errorf("the plugin was called: %q, %v", calls, err)
	}

	f.config("config", "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./none, interactiveMode: Never, installHint: get it}")
	_, err = dialWith(t, f.env(), "kube-pod://bk")
	wantError(t, err, Plugin, false, "there is no credential plugin", "get it")
}
