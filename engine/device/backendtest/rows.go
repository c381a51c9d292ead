package backendtest

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// rowKinds are rows that are neither scored nor sampled once.
func (s *suite) rowKinds(t *testing.T) {
	t.Run("again", s.again)
	t.Run("again alone", s.againAlone)
	t.Run("verify", s.verify)
	t.Run("verify, then the last token", s.verifyThenLast)
}

// again: a row whose mask was late is sampled from what its slot has kept,
// while other sequences go on, and everything is as if the mask had been there.
func (s *suite) again(t *testing.T) {
	for _, tt := range models() {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.build(plan.F32)
			vocab := m.plan.Vocab
			run := func(late bool) []answer {
				h := s.host(t, m, limits)
				rng := rand.New(rand.NewPCG(4, 4))
				p := sampled(func(p *sample.Params) { p.RepetitionPenalty, p.Watermark = 1.3, 1 })
				x, y := h.start(prompt(1, 21, vocab), p), h.start(prompt(2, 30, vocab), sample.Greedy())
				var out []answer
				for i := range int32(5) {
					c := chunk{seq: x, n: 1, last: true, sample: true, index: i, topN: 4, mask: randomMask(rng, vocab, 0.4)}
					if i == 0 {
						c.n, c.last = 21, false
					}
					x.tokens = append(x.tokens, 0) // known to the device only
					if !late {
						out = append(out, h.step(c)...)
						h.step(chunk{seq: y, n: 3, score: true})
						continue
					}
					mask := c.mask
					c.mask = nil
					entry := h.prepare(c)
					h.forward(entry)
					row := &h.b.Batch(entry).Rows[0]
					row.Kind, row.Target = device.RowScore, 0
					h.sample(entry)
					h.wait(entry, c)
					both := h.step(chunk{seq: y, n: 3, score: true}, chunk{seq: x, again: true, index: i, topN: 4, mask: mask})
					out = append(out, both[len(both)-1])
				}
				return out
			}
			s.unchanged(t, run(true), run(false), plan.F32)
		})
	}
}

// againAlone: a batch of nothing else, the rows of several slots in any order.
func (s *suite) againAlone(t *testing.T) {
	m := mixture(plan.F32)
	vocab := m.plan.Vocab
	run := func(again bool) []answer {
		h := s.host(t, m, limits)
		var chunks, once []chunk
		for i := range uint64(3) {
			x := h.start(prompt(i, 10, vocab), sampled(func(p *sample.Params) { p.Seed = i }))
			chunks = append(chunks, chunk{seq: x, n: 10, sample: true, topN: 5})
			once = append(once, chunk{seq: x, again: true, topN: 5})
		}
		if !again {
			return h.step(chunks...)
		}
		entry := h.prepare(chunks...)
		for i := range chunks {
			h.b.Batch(entry).Rows[i].Kind = device.RowScore
		}
		h.run(entry)
		h.wait(entry)
		slices.Reverse(once)
		out := h.step(once...)
		slices.Reverse(out)
		return out
	}
	s.unchanged(t, run(true), run(false), plan.F32)
}

// plain generates n tokens one by one, and returns the answers.
func plain(h *host, x *seq, n int) []answer {
	var out []answer
	for i := range int32(n) {
		a := h.step(chunk{seq: x, n: len(x.tokens) - x.computed, sample: true, index: i, topN: 4})[0]
		x.tokens = append(x.tokens, a.token)
		out = append(out, a)
	}
	return out
}

// verify: guesses of which some are right give, token by token, what plain
// decoding gives, and leave counts and the last token as it does.
func (s *suite) verify(t *testing.T) {
	const n = 24
	for _, tt := range models() {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.build(plan.F32)
			vocab := m.plan.Vocab
			if h := s.host(t, m, limits); !s.has(h, device.FeatureVerify) {
				t.Skip("the backend cannot verify")
			}
			if m.plan.HasState() {
				t.Skip("what a state has seen cannot be taken back")
			}
			p := sampled(func(p *sample.Params) { p.RepetitionPenalty, p.FrequencyPenalty, p.Temperature = 1.2, 0.3, 0.8 })
			start := func(h *host) *seq {
				x := h.start(prompt(3, 18, vocab), p)
				x.counts = promptCounts(x.tokens)
				return x
			}
			h := s.host(t, m, limits)
			want := plain(h, start(h), n)

			h = s.host(t, m, limits)
			x, beside := start(h), h.start(prompt(4, 100, vocab), sample.Greedy())
			got := plain(h, x, 1)
			rng := rand.New(rand.NewPCG(6, 6))
			for len(got) < n {
				guesses, right := rng.IntN(5), rng.IntN(5)
				known := len(x.tokens)
				for j := range min(guesses, n-len(got)-1) {
					guess := want[len(got)+j].token
					if j >= right {
						guess = (guess + 1) % int32(vocab)
					}
					x.tokens = append(x.tokens, guess)
				}
				rows := len(x.tokens) - known + 1
				answers := h.step(
					chunk{seq: beside, n: 2, score: true},
					chunk{seq: x, n: len(x.tokens) - x.computed, verify: rows, index: int32(len(got)), topN: 4},
				)[2:]
				accepted := 1 // rows that count
				for accepted < rows && answers[accepted-1].token == x.tokens[known+accepted-1] {
					accepted++
				}
				for j, a := range answers {
					if a.void != (j >= accepted) {
						t.Fatalf("row %d of %d is void: %v, %d tokens were chosen as guessed", j, rows, a.void, accepted-1)
					}
				}
				got = append(got, answers[:accepted]...)
				x.tokens = append(x.tokens[:known+accepted-1], answers[accepted-1].token)
				x.computed = len(x.tokens) - 1
			}
			s.unchanged(t, got, want, plan.F32)
		})
	}
}

// verifyThenLast: LastToken after a verification is the last token that was
// chosen, whether or not guesses were wrong.
func (s *suite) verifyThenLast(t *testing.T) {
	m := transformer(620, plan.F32, shapes[0].shape)
	vocab := m.plan.Vocab
	h := s.host(t, m, limits)
	if !s.has(h, device.FeatureVerify) {
		t.Skip("the backend cannot verify")
	}
	want := plain(h, h.start(prompt(3, 18, vocab), sample.Greedy()), 5)
	for _, wrong := range []bool{false, true} {
		x := h.start(prompt(3, 18, vocab), sample.Greedy())
		got := plain(h, x, 1)
		guess := want[1].token
		if wrong {
			guess = (guess + 1) % int32(vocab)
		}
		x.tokens = append(x.tokens, guess)
		answers := h.step(chunk{seq: x, n: 2, verify: 2, index: 1, topN: 4})
		if wrong {
			answers = answers[:1]
			x.computed--
			x.tokens = x.tokens[:len(x.tokens)-1]
		}
		got = append(got, answers...)
		x.tokens = append(x.tokens, 0) // known to the device only
		got = append(got, h.step(chunk{seq: x, n: 1, last: true, sample: true, index: int32(len(got)), topN: 4})...)
		s.unchanged(t, got, want[:len(got)], plan.F32)
		h.finish(x)
	}
}
