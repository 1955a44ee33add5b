package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"time"
)

// sizes are the numbers of daemons that the plot shows.
func sizes() []int { return []int{50, 100, 150, 200, 300} }

// curve is a policy's line: the 95th percentile of wait and build, by the number
// of daemons.
type curve struct {
	policy string
	p95    []time.Duration // of each of sizes
}

func curves(kinds []kind) []curve {
	var all []curve
	for _, p := range policies() {
		all = append(all, curve{policy: p.name()})
	}
	w := base(kinds)
	for _, n := range sizes() {
		w.daemons, w.order = n, orders(w.projects, n)
		for i, p := range policies() {
			all[i].p95 = append(all[i].p95, run(w, p).result().turnarounds[1])
		}
	}
	return all
}

// The plot's measures, in SVG's units; they are those of bench/plot.go.
const (
	plotWidth, plotHeight = 720, 400
	plotLeft, plotBottom  = 60, 40
	plotTop, plotRight    = 20, 130
)

// draw is the curves as an SVG: linear in the daemons, logarithmic in the time.
func draw(all []curve) []byte {
	least, most := math.Inf(1), 0.0
	for _, c := range all {
		for _, d := range c.p95 {
			least, most = min(least, d.Seconds()), max(most, d.Seconds())
		}
	}
	bottom, top := math.Floor(math.Log2(least)), math.Ceil(math.Log2(most))
	sizes := sizes()
	x := func(n int) float64 {
		return plotLeft + float64(n-sizes[0])/float64(sizes[len(sizes)-1]-sizes[0])*(plotWidth-plotLeft-plotRight)
	}
	y := func(s float64) float64 {
		return plotHeight - plotBottom - (math.Log2(s)-bottom)/(top-bottom)*(plotHeight-plotBottom-plotTop)
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img" aria-label="Wait and build of 95 percent of the clients, by the number of daemons and the policy">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&w, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	for e := bottom; e <= top; e++ {
		s := math.Exp2(e)
		fmt.Fprintf(&w, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g s</text>`+"\n",
			plotLeft, plotWidth-plotRight, y(s), y(s), plotLeft-8, y(s)+4, s)
	}
	for _, n := range sizes {
		fmt.Fprintf(&w, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(n), plotHeight-plotBottom+18, n)
	}
	fmt.Fprintf(&w, `<text x="%d" y="%d" text-anchor="middle">daemons; 10,000 clients within a minute</text>`+"\n", (plotLeft+plotWidth-plotRight)/2, plotHeight-6)
	styles := []struct{ color, dash string }{{"#0a6", ""}, {"#083", "8 2"}, {"#36c", "2 3"}, {"#c33", "6 3"}}
	var taken []float64
	for i, c := range all {
		var at []string
		for j, d := range c.p95 {
			at = append(at, fmt.Sprintf("%.1f,%.1f", x(sizes[j]), y(d.Seconds())))
		}
		label := apart(y(c.p95[len(c.p95)-1].Seconds())+4, taken)
		taken = append(taken, label)
		s := styles[i%len(styles)]
		fmt.Fprintf(&w, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s"/><text x="%d" y="%.1f" fill="%s">%s</text>`+"\n",
			strings.Join(at, " "), s.color, s.dash, plotWidth-plotRight+6, label, s.color, c.policy)
	}
	fmt.Fprintln(&w, "</svg>")
	return w.Bytes()
}

// apart moves a label up until it covers none of the others.
func apart(at float64, taken []float64) float64 {
	const line = 14
	for moved := true; moved; {
		moved = false
		for _, t := range taken {
			if math.Abs(t-at) < line {
				at, moved = t-line, true
			}
		}
	}
	return at
}
