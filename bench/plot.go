package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// plotSizes are the numbers of files that the plot shows.
func plotSizes() []int { return []int{1_000, 10_000, 50_000, 100_000, 200_000} }

// point is the median of builds of an unchanged context of so many files, by tool.
type point struct {
	files int
	wall  map[string]time.Duration
}

// measurePlot builds unchanged contexts of more and more files.
func (b *bench) measurePlot(ctx context.Context) ([]point, error) {
	if b.plot == "" {
		return nil, nil
	}
	var points []point
	for _, n := range plotSizes() {
		dir, err := b.contextOf(fmt.Sprintf("plot-%d", n), bindAll)
		if err != nil {
			return nil, err
		}
		for i := range n {
			folder := filepath.Join(dir, "large", fmt.Sprintf("f%04d", i/100))
			if i%100 == 0 {
				if err := os.MkdirAll(folder, 0o755); err != nil {
					return nil, err
				}
			}
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%02d", i%100)), fmt.Appendf(nil, "%0200d", i), 0o644); err != nil {
				return nil, err
			}
		}
		s := b.upload(fmt.Sprintf("an unchanged context of %d files", n), dir, nil)
		all := map[string][]sample{}
		for i := -1; i < b.heavyRuns; i++ {
			for _, tool := range b.tools() {
				one, err := b.measureOne(ctx, tool, s)
				if err != nil {
					return nil, err
				}
				if i >= 0 {
					all[tool.name] = append(all[tool.name], one)
				}
			}
		}
		p := point{files: n, wall: map[string]time.Duration{}}
		for name, list := range all {
			p.wall[name] = median(list, func(s sample) time.Duration { return s.wall })
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", s.title, p.wall)
		points = append(points, p)
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	return points, os.WriteFile(b.plot, draw(points), 0o644)
}

// The plot's measures, in SVG's units.
const (
	plotWidth, plotHeight = 720, 400
	plotLeft, plotBottom  = 60, 40
	plotTop, plotRight    = 20, 120
)

// draw is the points as an SVG, linear on both axes.
func draw(points []point) []byte {
	var most time.Duration
	for _, p := range points {
		for _, w := range p.wall {
			most = max(most, w)
		}
	}
	top := float64((most/time.Second + 1) * time.Second)
	x := func(files int) float64 {
		return plotLeft + float64(files)/float64(points[len(points)-1].files)*(plotWidth-plotLeft-plotRight)
	}
	y := func(d time.Duration) float64 {
		return plotHeight - plotBottom - float64(d)/top*(plotHeight-plotBottom-plotTop)
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img" aria-label="Time of a build by the number of files of its unchanged context">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&w, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	for s := time.Duration(0); float64(s) <= top; s += time.Second {
		fmt.Fprintf(&w, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%d s</text>`+"\n",
			plotLeft, plotWidth-plotRight, y(s), y(s), plotLeft-8, y(s)+4, int(s.Seconds()))
	}
	for _, p := range points {
		fmt.Fprintf(&w, `<text x="%.1f" y="%d" text-anchor="middle">%dk</text>`+"\n", x(p.files), plotHeight-plotBottom+18, p.files/1000)
	}
	fmt.Fprintf(&w, `<text x="%d" y="%d" text-anchor="middle">files in the context, none changed</text>`+"\n", (plotLeft+plotWidth-plotRight)/2, plotHeight-6)
	for _, line := range []struct{ tool, color, dash string }{{"berth", "#0a6", ""}, {"buildx", "#c33", "6 3"}, {"buildctl", "#36c", "2 3"}} {
		var at []string
		var last time.Duration
		for _, p := range points {
			if d, ok := p.wall[line.tool]; ok {
				last = d
				at = append(at, fmt.Sprintf("%.1f,%.1f", x(p.files), y(d)))
			}
		}
		if len(at) == 0 {
			continue
		}
		fmt.Fprintf(&w, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s"/><text x="%d" y="%.1f" fill="%s">%s %.2f s</text>`+"\n",
			strings.Join(at, " "), line.color, line.dash, plotWidth-plotRight+6, y(last)+4, line.color, line.tool, last.Seconds())
	}
	fmt.Fprintln(&w, "</svg>")
	return w.Bytes()
}
