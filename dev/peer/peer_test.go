package main

import (
	"math"
	"strings"
	"testing"
)

func testResult() *result {
	r := &result{Peaks: &peaks{Read: 20e9, FMA: 200e9, Dot: 600e9}, settings: &settings{shapes: []string{"tiny"}, pairs: []pair{{"int8", "Q8_0"}, {"int4", "Q4_0"}}}}
	for _, m := range []measurement{
		{Shape: "tiny", Test: testWeights, Streams: 1, Engine: millrace, Format: "int8", Unit: megabytes, Value: 500},
		{Shape: "tiny", Test: testDecode, Streams: 1, Engine: millrace, Format: "int8", Unit: tokensPerSecond, Value: 30},
		{Shape: "tiny", Test: testDecode, Streams: 1, Engine: millrace, Format: "int8", Unit: tokensPerSecond, Value: 36}, // a better round
		{Shape: "tiny", Test: testDecode, Streams: 1, Engine: millrace, Format: "int8", Unit: tokensPerSecond, Value: 12},
		{Shape: "tiny", Test: testDecode, Streams: 1, Engine: llama, Format: "Q8_0", Unit: tokensPerSecond, Value: 24},
		{Shape: "tiny", Test: testStart, Streams: 1, Engine: millrace, Format: "int8", Unit: seconds, Value: 0.4},
		{Shape: "tiny", Test: testStart, Streams: 1, Engine: millrace, Format: "int8", Unit: seconds, Value: 0.2},
		{Shape: "tiny", Test: testStart, Streams: 1, Engine: llama, Format: "Q8_0", Unit: seconds, Value: 0.6},
	} {
		r.add(m)
	}
	r.Operations = map[string]float64{"tiny": 1e9}
	r.add(prefill(measurement{Shape: "tiny", Engine: millrace, Format: "int8"}, 512, 300))
	r.add(prefill(measurement{Shape: "tiny", Engine: llama, Format: "BF16"}, 512, 50))
	r.shares()
	return r
}

// The best of all rounds counts, a ratio above 1 always says that ours is better,
// and what was not measured is not a number.
func TestRatios(t *testing.T) {
	got := map[string]float64{}
	for _, o := range testResult().rows() {
		got[o.name()] = o.cells[0].ratio
		if !math.IsNaN(o.cells[1].ratio) {
			t.Errorf("%s: int4 was not measured, its ratio is %v", o.name(), o.cells[1].ratio)
		}
	}
	for name, want := range map[string]float64{"decode, 1 stream": 1.5, testStart: 3} {
		if math.Abs(got[name]-want) > 1e-9 {
			t.Errorf("%s: ratio %v, want %v", name, got[name], want)
		}
	}
}

// 36 tokens a second of 500 MB each are 18 of 20 GB/s; 300 tokens of a billion
// operations are half of what int8 allows, 50 a quarter of what float32 does.
func TestShares(t *testing.T) {
	r := testResult()
	if got := r.find(measurement{Shape: "tiny", Test: testBandwidth, Streams: 1, Engine: millrace, Format: "int8"}); math.Abs(got-90) > 1e-9 {
		t.Errorf("%v %% of the bandwidth, want 90", got)
	}
	for of, want := range map[measurement]float64{
		{Shape: "tiny", Test: testArithmetic, Streams: 1, Engine: millrace, Format: "int8"}: 50,
		{Shape: "tiny", Test: testArithmetic, Streams: 1, Engine: llama, Format: "BF16"}:    25,
	} {
		if got := r.find(of); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v %% of the peak, want %v", of.Format, got, want)
		}
	}
}

func TestPage(t *testing.T) {
	r := testResult()
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	page := string(r.markdown())
	for _, want := range []string{"## tiny", "| decode, 1 stream, tokens/s | 36.0 | 24.0 | 1.50× | - | - | - |", "tiny.svg"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if svg := string(r.plots()["tiny.svg"]); !strings.Contains(svg, "int8 beside Q8_0") || strings.Contains(svg, "int4") {
		t.Errorf("the plot should show the pair that was measured alone:\n%s", svg)
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ pairs, part, err string }{
		{"int8:Q8_0,Q4_K_M:Q4_K_M", partDecode, ""},
		{"int8", partDecode, "expected ours:theirs"},
		{"int8:Q8_0", "decoding", "expected one of peaks"},
	} {
		s := settings{parts: []string{tt.part}}
		if err := s.parse(tt.pairs); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: err %v", tt, err)
		}
	}
}
