//go:build e2e && linux

package test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/historypage"
	"github.com/berthbuild/berth/test/lab"
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

// tab is a browser with one page, which has a minute for all that a test does with it.
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
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, b.heard)
	b.do(log.Enable(), network.Enable())
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
		b.troubles = append(b.troubles, ev.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		b.troubles = append(b.troubles, fmt.Sprintf("console.%s", ev.Type))
	case *page.EventJavascriptDialogOpening:
		b.troubles = append(b.troubles, "a script of a build has run: "+ev.Message)
	case *network.EventRequestWillBeSent:
		b.fetched = append(b.fetched, ev.Request.URL)
	}
}

func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		var text string
		_ = chromedp.Run(b.ctx, chromedp.Evaluate(`document.body.innerText.slice(0, 3000)`, &text))
		b.t.Fatalf("the browser: %v\n%s", err, text)
	}
}

// is waits until an expression is true.
func (b *tab) is(expression string) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(20*time.Second))); err != nil {
		var text string
		_ = chromedp.Run(b.ctx, chromedp.Evaluate(`document.body.innerText.slice(0, 3000)`, &text))
		b.t.Fatalf("%s: %v\n%s", expression, err, text)
	}
}

func (b *tab) text(selector string) string {
	b.t.Helper()
	var text string
	b.do(chromedp.Text(selector, &text, chromedp.ByQuery))
	return text
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(selector, chromedp.ByQuery))
}

// keys presses keys, which go to where the focus is.
func (b *tab) keys(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

func (b *tab) scheme(dark bool) {
	b.t.Helper()
	name := "light"
	if dark {
		name = "dark"
	}
	b.do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}))
}

// picture writes what is seen, where pictures are wanted.
func (b *tab) picture(name string) {
	b.t.Helper()
	dir := os.Getenv(picturesEnv)
	if dir == "" {
		return
	}
	var data []byte
	b.do(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		data, err = page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatPng).WithOptimizeForSpeed(false).Do(ctx)
		return err
	}))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// largeBuild is a build of 200 steps that printed 20,000 lines, of which one is a
// megabyte long and some would like to be more than text.
func largeBuild() *historypage.Build {
	begun := time.Date(2026, 3, 4, 9, 30, 0, 0, time.UTC)
	at := func(s float64) *time.Time { t := begun.Add(time.Duration(s * float64(time.Second))); return &t }
	course := &history.Course{}
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
			for n := range 20_000 / 138 {
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
	record := &history.Record{BuildHistoryRecord: &controlapi.BuildHistoryRecord{
		Ref: "qu2gsuo8ejqrwdfii23xkkckt", CreatedAt: timestamppb.New(begun), CompletedAt: timestamppb.New(*at(end + 6.1)), NumTotalSteps: 200, NumCompletedSteps: 200, NumCachedSteps: 59,
		FrontendAttrs: map[string]string{"build-arg:API_TOKEN": "hunter2-hunter2"},
		Exporters:     []*controlapi.Exporter{{Type: "image", Attrs: map[string]string{"name": "registry.example/shop/api:1.4.2", "push": "true"}}},
	}, Builder: "ci", Node: "ci0"}
	const provenance = `{"buildType":"x","args":{"build-arg:API_TOKEN":"hunter2-hunter2","x":"</script><script>alert('provenance')</script>"}}`
	dgst := digest.FromString(provenance).String()
	return historypage.Make(historypage.Facts{
		Record: record, Course: course, Now: *at(end + 7), Contents: map[string][]byte{dgst: []byte(provenance)},
		Detail: history.Detail{
			Name: "shop (release)", Status: "completed", NumTotalSteps: 200, NumCompletedSteps: 200, NumCachedSteps: 59, Context: "https://git.example/shop.git#main", Dockerfile: "Dockerfile", Target: "release",
			VCSRevision: "5b0c1f7d9f7e9d4f6b2f2f3c8a1e7c44d0b7a1c2", Platform: []string{"linux/amd64", "linux/arm64"},
			BuildArgs: []history.KeyValue{{Name: "API_TOKEN", Value: "hunter2-hunter2"}, {Name: "VERSION", Value: "1.4.2"}}, Labels: []history.KeyValue{{Name: "org.opencontainers.image.title", Value: "<b>shop</b>"}},
			Materials:   []history.Material{{URI: "pkg:docker/golang@1.26", Digests: []string{"sha256:6b7c0b0d0d6a9e0e0c5a3c6e1f9a1f0f1d2b3c4d5e6f708192a3b4c5d6e7f801"}}},
			Attachments: []history.Attachment{{Digest: dgst, Platform: "linux/amd64", Type: "https://slsa.dev/provenance/v1"}},
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
	c.do(chromedp.Navigate("file://" + file))
	c.is(`document.documentElement.dataset.ready`)
	var ready, painted string
	c.do(chromedp.Evaluate(`document.documentElement.dataset.ready`, &ready),
		chromedp.Evaluate(`new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(String(Math.round(performance.now())))))) `, &painted, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	t.Logf("interactive %s ms after the navigation began, and painted by %s ms", ready, painted)
	c.picture("report")

	// The table, and its order.
	c.is(`document.querySelectorAll('#steps tbody tr').length === 200`)
	c.do(chromedp.Evaluate(`[...document.querySelectorAll('#steps thead button')].find((b) => b.textContent === 'Took').click()`, nil))
	c.is(`document.querySelector('#steps [aria-sort=descending]').textContent === 'Took'`)
	// From the timeline to the log, by keyboard.
	c.do(chromedp.Focus("#bar-0", chromedp.ByQuery))
	c.keys(kb.ArrowRight, kb.ArrowRight, kb.ArrowDown, kb.End)
	c.is(`document.activeElement.id === 'bar-199'`)
	c.is(`!document.getElementById('tip').hidden && document.getElementById('tip').textContent.includes('exporting to image')`)
	c.keys(kb.Escape)
	c.is(`document.getElementById('tip').hidden`)
	c.keys(kb.Home, kb.Enter)
	c.is(`document.getElementById('tab-log').getAttribute('aria-selected') === 'true' && document.getElementById('log-step').value === '0'`)
	// All of the log, in a few elements.
	c.do(chromedp.SetValue("#log-step", "", chromedp.ByQuery), chromedp.Evaluate(`document.getElementById('log-step').dispatchEvent(new Event('change'))`, nil))
	c.is(`document.querySelectorAll('.log .ln').length > 20 && document.querySelectorAll('.log .ln').length < 150`)
	c.do(chromedp.Focus("#log-find", chromedp.ByQuery))
	c.do(chromedp.SendKeys("#log-find", "alert(", chromedp.ByQuery))
	c.is(`document.getElementById('log-count').textContent === '1 of 1 line' && document.querySelector('.ln.now').textContent.includes('</script><script>alert("log")</script><img src=x')`)
	c.is(`document.querySelector('.log').textContent.includes('progress 100% \\u{202e}gnp.exe\\u{202c}') && document.querySelector('.log').textContent.includes('bytes more)')`)
	c.do(chromedp.SetValue("#log-find", "", chromedp.ByQuery), chromedp.SendKeys("#log-find", "verified", chromedp.ByQuery))
	c.is(`/^1 of [0-9,]+ lines$/.test(document.getElementById('log-count').textContent)`)
	c.keys(kb.Enter)
	c.is(`document.getElementById('log-count').textContent.startsWith('2 of ')`)
	c.click("#log-only")
	c.is(`[...document.querySelectorAll('.log .ln:not(.h)')].every((l) => l.textContent.includes('verified'))`)
	c.picture("report-log")
	// The tabs, by keyboard.
	c.do(chromedp.Focus("#tab-log", chromedp.ByQuery))
	c.keys(kb.ArrowRight)
	c.is(`document.activeElement.id === 'tab-details'`)
	has(t, "the details", c.text("#panel-details"), "https://git.example/shop.git#main", "registry.example/shop/api:1.4.2", "<b>shop</b>", "not shown", "pkg:docker/golang@1.26")
	c.keys(kb.ArrowRight)
	c.click("#panel-attached summary")
	has(t, "the provenance", c.text("#panel-attached pre"), `</script><script>alert('provenance')</script>`)
	c.scheme(true)
	c.click("#tab-steps")
	c.do(chromedp.Evaluate(`scrollTo(0, 0)`, nil))
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
	server.WaitFor("until Ctrl-C\n")
	url := strings.TrimSpace(server.Stdout())
	c := openTab(t)
	c.scheme(false)
	c.do(chromedp.Navigate(url))
	c.is(`document.querySelectorAll('#builds tr').length === 5 && document.querySelectorAll('#builders .healthy').length === 4`)
	has(t, "the builders", c.text("#builders"), "one0", "unix://", "two0", "tcp://", "healthy", "v0.", "linux/amd64")
	has(t, "the builds", c.text("#builds"), "running", evil, "shop on two", "failed", "completed")
	c.is(`[...document.querySelectorAll('#builders tr')].some((r) => r.cells[4] && r.cells[0].textContent.startsWith('two0') && r.cells[4].textContent === '1')`)
	c.is(`[...document.querySelectorAll('#builders .sub')].every((r) => /[0-9] [kM]?B$/.test(r.cells[5].textContent))`)
	c.picture("overview")
	// A filter, by keyboard: the skip link, then the field.
	c.do(chromedp.Focus("#filter", chromedp.ByQuery), chromedp.SendKeys("#filter", "on two", chromedp.ByQuery))
	c.is(`document.querySelectorAll('#builds tr').length === 1`)
	c.do(chromedp.Evaluate(`document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))`, nil))

	// The one that runs, to its end.
	c.do(chromedp.Evaluate(`[...document.querySelectorAll('#builds a')].find((a) => a.textContent === 'running').click()`, nil))
	c.is(`document.querySelector('h1').textContent === 'running' && document.querySelector('.head .badge.running') !== null`)
	c.is(`document.activeElement.id === 'title'`)
	c.click("#tab-log")
	c.is(`document.querySelector('.log').textContent.includes('begun')`)
	close(release)
	c.is(`document.querySelector('.head .badge.completed') !== null && document.querySelector('.log').textContent.includes('ended')`)
	if r := client.Wait(); r.Code != 0 {
		t.Error(r)
	}

	// The one that failed.
	c.do(chromedp.Evaluate(`location.hash = '#/build/one/one0/`+refs[0]+`'`, nil))
	c.is(`document.querySelector('.alarm') !== null && document.querySelector('h1').textContent.includes('onerror=alert')`)
	has(t, "why it failed", c.text(".alarm"), "exit code: 7", "RUN echo")
	c.click("#to-failure")
	c.is(`document.querySelector('.log').textContent.includes("<img src=x onerror=alert(2)>") && document.querySelector('.log').textContent.includes('failing ')`)
	c.picture("failed")

	// Two side by side, and what hangs on one of them.
	c.click("#crumbs a")
	c.is(`document.querySelectorAll('#builds tr').length === 5`)
	for _, ref := range refs[1:3] {
		c.do(chromedp.Evaluate(`document.getElementById('pick-one/one0/`+ref+`').click()`, nil))
	}
	c.is(`!document.getElementById('compare').disabled`)
	c.do(chromedp.Focus("#compare", chromedp.ByQuery))
	c.keys(kb.Enter)
	c.is(`document.querySelectorAll('#differences tbody tr').length > 4 && document.querySelectorAll('.tl').length === 2`)
	has(t, "the comparison", c.text("main"), "s slower", "RUN sleep $T")
	c.picture("compare")
	c.scheme(true)
	c.picture("compare-dark")
	c.do(chromedp.Evaluate(`location.hash = '#/build/one/one0/`+refs[2]+`'`, nil))
	c.is(`document.getElementById('tab-attached') !== null`)
	c.click("#tab-attached")
	c.is(`document.querySelectorAll('#panel-attached tbody tr').length > 0`)
	c.click("#panel-attached summary")
	c.is(`document.querySelector('#panel-attached pre').textContent.includes('{')`)
	c.picture("attachments-dark")
	c.nothing(t, url)
	c.do(chromedp.Navigate("about:blank"))

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
