//go:build e2e && linux

package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	builds "github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/historypage"
	"github.com/berthbuild/berth/test/lab"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// picturesEnv names the folder that the pictures of the docs are written to; without it
// none are.
const picturesEnv = "BERTH_PICTURES"

// tab is a browser with one page, which has two minutes for all that a test does with it.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	troubles []string
	fetched  []string
}

// openTab starts a browser that asks nothing of the world, and fails the test for
// whatever its console complains of, a violated policy among it.
func openTab(t *testing.T) *tab {
	t.Helper()
	lab.Need(t, "chromium")
	dir := lab.Dir(t)
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.WindowSize(1360, 900),
		chromedp.Env("HOME="+dir, "TMPDIR="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir),
	)
	all, end := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(end)
	ctx, cancel := chromedp.NewContext(all)
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx}
	b.open("about:blank")
	_, logged := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	_, watched := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	if err := errors.Join(chromedp.Listen(ctx, b.heard), logged, watched); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, text := range b.troubles {
			t.Errorf("the browser: %s", text)
		}
	})
	return b
}

func (b *tab) heard(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *log.EventEntryAdded:
		b.troubles = append(b.troubles, fmt.Sprintf("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
	case *runtime.EventExceptionThrown:
		b.troubles = append(b.troubles, fmt.Sprintf("%s %+v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		b.troubles = append(b.troubles, fmt.Sprintf("console.%s", ev.Type))
	case *page.EventJavascriptDialogOpening:
		b.troubles = append(b.troubles, "a script of a build has run: "+ev.Message)
	case *network.EventRequestWillBeSent:
		b.fetched = append(b.fetched, ev.Request.URL)
	}
}

// open goes to a page.
func (b *tab) open(url string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(url)); err != nil {
		b.t.Fatalf("the browser: %v", err)
	}
}

// js gives a script's result as text.
func (b *tab) js(script string) string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("(async () => String("+script+"))()", chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("the browser: %s: %v", script, err)
	}
	return text
}

// is waits until an expression is true.
func (b *tab) is(expression string) {
	b.t.Helper()
	yes := b.js("await new Promise((done) => { const until = Date.now() + 20000; const look = () => { let yes = false; try { yes = Boolean(" + expression +
		"); } catch {} if (yes || Date.now() > until) done(yes); else setTimeout(look, 30); }; look(); })")
	if yes != "true" {
		b.picture("not")
		b.t.Fatalf("it is not so: %s\n%s", expression, b.js(`document.body.innerText.slice(0, 3000)`))
	}
}

// theFirst is the script for the first element that a selector finds.
func theFirst(selector string) string {
	return "document.querySelector(" + strconv.Quote(selector) + ")"
}

func (b *tab) text(selector string) string {
	b.t.Helper()
	return b.js(theFirst(selector) + ".innerText")
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.js(theFirst(selector) + ".click()")
}

func (b *tab) focus(selector string) {
	b.t.Helper()
	b.js(theFirst(selector) + ".focus()")
}

// keys presses keys, which go to where the focus is.
func (b *tab) keys(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		if err := chromedp.Do(b.ctx, chromedp.KeyEvent(k)); err != nil {
			b.t.Fatalf("the browser: %v", err)
		}
	}
}

// typed puts text into a field that is empty then.
func (b *tab) typed(selector, text string) {
	b.t.Helper()
	b.js("(" + theFirst(selector) + ".value = '', " + theFirst(selector) + ".dispatchEvent(new Event('input')))")
	b.focus(selector)
	b.keys(text)
}

func (b *tab) scheme(dark bool) {
	b.t.Helper()
	name := "light"
	if dark {
		name = "dark"
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}}); err != nil {
		b.t.Fatalf("the browser: %v", err)
	}
}

// picture writes what is seen, where pictures are wanted.
func (b *tab) picture(name string) {
	b.t.Helper()
	dir := os.Getenv(picturesEnv)
	if dir == "" {
		return
	}
	data, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("the browser: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// largeBuild is a build of 200 steps that printed 20,000 lines, of which one is a
// megabyte long and some would like to be more than text.
func largeBuild() *historypage.Build {
	begun := time.Date(2026, 3, 4, 9, 30, 0, 0, time.UTC)
	at := func(s float64) *time.Time { t := begun.Add(time.Duration(s * float64(time.Second))); return &t }
	course := &builds.Course{}
	stages := []string{"deps", "api", "web", "worker", "docs"}
	free := make([]float64, len(stages))
	var last [5]digest.Digest
	add := func(v *client.Vertex, lines ...string) {
		s := &client.SolveStatus{Vertexes: []*client.Vertex{v}}
		for i, l := range lines {
			t := v.Started.Add(time.Duration(float64(i) / float64(len(lines)) * float64(v.Completed.Sub(*v.Started))))
			s.Logs = append(s.Logs, &client.VertexLog{Vertex: v.Digest, Stream: 1 + i%7/6, Data: []byte(l + "\n"), Timestamp: t})
		}
		course.Add(s)
	}
	add(&client.Vertex{Digest: digest.FromString("load"), Name: "[internal] load build definition from Dockerfile", Started: at(0), Completed: at(.08)})
	add(&client.Vertex{Digest: digest.FromString("meta"), Name: "[internal] load metadata for docker.io/library/golang:1.26", Started: at(.09), Completed: at(1.4)})
	for i := range stages {
		free[i] = 1.5
	}
	commands := []string{"COPY go.mod go.sum ./", "RUN go mod download", "COPY . .", "RUN go vet ./...", "RUN go build -o /out/%s ./cmd/%s", "RUN npm ci --prefix %s", "RUN make -C %s generate", "RUN go test -run Integration ./%s/..."}
	words := strings.Fields("compiling linking package module resolved cached warning unused import variable generated handler request response client server cache index layer manifest digest checksum verified downloaded extracting")
	seed := uint32(7)
	random := func(n int) int { seed = seed*1664525 + 1013904223; return int(seed>>8) % n }
	for i := range 196 {
		k := i % len(stages)
		id := digest.FromString(fmt.Sprint("step", i))
		name := strings.ReplaceAll(commands[(i/len(stages)+k)%len(commands)], "%s", stages[k])
		v := &client.Vertex{Digest: id, Name: fmt.Sprintf("[%s %d/40] %s", stages[k], i/len(stages)+1, name), Started: at(free[k])}
		if last[k] != "" {
			v.Inputs = append(v.Inputs, last[k])
		} else if k > 0 {
			v.Inputs = append(v.Inputs, last[0])
		}
		took := .2 + float64(random(60))/10*math.Pow(float64(random(10))/9, 2)
		var lines []string
		if v.Cached = i < 45 || i%11 == 0; v.Cached {
			took = 0
		} else {
			for n := range 20_000 / 136 {
				line := fmt.Sprintf("%4d %s/%s: %s %s %08x %s", n, stages[k], words[random(len(words))], words[random(len(words))], words[random(len(words))], random(1<<30), words[random(len(words))])
				switch {
				case i == 60 && n == 5:
					line = `</script><script>alert("log")</script><img src=x onerror=alert(1)> <!-- <script>`
				case i == 60 && n == 6:
					line = "\x1b[31mred\x1b[0m \x1b]0;title\a\x1b[2J progress 10%\rprogress 100% \u202egnp.exe\u202c \x00\x9b"
				case i == 60 && n == 7:
					line = strings.Repeat("megabyte ", 1<<20/9)
				}
				lines = append(lines, line)
			}
		}
		free[k] += took
		v.Completed = at(free[k])
		free[k] += .05
		add(v, lines...)
		last[k] = id
	}
	end := 0.
	for _, f := range free {
		end = max(end, f)
	}
	add(&client.Vertex{Digest: digest.FromString("final"), Name: "[stage-5 1/1] COPY --from=api /out/api </script><script>alert('name')</script>", Inputs: last[:], Started: at(end), Completed: at(end + 2)})
	add(&client.Vertex{Digest: digest.FromString("export"), Name: "exporting to image", Inputs: []digest.Digest{digest.FromString("final")}, Started: at(end + 2), Completed: at(end + 6)})
	record := &builds.Record{BuildHistoryRecord: &controlapi.BuildHistoryRecord{
		Ref: "qu2gsuo8ejqrwdfii23xkkckt", CreatedAt: timestamppb.New(begun), CompletedAt: timestamppb.New(*at(end + 6.1)), NumTotalSteps: 200, NumCompletedSteps: 200, NumCachedSteps: 59,
		FrontendAttrs: map[string]string{"build-arg:API_TOKEN": "hunter2-hunter2"},
		Exporters:     []*controlapi.Exporter{{Type: "image", Attrs: map[string]string{"name": "registry.example/shop/api:1.4.2", "push": "true"}}},
	}, Builder: "ci", Node: "ci0"}
	const provenance = `{"buildType":"x","args":{"build-arg:API_TOKEN":"hunter2-hunter2","x":"</script><script>alert('provenance')</script>"}}`
	dgst := digest.FromString(provenance).String()
	return historypage.Make(historypage.Facts{
		Record: record, Course: course, Now: *at(end + 7), Contents: map[string][]byte{dgst: []byte(provenance)},
		Detail: builds.Detail{
			Name: "shop (release)", Status: "completed", NumTotalSteps: 200, NumCompletedSteps: 200, NumCachedSteps: 59, Context: "https://git.example/shop.git#main", Dockerfile: "Dockerfile", Target: "release",
			VCSRevision: "5b0c1f7d9f7e9d4f6b2f2f3c8a1e7c44d0b7a1c2", Platform: []string{"linux/amd64", "linux/arm64"},
			BuildArgs: []builds.KeyValue{{Name: "API_TOKEN", Value: "hunter2-hunter2"}, {Name: "VERSION", Value: "1.4.2"}}, Labels: []builds.KeyValue{{Name: "org.opencontainers.image.title", Value: "<b>shop</b>"}},
			Materials:   []builds.Material{{URI: "pkg:docker/golang@1.26", Digests: []string{"sha256:6b7c0b0d0d6a9e0e0c5a3c6e1f9a1f0f1d2b3c4d5e6f708192a3b4c5d6e7f801"}}},
			Attachments: []builds.Attachment{{Digest: dgst, Platform: "linux/amd64", Type: "https://slsa.dev/provenance/v1"}},
		},
	})
}

// A report is one file that is small, soon there, and nothing but what it shows.
func TestHistoryPageReport(t *testing.T) {
	var doc bytes.Buffer
	b := largeBuild()
	if err := historypage.Report(&doc, b); err != nil {
		t.Fatal(err)
	}
	t.Logf("the report of %d steps and %d lines has %d bytes", len(b.Steps), b.Logs.Lines, doc.Len())
	if doc.Len() >= 2_000_000 || len(b.Steps) != 200 || b.Logs.Lines < 20_000 {
		t.Errorf("%d bytes, %d steps, %d lines", doc.Len(), len(b.Steps), b.Logs.Lines)
	}
	hasNot(t, "the report", doc.String(), "hunter2", "<script>alert")
	file := filepath.Join(t.TempDir(), "build.html")
	if err := os.WriteFile(file, doc.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openTab(t)
	c.scheme(false)
	c.open("file://" + file)
	c.is(`document.documentElement.dataset.ready`)
	ready := c.js(`document.documentElement.dataset.ready`)
	painted := c.js(`await new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(Math.round(performance.now())))))`)
	t.Logf("interactive %s ms after the navigation began, and painted by %s ms", ready, painted)
	c.picture("history-report")

	// The table, and its order.
	c.is(`document.querySelectorAll('#steps tbody tr').length === 200`)
	c.js(`[...document.querySelectorAll('#steps thead button')].find((b) => b.textContent === 'Took').click()`)
	c.is(`document.querySelector('#steps [aria-sort=descending]').textContent === 'Took'`)
	c.js(theFirst("#tab-steps") + ".scrollIntoView()")
	c.picture("report-steps")
	c.js("scrollTo(0, 0)")
	// From the timeline to the log, by keyboard.
	c.focus("#bar-0")
	c.keys(kb.ArrowRight, kb.ArrowRight, kb.ArrowDown, kb.End)
	c.is(`document.activeElement.id === 'bar-199'`)
	c.is(`!document.getElementById('tip').hidden && document.getElementById('tip').textContent.includes('exporting to image')`)
	c.keys(kb.Escape)
	c.is(`document.getElementById('tip').hidden`)
	c.keys(kb.Home, kb.Enter)
	c.is(`document.getElementById('tab-log').getAttribute('aria-selected') === 'true' && document.getElementById('log-step').value === '0'`)
	// All of the log, in a few elements.
	c.js(`(document.getElementById('log-step').value = '', document.getElementById('log-step').dispatchEvent(new Event('change')))`)
	c.is(`document.querySelectorAll('.log .ln').length > 20 && document.querySelectorAll('.log .ln').length < 150`)
	c.typed("#log-find", "alert(")
	c.is(`document.getElementById('log-count').textContent === '1 of 1 line' && document.querySelector('.ln.now').textContent.includes('</script><script>alert("log")</script><img src=x')`)
	c.is(`document.querySelector('.log').textContent.includes('progress 100% \\u{202e}gnp.exe\\u{202c}') && document.querySelector('.log').textContent.includes('bytes more)')`)
	c.typed("#log-find", "verified")
	c.is(`/^1 of [0-9,]+ lines$/.test(document.getElementById('log-count').textContent)`)
	c.keys(kb.Enter)
	c.is(`document.getElementById('log-count').textContent.startsWith('2 of ')`)
	c.click("#log-only")
	c.is(`[...document.querySelectorAll('.log .ln:not(.h)')].every((l) => l.textContent.includes('verified'))`)
	c.picture("report-log")
	// The tabs, by keyboard.
	c.focus("#tab-log")
	c.keys(kb.ArrowRight)
	c.is(`document.activeElement.id === 'tab-details'`)
	has(t, "the details", c.text("#panel-details"), "https://git.example/shop.git#main", "registry.example/shop/api:1.4.2", "<b>shop</b>", "not shown", "pkg:docker/golang@1.26")
	c.picture("report-details")
	c.keys(kb.ArrowRight)
	c.click("#panel-attached summary")
	has(t, "the provenance", c.text("#panel-attached pre"), `</script><script>alert('provenance')</script>`)
	c.scheme(true)
	c.click("#tab-steps")
	c.js(`scrollTo(0, 0)`)
	c.click("#zoom-in")
	c.is(`document.querySelector('.tl').scrollWidth > document.querySelector('.tl').clientWidth * 1.9`)
	c.click("#zoom-fit")
	c.picture("report-dark")
	c.nothing(t, "file://"+file)
}

// nothing holds what was fetched against what may have been, by its beginning.
func (b *tab) nothing(t *testing.T, but ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.fetched {
		ok := strings.HasPrefix(url, "data:,")
		for _, may := range but {
			ok = ok || strings.HasPrefix(url, may)
		}
		if !ok {
			t.Errorf("the page has fetched %s", url)
		}
	}
}

// What berth history open shows, of real daemons: builders, builds as they happen, one
// that runs to its end, one that failed, two side by side; and how it ends.
func TestHistoryPageOpen(t *testing.T) {
	berth, _, _, _ := historyWorld(t)
	release := make(chan struct{})
	held := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(held.Close)
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo) // or the server would wait for it
	const evil = "</script><script>alert('name')</script><img src=x onerror=alert(2)>"
	good := lab.ShellContext(t, "COPY sh /bin/sleep\nARG T=0\nRUN i=0; while [ $i -lt 400 ]; do echo line $i of the tests; i=$((i+1)); done\nRUN sleep $T\n", nil)
	bad := lab.ShellContext(t, "RUN echo before\nRUN echo '"+evil+"'; printf 'failing \\033[2J\\n'; exit 7\n", nil)
	build(t, berth, good, "--builder", "one", "--build-arg", "BUILDKIT_BUILD_NAME=shop", "--provenance", "mode=max", "-o", "type=oci,dest="+filepath.Join(t.TempDir(), "x"))
	build(t, berth, good, "--builder", "one", "--build-arg", "BUILDKIT_BUILD_NAME=shop", "--build-arg", "T=1", "--no-cache")
	build(t, berth, good, "--builder", "two", "--build-arg", "BUILDKIT_BUILD_NAME=shop on two")
	berth.Fail("build", "--builder", "one", "--build-arg", "BUILDKIT_BUILD_NAME="+evil, bad)
	refs := refsOf(t, berth, "--builder", "one")
	running := lab.ShellContext(t, "COPY sh /bin/wget\nRUN echo begun; wget -q -O /dev/null "+held.URL+"; echo ended\n", nil)
	client := berth.Start("build", "--builder", "two", "--progress", "plain", "--build-arg", "BUILDKIT_BUILD_NAME=running", running)
	client.WaitFor(" begun\n")

	server := berth.Start("history", "open", "--no-browser")
	server.WaitFor("http://") // on a stream of its own
	server.WaitFor("until Ctrl-C\n")
	url := strings.TrimSpace(server.Stdout())
	c := openTab(t)
	c.scheme(false)
	c.open(url)
	c.is(`document.querySelectorAll('#builds tr').length === 5 && document.querySelectorAll('#builders .healthy').length === 4`)
	has(t, "the builders", c.text("#builders"), "one0", "unix://", "two0", "tcp://", "healthy", "v0.", "linux/amd64")
	has(t, "the builds", c.text("#builds"), "running", evil, "shop on two", "failed", "completed")
	c.is(`[...document.querySelectorAll('#builders tr')].some((r) => r.cells[4] && r.cells[0].textContent.startsWith('two0') && r.cells[4].textContent === '1')`)
	c.is(`[...document.querySelectorAll('#builders .sub')].filter((r) => r.querySelector('.healthy')).every((r) => /[0-9] [kM]?B$/.test(r.cells[5].textContent))`)
	c.picture("overview")
	// A filter, by keyboard: the skip link, then the field.
	c.typed("#filter", "on two")
	c.is(`document.querySelectorAll('#builds tr').length === 1`)
	c.typed("#filter", "")

	// The one that runs, to its end.
	c.js(`[...document.querySelectorAll('#builds a')].find((a) => a.textContent === 'running').click()`)
	c.is(`document.querySelector('h1').textContent === 'running' && document.querySelector('.head .badge.running') !== null`)
	c.is(`document.activeElement.id === 'title'`)
	c.click("#tab-log")
	c.is(`document.querySelector('.log').textContent.includes('begun')`)
	letGo()
	c.is(`document.querySelector('.head .badge.completed') !== null && document.querySelector('.log').textContent.includes('ended')`)
	if r := client.Wait(); r.Code != 0 {
		t.Error(r)
	}

	// The one that failed.
	c.js(`location.hash = '#/build/one/one0/` + refs[0] + `'`)
	c.is(`document.querySelector('.alarm') !== null && document.querySelector('h1').textContent.includes('onerror=alert')`)
	has(t, "why it failed", c.text(".alarm"), "exit code: 7", "RUN echo")
	c.click("#to-failure")
	c.is(`document.querySelector('.log').textContent.includes("<img src=x onerror=alert(2)>") && document.querySelector('.log').textContent.includes('failing ')`)
	c.picture("failed")

	// Two side by side, and what hangs on one of them.
	c.click("#crumbs a")
	c.is(`document.querySelectorAll('#builds tr').length === 5`)
	for _, ref := range refs[1:3] {
		c.js(`document.getElementById('pick-b/b0/` + ref + `').click()`)
	}
	c.is(`!document.getElementById('compare').disabled`)
	c.focus("#compare")
	c.keys(kb.Enter)
	c.is(`document.querySelectorAll('#differences tbody tr').length > 4 && document.querySelectorAll('.tl').length === 2`)
	has(t, "the comparison", c.text("main"), "s slower", "RUN sleep 1")
	c.picture("history-compare")
	c.scheme(true)
	c.picture("compare-dark")
	c.js(`location.hash = '#/build/one/one0/` + refs[2] + `'`)
	c.is(`document.getElementById('tab-attached') !== null`)
	c.click("#tab-attached")
	c.is(`document.querySelectorAll('#panel-attached tbody tr').length > 0`)
	c.click("#panel-attached summary")
	c.is(`document.querySelector('#panel-attached pre').textContent.includes('{')`)
	c.picture("attachments-dark")
	c.nothing(t, url)
	c.open("about:blank")

	began := time.Now()
	server.Interrupt()
	if r := server.Wait(); r.Code != 130 {
		t.Errorf("Ctrl-C: %s", r)
	}
	t.Logf("Ctrl-C took %s", time.Since(began))

	// The report of a build that failed, and none of one that there is not.
	file := filepath.Join(t.TempDir(), "build.html")
	berth.OK("history", "report", "one/one0/"+refs[0], "-o", file)
	has(t, "the report", read(t, file), "exit code: 7")
	hasNot(t, "the report", read(t, file), "<script>alert")
	berth.Fail("history", "report", "one/one0/nosuch", "-o", file)
	has(t, "the report", read(t, file), "exit code: 7")
}
