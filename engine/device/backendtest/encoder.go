package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// tower is an encoder of images in the manner of a vision transformer (arXiv
// 2010.11929): embedding rows in, learned positions, layer norms, attention, an
// MLP and, of the rows that are asked for, a projection to another width.
func tower(format plan.Format) *model {
	b := newBuilder(680, 0, format)
	const hidden = 48
	h := heads{heads: 3, kvHeads: 3, headDim: 16}
	x := b.add(b.embedRows(hidden), b.position(hidden, 128, 0), 1)
	for range 2 {
		n := b.layerNorm(x, hidden, hidden, hidden)
		q, k, v := b.linear(n, hidden, true), b.linear(n, hidden, true), b.linear(n, hidden, true)
		x = b.add(x, b.linear(b.attend(q, k, v, h), hidden, true), 1)
		n = b.layerNorm(x, hidden, hidden, hidden)
		x = b.add(x, b.linear(b.activate(plan.ActGelu, b.linear(n, 70, true), plan.None), hidden, true), 1)
	}
	rows := b.rows(b.layerNorm(x, hidden, hidden, hidden))
	return b.output(b.linear(rows, 37, true))
}

// windows is one in the manner of Qwen2.5-VL's (arXiv 2502.13923 §2.1): patches in
// windows, which are spans, see those alone or, in every other layer, the whole image, by
// rotations of two axes, beside learned positions that are interpolated from four; all
// layers use one cache; and of four patches comes one row, joined or their mean.
func windows(format plan.Format, joined bool) *model {
	b := newBuilder(682, 0, format)
	const patch, hidden, positions, around = 27, 48, 25, 4
	h := heads{heads: 3, kvHeads: 3, headDim: 16}
	in := b.embedRows(patch + 2*around)
	x := b.linear(b.view(in, 0, patch), hidden, true)
	bag := b.op(plan.OpEmbeddingBag, hidden, b.view(in, patch, around), b.view(in, patch+around, around))
	bag.Weight[0] = b.normal(0, 1, positions, hidden)
	x = b.add(x, bag.Out[0], 1)
	axes := b.table(1, 1, 1, 1, 2, 2, 2, 2)
	cache := b.cache(plan.Cache{Kind: plan.CacheKV, Heads: 3, KeyWidth: 16, ValueWidth: 16})
	for layer := range 3 {
		n := b.rmsNorm(x, hidden, 0)
		q, k, v := b.linear(n, hidden, true), b.linear(n, hidden, true), b.linear(n, hidden, true)
		for _, y := range []int32{q, k} {
			b.rope(y, 16, 16, 1).I[plan.RopeAxes] = axes
		}
		b.op(plan.OpCacheWrite, 0, k, v).I[plan.WriteCache] = cache
		a := b.attendOver(cache, q, plan.None, h)
		b.plan.Ops[len(b.plan.Ops)-1].I[plan.AttnSight] = []int32{int32(plan.SightSpan), int32(plan.SightAll)}[layer%2]
		x = b.add(x, b.linear(a, hidden, true), 1)
		x = b.add(x, b.linear(b.gated(n, 70, true, plan.ActSilu).Out[0], hidden, true), 1)
	}
	width := hidden
	if joined {
		width *= 4
	}
	rows := b.op(plan.OpRows, width, x)
	rows.I[plan.RowsCount] = 4
	if !joined {
		rows.I[plan.RowsMean] = 1
	}
	return b.output(b.linear(rows.Out[0], 37, true))
}

// embedder is an embedding model of text: tokens in, rows out.
func embedder(format plan.Format) *model {
	b := newBuilder(681, 30, format)
	x := b.embed(40, 1)
	q, k, v := b.linear(x, 32, false), b.linear(x, 16, false), b.linear(x, 16, false)
	b.rope(q, 16, 16, 1)
	b.rope(k, 16, 16, 1)
	x = b.add(x, b.linear(b.attend(q, k, v, heads{heads: 2, kvHeads: 1, headDim: 16}), 40, false), 1)
	return b.output(b.rows(b.rmsNorm(x, 40, 0)))
}

// image starts a sequence of n random patches, which is one span.
func image(h *host, seed uint64, n int) *seq {
	h.t.Helper()
	x := h.start(nil, sample.Greedy())
	rng := rand.New(rand.NewPCG(seed, 5))
	x.embeds = map[int][]float32{}
	for pos := range n {
		for range h.plan.RowWidth() {
			x.embeds[pos] = append(x.embeds[pos], float32(rng.NormFloat64()))
		}
	}
	x.spans = []device.Span{{Start: 0, Count: int32(n)}}
	return x
}

// encoders: plans that end in rows, several sequences in a batch and in slots that
// others had before, as ref has them; each alone gives the same.
func (s *suite) encoders(t *testing.T) {
	b := s.open(t, limits)
	caps := b.Caps()
	b.Close()
	if caps.Ops>>plan.OpOutput&1 == 0 || !caps.Has(device.FeatureEmbeds|device.FeatureSpans|device.FeatureAxes) {
		t.Skip("the backend cannot do that")
	}
	for _, format := range formats {
		for _, joined := range []bool{true, false} {
			if joined || !s.opt.Brief {
				t.Run(fmt.Sprintf("windows/joined %v/%v", joined, format), func(t *testing.T) { s.windowed(t, windows(format, joined), format) })
			}
		}
		t.Run("tower/"+format.String(), func(t *testing.T) { s.images(t, tower(format), format) })
		t.Run("embedder/"+format.String(), func(t *testing.T) { s.texts(t, embedder(format), format) })
	}
	if caps.Has(device.FeatureAbandon) {
		t.Run("abandoned", s.abandoned)
	}
}

// abandoned: a forward pass that is abandoned fails, and does not show in what follows.
func (s *suite) abandoned(t *testing.T) {
	h := s.host(t, windows(plan.F32, true), limits)
	const n = 84
	pass := func() (i int, c chunk) {
		x := image(h, 1, n)
		x.axes = func(pos int) [3]int32 { return [3]int32{0, int32(pos / 6), int32(pos % 6)} }
		c = chunk{seq: x, n: n, output: true}
		return h.enqueue(c), c
	}
	answer := func() []answer {
		i, c := pass()
		defer h.finish(c.seq)
		return h.wait(i, c)
	}
	want := answer()
	for round := range 8 {
		before := round%2 == 0
		if before {
			h.b.Abandon(true)
		}
		i, c := pass()
		h.b.Abandon(true)
		if err := h.b.Wait(i); err == nil && before { // else it may have been done by then
			t.Error("a forward pass that is abandoned returns rows")
		}
		h.finish(c.seq)
		h.b.Abandon(false)
		s.unchanged(t, answer(), want, plan.F32)
	}
}

func (s *suite) images(t *testing.T, m *model, format plan.Format) {
	sizes := []int{21, 1, 16, 33, 7}
	together := func(h *host) (out []answer) {
		for range 3 { // the ring, and other slots and pages for each
			var chunks []chunk
			for i, n := range sizes {
				chunks = append(chunks, chunk{seq: image(h, uint64(i), n), n: n, output: true})
			}
			out = h.step(chunks...)
			for _, c := range chunks {
				h.finish(c.seq)
			}
		}
		return out
	}
	got := together(s.host(t, m, limits))
	near(t, got, together(s.oracle(t, m, limits)), s.tolerance(format))
	at := 0
	for i, n := range sizes {
		h := s.host(t, m, limits)
		s.unchanged(t, h.step(chunk{seq: image(h, uint64(i), n), n: n, output: true}), got[at:at+n], format)
		at += n
	}

	// What a patch is tells in the output of those before it: they see it.
	h := s.host(t, m, limits)
	x := image(h, 0, sizes[0])
	x.embeds[20] = x.embeds[19]
	other := h.step(chunk{seq: x, n: sizes[0], output: true})
	if within(other[0].output[0], got[0].output[0], 0) {
		t.Errorf("the first patch has output %v whatever the last one is", other[0].output[0])
	}
}

// windowed: images in windows, the last of which may be smaller, in one batch and alone.
func (s *suite) windowed(t *testing.T, m *model, format plan.Format) {
	sizes, window := []int{20, 4, 8, 36}, 8
	start := func(h *host, i int) *seq {
		x := image(h, uint64(i), sizes[i])
		x.spans = nil
		for first := 0; first < sizes[i]; first += window {
			x.spans = append(x.spans, device.Span{Start: int32(first), Count: int32(min(window, sizes[i]-first))})
		}
		x.axes = func(pos int) [3]int32 { return [3]int32{0, int32(pos / 6), int32(pos % 6)} }
		rng := rand.New(rand.NewPCG(uint64(i), 6))
		for pos := range sizes[i] {
			for k := range 4 {
				row := x.embeds[pos]
				row[27+k], row[31+k] = float32(rng.IntN(25)), rng.Float32()
			}
		}
		return x
	}
	output := func(h *host, seqs ...int) []answer {
		var chunks []chunk
		for _, i := range seqs {
			chunks = append(chunks, chunk{seq: start(h, i), n: sizes[i], output: true})
		}
		return h.step(chunks...)
	}
	got := output(s.host(t, m, limits), 0, 1, 2, 3)
	near(t, got, output(s.oracle(t, m, limits), 0, 1, 2, 3), s.tolerance(format))
	at := 0
	for i, n := range sizes {
		s.unchanged(t, output(s.host(t, m, limits), i), got[at:at+n/4], format)
		at += n / 4
	}

	// A row beyond the table is the nearest.
	edge := func(number float32) []answer {
		h := s.host(t, m, limits)
		x := start(h, 0)
		x.embeds[7][27] = number
		return h.step(chunk{seq: x, n: sizes[0], output: true})
	}
	last, first := edge(24), edge(0)
	for _, number := range []float32{25, 1e9, float32(math.Inf(1))} {
		s.unchanged(t, edge(number), last, format)
	}
	for _, number := range []float32{-1, -1e9, float32(math.Inf(-1)), float32(math.NaN()), 0.9} {
		s.unchanged(t, edge(number), first, format)
	}
}

// texts: prompts cut anywhere, of which some rows are asked for.
func (s *suite) texts(t *testing.T, m *model, format plan.Format) {
	whole := func(h *host) []answer {
		x := h.start(prompt(1, 40, m.plan.Vocab), sample.Greedy())
		return h.step(chunk{seq: x, n: 40, output: true})
	}
	want := whole(s.host(t, m, limits))
	near(t, want, whole(s.oracle(t, m, limits)), s.tolerance(format))

	h := s.host(t, m, limits)
	x, y := h.start(prompt(1, 40, m.plan.Vocab), sample.Greedy()), h.start(prompt(2, 40, m.plan.Vocab), sample.Greedy())
	h.step(chunk{seq: y, n: 9}, chunk{seq: x, n: 17})
	got := h.step(chunk{seq: x, n: 22, output: true}, chunk{seq: y, n: 2})
	s.unchanged(t, got, want[17:39], format)
	s.unchanged(t, h.step(chunk{seq: y, n: 1}, chunk{seq: x, n: 1, output: true}), want[39:], format)
}
