package calibrate

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/ref"
	"github.com/millrace-ai/millrace/engine/weights"
)

func openRef(l device.Limits) (device.Backend, error) { return ref.Open(l) }

func openCPU(l device.Limits) (device.Backend, error) { return cpu.Open(l) }

func measurement(t *testing.T, name string) *Measurement {
	t.Helper()
	c, err := weights.Open(filepath.Join("..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_, p, err := loader.Plan(c, false)
	if err != nil {
		t.Fatal(err)
	}
	m := &Measurement{Open: openCPU, Threads: 2, Plan: p, Checkpoint: c}
	length := min(150, p.MaxPos) // more than two steps
	for w := range 2 {
		var window []int32
		for i := range length - w {
			window = append(window, int32((7*i+11*w+i*i)%p.Vocab))
		}
		m.Windows = append(m.Windows, window)
	}
	return m
}

// rounded is what rounding makes of rows of columns.
func rounded(m *quant.Moments, rows int) (list [][]byte) {
	const f = plan.W4 | plan.CodesIQ4NL | 32<<8
	r, row := m.Rounding(), make([]float32, m.Cols())
	for k := range rows {
		for i := range row {
			row[i] = float32(math.Sin(float64(i*i*(k+1) + k)))
		}
		packed := make([]byte, f.RowBytes(len(row)))
		r.Encode(packed, row, f)
		list = append(list, packed)
	}
	return list
}

// same is the share of rows that are the same.
func same(a, b [][]byte) float64 {
	n := 0
	for i := range a {
		if bytes.Equal(a[i], b[i]) {
			n++
		}
	}
	return float64(n) / float64(len(a))
}

// TestFirstInput: what the first projections are multiplied with are the normalised rows
// of the embedding.
func TestFirstInput(t *testing.T) {
	m := measurement(t, "llama")
	got, err := m.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []float32 {
		x, _ := m.Checkpoint.Tensor(name)
		data := make([]byte, x.Size)
		if err := m.Checkpoint.ReadAt(x, data, 0); err != nil {
			t.Fatal(err)
		}
		list := make([]float32, len(data)/4)
		quant.Decode(list, data, plan.F32)
		return list
	}
	embedding, norm := read("model.embed_tokens.weight"), read("model.layers.0.input_layernorm.weight")
	hidden := len(norm)
	var x []float32
	for _, id := range slices.Concat(m.Windows...) {
		row, squares := embedding[int(id)*hidden:][:hidden], 0.0
		for _, v := range row {
			squares += float64(v) * float64(v)
		}
		for i, v := range row {
			x = append(x, float32(float64(v)/math.Sqrt(squares/float64(hidden)+1e-6))*norm[i])
		}
	}
	want := quant.NewMoments(hidden)
	want.Add(x, len(x)/hidden, hidden)
	const rows = 200
	for _, name := range []string{"q_proj", "k_proj", "v_proj"} {
		measured := got["model.layers.0.self_attn."+name+".weight"]
		if measured == nil {
			t.Fatalf("no moments of %s, only of %v", name, slices.Sorted(maps.Keys(got)))
		}
		// Sums in another order decide some near ties otherwise.
		if s := same(rounded(measured, rows), rounded(want, rows)); s < 0.95 {
			t.Errorf("%s: %.0f %% of rows are rounded as with the moments of the embedding", name, 100*s)
		}
		if s := same(rounded(measured, rows), rounded(quant.NewMoments(hidden), rows)); s > 0.1 {
			t.Errorf("%s: %.0f %% of rows are rounded as without moments", name, 100*s)
		}
	}
}

// TestFamilies: all matrices before the head are measured, whichever backend reads the
// text and however often.
func TestFamilies(t *testing.T) {
	for _, name := range []string{"llama", "phi3", "gemma3n", "qwen3-moe", "gpt-oss-bf16", "deepseek-v3", "kimi-linear", "mamba2", "zamba2", "falcon-h1", "llama-gptq"} {
		t.Run(name, func(t *testing.T) {
			m := measurement(t, name)
			got, err := m.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			m.Progress = func(done, total int) {
				if seen++; done > total {
					t.Errorf("%d of %d tokens", done, total)
				}
			}
			again, err := m.run(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if seen < 6*len(m.passes(1)) {
				t.Errorf("%d steps were told of", seen)
			}
			m.Open = openRef
			byRef, err := m.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range m.Plan.Ops {
				if op.Kind == plan.OpRows {
					break
				}
				if op.Kind == plan.OpLinear && got[m.Plan.Tensors[op.Weight[0]].Name] == nil {
					t.Errorf("nothing is known of %s", m.Plan.Tensors[op.Weight[0]].Name)
				}
			}
			const rows = 20
			like, all := 0.0, 0.0
			for name, moments := range got {
				mine := rounded(moments, rows)
				if s := same(mine, rounded(again[name], rows)); s < 1 {
					t.Errorf("%s: in passes of their own, %.0f %% of rows are the same", name, 100*s)
				}
				like += same(mine, rounded(byRef[name], rows))
				all++
			}
			if like < 0.8*all {
				t.Errorf("%.0f %% of rows are as with ref", 100*like/all)
			}
		})
	}
}

// TestRefusals: a window that is too long, and an end in the middle.
func TestRefusals(t *testing.T) {
	m := measurement(t, "llama")
	ctx, cancel := context.WithCancel(t.Context())
	m.Progress = func(int, int) { cancel() }
	if _, err := m.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	m.Windows = append(m.Windows, make([]int32, m.Plan.MaxPos+1))
	if _, err := m.Run(t.Context()); err == nil {
		t.Error("a window longer than the model reads is taken")
	}
}
