package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// table is a scenario's result.
type table struct {
	scenario scenario
	samples  map[string][]sample // by tool
}

// write makes the page.
func (b *bench) write(tables []table, contexts *transfers, points []point) error {
	var w bytes.Buffer
	if err := b.head(&w); err != nil {
		return err
	}
	for _, t := range tables {
		b.section(&w, t)
	}
	b.contexts(&w, contexts)
	if len(points) > 0 {
		fmt.Fprintf(&w, "\n## How the cost of an unchanged context grows\n\n![Time of a build by the number of files of its context, none of which has changed](%s)\n", filepath.Base(b.plot))
	}
	if err := b.sizes(&w); err != nil {
		return err
	}
	if b.out == "" {
		_, err := os.Stdout.Write(w.Bytes())
		return err
	}
	return os.WriteFile(b.out, w.Bytes(), 0o644)
}

func (b *bench) head(w *bytes.Buffer) error {
	least, err := floor()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "# Benchmarks\n\n")
	fmt.Fprintf(w, "Made by `make bench` on %s; the program is in `bench/`.\n\n", time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(w, "Machine: %s. Tools: %s.\n\n", machine(), strings.Join(b.versions(), ", "))
	fmt.Fprintf(w, "Each number is the median of %d calls, the tools taking turns, against one buildkitd on loopback with mutual TLS, or one behind the scheme that is named. ", b.runs)
	fmt.Fprintf(w, "CPU is user and system time of the client's process, without that of programs that it leaves running (`ssh`, `docker`, `kubectl`); memory is its peak resident set ")
	fmt.Fprintf(w, "(a program that does nothing is measured with %s). The ratios are berth's share of the other's.\n", mib(least))
	return nil
}

func (b *bench) versions() []string {
	var list []string
	for _, t := range b.tools() {
		arg := "version"
		if t.name == "buildctl" {
			arg = "--version"
		}
		cmd := exec.Command(t.path, arg)
		cmd.Env = b.env(t.name, "one")
		out, err := cmd.Output()
		if err != nil {
			out = []byte(err.Error())
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		list = append(list, fmt.Sprintf("%s (`%s`)", t.name, strings.TrimSpace(first)))
	}
	return list
}

// section is one scenario's table.
func (b *bench) section(w *bytes.Buffer, t table) {
	fmt.Fprintf(w, "\n## %s\n\n", strings.ToUpper(t.scenario.title[:1])+t.scenario.title[1:])
	if t.scenario.runs > 0 {
		fmt.Fprintf(w, "The median of %d calls each.\n\n", t.scenario.runs)
	}
	cols := []struct {
		name string
		of   func([]sample) (float64, string)
		use  bool
	}{
		{"first live row", duration(func(s sample) time.Duration { return s.first }), t.scenario.terminal != ""},
		{"wall", duration(func(s sample) time.Duration { return s.wall }), true},
		{"CPU", duration(func(s sample) time.Duration { return s.cpu }), true},
		{"memory", func(list []sample) (float64, string) {
			m := median(list, func(s sample) int64 { return s.rss })
			return float64(m), mib(m)
		}, true},
		{"the step", duration(func(s sample) time.Duration { return s.step }), t.scenario.step != ""},
		{"daemon's CPU", duration(func(s sample) time.Duration { return s.daemon }), t.scenario.daemon},
		{"bytes moved", func(list []sample) (float64, string) {
			m := median(list, func(s sample) int64 { return s.moved })
			return float64(m), fmt.Sprintf("%.2f MB", float64(m)/1e6)
		}, t.scenario.link != nil},
	}
	fmt.Fprint(w, "| |")
	rule := "|---|"
	for _, c := range cols {
		if c.use {
			fmt.Fprintf(w, " %s |", c.name)
			rule += "---:|"
		}
	}
	fmt.Fprintf(w, "\n%s\n", rule)
	values := map[string][]float64{}
	for _, tool := range b.tools() {
		if len(t.samples[tool.name]) == 0 {
			continue
		}
		fmt.Fprintf(w, "| %s |", tool.name)
		for _, c := range cols {
			if c.use {
				v, text := c.of(t.samples[tool.name])
				values[tool.name] = append(values[tool.name], v)
				fmt.Fprintf(w, " %s |", text)
			}
		}
		fmt.Fprintln(w)
	}
	ratios(w, values)
}

// ratios adds a row for each peer.
func ratios(w *bytes.Buffer, values map[string][]float64) {
	for _, peer := range []string{"buildx", "buildctl"} {
		if values["berth"] == nil || values[peer] == nil {
			continue
		}
		fmt.Fprintf(w, "| berth / %s |", peer)
		for i, v := range values["berth"] {
			if values[peer][i] == 0 {
				fmt.Fprint(w, " |")
				continue
			}
			ratio, digits := v/values[peer][i], 2
			if ratio < 0.01 {
				digits = 4
			}
			fmt.Fprintf(w, " **%.*f** |", digits, ratio)
		}
		fmt.Fprintln(w)
	}
}

// contexts is the table of how fast a large context went each way. Its ratios
// are of throughput.
func (b *bench) contexts(w *bytes.Buffer, t *transfers) {
	if t == nil {
		return
	}
	fmt.Fprintf(w, "\n## A build with a context of %d MiB, nothing of it known to the daemon\n\n", b.contextMiB)
	fmt.Fprintf(w, "The median of %d calls each, the ways taking turns; MiB/s is the context by the whole time of the call.\n\n", b.contextRuns)
	fmt.Fprint(w, "| | wall | MiB/s | CPU | memory |\n|---|---:|---:|---:|---:|\n")
	speed := map[string]float64{}
	for i, r := range t.routes {
		wall := median(t.samples[i], func(s sample) time.Duration { return s.wall })
		cpu := median(t.samples[i], func(s sample) time.Duration { return s.cpu })
		name := r.tool.name + ", " + r.peer.Scheme
		speed[name] = float64(b.contextMiB) / wall.Seconds()
		fmt.Fprintf(w, "| %s | %.2f s | %.0f | %.2f s | %s |\n", name, wall.Seconds(), speed[name], cpu.Seconds(),
			mib(median(t.samples[i], func(s sample) int64 { return s.rss })))
	}
	fmt.Fprint(w, "\n| throughput | |\n|---|---:|\n")
	row := func(a, of string) {
		if speed[a] > 0 && speed[of] > 0 {
			fmt.Fprintf(w, "| %s / %s | **%.2f** |\n", a, of, speed[a]/speed[of])
		}
	}
	for _, p := range b.peers {
		row("berth, "+p.Scheme, "buildx, "+p.Scheme)
		if p.Scheme != "unix" {
			row("berth, "+p.Scheme, "berth, unix")
		}
	}
}

func (b *bench) sizes(w *bytes.Buffer) error {
	fmt.Fprint(w, "\n## Size of the binary\n\n| | size |\n|---|---:|\n")
	values := map[string][]float64{}
	for _, t := range b.tools() {
		n, err := size(t.path)
		if err != nil {
			return err
		}
		values[t.name] = []float64{float64(n)}
		fmt.Fprintf(w, "| %s | %s |\n", t.name, mib(n))
	}
	ratios(w, values)
	return nil
}

func duration(of func(sample) time.Duration) func([]sample) (float64, string) {
	return func(list []sample) (float64, string) {
		d := median(list, of)
		return float64(d), fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// machine says what matters of it: processor, memory, kernel, Go.
func machine() string {
	var memory string
	for line := range fileLines("/proc/meminfo") {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kib); n == 1 {
			memory = fmt.Sprintf(", %.0f GiB of memory", float64(kib)/(1<<20))
		}
	}
	cpu := ""
	for line := range fileLines("/proc/cpuinfo") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			cpu = " (" + strings.TrimSpace(value) + ")"
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-") // what follows names somebody's build
	return fmt.Sprintf("%d cores%s%s, %s/%s, kernel %s, %s", runtime.NumCPU(), cpu, memory, runtime.GOOS, runtime.GOARCH,
		cmp.Or(release, "unknown"), runtime.Version())
}

// fileLines are those of a file; none when it cannot be read.
func fileLines(path string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		f, err := os.Open(path)
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if !yield(lines.Text()) {
				return
			}
		}
	}
}
