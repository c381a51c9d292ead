package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// elements parses an SVG and returns the attributes of its elements of a name, and
// all of its text.
func elements(t *testing.T, svg, name string) (list []map[string]string, text []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return list, text
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if e.Name.Local == name {
				m := map[string]string{}
				for _, a := range e.Attr {
					m[a.Name.Local] = a.Value
				}
				list = append(list, m)
			}
		case xml.CharData:
			if s := strings.TrimSpace(string(e)); s != "" {
				text = append(text, s)
			}
		}
	}
}

func f(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLines(t *testing.T) {
	p := Lines{Title: `a < b & "c"`, X: "clients", Y: "ms", LogX: true, Series: []Series{
		{Name: "p50", X: []float64{1, 2, 4}, Y: []float64{10, 20, 40}},
		{Name: "p99", X: []float64{1, 2, 4}, Y: []float64{50, math.NaN(), 100}},
	}}
	circles, text := elements(t, p.SVG(), "circle")
	if len(circles) != 5 {
		t.Fatalf("%d points, want 5: NaN is left out", len(circles))
	}
	x, y := func(i int) float64 { return f(t, circles[i]["cx"]) }, func(i int) float64 { return f(t, circles[i]["cy"]) }
	if d1, d2 := x(1)-x(0), x(2)-x(1); d1 <= 0 || math.Abs(d1-d2) > 0.2 {
		t.Errorf("doublings are %v and %v wide", d1, d2)
	}
	// From 10 to 20 is half as high as from 20 to 40, and y goes down.
	if d1, d2 := y(0)-y(1), y(1)-y(2); d1 <= 0 || math.Abs(2*d1-d2) > 0.3 {
		t.Errorf("10 → 20 is %v high, 20 → 40 %v", d1, d2)
	}
	for _, want := range []string{p.Title, "clients", "ms", "p50", "p99", "4", "100"} {
		if !slices.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}

func TestBars(t *testing.T) {
	p := Bars{Title: "t", Y: "ratio", Mark: 1, Groups: []string{"decode, 1 stream", "prefill"}, Bars: []Bar{
		{Name: "int8", Values: []float64{1, 2}},
		{Name: "int4", Values: []float64{math.NaN(), 4}},
	}}
	rects, text := elements(t, p.SVG(), "rect")
	var heights []float64
	for _, r := range rects[1 : len(rects)-2] { // the first is the paper, the last two the legend's
		heights = append(heights, f(t, r["height"]))
	}
	if len(heights) != 3 || math.Abs(heights[1]-2*heights[0]) > 0.3 || math.Abs(heights[2]-4*heights[0]) > 0.5 {
		t.Errorf("bars are %v high, want 1, 2 and 4 parts", heights)
	}
	if lines, _ := elements(t, p.SVG(), "line"); f(t, lines[len(lines)-1]["y1"]) != f(t, rects[1]["y"]) {
		t.Error("the mark is not at the height of 1")
	}
	if !slices.Contains(text, "decode") || !slices.Contains(text, "1 stream") {
		t.Errorf("the group's name is not on two lines: %q", text)
	}
}

func TestTick(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 1: 0.2, 7: 2, 40: 10, 100: 20, 101: 20, 0.03: 0.005, math.Inf(1): 1} {
		if got := tick(most); math.Abs(got-want) > want/1e6 {
			t.Errorf("tick(%v) = %v, want %v", most, got, want)
		}
	}
}

// What has no points, or only one, is drawn all the same.
func TestEmpty(t *testing.T) {
	for _, svg := range []string{
		(&Lines{}).SVG(),
		(&Lines{Series: []Series{{Name: "one", X: []float64{3}, Y: []float64{0}}}}).SVG(),
		(&Bars{}).SVG(),
	} {
		if elements(t, svg, "svg"); strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("no number in\n%s", svg)
		}
	}
}
