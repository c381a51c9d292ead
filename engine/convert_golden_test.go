package engine_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// converter counts the rows that a backend converts itself.
type converter struct {
	device.Backend
	rows int
}

func (c *converter) Converts(from, to plan.Format) bool { return device.Converts(c.Backend, from, to) }

func (c *converter) ConvertTensor(h device.Handle, first, n int, src []byte, from plan.Format) error {
	c.rows += n
	return device.ConvertTensor(c.Backend, h, first, n, src, from)
}

// TestConvertedWeights loads checkpoints into the CUDA backend's shim that are quantised on the
// device and on the host: the text and its probabilities have the same bits.
func TestConvertedWeights(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector sees nothing of the library")
	}
	library := cudaLibrary(t)
	for _, tt := range []struct {
		dir      string
		quantize plan.Quantize
	}{
		{"llama-tied-bf16", plan.QuantizeInt8},
		{"llama-tied-bf16", plan.QuantizeInt4},
		{"llama-fp8-block", plan.QuantizeInt8},
	} {
		t.Run(tt.dir, func(t *testing.T) {
			generate := func(convert bool) []engine.Token {
				limits := device.Limits{MaxTokens: 16, MaxRows: 16, MaxSlots: 1, MaxPagesPerSlot: 4}
				b, err := cuda.Open(library, limits)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { b.Close() }) // after the engine has stopped
				c, cfg, p := openPlan(t, filepath.Join("testdata", tt.dir), false)
				p.Quantize = tt.quantize
				counted := &converter{Backend: b}
				to := device.Backend(counted)
				if !convert {
					to = struct{ device.Backend }{counted}
				}
				if _, err := loader.Load(to, p, c, nil); err != nil {
					t.Fatal(err)
				}
				if convert != (counted.rows > 0) {
					t.Errorf("%d rows converted by the device, which may: %v", counted.rows, convert)
				}
				e := enginetest.Run(t, engine.Config{
					Backend: b, Device: limits, Plan: p, Pages: 4 * len(p.Groups), EOS: cfg.EOS, Root: page.Root(), MaxBatchTokens: 16,
				})
				return collect(t, submit(t, e, &engine.Request{Tokens: []int32{1, 5, 9}, MaxNewTokens: 8, Params: sample.Greedy(), IgnoreEOS: true}))
			}
			got, want := generate(true), generate(false)
			same := func(a, b engine.Token) bool { return a.ID == b.ID && a.Logprob == b.Logprob }
			if len(want) != 8 || !slices.EqualFunc(got, want, same) {
				t.Errorf("converted by the device: %v, by the host: %v", got, want)
			}
		})
	}
}
