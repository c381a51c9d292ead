// Package chart draws plots as SVG, for reports that need nothing else to be
// read: no scripts, no fonts, no other files.
package chart

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Lines is a plot of lines with points.
type Lines struct {
	Title, X, Y string // of the plot and its axes
	LogX        bool   // each doubling of x takes the same width; x must be positive
	Series      []Series
}

// Series is one line. Points whose y is NaN are left out.
type Series struct {
	Name string
	X, Y []float64
}

// Bars is a plot of groups of bars, from 0.
type Bars struct {
	Title  string
	Y      string
	Mark   float64 // a line across at this height; 0: none
	Groups []string
	Bars   []Bar
}

// Bar is the bar of that name in each group. NaN draws none.
type Bar struct {
	Name   string
	Values []float64 // one a group
}

const (
	width, height            = 720, 360
	left, right, top, bottom = 64, 16, 40, 76
)

// Readable on white by people who do not see all colours (Okabe and Ito).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"}

// canvas is an SVG under way. Its y axis goes from 0 to most.
type canvas struct {
	strings.Builder
	most float64
}

func newCanvas(title, y string, most float64) *canvas {
	c := &canvas{}
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" role="img" aria-label="%s">`+"\n",
		width, height, width, height, html.EscapeString(title))
	fmt.Fprintf(c, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	c.text(width/2, 20, "middle", `font-size="15"`, title)
	c.text(14, (top+height-bottom)/2, "middle", fmt.Sprintf(`transform="rotate(-90 14 %d)"`, (top+height-bottom)/2), y)
	step := tick(most)
	c.most = max(step, math.Ceil(most/step)*step)
	for i := 0.0; i <= c.most+step/2; i += step {
		fmt.Fprintf(c, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#dddddd"/>`+"\n", left, width-right, c.y(i), c.y(i))
		c.text(left-6, c.y(i)+4, "end", "", number(i))
	}
	return c
}

func (c *canvas) y(v float64) float64 { return top + (1-v/c.most)*(height-bottom-top) }

func (c *canvas) text(x, y float64, anchor, more, s string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="#222222" %s>%s</text>`+"\n", x, y, anchor, more, html.EscapeString(s))
}

// legend names the colours, in a row below the plot.
func (c *canvas) legend(names []string) {
	x := float64(left)
	for i, name := range names {
		fmt.Fprintf(c, `<rect x="%.1f" y="%d" width="12" height="12" fill="%s"/>`+"\n", x, height-22, colours[i%len(colours)])
		c.text(x+16, height-12, "start", "", name)
		x += 32 + 6.5*float64(len(name))
	}
}

// tick returns a distance of 1, 2 or 5 times a power of ten that divides most
// into about five parts.
func tick(most float64) float64 {
	if most <= 0 || math.IsInf(most, 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, f := range []float64{1, 2, 5} {
		if most/(f*power) <= 6 {
			return f * power
		}
	}
	return 10 * power
}

// number is v with at most four digits that count.
func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// largest returns the largest of the numbers that are not NaN, at least 0.
func largest(list []float64) (most float64) {
	for _, v := range list {
		if v > most {
			most = v
		}
	}
	return most
}

// SVG draws the plot.
func (p *Lines) SVG() string {
	least, most, top := math.Inf(1), math.Inf(-1), 0.0
	scale := func(x float64) float64 {
		if p.LogX {
			return math.Log2(x)
		}
		return x
	}
	var ticks []float64 // every x that has a point
	for _, s := range p.Series {
		top = max(top, largest(s.Y))
		for _, x := range s.X {
			least, most = min(least, scale(x)), max(most, scale(x))
			ticks = append(ticks, x)
		}
	}
	c := newCanvas(p.Title, p.Y, top)
	at := func(x float64) float64 {
		if most <= least {
			return (left + width - right) / 2
		}
		return left + 12 + (scale(x)-least)/(most-least)*(width-right-left-24)
	}
	drawn := map[int]bool{} // columns of 28 pixels that have a label
	for _, x := range ticks {
		if column := int(at(x) / 28); !drawn[column] {
			drawn[column] = true
			c.text(at(x), height-bottom+18, "middle", "", number(x))
		}
	}
	c.text((left+width-right)/2, height-bottom+36, "middle", "", p.X)
	var names []string
	for i, s := range p.Series {
		names = append(names, s.Name)
		colour := colours[i%len(colours)]
		var points []string
		for k, x := range s.X {
			if !math.IsNaN(s.Y[k]) {
				points = append(points, fmt.Sprintf("%.1f,%.1f", at(x), c.y(s.Y[k])))
			}
		}
		fmt.Fprintf(c, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colour)
		for _, point := range points {
			x, y, _ := strings.Cut(point, ",")
			fmt.Fprintf(c, `<circle cx="%s" cy="%s" r="3" fill="%s"/>`+"\n", x, y, colour)
		}
	}
	c.legend(names)
	c.WriteString("</svg>\n")
	return c.String()
}

// SVG draws the plot.
func (p *Bars) SVG() string {
	most := p.Mark
	for _, b := range p.Bars {
		most = max(most, largest(b.Values))
	}
	c := newCanvas(p.Title, p.Y, most)
	group := float64(width-right-left) / float64(max(1, len(p.Groups)))
	bar := group * 0.8 / float64(max(1, len(p.Bars)))
	var names []string
	for i, b := range p.Bars {
		names = append(names, b.Name)
		for g, v := range b.Values {
			if math.IsNaN(v) {
				continue
			}
			x := left + float64(g)*group + group*0.1 + float64(i)*bar
			fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s, %s: %s</title></rect>`+"\n",
				x, c.y(v), bar*0.92, c.y(0)-c.y(v), colours[i%len(colours)], html.EscapeString(p.Groups[g]), html.EscapeString(b.Name), number(v))
			c.text(x+bar*0.46, c.y(v)-3, "middle", `font-size="10"`, strconv.FormatFloat(v, 'g', 3, 64))
		}
	}
	for g, name := range p.Groups {
		// Two lines if there are two words: bars are narrow.
		first, second, _ := strings.Cut(name, ", ")
		c.text(left+(float64(g)+0.5)*group, height-bottom+16, "middle", "", first)
		c.text(left+(float64(g)+0.5)*group, height-bottom+30, "middle", "", second)
	}
	if p.Mark > 0 {
		fmt.Fprintf(c, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#222222" stroke-dasharray="6 3"/>`+"\n", left, width-right, c.y(p.Mark), c.y(p.Mark))
	}
	c.legend(names)
	c.WriteString("</svg>\n")
	return c.String()
}
