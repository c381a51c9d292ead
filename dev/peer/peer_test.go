package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	data, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, want := range []string{"## tiny", "| decode, 1 stream, tokens/s | 36.0 | 24.0 | 1.50× | - | - | - |", "(tiny.svg)", "- **prefill**: tokens", "- **decode**: tokens", "[peer.json](peer.json)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "HTTP load") {
		t.Errorf("the page explains what was not measured:\n%s", page)
	}
	if svg := string(r.plots()["tiny.svg"]); !strings.Contains(svg, "int8 beside Q8_0") || strings.Contains(svg, "int4") {
		t.Errorf("the plot should show the pair that was measured alone:\n%s", svg)
	}
}

// Pages of an instruction set lie beside that of the machine's best, which links them.
func TestPageOfInstructionSet(t *testing.T) {
	dir := t.TempDir()
	for _, isa := range []string{"avx2", ""} {
		r := testResult()
		r.settings.isa = isa
		if err := r.write(dir); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"README.md": "(avx2.md)", "avx2.md": "(tiny-avx2.svg)", "avx2.json": "decode", "tiny.svg": "int8", "tiny-avx2.svg": "int8"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s lacks %q: err %v", name, want, err)
		}
	}
}

// A folder in our formats is written again after the program has changed, and the
// file in BF16 stays only where it is measured.
func TestMake(t *testing.T) {
	dir := t.TempDir()
	script := func(path, text string) string {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	log := filepath.Join(dir, "log")
	script(filepath.Join(dir, "venv/bin/python"), "echo python >>"+log+"; mkdir $2/hf; touch $2/BF16.gguf")
	script(filepath.Join(dir, "llama/bin/llama-quantize"), "echo $3 >>"+log+"; touch $2")
	program := script(filepath.Join(dir, "millrace"), "echo $5 >>"+log+"; mkdir $3")
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(program, past, past); err != nil {
		t.Fatal(err)
	}
	m := &model{name: "tiny", dir: filepath.Join(dir, "tiny"), settings: &settings{dir: dir, millrace: program}}
	steps := []struct {
		name   string
		pairs  []pair
		before func()
		want   string
		kept   bool
	}{
		{name: "everything", pairs: []pair{{"bf16", "BF16"}, {"int8", "Q8_0"}}, want: "python Q8_0 int8", kept: true},
		{name: "nothing is missing", pairs: []pair{{"int8", "Q8_0"}}},
		{name: "a type more", pairs: []pair{{"int8", "Q8_0"}, {"Q4_0", "Q4_K_M"}}, want: "python Q4_K_M Q4_0"},
		{name: "a newer program", pairs: []pair{{"int8", "Q8_0"}}, want: "int8", before: func() {
			future := time.Now().Add(time.Hour)
			if err := os.Chtimes(program, future, future); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range steps {
		if tt.before != nil {
			tt.before()
		}
		_ = os.Remove(log) // not there after a step that made nothing
		if err := m.make(tt.pairs); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		data, _ := os.ReadFile(log) // no file: nothing was made
		if got := strings.Join(strings.Fields(string(data)), " "); got != tt.want {
			t.Errorf("%s: made %q, want %q", tt.name, got, tt.want)
		}
		if _, err := os.Stat(m.gguf("BF16")); (err == nil) != tt.kept {
			t.Errorf("%s: BF16.gguf is there: %v, want %v", tt.name, err == nil, tt.kept)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ pairs, streams, part, isa, err string }{
		{"int8:Q8_0,Q4_K_M:Q4_K_M", "1,8", partDecode, "avx2", ""},
		{"int8", "1", partDecode, "", "expected ours:theirs"},
		{"int8:Q8_0", "1", "decoding", "", "expected one of peaks"},
		{"int8:Q8_0", "1,33", partDecode, "", "expected numbers from 1 to 32"},
		{"int8:Q8_0", "1", partDecode, "avx", "expected avx2"},
		{"int8:Q8_0", "1", partLoad, "avx2", "need programs"},
	} {
		s := settings{parts: []string{tt.part}, isa: tt.isa}
		if err := s.parse(tt.pairs, tt.streams); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: err %v", tt, err)
		}
	}
}

// A tower has formats of its own, beside all of which ours is the checkpoint's; it has no
// plot, and seconds are better when fewer.
func TestTowerTable(t *testing.T) {
	r := testResult()
	r.add(measurement{Shape: towerShape, Test: testImage, Streams: 1, Engine: millrace, Format: "bf16", Unit: seconds, Value: 0.5})
	r.add(measurement{Shape: towerShape, Test: testImage, Streams: 1, Engine: llama, Format: "F16", Unit: seconds, Value: 0.75})
	page := string(r.markdown("peer.json", ""))
	for _, want := range []string{
		"## siglip-base\n\n| | bf16 | BF16 | ratio | bf16 | F16 | ratio | bf16 | F32 | ratio |\n",
		"| image, s | 0.5 | - | - | 0.5 | 0.75 | 1.50× | 0.5 | - | - |\n", "- **image**: seconds",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if d := distance([]float32{3, 4}, []float32{3, 3}); math.Abs(d-0.2) > 1e-9 {
		t.Errorf("a distance of %v, want 0.2", d)
	}
	if d := distance([]float32{3}, nil); !math.IsNaN(d) {
		t.Errorf("rows of other lengths are %v apart", d)
	}
}
