package cpu_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/cpu/kernels"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
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

// builder writes plans, lowered as backends get them.
type builder struct{ *plan.Plan }

func newBuilder(vocab, hidden int) builder {
	return builder{&plan.Plan{Family: "bench", Vocab: vocab, Hidden: hidden, MaxPos: 1 << 20}}
}

func (b builder) tensor(shape ...int) int32 {
	b.Tensors = append(b.Tensors, plan.Tensor{Name: fmt.Sprint("tensor ", len(b.Tensors)), Shape: shape})
	return int32(len(b.Tensors) - 1)
}

func (b builder) value(width int) int32 { return b.view(plan.None, 0, width) }

// view returns a value that is columns of another.
func (b builder) view(of int32, column, width int) int32 {
	b.Values = append(b.Values, plan.Value{Width: int32(width), Of: of, Column: int32(column)})
	return int32(len(b.Values) - 1)
}

// cache adds a cache; those of pages are all of one group.
func (b builder) cache(kind plan.CacheKind, heads, keyWidth, valueWidth int) int32 {
	c := plan.Cache{Kind: kind, Heads: int32(heads), KeyWidth: int32(keyWidth), ValueWidth: int32(valueWidth)}
	if kind == plan.CacheState {
		c.Group = plan.None
	} else if len(b.Groups) == 0 {
		b.Groups = append(b.Groups, plan.Group{})
	}
	b.Caches = append(b.Caches, c)
	return int32(len(b.Caches) - 1)
}

// op adds an operation; set fills in the rest.
func (b builder) op(kind plan.Kind, out int32, in []int32, weights []int32, set func(o *plan.Op)) {
	o := plan.NewOp(kind)
	o.Out[0] = out
	copy(o.In[:], in)
	copy(o.Weight[:], weights)
	if set != nil {
		set(&o)
	}
	b.Ops = append(b.Ops, o)
}

func (b builder) norm(out, in int32, group int) {
	b.op(plan.OpRMSNorm, out, []int32{in}, []int32{b.tensor(group)}, func(o *plan.Op) {
		o.I[plan.NormGroup], o.F[plan.NormEps] = int32(group), 1e-6
	})
}

// linear adds a linear layer, its result to residual unless that is None.
func (b builder) linear(out, in, residual int32, bias bool) {
	weights := []int32{b.tensor(b.Width(out), b.Width(in))}
	if bias {
		weights = append(weights, b.tensor(b.Width(out)))
	}
	b.op(plan.OpLinear, out, []int32{in, residual}, weights, func(o *plan.Op) { o.F[plan.LinearScale] = 1 })
}

// attention adds projections, rotations and attention of one layer on h, to x.
func (b builder) attention(x, h int32, heads, kvHeads, headDim int) {
	q, kv := heads*headDim, kvHeads*headDim
	qkv, att := b.value(q+2*kv), b.value(q)
	qv, k, v := b.view(qkv, 0, q), b.view(qkv, q, kv), b.view(qkv, q+kv, kv)
	if b.Tables == nil {
		freqs := make([]float32, headDim/2)
		for i := range freqs {
			freqs[i] = 1 / float32(1+i*i)
		}
		b.Tables = [][]float32{freqs}
	}
	rope := func(x int32, heads int) {
		b.op(plan.OpRope, x, []int32{x}, nil, func(o *plan.Op) {
			o.I[plan.RopeHeads], o.I[plan.RopeHeadDim], o.I[plan.RopeRotary] = int32(heads), int32(headDim), int32(headDim)
			o.I[plan.RopeLong], o.I[plan.RopeAxes] = plan.None, plan.None
			o.F[plan.RopeScale] = 1
		})
	}
	cache := b.cache(plan.CacheKV, kvHeads, headDim, headDim)
	b.linear(qkv, h, plan.None, true)
	rope(qv, heads)
	rope(k, kvHeads)
	b.op(plan.OpCacheWrite, plan.None, []int32{k, v}, nil, func(o *plan.Op) { o.I[plan.WriteCache] = cache })
	b.attend(att, []int32{qv}, nil, cache, heads)
	b.linear(x, att, x, false)
}

func (b builder) attend(out int32, in, weights []int32, cache int32, heads int) *plan.Op {
	b.op(plan.OpAttention, out, in, weights, func(o *plan.Op) {
		o.I[plan.AttnCache], o.I[plan.AttnHeads], o.I[plan.AttnSlopes] = cache, int32(heads), plan.None
		o.F[plan.AttnScale] = 0.125
	})
	return &b.Ops[len(b.Ops)-1]
}

// mlp adds a gated MLP on h, to x.
func (b builder) mlp(x, h int32, inner int) {
	act := b.value(inner)
	hidden := b.Width(h)
	b.op(plan.OpLinear, act, []int32{h}, []int32{b.tensor(inner, hidden), plan.None, b.tensor(inner, hidden)},
		func(o *plan.Op) { o.I[plan.LinearAct], o.F[plan.LinearScale] = int32(plan.ActSilu), 1 })
	b.linear(x, act, x, false)
}

// embed starts a plan, and head ends it with the embedding.
func (b builder) embed() (x, embedding int32) {
	x, embedding = b.value(b.Hidden), b.tensor(b.Vocab, b.Hidden)
	b.op(plan.OpEmbed, x, nil, []int32{embedding}, func(o *plan.Op) { o.F[plan.EmbedScale] = 1 })
	return x, embedding
}

func (b builder) head(x, embedding int32) *plan.Plan {
	rows := b.value(b.Hidden)
	b.op(plan.OpRows, rows, []int32{x}, nil, nil)
	b.norm(rows, rows, b.Hidden)
	b.op(plan.OpLogits, plan.None, []int32{rows}, []int32{embedding}, func(o *plan.Op) { o.F[plan.LogitsScale] = 1 })
	return b.Plan
}

// plan writes the operations of a qwen2 of this shape.
func (s shape) plan() *plan.Plan {
	b := newBuilder(s.vocab, s.hidden)
	x, embedding := b.embed()
	for range s.layers {
		h := b.value(s.hidden)
		b.norm(h, x, s.hidden)
		b.attention(x, h, s.heads, s.kvHeads, s.headDim)
		b.norm(h, x, s.hidden)
		b.mlp(x, h, s.inner)
	}
	return b.head(x, embedding)
}

// load opens a backend with random weights of a type.
func (s shape) load(tb testing.TB, format plan.Format, limits device.Limits, pages int) device.Backend {
	b, err := cpu.Open(limits)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	fill(tb, b, s.plan(), format, pages)
	return b
}

// fill gives a backend a plan with random weights, and pages.
func fill(tb testing.TB, b device.Backend, p *plan.Plan, format plan.Format, pages int) {
	tb.Helper()
	load(tb, b, p, format)
	if _, err := b.SetModel(p); err != nil {
		tb.Fatal(err)
	}
	states := 0
	if p.HasState() {
		states = benchStates
	}
	if err := b.InitCache(pages, states); err != nil {
		tb.Fatal(err)
	}
}

// load gives a backend random weights for a plan. What cannot be quantised is BF16 then.
func load(tb testing.TB, b device.Backend, p *plan.Plan, quantized plan.Format) {
	tb.Helper()
	const chunk = 1 << 22 // elements
	noise := map[plan.Format][]byte{}
	may := plan.Quantizable(p)
	for i, t := range p.Tensors {
		format := quantized
		if format.Quantized() && !may[i] {
			format = plan.BF16
		}
		if noise[format] == nil && !format.Quantized() {
			noise[format] = randomWeights(chunk, format)
		}
		h, err := b.NewTensor(t.Name, format, t.Shape)
		if err != nil {
			tb.Fatal(err)
		}
		rows, cols := 1, t.Shape[len(t.Shape)-1]
		for _, n := range t.Shape[:len(t.Shape)-1] {
			rows *= n
		}
		for first := 0; first < rows; first += chunk / cols {
			n := min(chunk/cols, rows-first)
			src := noise[format]
			if format.Quantized() {
				src = randomCodes(n, cols, format)
			}
			if err := b.WriteTensor(h, first, n, src[:n*format.RowBytes(cols)]); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// randomWeights returns n elements between -1/8 and 1/8.
func randomWeights(n int, format plan.Format) []byte {
	const scale = 0.25
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, n*format.Size())
	for i := range n {
		switch format {
		case plan.F32:
			v := math.Float32bits(scale * (rng.Float32() - 0.5))
			out[4*i], out[4*i+1], out[4*i+2], out[4*i+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		case plan.F16: // sign, exponents from 2^-6, any fraction
			v := uint16(rng.UintN(2))<<15 | uint16(9+rng.UintN(3))<<10 | uint16(rng.UintN(1024))
			out[2*i], out[2*i+1] = byte(v), byte(v>>8)
		case plan.BF16: // likewise
			v := uint16(rng.UintN(2))<<15 | uint16(121+rng.UintN(3))<<7 | uint16(rng.UintN(128))
			out[2*i], out[2*i+1] = byte(v), byte(v>>8)
		}
	}
	return out
}

// randomCodes returns n rows of a quantised format, their elements between -1/4 and 1/4.
func randomCodes(n, cols int, format plan.Format) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	row := format.RowBytes(cols)
	out := make([]byte, n*row)
	for i := 0; i+8 <= len(out); i += 8 {
		binary.LittleEndian.PutUint64(out[i:], rng.Uint64()&^0x4040404040404040) // no e4m3 of 2 or more
	}
	scale := float32(1) / 8
	switch {
	case format.Kind() == plan.W8:
		scale /= 128
	case format.Kind() == plan.W4:
		scale /= float32(max(format.Table()[7], 8))
	}
	each := 2
	if format.Kind() == plan.F8 {
		each = 4
	}
	groups := format.Groups(cols)
	for r := range n {
		at := out[r*row+format.CodeBytes(cols):]
		for g := range groups {
			s := scale * (0.5 + rng.Float32()/2)
			if each == 4 {
				binary.LittleEndian.PutUint32(at[g*4:], math.Float32bits(s))
			} else {
				binary.LittleEndian.PutUint16(at[g*2:], quant.ToHalf(s))
			}
			if format.Minimum() {
				binary.LittleEndian.PutUint16(at[(groups+g)*2:], quant.ToHalf(-8*s))
			}
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

	states   bool  // each sequence has one
	adapters int32 // so many take turns on the sequences
}

// enqueue runs n tokens of each sequence from position pos on; a sampled token
// follows if sample.
func (d *driver) enqueue(tb testing.TB, pos, n int, last bool) int {
	i := d.next
	d.next = (i + 1) % device.RingDepth
	b := d.b.Batch(i)
	b.Clear()
	for s := range int32(d.seqs) {
		if pos == 0 {
			b.Params = append(b.Params, device.ParamDelta{Slot: s, Params: sample.Greedy()})
			if d.states {
				b.States = append(b.States, device.StateDelta{Slot: s, Live: s, From: device.ZeroState, Save: device.NoState})
			}
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
		x := device.Seq{Slot: s, Start: start, Count: int32(n), KVLen: int32(pos + n)}
		if d.adapters > 0 {
			x.Adapter = 1 + s%d.adapters
		}
		b.Seqs = append(b.Seqs, x)
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
var peaks = sync.OnceValue(func() (p struct{ read, fma, dot float64 }) {
	p.read, p.fma, p.dot = kernels.ReadPeak(threads()), kernels.FMAPeak(threads()), kernels.DotPeak(threads())
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
// start is what cpuSeconds was before the first step, format that of the weights.
func report(b *testing.B, format plan.Format, start float64, tokens int, bytes, flops float64) {
	b.StopTimer()
	b.ReportMetric((cpuSeconds()-start)*1e3/float64(b.N), "cpu-ms/op")
	steps := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(steps*float64(tokens), "tokens/s")
	b.ReportMetric(steps*bytes/1e9, "GB/s")
	b.ReportMetric(steps*bytes/peaks().read, "of-read-peak")
	b.ReportMetric(steps*flops/1e9, "GOP/s")
	if format.Integer() {
		b.ReportMetric(steps*flops/peaks().dot, "of-dot-peak")
	} else {
		b.ReportMetric(steps*flops/peaks().fma, "of-FMA-peak")
	}
}

const (
	benchPages  = 64 // of a sequence
	benchStates = 32
)

func benchLimits(seqs, tokens int) device.Limits {
	return device.Limits{MaxTokens: tokens, MaxRows: seqs, MaxSlots: seqs, MaxPagesPerSlot: benchPages, Threads: threads()}
}

// benchFormats are those of weights that decoding and prefill are measured with.
var benchFormats = []plan.Format{plan.BF16, plan.F8.Grouped(128), plan.W8, plan.W8.Grouped(32), plan.W4.Grouped(32), plan.W4.Grouped(32) | plan.WithMinimum, plan.W4.Grouped(128)}

// BenchmarkDecode: one token of each of n sequences, one step ahead.
func BenchmarkDecode(b *testing.B) {
	for _, format := range benchFormats {
		for _, seqs := range []int{1, 2, 4, 8, 16, 32} {
			b.Run(fmt.Sprintf("%v/%d", format, seqs), func(b *testing.B) { benchDecode(b, format, seqs) })
		}
	}
}

// BenchmarkNarrow: one token of each of n sequences of a model so small that it stays in a
// cache: what it takes to go from one stage to the next shows here. best-us is the fastest of
// the runs of 16 steps, which neighbours slow down least.
func BenchmarkNarrow(b *testing.B) {
	const context, steps = 64, 16
	s := shape{vocab: 256, hidden: 256, layers: 24, heads: 4, kvHeads: 2, headDim: 64, inner: 512}
	for _, format := range []plan.Format{plan.BF16, plan.W8.Grouped(32)} {
		for _, seqs := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("%v/%d", format, seqs), func(b *testing.B) {
				d := &driver{b: s.load(b, format, benchLimits(seqs, seqs*context), seqs*benchPages), seqs: seqs, pages: benchPages, vocab: s.vocab}
				d.wait(b, d.enqueue(b, 0, context, false))
				best := math.Inf(1)
				for range b.N {
					start := time.Now()
					for range steps {
						d.wait(b, d.enqueue(b, context, 1, true))
					}
					best = min(best, time.Since(start).Seconds()/steps)
				}
				b.ReportMetric(best*1e6, "best-us")
			})
		}
	}
}

func benchDecode(b *testing.B, format plan.Format, seqs int) {
	const context = 64
	d := &driver{b: qwen05.load(b, format, benchLimits(seqs, seqs*context), seqs*benchPages), seqs: seqs, pages: benchPages, vocab: qwen05.vocab}
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
	report(b, format, start, seqs, qwen05.bytesOf(format, weights), 2*weights*float64(seqs))
}

// bytesOf is what weights of a format take, scales included.
func (s shape) bytesOf(format plan.Format, weights float64) float64 {
	return weights * float64(format.RowBytes(s.hidden)) / float64(s.hidden)
}

// BenchmarkPrefill: a prompt of n tokens.
func BenchmarkPrefill(b *testing.B) {
	for _, format := range benchFormats {
		for _, tokens := range []int{128, 512} {
			b.Run(fmt.Sprintf("%v/%d", format, tokens), func(b *testing.B) { benchPrefill(b, format, tokens) })
		}
	}
}

func benchPrefill(b *testing.B, format plan.Format, tokens int) {
	d := &driver{b: qwen05.load(b, format, benchLimits(1, tokens), benchPages), seqs: 1, pages: benchPages, vocab: qwen05.vocab}
	d.wait(b, d.enqueue(b, 0, tokens, false))
	body, head := float64(qwen05.layerWeights()), float64(qwen05.headWeights())
	b.ResetTimer()
	start := cpuSeconds()
	for range b.N {
		d.wait(b, d.enqueue(b, 0, tokens, false))
	}
	report(b, format, start, tokens, qwen05.bytesOf(format, body+head), 2*(body*float64(tokens)+head))
}

// BenchmarkLoad: a gigabyte of weights from memory.
func BenchmarkLoad(b *testing.B) {
	const rows, cols = 4864, 896
	src := randomWeights(rows*cols, plan.BF16)
	for range b.N {
		backend, err := cpu.Open(benchLimits(1, 1))
		if err != nil {
			b.Fatal(err)
		}
		const tensors = 1 << 30 / (rows * cols * 2)
		for range tensors {
			h, err := backend.NewTensor("w", plan.BF16, []int{rows, cols})
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
