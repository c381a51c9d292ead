package backendtest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// cache drives many sequences through few slots, shuffled pages and states:
// prompts in chunks beside decodes, slots and pages handed on, pages that windows
// have left given to others.
func (s *suite) cache(t *testing.T) {
	formats, sequences := []plan.Format{plan.F32, plan.BF16}, 4*limits.MaxSlots
	if s.opt.Brief {
		sequences = limits.MaxSlots + 2
	}
	if s.opt.Cache.Quantized() {
		formats = formats[:1] // a code that differs leads to other experts sooner or later
	} else if s.opt.Brief {
		formats = formats[1:]
	}
	for _, tt := range models() {
		for _, format := range formats {
			t.Run(fmt.Sprintf("%s/%v", tt.name, format), func(t *testing.T) {
				m := tt.build(format)
				s.compare(t, m, format, func(h *host) []answer { return traffic(h, m.plan.Vocab, sequences) })
			})
		}
	}
	t.Run("last token", s.lastToken)
	t.Run("copied", s.copied)
}

// copied: pages and states that were read from one backend and written to others
// of another are those from which a sequence goes on there.
func (s *suite) copied(t *testing.T) {
	const length, cut = 61, 32
	formats := []plan.Format{plan.F32, plan.BF16}
	if s.opt.Brief {
		formats = formats[:1]
	}
	for _, tt := range models() {
		for _, format := range formats {
			t.Run(fmt.Sprintf("%s/%v", tt.name, format), func(t *testing.T) {
				m := tt.build(format)
				tokens := prompt(12, length, m.plan.Vocab)
				from, to := s.host(t, m, limits), s.host(t, m, limits)
				var there, here snapshot
				x := from.start(tokens, sample.Greedy())
				from.step(chunk{seq: x, n: cut, save: &there})
				want := from.step(chunk{seq: x, n: length - cut, score: true})

				other := to.start(prompt(13, length, m.plan.Vocab), sample.Greedy())
				to.step(chunk{seq: other, n: length})
				to.finish(other) // leaves something else in what comes next
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				here.computed = there.computed
				content := make([]byte, from.info.PageBytes)
				for g := range there.pages {
					here.pages = append(here.pages, nil)
					for _, p := range there.pages[g] {
						q := take(to, &to.freePages, "pages")
						must(from.b.ReadPage(int(p), content))
						must(to.b.WritePage(int(q), content))
						here.pages[g] = append(here.pages[g], q)
					}
				}
				if m.plan.HasState() {
					content = make([]byte, from.info.StateBytes)
					here.state = take(to, &to.freeStates, "states")
					must(from.b.ReadState(int(there.state), content))
					must(to.b.WriteState(int(here.state), content))
				}
				y := to.resume(&here, tokens, sample.Greedy())
				s.unchanged(t, to.step(chunk{seq: y, n: length - cut, score: true}), want, format)
			})
		}
	}
}

// traffic is a random but fixed schedule of 24 sequences.
func traffic(h *host, vocab, sequences int) []answer {
	rng := rand.New(rand.NewPCG(5, 5))
	var (
		out    []answer
		active []*seq
	)
	for started := 0; started < sequences || len(active) > 0; {
		for started < sequences && len(active) < limits.MaxSlots && rng.IntN(2) == 0 {
			longest := limits.MaxPagesPerSlot * device.PageTokens
			s := h.start(prompt(uint64(started), 1+rng.IntN(longest), vocab), sample.Greedy())
			active = append(active, s)
			started++
		}
		var chunks []chunk
		budget := limits.MaxTokens
		for _, s := range active {
			n := min(len(s.tokens)-s.computed, 1+rng.IntN(40), budget)
			if n == 0 || rng.IntN(5) == 0 {
				continue
			}
			budget -= n
			chunks = append(chunks, chunk{seq: s, n: n, score: rng.IntN(3) > 0})
		}
		if len(chunks) > 0 {
			out = append(out, h.step(chunks...)...)
		}

		remaining := active[:0]
		for _, s := range active {
			if s.computed == len(s.tokens) {
				h.finish(s)
			} else {
				remaining = append(remaining, s)
			}
		}
		active = remaining
	}
	return out
}

// lastToken: LastToken means what the slot sampled last, whatever the other
// slots did since.
func (s *suite) lastToken(t *testing.T) {
	m := transformer(301, plan.F32, shapes[0].shape)
	run := func(last bool) []answer {
		h := s.host(t, m, limits)
		seqs := []*seq{
			h.start(prompt(1, 5, m.plan.Vocab), sample.Greedy()),
			h.start(prompt(2, 18, m.plan.Vocab), sample.Greedy()),
			h.start(prompt(3, 1, m.plan.Vocab), sample.Greedy()),
		}
		var all []answer
		step := func(which ...int) {
			var chunks []chunk
			for _, i := range which {
				c := chunk{seq: seqs[i], n: len(seqs[i].tokens) - seqs[i].computed, sample: true, topN: 5}
				c.last = last && c.seq.computed > 0
				chunks = append(chunks, c)
			}
			answers := h.step(chunks...)
			for j, i := range which {
				seqs[i].tokens = append(seqs[i].tokens, answers[j].token)
			}
			all = append(all, answers...)
		}
		step(0, 1)
		step(2, 0)
		step(1)
		step(2, 1, 0)
		step(0)
		step(1, 2)
		return all
	}
	s.unchanged(t, run(true), run(false), plan.F32)
}

// invariance: what a sequence gets does not depend on its neighbours, on how
// its prompt was cut, or on which pages, slot and state it has.
func (s *suite) invariance(t *testing.T) {
	const length, promptLength, many = 57, 45, 31
	limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 32, MaxPagesPerSlot: 8, Threads: 2}

	// run scores the sequence given the sizes of its chunks and a number of
	// neighbours, which prefill and decode at their own pace, then samples.
	run := func(t *testing.T, m *model, neighbours int, cuts []int) []answer {
		h := s.host(t, m, limits)
		vocab := m.plan.Vocab
		params := sample.Greedy()
		params.Sample, params.Temperature, params.TopP, params.RepetitionPenalty, params.Seed = 1, 1.3, 0.95, 1.2, 99

		rng := rand.New(rand.NewPCG(uint64(neighbours), uint64(len(cuts))))
		others := make([]*seq, neighbours)
		for i := range others {
			others[i] = h.start(prompt(uint64(1000+i), 1+rng.IntN(50), vocab), sample.Greedy())
		}
		beside := func(c chunk) []chunk {
			chunks := []chunk{c}
			budget := limits.MaxTokens - c.n
			for _, o := range others {
				if n := min(len(o.tokens)-o.computed, 1+rng.IntN(12), budget); n > 0 {
					budget -= n
					chunks = append(chunks, chunk{seq: o, n: n})
				}
			}
			rng.Shuffle(len(chunks), func(i, j int) { chunks[i], chunks[j] = chunks[j], chunks[i] })
			return chunks
		}

		x := h.start(prompt(42, length, vocab), params)
		var out []answer
		for i := 0; x.computed < promptLength; i++ {
			n := min(cuts[i%len(cuts)], promptLength-x.computed)
			out = append(out, h.step(beside(chunk{seq: x, n: n, score: true})...)...)
		}
		for x.computed < length {
			out = append(out, h.step(beside(chunk{seq: x, n: 1, score: true})...)...)
		}
		for i := range int32(6) {
			x.tokens = append(x.tokens, 0) // unknown to the host
			c := chunk{seq: x, n: 1, last: i > 0, sample: true, index: i, topN: 8}
			out = append(out, h.step(beside(c)...)...)
		}
		return out
	}

	for _, tt := range models() {
		formats := []plan.Format{plan.F32, plan.BF16}
		if s.opt.Brief {
			formats = formats[1:]
		}
		for _, format := range formats {
			m := tt.build(format)
			alone := run(t, m, 0, []int{promptLength})
			for _, v := range []struct {
				name       string
				neighbours int
				cuts       []int
			}{
				{"the same again", 0, []int{promptLength}},
				{"token by token", 0, []int{1}},
				{"odd chunks", 0, []int{3, 16, 1, 17, 7, 2, 5}},
				{"among 31", many, []int{promptLength}},
				{"among 31 in odd chunks", many, []int{9, 1, 15, 4, 16}},
				{"among 7", 7, []int{13}},
			} {
				if s.opt.Brief && (v.neighbours == 0 || v.neighbours == many) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%v/%s", tt.name, format, v.name), func(t *testing.T) {
					s.unchanged(t, run(t, m, v.neighbours, v.cuts), alone, format)
				})
			}
		}
	}
}
