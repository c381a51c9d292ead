package backendtest

import (
	"fmt"
	"math"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/sample"
)

// table builds a model whose logits are exact on every backend: the embedding
// of token t has its only element, 1, at t mod len(rows), so that the logits
// after t are rows[t mod len(rows)], each of vocab values, or NaN if t is nan.
func table(rows [][]float32, nan int32) *model {
	width, vocab := len(rows), len(rows[0])
	b := newBuilder(0, vocab, plan.F32)
	embedding := make([]float32, vocab*width)
	for t := range vocab {
		embedding[t*width+t%width] = 1
		if int32(t) == nan {
			embedding[t*width+t%width] = float32(math.NaN())
		}
	}
	out := make([]float32, vocab*width)
	for i, row := range rows {
		for t, v := range row {
			out[t*width+i] = v
		}
	}
	x := b.embedOf(b.tensor(embedding, vocab, width), width, 1)
	return b.logitsOf(b.rows(x), b.tensor(out, vocab, width), 0)
}

// randomRows are logits of which the second half hold many ties.
func randomRows(seed uint64, rows, vocab int) [][]float32 {
	b := newBuilder(seed, vocab, plan.F32)
	out := make([][]float32, rows)
	for i := range out {
		out[i] = make([]float32, vocab)
		for t := range out[i] {
			v := b.rng.NormFloat64() * 3
			if i >= rows/2 {
				v = math.Round(v)
			}
			out[i][t] = float32(v)
		}
	}
	return out
}

// samplingCases are the parameters a request can have.
var samplingCases = []struct {
	name   string
	params sample.Params
}{
	{"greedy", greedy(func(p *sample.Params) {})},
	{"greedy reads no filter", greedy(func(p *sample.Params) { p.Temperature, p.TopK, p.TopP, p.TypicalP, p.MinP = 0.1, 3, 0.5, 0.5, 1 })},
	{"greedy, repetition penalty", greedy(func(p *sample.Params) { p.RepetitionPenalty = 1.8 })},
	{"greedy, frequency penalty", greedy(func(p *sample.Params) { p.FrequencyPenalty = 1.25 })},
	{"greedy, rewards", greedy(func(p *sample.Params) { p.RepetitionPenalty, p.FrequencyPenalty = 0.7, -0.5 })},
	{"greedy, presence penalty", greedy(func(p *sample.Params) { p.PresencePenalty = 1.5 })},
	{"greedy, presence reward", greedy(func(p *sample.Params) { p.PresencePenalty, p.FrequencyPenalty = -1, 0.25 })},
	{"greedy, watermark", greedy(func(p *sample.Params) { p.Watermark = 1 })},
	{"watermark", sampled(func(p *sample.Params) { p.Watermark, p.Temperature = 1, 1.5 })},
	{"sampled", sampled(func(p *sample.Params) {})},
	{"seed of the high half", sampled(func(p *sample.Params) { p.Seed = 5 << 32 })},
	{"largest seed", sampled(func(p *sample.Params) { p.Seed = math.MaxUint64 })},
	{"cold", sampled(func(p *sample.Params) { p.Temperature = 0.3 })},
	{"hot", sampled(func(p *sample.Params) { p.Temperature = 2.5 })},
	{"freezing", sampled(func(p *sample.Params) { p.Temperature = 1e-39 })},
	{"top_k of one", sampled(func(p *sample.Params) { p.TopK = 1 })},
	{"top_k", sampled(func(p *sample.Params) { p.TopK = 10 })},
	{"top_k beyond the vocabulary", sampled(func(p *sample.Params) { p.TopK = math.MaxInt32 })},
	{"top_p", sampled(func(p *sample.Params) { p.TopP = 0.8 })},
	{"top_p tiny", sampled(func(p *sample.Params) { p.TopP = 1e-6 })},
	{"top_p near one", sampled(func(p *sample.Params) { p.TopP = 0.9999 })},
	{"typical_p", sampled(func(p *sample.Params) { p.TypicalP = 0.6 })},
	{"typical_p tiny", sampled(func(p *sample.Params) { p.TypicalP = 1e-6 })},
	{"typical_p near one", sampled(func(p *sample.Params) { p.TypicalP = 0.9999 })},
	{"min_p", sampled(func(p *sample.Params) { p.MinP = 0.2 })},
	{"min_p tiny", sampled(func(p *sample.Params) { p.MinP, p.Temperature = 1e-7, 2 })},
	{"min_p of one", sampled(func(p *sample.Params) { p.MinP = 1 })},
	{"typical_p and min_p", sampled(func(p *sample.Params) { p.TypicalP, p.MinP = 0.7, 0.3 })},
	{"everything", sampled(func(p *sample.Params) {
		p.Temperature, p.TopK, p.TopP, p.TypicalP, p.MinP = 1.4, 60, 0.95, 0.9, 0.05
		p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty, p.Watermark = 1.3, 0.4, 0.6, 1
	})},
}

func greedy(change func(*sample.Params)) sample.Params {
	p := sample.Greedy()
	change(&p)
	return p
}

func sampled(change func(*sample.Params)) sample.Params {
	return greedy(func(p *sample.Params) {
		p.Sample, p.Seed = 1, 1234
		change(p)
	})
}

// sampling compares choices, log-probabilities and alternatives with ref on
// logits that are equal to the bit, so choices must be equal.
func (s *suite) sampling(t *testing.T) {
	const none = -1
	for _, vocab := range []int{37, 1000, 5003} {
		m := table(randomRows(uint64(vocab), 14, vocab), none)
		for _, tt := range samplingCases {
			t.Run(fmt.Sprintf("%s/%d", tt.name, vocab), func(t *testing.T) {
				s.exactly(t, m, func(h *host) []answer { return sampleRun(h, vocab, tt.params) })
			})
		}
		t.Run(fmt.Sprintf("all at once/%d", vocab), func(t *testing.T) {
			s.exactly(t, m, func(h *host) []answer { return sampleTogether(h, vocab) })
		})
	}

	m := table(randomRows(8, 14, 300), none)
	t.Run("penalties survive a preemption", func(t *testing.T) { s.preemption(t, m) })
	t.Run("a new sequence starts with empty counts", func(t *testing.T) {
		s.exactly(t, m, func(h *host) []answer {
			p := greedy(func(p *sample.Params) { p.RepetitionPenalty, p.FrequencyPenalty = 3, 2 })
			first := sampleRun(h, 300, p)
			return append(first, sampleRun(h, 300, p)...)
		})
	})
	t.Run("scores are of the raw logits", func(t *testing.T) {
		s.exactly(t, m, func(h *host) []answer {
			x := h.start(prompt(1, 12, 300), samplingCases[len(samplingCases)-1].params)
			x.counts = promptCounts(x.tokens)
			return h.step(chunk{seq: x, n: 12, score: true, sample: true, topN: 3})
		})
	})
}

// exactly is compare for logits without rounding: choices must be equal.
func (s *suite) exactly(t *testing.T, m *model, script func(h *host) []answer) {
	t.Helper()
	got := script(s.host(t, m, limits))
	want := script(s.oracle(t, m, limits))
	near(t, got, want, s.opt.Tolerance)
	for i := range want {
		g, w := got[i], want[i]
		if !w.invalid && g.token != w.token {
			t.Errorf("%s: token %d, want %d", w.what, g.token, w.token)
		}
		for j := range min(len(g.top), len(w.top)) {
			if g.top[j].Token != w.top[j].Token {
				t.Errorf("%s: alternative %d is token %d, want %d", w.what, j, g.top[j].Token, w.top[j].Token)
			}
		}
	}
}

func promptCounts(tokens []int32) []device.CountDelta {
	var out []device.CountDelta
	for _, id := range tokens {
		out = append(out, device.CountDelta{Token: id})
	}
	return out
}

// sampleRun generates 20 tokens in one sequence, each fed back on the device.
func sampleRun(h *host, vocab int, p sample.Params) []answer {
	x := h.start(prompt(uint64(vocab), 9, vocab), p)
	if p.Counts() {
		x.counts = promptCounts(x.tokens)
	}
	topN := []int32{0, 1, 5, device.MaxTopN}
	out := h.step(chunk{seq: x, n: 9, sample: true, topN: 4})
	for i := int32(1); i < 20; i++ {
		x.tokens = append(x.tokens, 0) // known to the device only
		out = append(out, h.step(chunk{seq: x, n: 1, last: true, sample: true, index: i, topN: topN[i%4]})...)
	}
	h.finish(x)
	return out
}

// sampleTogether samples sequences of different parameters in one batch.
func sampleTogether(h *host, vocab int) []answer {
	var seqs []*seq
	for i := range limits.MaxSlots {
		p := samplingCases[(len(samplingCases)-1-3*i)%len(samplingCases)].params
		x := h.start(prompt(uint64(i), 3, vocab), p)
		x.counts = promptCounts(x.tokens)
		seqs = append(seqs, x)
	}
	var out []answer
	for i := range int32(8) {
		var chunks []chunk
		for j, x := range seqs {
			c := chunk{seq: x, n: 3, sample: true, index: i, topN: int32(j)}
			if i > 0 {
				x.tokens = append(x.tokens, 0)
				c.n, c.last = 1, true
			}
			chunks = append(chunks, c)
		}
		out = append(out, h.step(chunks...)...)
	}
	return out
}

// preemption: a sequence that moved to another slot, its counts sent again,
// goes on as if it had not.
func (s *suite) preemption(t *testing.T, m *model) {
	p := samplingCases[len(samplingCases)-1].params
	run := func(preempt bool) []answer {
		h := s.host(t, m, limits)
		x := h.start(prompt(6, 7, m.plan.Vocab), p)
		x.counts = promptCounts(x.tokens)
		var out []answer
		for i := range int32(12) {
			if preempt && i == 5 {
				h.finish(x)
				h.start(prompt(1, 1, m.plan.Vocab), p) // takes the old slot
				y := h.start(x.tokens, p)
				y.counts = promptCounts(x.tokens)
				for j := 7; j < len(x.tokens); j++ {
					y.counts[j].Generated = 1
				}
				x = y
			}
			a := h.step(chunk{seq: x, n: len(x.tokens) - x.computed, sample: true, index: i, topN: 3})
			x.tokens = append(x.tokens, a[0].token)
			out = append(out, a...)
		}
		return out
	}
	s.unchanged(t, run(true), run(false), plan.F32)
}

// invalidRows: logits that are NaN or infinite are flagged, and touch no other
// sequence, now or when the pages are used again.
func (s *suite) invalidRows(t *testing.T) {
	t.Run("raw logits", s.invalidLogits)
	t.Run("neighbours", s.invalidNeighbours)
}

func (s *suite) invalidLogits(t *testing.T) {
	inf := float32(math.Inf(1))
	const big = math.MaxFloat32
	rows := [][]float32{
		{0, 1, 2, 3, 4, 5, 6},
		{-big, 1, -big, 3, 0, 0, 0},
		{-big, -big, -big, -big, -big, -big, -big},
		{big, 1, 2, 3, 4, 5, 6},
		{0, 1, 2, 3, 4, 5, 6},
	}
	m := table(rows, 4)
	// Doubling the embedding makes infinities of the largest floats.
	m.plan.Ops[0].F[plan.EmbedScale] = 2
	want := []bool{false, false, true, true, true}
	for _, p := range []sample.Params{sample.Greedy(), sampled(func(p *sample.Params) { p.TopP, p.Temperature = 0.9, 2 })} {
		h := s.host(t, m, limits)
		var chunks []chunk
		for i := range rows {
			chunks = append(chunks, chunk{seq: h.start([]int32{int32(i)}, p), n: 1, score: true, sample: true, topN: 7})
		}
		got := h.step(chunks...)
		for i, invalid := range want {
			for _, a := range got[2*i : 2*i+2] {
				if a.invalid != invalid {
					t.Errorf("logits %v (largest floats doubled), sample %d: %s: invalid %v, want %v", rows[i], p.Sample, a.what, a.invalid, invalid)
				}
				if !a.invalid {
					for _, alt := range a.top {
						if alt.Logprob == -inf {
							t.Errorf("%s: alternative %d is -Inf", a.what, alt.Token)
						}
					}
				}
			}
		}
	}
}

func (s *suite) invalidNeighbours(t *testing.T) {
	const bad = 3 // the token whose embedding is NaN
	shape := shapes[0].shape
	for _, format := range formats {
		t.Run(format.String(), func(t *testing.T) {
			m := transformer(500, format, shape)
			embedding := m.weights[0]
			nan := make([]byte, format.Size())
			quant.Encode(nan, []float32{float32(math.NaN())}, format)
			for i := range shape.hidden {
				copy(embedding.data[(bad*shape.hidden+i)*format.Size():], nan)
			}
			clean := func(seed uint64, n int) []int32 {
				out := prompt(seed, n, shape.vocab)
				for i := range out {
					if out[i] == bad {
						out[i] = 0
					}
				}
				return out
			}

			run := func(poison bool) (answers, poisoned []answer) {
				h := s.host(t, m, limits)
				a, b := h.start(clean(1, 25), sample.Greedy()), h.start(clean(2, 25), sample.Greedy())
				x := h.start(clean(3, 40), sample.Greedy())
				if poison {
					x.tokens[10] = bad
				}
				first := h.step(chunk{seq: a, n: 20, score: true}, chunk{seq: x, n: 40, score: true}, chunk{seq: b, n: 20, score: true})
				second := h.step(chunk{seq: b, n: 5, score: true}, chunk{seq: a, n: 5, score: true})
				h.finish(x)
				// The next sequence takes over the slot and the pages.
				y := h.start(clean(4, 30), sample.Greedy())
				third := h.step(chunk{seq: y, n: 30, score: true, sample: true, topN: 4})
				answers = append(answers, first[:20]...)
				answers = append(answers, first[60:]...)
				return append(append(answers, second...), third...), first[20:60]
			}
			answers, poisoned := run(true)
			expected, _ := run(false)
			s.unchanged(t, answers, expected, format)
			// Rows of the same chunk before the NaN may go with it: their
			// request cannot succeed anyway.
			for _, a := range poisoned[10:] {
				if !a.invalid {
					t.Errorf("%s, NaN at position 10: not invalid", a.what)
				}
			}
		})
	}
}
