package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Colours that can be read on white and on black.
const (
	ink  = "#768390"
	rule = "#76839055"
)

var colours = []string{"#2f81f7", "#e0823d", "#8957e5", "#2da44e", "#d6409f", "#768390"}

// A drawing is an SVG.
type drawing struct {
	strings.Builder
	width, height float64
}

func newDrawing(width, height float64, title string) *drawing {
	d := &drawing{width: width, height: height}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img" font-family="system-ui, sans-serif" font-size="12">`+"\n",
		width, height, width, height)
	fmt.Fprintf(d, "<title>%s</title>\n", html.EscapeString(title))
	fmt.Fprintf(d, `<text x="12" y="24" font-size="15" font-weight="600" fill="%s">%s</text>`+"\n", ink, html.EscapeString(title))
	return d
}

func (d *drawing) text(x, y float64, anchor, text string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, ink, html.EscapeString(text))
}

func (d *drawing) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
}

func (d *drawing) rect(x, y, width, height float64, colour string) {
	fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5" fill="%s"/>`+"\n", x, y, width, height, colour)
}

// legend names the colours, in a line that begins at x.
func (d *drawing) legend(x, y float64, names, colours []string) {
	for i, name := range names {
		d.rect(x, y-9, 10, 10, colours[i])
		d.text(x+15, y, "start", name)
		x += 38 + 6.4*float64(len(name))
	}
}

func (d *drawing) end() string { return d.String() + "</svg>\n" }

// bars shows the time of each library as a multiple of the time by hand, for the scenarios in which that says
// something.
func bars(rows []row) string {
	libs := []string{"scs", "gorilla", "sessplus"}
	paint := []string{colours[1], colours[2], colours[0]}
	const left, right, top, bar = 150.0, 60.0, 84.0, 11.0
	const width, least, most = 760.0, 0.25, 64.0
	var shown []row
	bottom := top
	for _, r := range rows {
		if strings.Contains(r.Goal, "hand") { // in the others that is next to nothing
			shown = append(shown, r)
			bottom += bar*float64(len(r.Libs)-hands(r)) + 9
		}
	}
	d := newDrawing(width, bottom+30, "Time of one request, as a multiple of code written by hand")
	d.legend(12, 48, libs, paint)
	d.text(width-12, 48, "end", "shorter is better")
	at := func(ratio float64) float64 {
		ratio = min(max(ratio, least*1.02), most)
		return left + (width-left-right)*math.Log(ratio/least)/math.Log(most/least)
	}
	for tick := least; tick <= most; tick *= 2 {
		colour := rule
		if tick == 1 {
			colour = ink
		}
		d.line(at(tick), top-6, at(tick), bottom, colour)
		d.text(at(tick), top-12, "middle", fmt.Sprintf("%g", tick))
	}
	d.text(at(1), bottom+18, "middle", "by hand")
	y := top
	for _, r := range shown {
		from := y
		for i, lib := range libs {
			if ratio, ok := r.Ratios[lib]; ok {
				d.rect(left, y, at(ratio)-left, bar-1.5, paint[i])
				d.text(at(ratio)+5, y+bar-2, "start", fmt.Sprintf("%.2f", ratio))
				y += bar
			}
		}
		d.text(left-10, (from+y)/2+4, "end", r.Scenario)
		y += 9
	}
	return d.end()
}

// hands counts the ways by hand in the row.
func hands(r row) (n int) {
	for name := range r.Libs {
		if strings.HasPrefix(name, "hand") {
			n++
		}
	}
	return n
}

// A plot is how something grows.
type plot struct {
	Name  string   `json:"name"`
	Title string   `json:"title"`
	X     []string `json:"x"`
	Y     string   `json:"y"` // what, and in which unit
	Lines []series `json:"lines"`
}

type series struct {
	Name string    `json:"name"`
	Y    []float64 `json:"y"` // one for each X
}

// svg draws the plot with a logarithmic axis.
func (p plot) svg() string {
	const width, left, right, top, high = 640.0, 64.0, 24.0, 84.0, 260.0
	legends := float64((len(p.Lines) + 1) / 2)
	d := newDrawing(width, top+high+36+18*legends, p.Title)
	d.text(12, 46, "start", p.Y)
	least, most := math.Inf(1), math.Inf(-1)
	for _, l := range p.Lines {
		for _, y := range l.Y {
			least, most = min(least, y), max(most, y)
		}
	}
	low, up := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	up = max(up, low+1)
	at := func(y float64) float64 { return top + high*(1-(math.Log10(y)-low)/(up-low)) }
	column := func(i int) float64 { return left + 20 + (width-left-right-40)*float64(i)/float64(max(1, len(p.X)-1)) }
	for power := low; power <= up; power++ {
		y := at(math.Pow(10, power))
		d.line(left, y, width-right, y, rule)
		d.text(left-8, y+4, "end", fmt.Sprintf("%.12g", math.Pow(10, power)))
	}
	for i, x := range p.X {
		d.text(column(i), top+high+20, "middle", x)
	}
	for i, l := range p.Lines {
		colour := colours[i%len(colours)]
		var points []string
		for k, y := range l.Y {
			points = append(points, fmt.Sprintf("%.1f,%.1f", column(k), at(y)))
			fmt.Fprintf(d, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", column(k), at(y), colour)
		}
		fmt.Fprintf(d, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colour)
		d.legend(left+float64(i%2)*280, top+high+46+18*float64(i/2), []string{l.Name}, []string{colour})
	}
	return d.end()
}

func (p plot) table() *table {
	t := &table{}
	t.line(append([]string{""}, p.X...)...)
	for _, l := range p.Lines {
		cells := []string{l.Name}
		for _, y := range l.Y {
			format := "%.4g"
			if y >= 10_000 {
				format = "%.0f" // without an exponent
			}
			cells = append(cells, fmt.Sprintf(format, y))
		}
		t.line(cells...)
	}
	return t
}
