package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/dialtest"
	"github.com/berthbuild/berth/internal/dial/stdio"
)

func dialWith(t testing.TB, env dial.Env, text string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e := mustParse(t, text)
	c, err := scheme(env, e.Scheme).Dial(ctx, e)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// wantError checks a *dial.Error: its class, its text, and that a hint says so.
func wantError(t testing.TB, err error, class dial.Class, heals bool, text, try string) {
	t.Helper()
	var e *dial.Error
	if !errors.As(err, &e) {
		t.Fatalf("error = %v (%T), want a *dial.Error", err, err)
	}
	if e.Class != class || e.Heals != heals {
		t.Errorf("class %s, heals %v, want %s, %v (%v)", e.Class, e.Heals, class, heals, e)
	}
	if !strings.Contains(e.Text, text) {
		t.Errorf("text %q lacks %q", e.Text, text)
	}
	if tries := strings.Join(e.Tries, "\n"); !strings.Contains(tries, try) {
		t.Errorf("hints %q lack %q", tries, try)
	}
}

func notReadyPod(p *podObject) {
	p.Status.Conditions[0] = condition{Type: "Ready", Status: "False", Reason: "ContainersNotReady"}
	p.Status.Containers[0].Ready = false
}

func waiting(reason, message string) func(*podObject) {
	return func(p *podObject) {
		notReadyPod(p)
		p.Status.Phase = "Pending"
		p.Status.Containers[0].State = containerState{Waiting: &struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		}{reason, message}}
	}
}

func terminating(p *podObject) { now := time.Now(); p.Metadata.Deleted = &now }

func phase(phase, reason, message string) func(*podObject) {
	return func(p *podObject) { p.Status.Phase, p.Status.Reason, p.Status.Message = phase, reason, message }
}

func withContainer(name string) func(*podObject) {
	return func(p *podObject) {
		p.Spec.Containers = append(p.Spec.Containers, struct {
			Name string `json:"name"`
		}{name})
	}
}

func forbiddenTo(verb, resource string) *refusal {
	return &refusal{http.StatusForbidden, "Forbidden",
		fmt.Sprintf(`pods "bk" is forbidden: User "jane" cannot %s resource %q in API group "" in the namespace "ns"`, verb, resource)}
}

// What the API server says about pods that cannot be dialled.
func TestRefusals(t *testing.T) {
	exists := map[string]any{"/api/v1/namespaces/ns": map[string]any{}}
	for _, tc := range []struct {
		name, endpoint string
		objects        map[string]any
		class          dial.Class
		heals          bool
		text, try      string
	}{
		{"no pod", "kube-pod://bk", nil, NotFound, false, "there is no namespace ns", "get namespaces"},
		{"no pod in the namespace", "kube-pod://bk", exists, NotFound, false, "there is no pod bk in namespace ns", "kubectl --context here -n ns get pods"},
		{"no namespace", "kube-pod://bk?namespace=other", nil, NotFound, false, "there is no namespace other", ""},
		{"no container", "kube-pod://bk?container=x", map[string]any{podsPath + "/bk": object("bk", withContainer("side"))},
			NotFound, false, `no container "x"; it has: buildkitd, side`, ""},
		{"no context", "kube-pod://bk?context=x", nil, NoConfig, false, `no context "x"`, "get-contexts"},
		{"waiting", "kube-pod://bk", map[string]any{podsPath + "/bk": object("bk", waiting("ImagePullBackOff", "Back-off pulling"))},
			NotReady, true, "is not ready: container buildkitd waits (ImagePullBackOff): Back-off pulling", "describe pod bk"},
		{"probe fails", "kube-pod://bk", map[string]any{podsPath + "/bk": object("bk", notReadyPod)},
			NotReady, true, "container buildkitd runs, but its readiness probe fails", "describe pod bk"},
		{"terminating", "kube-pod://bk", map[string]any{podsPath + "/bk": object("bk", terminating)}, NotReady, true, "is terminating", ""},
		{"ended", "kube-pod://bk", map[string]any{podsPath + "/bk": object("bk", phase("Failed", "Evicted", "The node was low on resource: memory."))},
			NotReady, false, "has ended (Evicted): The node was low on resource: memory.", ""},
		{"exec forbidden", "kube-pod://bk", map[string]any{podsPath + "/bk": object("bk"), podsPath + "/bk/exec": forbiddenTo("create", "pods/exec")},
			Forbidden, false, "not allowed to create pods/exec in namespace ns (as jane)", "'kube-pod://bk?via=port-forward'"},
		{"a role to paste", "kube-pod://bk", map[string]any{podsPath + "/bk/exec": forbiddenTo("create", "pods/exec"), podsPath + "/bk": forbiddenTo("get", "pods")},
			Forbidden, false, "create pods/exec", "create role berth-pods-exec --verb=create --resource=pods/exec"},
		{"forward forbidden", "kube-pod://bk?via=port-forward", map[string]any{podsPath + "/bk": object("bk"), podsPath + "/bk/portforward": forbiddenTo("create", "pods/portforward")},
			Forbidden, false, "not allowed to create pods/portforward", "--user=jane"},
		{"list forbidden", "kube-selector://?selector=a%3Db", map[string]any{podsPath: forbiddenTo("list", "pods")},
			Forbidden, false, "not allowed to list pods", "--verb=get,list --resource=pods"},
		{"an admission's refusal", "kube-pod://bk", map[string]any{podsPath + "/bk": object("bk"), podsPath + "/bk/exec": &refusal{403, "Forbidden", "privileged pods may not be entered"}},
			Forbidden, false, "the server says: privileged pods may not be entered", "--user=USER"},
		{"a proxy in between", "kube-pod://bk", map[string]any{podsPath + "/bk": &refusal{502, "", "bad gateway"}}, APIError, true, "says: bad gateway", ""},
		{"another web server", "kube-pod://bk", map[string]any{podsPath + "/bk": &refusal{404, "", "not here"}}, APIError, false, "is not a Kubernetes API server", ""},
		{"overloaded", "kube-pod://bk", map[string]any{podsPath + "/bk": &refusal{429, "TooManyRequests", "please try again later"}}, APIError, true, "please try again later", ""},
		{"no deployment", "kube-deployment://bk", exists, NotFound, false, "there is no deployment bk in namespace ns", "get deployments"},
		{"none ready", "kube-deployment://bk", map[string]any{
			"/apis/apps/v1/namespaces/ns/deployments/bk": selecting(map[string]any{"matchLabels": map[string]string{"app": "bk"}}),
			podsPath: map[string]any{"items": []any{object("a", waiting("CrashLoopBackOff", "")), object("b", terminating)}},
		}, NotReady, true, "no ready pod behind the deployment bk in namespace ns: 0 of 2 ready; a is not ready: container buildkitd waits (CrashLoopBackOff)", "get pods -l app=bk"},
		{"a service without a selector", "kube-service://bk", map[string]any{"/api/v1/namespaces/ns/services/bk": selecting(nil)}, NotFound, false, "has no selector", ""},
		{"none at all", "kube-statefulset://bk", map[string]any{
			"/apis/apps/v1/namespaces/ns/statefulsets/bk": selecting(map[string]any{"matchLabels": map[string]string{"app": "bk"}}),
			podsPath: map[string]any{}, "/api/v1/namespaces/ns": map[string]any{},
		}, NotReady, true, "no ready pod behind the statefulset bk in namespace ns: 0 of 0 ready", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dialtest.NoLeaks(t)
			f := newFake(t)
			for path, o := range tc.objects {
				f.put(path, o)
			}
			_, err := dialWith(t, f.env(), tc.endpoint)
			wantError(t, err, tc.class, tc.heals, tc.text, tc.try)
		})
	}
}

func selecting(selector any) map[string]any {
	return map[string]any{"spec": map[string]any{"selector": selector}}
}

// talk is a process that says a word and ends.
func talk(p *fakeProcess) { _, _ = io.WriteString(p, p.container+" "+strings.Join(p.command, " ")) }

func readAll(t testing.TB, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCommand(t *testing.T) {
	for query, want := range map[string]string{
		"":                               "buildkitd buildctl dial-stdio",
		"?container=side":                "side buildctl dial-stdio",
		"?socket=/run/user/1000/bk.sock": "buildkitd buildctl --addr unix:///run/user/1000/bk.sock dial-stdio",
	} {
		f := newFake(t)
		f.exec = talk
		f.put(podsPath+"/bk", object("bk", withContainer("side"), func(p *podObject) {
			p.Status.Containers = append(p.Status.Containers, containerStatus{Name: "side", Ready: true})
		}))
		c, err := dialWith(t, f.env(), "kube-pod://bk"+query)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, c); got != want {
			t.Errorf("%s: ran %q, want %q", query, got, want)
		}
	}
}

func TestDefaultContainer(t *testing.T) {
	f := newFake(t)
	f.exec = talk
	f.put(podsPath+"/bk", object("bk", withContainer("side"), func(p *podObject) {
		p.Metadata.Annotations = map[string]string{defaultContainer: "side"}
		p.Status.Containers = []containerStatus{{Name: "buildkitd"}, {Name: "side", Ready: true}}
	}))
	c, err := dialWith(t, f.env(), "kube-pod://bk")
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); got != "side buildctl dial-stdio" {
		t.Errorf("ran %q", got)
	}
}

// Ready gives all that can be dialled, by name; Dial takes the first.
func TestReady(t *testing.T) {
	f := newFake(t)
	f.exec = talk
	f.put("/api/v1/namespaces/ns/services/bk", selecting(map[string]string{"app": "bk", "x": "y"}))
	f.put(podsPath, map[string]any{"items": []any{
		object("c"), object("b", terminating), object("a", notReadyPod), object("d", phase("Succeeded", "", "")), object("aa"),
	}})
	e := mustParse(t, "kube-service://bk")
	pods, err := Ready(t.Context(), f.env(), e)
	if err != nil || len(pods) != 2 || pods[0].Name != "aa" || pods[1].Name != "c" {
		t.Fatalf("%+v, %v", pods, err)
	}
	if _, err := dialWith(t, f.env(), "kube-service://bk"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.requests(), podsPath+"/aa/exec websocket") {
		t.Errorf("asked: %s", f.requests())
	}
}

// Who may not look at the pod may still be let in.
func TestMayEnterButNotLook(t *testing.T) {
	f := newFake(t)
	f.forward = func(port string, c net.Conn) string {
		_, _ = io.WriteString(c, port)
		return ""
	}
	f.put(podsPath+"/bk", forbiddenTo("get", "pods"))
	c, err := dialWith(t, f.env(), "kube-pod://bk?via=port-forward")
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); got != "1234" {
		t.Errorf("read %q", got)
	}
}

// How a stream ends, by what the server says and what became of the pod.
func TestEnds(t *testing.T) {
	status := func(text string) func(*fakeProcess) { return func(p *fakeProcess) { p.exit = []byte(text) } }
	exit := func(code int, stderr string) func(*fakeProcess) {
		return func(p *fakeProcess) {
			p.stderr(stderr)
			p.exit = fmt.Appendf(nil, `{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code","details":{"causes":[{"reason":"ExitCode","message":"%d"}]}}`, code)
		}
	}
	const noFile = `{"status":"Failure","reason":"InternalError","message":"OCI runtime exec failed: exec: \"buildctl\": executable file not found in $PATH"}`
	for _, tc := range []struct {
		name      string
		exec      func(*fakeProcess)
		then      any // what the pod is afterwards
		class     dial.Class
		text, try string
	}{
		{"well", func(*fakeProcess) {}, nil, "", "", ""},
		{"no buildctl", status(noFile), nil, stdio.NoBuildctl, "the container buildkitd of the pod bk has no buildctl", "?container=side"},
		{"no buildctl, by its code", exit(127, ""), nil, stdio.NoBuildctl, "has no buildctl", "via=port-forward"},
		{"no socket", exit(1, "error: dial unix /run/x: no such file\n"), nil, stdio.HelperFailed, "buildctl in the pod bk says: error: dial unix /run/x: no such file", "socket="},
		{"mute", exit(2, ""), nil, stdio.HelperFailed, "non-zero exit code", ""},
		{"endless stderr", exit(1, strings.Repeat("long ", 1<<18)), nil, stdio.HelperFailed, "long long", ""},
		{"deleted", exit(137, ""), &refusal{404, "NotFound", "gone"}, PodGone, "the pod bk in namespace ns was deleted", "get events"},
		{"evicted", exit(137, ""), object("bk", phase("Failed", "Evicted", "low on memory")), PodGone, "has ended (Evicted): low on memory", ""},
		{"being deleted", exit(137, ""), object("bk", terminating), PodGone, "is being deleted", ""},
		{"being deleted, at its end", exit(137, ""), object("bk", terminating, phase("Failed", "", "")), PodGone, "is being deleted", ""},
		{"evicted by request", exit(137, ""), object("bk", terminating, phase("Succeeded", "", ""), func(p *podObject) {
			p.Status.Conditions = append(p.Status.Conditions, condition{"DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting"})
		}), PodGone, "was evicted (EvictionByEvictionAPI): Eviction API: evicting", "get events"},
		{"replaced", exit(137, ""), object("bk", func(p *podObject) { p.Metadata.UID = "new" }), PodGone, "was replaced", ""},
		{"out of memory", exit(137, ""), object("bk", func(p *podObject) {
			p.Status.Containers[0].State = containerState{Terminated: &terminated{ExitCode: 137, Reason: "OOMKilled"}}
		}), PodGone, "lost its container buildkitd, which ended with exit code 137 (OOMKilled)", ""},
		{"nonsense", status("\x00garbage\x1b[2J"), nil, stdio.HelperFailed, "garbage [2J", ""},
	} {
		for _, spdy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, spdy %v", tc.name, spdy), func(t *testing.T) {
				dialtest.NoLeaks(t)
				f := newFake(t)
				f.spdyOnly = spdy
				f.put(podsPath+"/bk", object("bk", withContainer("side")))
				f.exec = func(p *fakeProcess) {
					if tc.then != nil {
						f.put(podsPath+"/bk", tc.then)
						if tc.name == "deleted" {
							f.put("/api/v1/namespaces/ns", map[string]any{})
						}
					}
					tc.exec(p)
				}
				c, err := dialWith(t, f.env(), "kube-pod://bk")
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.ReadAll(c)
				if tc.class == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantError(t, err, tc.class, tc.class != stdio.NoBuildctl, tc.text, tc.try)
				if len(err.Error()) > 6000 {
					t.Errorf("the error has %d bytes", len(err.Error()))
				}
				_ = c.Close()
			})
		}
	}
}

func TestPortRefused(t *testing.T) {
	for said, want := range map[string]string{
		"error forwarding port 1234 to pod x: dial tcp4 127.0.0.1:1234: connect: connection refused": "nobody listens on port 1234 of the pod bk",
		"something else": "port 1234 of the pod bk: something else",
	} {
		f := newFake(t)
		f.put(podsPath+"/bk", object("bk"))
		f.forward = func(string, net.Conn) string { return said }
		c, err := dialWith(t, f.env(), "kube-pod://bk?via=port-forward")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(c)
		wantError(t, err, Port, true, want, "--addr tcp://")
	}
}

// A server that says that the command ended, but never closes: seen with
// standard input unread.
func TestEndedButNotClosed(t *testing.T) {
	f := newFake(t)
	f.put(podsPath+"/bk", object("bk"))
	hang := make(chan struct{})
	f.exec = func(p *fakeProcess) {
		p.stderr("the reason")
		p.tell([]byte(`{"status":"Failure","message":"x","details":{"causes":[{"reason":"ExitCode","message":"1"}]}}`))
		<-hang
	}
	defer close(hang)
	c, err := dialWith(t, f.env(), "kube-pod://bk")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(c)
	wantError(t, err, stdio.HelperFailed, true, "the reason", "")
}

// Close returns although the process never ends and reads nothing.
func TestCloseWaitsForNobody(t *testing.T) {
	for _, spdy := range []bool{false, true} {
		f := newFake(t)
		f.spdyOnly = spdy
		f.put(podsPath+"/bk", object("bk"))
		hang := make(chan struct{})
		f.exec = func(*fakeProcess) { <-hang }
		c, err := dialWith(t, f.env(), "kube-pod://bk")
		if err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error)
		go func() {
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					wrote <- err
					return
				}
			}
		}()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-wrote; err == nil {
			t.Error("a write after Close succeeded")
		}
		close(hang)
	}
}

// A server before 1.30 wants another right for WebSocket than for SPDY.
func TestOnlySPDYIsAllowed(t *testing.T) {
	f := newFake(t)
	f.spdyOnly = true
	f.exec = talk
	f.put(podsPath+"/bk", object("bk"))
	c, err := dialWith(t, f.env(), "kube-pod://bk")
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, c)
	if got := f.requests(); !strings.Contains(got, "GET "+podsPath+"/bk/exec websocket\nPOST "+podsPath+"/bk/exec SPDY/3.1") {
		t.Errorf("asked: %s", got)
	}
}
