package backendtest

import (
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
		for range h.plan.Hidden {
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
	if caps.Ops>>plan.OpOutput&1 == 0 || !caps.Has(device.FeatureEmbeds|device.FeatureSpans) {
		t.Skip("the backend cannot do that")
	}
	for _, format := range formats {
		t.Run("tower/"+format.String(), func(t *testing.T) { s.images(t, tower(format), format) })
		t.Run("embedder/"+format.String(), func(t *testing.T) { s.texts(t, embedder(format), format) })
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
