package loader

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// writeTo writes checkpoint c to a folder and opens it.
func writeTo(t *testing.T, c *weights.Checkpoint, quantize plan.Quantize) *weights.Checkpoint {
	t.Helper()
	written, err := weights.Open(writtenFolder(t, c, quantize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { written.Close() })
	return written
}

// writtenFolder writes checkpoint c to a folder.
func writtenFolder(t *testing.T, c *weights.Checkpoint, quantize plan.Quantize) string {
	t.Helper()
	_, p, err := Plan(c, true)
	if err != nil {
		t.Fatal(err)
	}
	p.Quantize = quantize
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := Write(f, p, c, Recipe{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := w.Config(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() < w.Bytes || info.Size() > w.Bytes+64<<10 {
		t.Errorf("%d bytes of a file, %d of tensors said", info.Size(), w.Bytes)
	}
	return dir
}

// streamed is the checkpoint in a folder as a store that streams pieces from the last to
// the first.
func streamed(t *testing.T, dir string) *weights.Checkpoint {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := weights.OpenStore(&backwards{fstest.MapFS{"config.json": {Data: config}, "model.safetensors": {}}, data})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestWrite: what is written loads as what it was written from does with the same
// --quantize, bit for bit where plans are lowered.
func TestWrite(t *testing.T) {
	open := func(name string) func(*testing.T) *weights.Checkpoint {
		return func(t *testing.T) *weights.Checkpoint {
			c, err := weights.Open(filepath.Join("..", "testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
	}
	for _, name := range []string{"llama", "llama-tied-bf16", "qwen3-moe", "gemma3-vision", "mamba2", "phi3", "llama-awq", "llama-fp8-block", "llama-gptq-act-order", "llama-bnb-nf4-double", "llama-ct-nvfp4"} {
		for _, quantize := range []plan.Quantize{plan.QuantizeInt8, plan.QuantizeInt4} {
			from := open(name)
			dir := writtenFolder(t, from(t), quantize)
			folder, err := weights.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { folder.Close() })
			for _, way := range []struct {
				lowered, adopts bool
				written         *weights.Checkpoint
			}{{false, false, folder}, {true, false, folder}, {true, true, folder}, {true, true, streamed(t, dir)}, {false, true, folder}} {
				lowered := way.lowered
				want, got := &weightSink{lowered: lowered, kinds: allKinds}, &weightSink{lowered: lowered, kinds: allKinds, adopts: way.adopts}
				if err := loadInto(want, from(t), quantize); err != nil {
					t.Fatal(err)
				}
				if err := loadInto(got, way.written, plan.QuantizeNone); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				few := 0
				for i := range want.names {
					if want.formats[i].Quantized() {
						few++
						// Keys that follow 72 rows of queries do not begin a panel.
						cut := name == "llama-tied-bf16" && strings.HasSuffix(got.names[i], "q_proj.weight")
						if lowered && slices.Contains(got.adopted, got.names[i]) != (way.adopts && !cut) {
							t.Errorf("%s: tensor %s %v: adopted %v", name, got.names[i], got.shapes[i], cut)
						}
					}
					// The gates of a plan that is not lowered would have stayed floats.
					if lowered && (got.formats[i] != want.formats[i] || string(got.data[i]) != string(want.data[i])) {
						t.Errorf("%s: tensor %s is %v, want %v, or other bytes", name, want.names[i], got.formats[i], want.formats[i])
					}
				}
				if few == 0 {
					t.Errorf("%s: nothing is quantized", name)
				}
			}
		}
	}
}

// TestLosses: what a row in four bits loses is measured as the squares of products, of
// each sixteenth row.
func TestLosses(t *testing.T) {
	const rows, cols, inputs = 40, 64, 30
	x, w := make([]float32, inputs*cols), make([]float32, rows*cols)
	for i := range x {
		x[i] = float32(math.Sin(float64(i * i)))
	}
	for i := range w {
		w[i] = float32(math.Cos(float64(i*i + i)))
	}
	m := quant.NewMoments(cols)
	m.Add(x, inputs, cols)
	l := losses{tensors: []loss{{moments: m, rounding: m.Rounding, format: plan.F32, cols: cols}}}
	packed, again := make([]byte, int4Format.RowBytes(cols)), make([]float32, cols)
	var lost, all float64
	for r := range rows {
		row := w[r*cols:][:cols]
		var src []byte
		for _, v := range row {
			src = binary.LittleEndian.AppendUint32(src, math.Float32bits(v))
		}
		if err := l.WriteTensor(0, r, 1, src); err != nil {
			t.Fatal(err)
		}
		if r%16 != 0 {
			continue
		}
		m.Rounding().Encode(packed, row, int4Format)
		quant.Decode(again, packed, int4Format)
		for k := range inputs {
			with, without := 0.0, 0.0
			for i, v := range x[k*cols:][:cols] {
				with += float64(v) * float64(row[i])
				without += float64(v) * float64(row[i]-again[i])
			}
			all, lost = all+with*with, lost+without*without
		}
	}
	if got, want := l.tensors[0].share(), lost/all; !(want > 0) || math.Abs(got/want-1) > 1e-4 {
		t.Errorf("a share of %v is lost, want %v", got, want)
	}
}

// TestWidest: bits go to what loses the greatest share, as far as they last.
func TestWidest(t *testing.T) {
	list := []loss{
		{name: "small", size: 100, lost: 1, all: 100},
		{name: "large", size: 300, lost: 5, all: 100},
		{name: "worst", size: 400, lost: 3, all: 10},
		{name: "best", size: 200, lost: 1, all: 1000},
	}
	for _, tt := range []struct {
		bits float64
		want []string
	}{
		{4.5, []string{}},
		{4.9, []string{"small"}},
		{6, []string{"worst"}},
		{6.4, []string{"small", "worst"}},
		{7.5, []string{"large", "small", "worst"}},
		{8.25, []string{"best", "large", "small", "worst"}},
	} {
		if got := slices.Sorted(maps.Keys(widest(list, plan.W8.Grouped(64), tt.bits))); !slices.Equal(got, tt.want) {
			t.Errorf("%g bits: %v, want %v", tt.bits, got, tt.want)
		}
	}
}

// TestWriteDraft: a model's head for drafts is written, and may be left unused.
func TestWriteDraft(t *testing.T) {
	for _, name := range []string{"qwen3_5", "deepseek-v3", "nemotron-h"} {
		t.Run(name, func(t *testing.T) {
			dir, _ := weightstest.WithDraft(t, filepath.Join("..", "testdata"), name)
			c, err := weights.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, quantize := range []plan.Quantize{plan.QuantizeInt8, plan.QuantizeInt4} {
				written := writeTo(t, c, quantize)
				for _, draft := range []bool{true, false} {
					_, p, err := Plan(written, draft)
					if err == nil {
						err = Check(p, written)
					}
					if err != nil {
						t.Fatal(err)
					}
					b, err := cpu.Open(device.Limits{MaxTokens: 8, MaxRows: 8, MaxSlots: 1, MaxPagesPerSlot: 1, Threads: 1})
					if err != nil {
						t.Fatal(err)
					}
					_, err = Load(b, p, written, nil)
					b.Close()
					if err != nil || draft != (len(p.Draft) > 0) {
						t.Errorf("%d operations of a draft, %v", len(p.Draft), err)
					}
				}
			}
		})
	}
}

// TestWriteTwice: what is quantized already is refused.
func TestWriteTwice(t *testing.T) {
	config, tensors := readTensors(t, "awq")
	written := writeTo(t, openTensors(t, config, tensors), plan.QuantizeInt8)
	_, p, err := Plan(written, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(nil, p, written, Recipe{}, nil); err == nil || !strings.Contains(err.Error(), "quantized already") {
		t.Errorf("%v, want a refusal", err)
	}
	var text map[string]any
	if err := json.Unmarshal(written.Config(), &text); err != nil || text["quantization_config"].(map[string]any)["quant_method"] != "millrace" {
		t.Errorf("config.json: %v, %s", err, written.Config())
	}
}
