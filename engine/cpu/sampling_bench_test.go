package cpu_test

import (
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// headOnly is an embedding of width 8 and an output head: what little they
// compute is the same whatever happens to the logits.
func headOnly(vocab int) *plan.Plan {
	b := newBuilder(vocab, 8)
	x, _ := b.embed()
	b.Ops[0].F[plan.EmbedScale] = 300 // spreads the logits as a model's are
	rows := b.value(b.Hidden)
	b.op(plan.OpRows, rows, []int32{x}, nil, nil)
	b.op(plan.OpLogits, plan.None, []int32{rows}, []int32{b.tensor(vocab, b.Hidden)}, func(o *plan.Op) { o.F[plan.LogitsScale] = 1 })
	return b.Plan
}

// BenchmarkSampling: one row of 128k logits on one thread, logits included;
// the difference to greedy is what a parameter costs.
func BenchmarkSampling(b *testing.B) {
	const vocab = 128_000
	backend, err := cpu.Open(device.Limits{MaxTokens: 1, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 1, Threads: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	fill(b, backend, headOnly(vocab), plan.F32, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	mask := func(share float64) []uint32 {
		m := make([]uint32, device.MaskWords(vocab))
		for id := range vocab {
			if rng.Float64() < share {
				m[id/32] |= 1 << (id % 32)
			}
		}
		return m
	}
	drawn := sample.Greedy()
	drawn.Sample, drawn.Temperature, drawn.TopP = 1, 0.8, 0.9
	marked := sample.Greedy()
	marked.Watermark = 1
	var biases []sample.Bias
	for range 300 {
		biases = append(biases, sample.Bias{Token: int32(rng.IntN(vocab)), Bias: 1})
	}
	for _, c := range []struct {
		name   string
		params sample.Params
		mask   []uint32
		biases []sample.Bias
	}{
		{name: "greedy", params: sample.Greedy()},
		{name: "greedy, mask of half", params: sample.Greedy(), mask: mask(0.5)},
		{name: "greedy, mask of few", params: sample.Greedy(), mask: mask(0.0005)},
		{name: "greedy, mask of nearly all", params: sample.Greedy(), mask: mask(0.9995)},
		{name: "greedy, watermark", params: marked},
		{name: "greedy, 300 biases", params: sample.Greedy(), biases: biases},
		{name: "temperature and top_p", params: drawn},
		{name: "temperature and top_p, mask of half", params: drawn, mask: mask(0.5)},
	} {
		b.Run(c.name, func(b *testing.B) {
			x := backend.Batch(0)
			x.Tokens, x.Pos = append(x.Tokens[:0], 5), append(x.Pos[:0], 0)
			x.Seqs = append(x.Seqs[:0], device.Seq{Count: 1, KVLen: 1})
			x.Rows = append(x.Rows[:0], device.Row{})
			x.Pages = append(x.Pages[:0], device.PageDelta{})
			x.Params = append(x.Params[:0], device.ParamDelta{Params: c.params})
			x.Biases = x.Biases[:0]
			for _, bias := range c.biases {
				x.Biases = append(x.Biases, device.BiasDelta{Token: bias.Token, Bias: bias.Bias})
			}
			x.Masks = append(x.Masks[:0], c.mask...)
			if c.mask != nil {
				x.Rows[0].Mask = 1
			}
			start := cpuSeconds()
			for b.Loop() {
				if err := backend.Forward(0); err != nil {
					b.Fatal(err)
				}
				if err := backend.Sample(0); err != nil {
					b.Fatal(err)
				}
				if err := backend.Wait(0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpuSeconds()-start)*1e6/float64(b.N), "cpu-µs/op")
		})
	}
}
