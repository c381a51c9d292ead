package cpu_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// qwen05 is the shape of Qwen2-0.5B: 494 million weights, the output head
// shared with the embedding.
var qwen05 = shape{vocab: 151936, hidden: 896, layers: 24, heads: 14, kvHeads: 2, headDim: 64, inner: 4864}

type shape struct{ vocab, hidden, layers, heads, kvHeads, headDim, inner int }

// layerWeights is the number of weights that each token meets, without those
// of the output head.
func (s shape) layerWeights() int {
	q, kv := s.heads*s.headDim, s.kvHeads*s.headDim
	return s.layers * s.hidden * (2*q + 2*kv + 3*s.inner)
}

func (s shape) headWeights() int { return s.vocab * s.hidden }

// plan writes the operations of a qwen2 of this shape.
func (s shape) plan() *plan.Plan {
	q, kv := s.heads*s.headDim, s.kvHeads*s.headDim
	p := &plan.Plan{Family: "qwen2", Vocab: s.vocab, Hidden: s.hidden, Layers: s.layers, KVWidth: kv, MaxPos: 32768}
	tensor := func(shape ...int) int32 {
		p.Tensors = append(p.Tensors, plan.Tensor{Name: fmt.Sprint("tensor ", len(p.Tensors)), Shape: shape, Rows: shape[0]})
		return int32(len(p.Tensors) - 1)
	}
	value := func(width int) int32 {
		p.Widths = append(p.Widths, int32(width))
		return int32(len(p.Widths) - 1)
	}
	op := func(kind plan.Kind, out, in, in2, weight int32, set ...func(*plan.Op)) {
		o := plan.Op{Kind: kind, Out: out, In: in, In2: in2, Weight: weight, Bias: plan.None, Table: 0, HeadDim: int32(s.headDim)}
		for _, f := range set {
			f(&o)
		}
		p.Ops = append(p.Ops, o)
	}
	x, h, gate, up := value(s.hidden), value(s.hidden), value(s.inner), value(s.inner)
	qv, kVal, vVal, att := value(q), value(kv), value(kv), value(q)
	act := value(s.inner)
	freqs := make([]float32, s.headDim/2)
	for i := range freqs {
		freqs[i] = 1 / float32(1+i*i)
	}
	p.Tables = [][]float32{freqs}

	norm := func(out, in int32) {
		op(plan.OpRMSNorm, out, in, plan.None, tensor(s.hidden), func(o *plan.Op) { o.Group, o.F0 = int32(s.hidden), 1e-6 })
	}
	linear := func(out, in int32, bias bool) {
		w := tensor(int(p.Widths[out]), int(p.Widths[in]))
		op(plan.OpLinear, out, in, plan.None, w, func(o *plan.Op) {
			if bias {
				o.Bias = tensor(int(p.Widths[out]))
			}
		})
	}
	rope := func(x int32, heads int) {
		op(plan.OpRope, x, x, plan.None, plan.None, func(o *plan.Op) { o.Heads, o.Rotary, o.F0 = int32(heads), int32(s.headDim), 1 })
	}
	embedding := tensor(s.vocab, s.hidden)
	op(plan.OpEmbed, x, plan.None, plan.None, embedding, func(o *plan.Op) { o.F0 = 1 })
	for layer := range int32(s.layers) {
		norm(h, x)
		linear(qv, h, true)
		linear(kVal, h, true)
		linear(vVal, h, true)
		rope(qv, s.heads)
		rope(kVal, s.kvHeads)
		op(plan.OpKVWrite, plan.None, kVal, vVal, plan.None, func(o *plan.Op) { o.Layer, o.KVHeads = layer, int32(s.kvHeads) })
		op(plan.OpAttention, att, qv, plan.None, plan.None, func(o *plan.Op) {
			o.Layer, o.Heads, o.KVHeads, o.F0 = layer, int32(s.heads), int32(s.kvHeads), 0.125
		})
		linear(h, att, false)
		op(plan.OpAdd, x, x, h, plan.None)
		norm(h, x)
		linear(gate, h, false)
		linear(up, h, false)
		op(plan.OpSiluMul, act, gate, up, plan.None)
		linear(h, act, false)
		op(plan.OpAdd, x, x, h, plan.None)
	}
	rows := value(s.hidden)
	op(plan.OpRows, rows, x, plan.None, plan.None)
	norm(rows, rows)
	op(plan.OpLogits, plan.None, rows, plan.None, embedding)
	return p
}

// load opens a backend with random weights of a type.
func (s shape) load(tb testing.TB, dtype device.DType, limits device.Limits, pages int) device.Backend {
	b, err := cpu.Open(limits)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	fill(tb, b, s.plan(), dtype, pages)
	return b
}

// fill gives a backend a plan with random weights, and pages.
func fill(tb testing.TB, b device.Backend, p *plan.Plan, dtype device.DType, pages int) {
	tb.Helper()
	load(tb, b, p, dtype)
	if _, err := b.SetModel(p); err != nil {
		tb.Fatal(err)
	}
	if err := b.InitKV(pages); err != nil {
		tb.Fatal(err)
	}
}

// load gives a backend random weights for a plan.
func load(tb testing.TB, b device.Backend, p *plan.Plan, dtype device.DType) {
	tb.Helper()
	const chunk = 1 << 22 // elements
	noise := randomWeights(chunk, dtype)
	for _, t := range p.Tensors {
		h, err := b.NewTensor(t.Name, dtype, t.Shape)
		if err != nil {
			tb.Fatal(err)
		}
		rows, cols := 1, t.Shape[0]
		if len(t.Shape) == 2 {
			rows, cols = t.Shape[0], t.Shape[1]
		}
		for first := 0; first < rows; first += chunk / cols {
			n := min(chunk/cols, rows-first)
			if err := b.WriteTensor(h, first, n, noise[:n*cols*dtype.Size()]); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// randomWeights returns n elements between -1/8 and 1/8.
func randomWeights(n int, dtype device.DType) []byte {
	const scale = 0.25
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, n*dtype.Size())
	for i := range n {
		switch dtype {
		case device.F32:
			v := math.Float32bits(scale * (rng.Float32() - 0.5))
			out[4*i], out[4*i+1], out[4*i+2], out[4*i+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		case device.F16: // sign, exponents from 2^-6, any fraction
			v := uint16(rng.UintN(2))<<15 | uint16(9+rng.UintN(3))<<10 | uint16(rng.UintN(1024))
			out[2*i], out[2*i+1] = byte(v), byte(v>>8)
		case device.BF16: // likewise
			v := uint16(rng.UintN(2))<<15 | uint16(121+rng.UintN(3))<<7 | uint16(rng.UintN(128))
			out[2*i], out[2*i+1] = byte(v), byte(v>>8)
		}
	}
	return out
}

// driver runs sequences of one length as the engine would.
type driver struct {
	b     device.Backend
	seqs  int
	pages int // of each
	vocab int
	next  int
}

// enqueue runs n tokens of each sequence from position pos on; a sampled token
// follows if sample.
func (d *driver) enqueue(tb testing.TB, pos, n int, last bool) int {
	i := d.next
	d.next = (i + 1) % device.RingDepth
	b := d.b.Batch(i)
	b.Tokens, b.Pos, b.Seqs, b.Rows = b.Tokens[:0], b.Pos[:0], b.Seqs[:0], b.Rows[:0]
	b.Pages, b.Params, b.Counts = b.Pages[:0], b.Params[:0], b.Counts[:0]
	for s := range int32(d.seqs) {
		if pos == 0 {
			b.Params = append(b.Params, device.ParamDelta{Slot: s, Params: sample.Greedy()})
		}
		start := int32(len(b.Tokens))
		for t := range n {
			id := int32((int(s)*7919 + (pos+t)*104729) % d.vocab)
			if last {
				id = device.LastToken
			}
			b.Tokens, b.Pos = append(b.Tokens, id), append(b.Pos, int32(pos+t))
			if at := pos + t; at%device.PageTokens == 0 {
				page := int(s)*d.pages + at/device.PageTokens
				b.Pages = append(b.Pages, device.PageDelta{Slot: s, Index: int32(at / device.PageTokens), Page: int32(page)})
			}
		}
		b.Seqs = append(b.Seqs, device.Seq{Slot: s, Start: start, Count: int32(n), KVLen: int32(pos + n)})
		b.Rows = append(b.Rows, device.Row{Token: start + int32(n) - 1, Slot: s})
	}
	if err := d.b.Forward(i); err != nil {
		tb.Fatal(err)
	}
	if err := d.b.Sample(i); err != nil {
		tb.Fatal(err)
	}
	return i
}

func (d *driver) wait(tb testing.TB, i int) {
	if err := d.b.Wait(i); err != nil {
		tb.Fatal(err)
	}
}

// peaks of this machine, measured once a run.
var peaks = sync.OnceValue(func() (p struct{ read, fma float64 }) {
	p.read, p.fma = cpu.ReadPeak(threads()), cpu.FMAPeak(threads())
	return p
})

// threads is MILLRACE_BENCH_THREADS, or 2.
func threads() int {
	if n, err := strconv.Atoi(os.Getenv("MILLRACE_BENCH_THREADS")); err == nil && n > 0 {
		return n
	}
	return 2
}

// cpuSeconds is the processor time this process has used.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// report prints rates and their share of the machine's peaks, for steps that
// each read and multiply so much. cpu-ms is processor time, which tells on a
// busy machine whether the time was ours.
// start is what cpuSeconds was before the first step.
func report(b *testing.B, start float64, tokens int, bytes, flops float64) {
	b.StopTimer()
	b.ReportMetric((cpuSeconds()-start)*1e3/float64(b.N), "cpu-ms/op")
	steps := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(steps*float64(tokens), "tokens/s")
	b.ReportMetric(steps*bytes/1e9, "GB/s")
	b.ReportMetric(steps*bytes/peaks().read, "of-read-peak")
	b.ReportMetric(steps*flops/1e9, "GFLOP/s")
	b.ReportMetric(steps*flops/peaks().fma, "of-FMA-peak")
}

const benchPages = 64 // of a sequence

func benchLimits(seqs, tokens int) device.Limits {
	return device.Limits{MaxTokens: tokens, MaxRows: seqs, MaxSlots: seqs, MaxPagesPerSlot: benchPages, Threads: threads()}
}

// BenchmarkDecode: one token of each of n sequences, one step ahead.
func BenchmarkDecode(b *testing.B) {
	for _, seqs := range []int{1, 2, 4, 8, 16, 32} {
		b.Run(fmt.Sprint(seqs), func(b *testing.B) {
			const context = 64
			d := &driver{b: qwen05.load(b, device.BF16, benchLimits(seqs, seqs*context), seqs*benchPages), seqs: seqs, pages: benchPages, vocab: qwen05.vocab}
			d.wait(b, d.enqueue(b, 0, context, false))
			weights := float64(qwen05.layerWeights() + qwen05.headWeights())
			b.ResetTimer()
			start := cpuSeconds()
			running := d.enqueue(b, context, 1, true)
			for i := 1; i < b.N; i++ {
				next := d.enqueue(b, context+i%(benchPages*device.PageTokens-context), 1, true)
				d.wait(b, running)
				running = next
			}
			d.wait(b, running)
			report(b, start, seqs, 2*weights, 2*weights*float64(seqs))
		})
	}
}

// BenchmarkPrefill: a prompt of n tokens.
func BenchmarkPrefill(b *testing.B) {
	for _, tokens := range []int{128, 512} {
		b.Run(fmt.Sprint(tokens), func(b *testing.B) {
			d := &driver{b: qwen05.load(b, device.BF16, benchLimits(1, tokens), benchPages), seqs: 1, pages: benchPages, vocab: qwen05.vocab}
			d.wait(b, d.enqueue(b, 0, tokens, false))
			body, head := float64(qwen05.layerWeights()), float64(qwen05.headWeights())
			b.ResetTimer()
			start := cpuSeconds()
			for range b.N {
				d.wait(b, d.enqueue(b, 0, tokens, false))
			}
			report(b, start, tokens, 2*(body+head), 2*(body*float64(tokens)+head))
		})
	}
}

// BenchmarkLoad: a gigabyte of weights from memory.
func BenchmarkLoad(b *testing.B) {
	const rows, cols = 4864, 896
	src := randomWeights(rows*cols, device.BF16)
	for range b.N {
		backend, err := cpu.Open(benchLimits(1, 1))
		if err != nil {
			b.Fatal(err)
		}
		const tensors = 1 << 30 / (rows * cols * 2)
		for range tensors {
			h, err := backend.NewTensor("w", device.BF16, []int{rows, cols})
			if err != nil {
				b.Fatal(err)
			}
			if err := backend.WriteTensor(h, 0, rows, src); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(tensors * rows * cols * 2)
		backend.Close()
	}
}
