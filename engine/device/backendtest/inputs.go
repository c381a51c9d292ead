package backendtest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// has reports whether the backend of a host can do f.
func (s *suite) has(h *host, f device.Feature) bool {
	caps := h.b.Caps()
	return caps.Has(f)
}

// inputs are what a sequence can be made of beside tokens at positions.
func (s *suite) inputs(t *testing.T) {
	for _, tt := range []struct {
		name    string
		feature device.Feature
		run     func(t *testing.T)
	}{
		{"embedding rows", device.FeatureEmbeds, s.embeds},
		{"axes", device.FeatureAxes, s.axes},
		{"spans", device.FeatureSpans, s.spans},
		{"adapters", device.FeatureAdapters, s.adapters},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if h := s.host(t, tiny(), limits); !s.has(h, tt.feature) {
				t.Skip("the backend cannot do that")
			}
			tt.run(t)
		})
	}
	t.Run("length of rotations", s.ropeLength)
}

// embeds: rows in place of tokens, in any number and at any place, as ref has
// them; the row of a token's own embedding is that token.
func (s *suite) embeds(t *testing.T) {
	for _, format := range formats {
		m := transformer(630, format, shapes[1].shape)
		vocab, hidden := m.plan.Vocab, m.plan.RowWidth()
		rng := rand.New(rand.NewPCG(8, 8))
		rows := map[int][]float32{}
		for _, pos := range []int{0, 3, 4, 5, 17, 22} {
			rows[pos] = make([]float32, hidden)
			for i := range rows[pos] {
				rows[pos][i] = float32(rng.NormFloat64())
			}
		}
		t.Run(format.String(), func(t *testing.T) {
			s.compare(t, m, format, func(h *host) []answer {
				x, y := h.start(prompt(1, 25, vocab), sample.Greedy()), h.start(prompt(2, 20, vocab), sample.Greedy())
				x.embeds, y.embeds = rows, map[int][]float32{1: rows[17]}
				out := h.step(chunk{seq: y, n: 9, score: true}, chunk{seq: x, n: 4, score: true})
				return append(out, h.step(chunk{seq: x, n: 21, score: true, sample: true, topN: 5})...)
			})
		})
	}
	for _, format := range formats {
		t.Run("columns/"+format.String(), func(t *testing.T) {
			const vocab, hidden = 30, 40
			b := newBuilder(632, vocab, format)
			x := b.embed(hidden, 2)
			b.plan.EmbedsWidth = 3 * hidden
			for _, part := range []int{2, 1} { // zeros for tokens
				op := b.op(plan.OpEmbed, hidden)
				op.I[plan.EmbedFirst], op.F[plan.EmbedScale] = int32(part*hidden), 1
				x = b.add(b.linear(x, hidden, true), op.Out[0], 1)
			}
			m := b.logits(x, 0)
			s.compare(t, m, format, func(h *host) []answer {
				x := h.start(prompt(1, 25, vocab), sample.Greedy())
				rng := rand.New(rand.NewPCG(9, 9))
				x.embeds = map[int][]float32{}
				for _, pos := range []int{0, 3, 4, 17} {
					for range 3 * hidden {
						x.embeds[pos] = append(x.embeds[pos], float32(rng.NormFloat64()))
					}
				}
				return h.step(chunk{seq: x, n: 25, score: true})
			})
		})
	}
	t.Run("of tokens", func(t *testing.T) {
		b := newBuilder(631, 29, plan.F32)
		values := make([]float32, 29*40)
		for i := range values {
			values[i] = float32(b.rng.NormFloat64())
		}
		x := b.embedOf(b.tensor(values, 29, 40), 40, 3)
		m := b.logits(b.rmsNorm(x, 40, 0), 0)
		run := func(embeds bool) []answer {
			h := s.host(t, m, limits)
			x := h.start(prompt(1, 25, 29), sample.Greedy())
			if embeds {
				x.embeds = map[int][]float32{}
				for pos := 2; pos < 25; pos += 3 {
					for _, v := range values[x.tokens[pos]*40:][:40] {
						x.embeds[pos] = append(x.embeds[pos], 3*v)
					}
				}
			}
			return h.step(chunk{seq: x, n: 25, score: true})
		}
		s.unchanged(t, run(true), run(false), plan.F32)
	})
}

// grid are the axes of an image of 4 by 3 from position 5 on, and of the text
// around it.
func grid(pos int) [3]int32 {
	p := int32(pos)
	switch i := p - 5; {
	case i < 0:
		return [3]int32{p, p, p}
	case i < 12:
		return [3]int32{5, 5 + i/4, 5 + i%4}
	default: // goes on after the longest side
		return [3]int32{p - 8, p - 8, p - 8}
	}
}

// axes: rotations by three axes, with a sequence beside that has none; axes
// that are all the position change nothing.
func (s *suite) axes(t *testing.T) {
	build := func(format plan.Format, interleaved int32) *model {
		b := newBuilder(640, 30, format)
		h := heads{heads: 4, kvHeads: 2, headDim: 24}
		x := b.embed(40, 1)
		q, k, v := b.linear(x, 4*24, false), b.linear(x, 2*24, false), b.linear(x, 2*24, false)
		axes := b.table(0, 0, 0, 0, 1, 1, 1, 2, 2, 2)
		for _, x := range []int32{q, k} {
			op := b.rope(x, 24, 20, 1)
			op.I[plan.RopeAxes], op.I[plan.RopeInterleaved] = axes, interleaved
		}
		return b.logits(b.attend(q, k, v, h), 0)
	}
	script := func(axes func(int) [3]int32) func(h *host) []answer {
		return func(h *host) []answer {
			x, y := h.start(prompt(1, 30, 30), sample.Greedy()), h.start(prompt(2, 30, 30), sample.Greedy())
			x.axes = axes
			out := h.step(chunk{seq: y, n: 11, score: true}, chunk{seq: x, n: 8, score: true})
			return append(out, h.step(chunk{seq: x, n: 22, score: true, sample: true, topN: 5}, chunk{seq: y, n: 1, score: true})...)
		}
	}
	for _, format := range formats {
		t.Run(format.String(), func(t *testing.T) {
			for interleaved := range int32(2) {
				s.compare(t, build(format, interleaved), format, script(grid))
			}
		})
	}
	m := build(plan.F32, 0)
	same := func(pos int) [3]int32 { return [3]int32{int32(pos), int32(pos), int32(pos)} }
	s.unchanged(t, script(same)(s.host(t, m, limits)), script(nil)(s.host(t, m, limits)), plan.F32)
}

// spans: tokens of a span see all of it, in caches of all windows; a span of
// one token is none.
func (s *suite) spans(t *testing.T) {
	for _, tt := range []namedModel{
		{"windows", func(f plan.Format) *model { return transformer(650, f, shapes[2].shape) }},
		{"groups", groups},
		{"latent", latent},
	} {
		for _, format := range formats {
			t.Run(tt.name+"/"+format.String(), func(t *testing.T) {
				m := tt.build(format)
				vocab := m.plan.Vocab
				script := func(spans ...device.Span) func(h *host) []answer {
					return func(h *host) []answer {
						x, y := h.start(prompt(1, 60, vocab), sample.Greedy()), h.start(prompt(2, 30, vocab), sample.Greedy())
						x.spans = spans
						y.spans = []device.Span{{Start: 0, Count: 4}}
						out := h.step(chunk{seq: y, n: 6, score: true}, chunk{seq: x, n: 4, score: true})
						out = append(out, h.step(chunk{seq: x, n: 36, score: true}, chunk{seq: y, n: 3, score: true})...)
						return append(out, h.step(chunk{seq: y, n: 1, score: true}, chunk{seq: x, n: 20, score: true})...)
					}
				}
				with := script(device.Span{Start: 5, Count: 14}, device.Span{Start: 19, Count: 2}, device.Span{Start: 45, Count: 15})
				s.compare(t, m, format, with)
				s.unchanged(t, script(device.Span{Start: 9, Count: 1})(s.host(t, m, limits)), script()(s.host(t, m, limits)), format)
			})
		}
	}
}

// LowRank returns an adapter of some of a plan's matrices, large enough to be
// seen.
func LowRank(p *plan.Plan, seed uint64, rank int) *device.Adapter {
	rng := rand.New(rand.NewPCG(seed, 1))
	random := func(n int, size float64) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = float32(rng.NormFloat64() * size)
		}
		return out
	}
	a := &device.Adapter{Rank: rank}
	seen := map[int32]bool{}
	for i := range p.Ops {
		op := &p.Ops[i]
		for _, w := range device.Adaptable(op) {
			if seen[w] || w%4 == 3 {
				continue
			}
			seen[w] = true
			shape := p.Tensors[w].Shape
			matrices, rows, cols := 1, shape[len(shape)-2], shape[len(shape)-1]
			if len(shape) == 3 {
				matrices = shape[0]
			}
			add := func(first, n int) {
				a.Targets = append(a.Targets, device.AdapterTarget{
					Tensor: int(w), First: first, Rows: n,
					A: random(matrices*rank*cols, 1/math.Sqrt(float64(cols))),
					B: random(matrices*n*rank, 0.4/math.Sqrt(float64(rank))),
				})
			}
			switch {
			case rows <= 8 || w%2 == 1:
				add(0, rows)
			default: // some rows alone: of merged projections, one that is changed and one that is not, or two
				add(rows/3, rows/2)
				if w%4 == 0 {
					add(0, rows/3)
				}
			}
		}
	}
	return a
}

// adapters: sequences with different adapters and with none in one batch, as
// ref has them, and none changed by the others.
func (s *suite) adapters(t *testing.T) {
	for _, tt := range []namedModel{
		{"transformer", func(f plan.Format) *model { return transformer(660, f, shapes[1].shape) }},
		{"lowered", lowered},
		{"experts", mixture},
		{"latent", latent},
		{"recurrent", recurrent},
		{"selective scans", selective},
	} {
		for _, format := range formats {
			t.Run(tt.name+"/"+format.String(), func(t *testing.T) {
				m := tt.build(format)
				vocab := m.plan.Vocab
				load := func(h *host) *host {
					for id, rank := range map[int32]int{1: 4, 2: 1, 7: 9} {
						if err := h.b.LoadAdapter(id, LowRank(&m.plan, uint64(id), rank)); err != nil {
							t.Fatalf("LoadAdapter(%d): %v", id, err)
						}
					}
					return h
				}
				ids := []int32{0, 7, 1, 2, 1}
				together := func(h *host) []answer {
					var chunks []chunk
					var out []answer
					for i, id := range ids {
						x := h.start(prompt(uint64(i), 14, vocab), sample.Greedy())
						x.adapter = id
						chunks = append(chunks, chunk{seq: x, n: 6 + i, score: true})
					}
					out = append(out, h.step(chunks...)...)
					for i := range chunks {
						chunks[i].n, chunks[i].score, chunks[i].sample, chunks[i].topN = 1, false, true, 5
					}
					return append(out, h.step(chunks...)...)
				}
				got := together(load(s.host(t, m, limits)))
				near(t, got, together(load(s.oracle(t, m, limits))), s.tolerance(format))

				// Alone, the adapter loaded under another number.
				at := 0
				for i, id := range ids {
					h := s.host(t, m, limits)
					x := h.start(prompt(uint64(i), 14, vocab), sample.Greedy())
					if id != 0 {
						x.adapter = id + 3
						rank := map[int32]int{1: 4, 2: 1, 7: 9}[id]
						if err := h.b.LoadAdapter(id+3, LowRank(&m.plan, uint64(id), rank)); err != nil {
							t.Fatal(err)
						}
					}
					s.unchanged(t, h.step(chunk{seq: x, n: 6 + i, score: true}), got[at:at+6+i], format)
					at += 6 + i
				}
			})
		}
	}
	t.Run("dropped and loaded", func(t *testing.T) {
		m := transformer(661, plan.F32, shapes[1].shape)
		h := s.host(t, m, limits)
		run := func(adapter int32) []answer {
			x := h.start(prompt(1, 14, m.plan.Vocab), sample.Greedy())
			x.adapter = adapter
			defer h.finish(x)
			return h.step(chunk{seq: x, n: 14, score: true})
		}
		set := func(seed uint64) {
			a := LowRank(&m.plan, seed, 3)
			if err := h.b.LoadAdapter(5, a); err != nil {
				t.Fatal(err)
			}
			for _, target := range a.Targets { // nothing of it is kept
				clear(target.A)
				clear(target.B)
			}
		}
		none := run(0)
		set(1)
		first := run(5)
		if err := h.b.DropAdapter(5); err != nil {
			t.Fatal(err)
		}
		set(2)
		second := run(5)
		s.unchanged(t, run(0), none, plan.F32)
		for name, pair := range map[string][2][]answer{"no adapter": {first, none}, "the adapter before": {second, first}} {
			if math.Abs(float64(pair[0][13].logprob-pair[1][13].logprob)) < 10*s.opt.Tolerance {
				t.Errorf("an adapter gives log-probability %v, %s %v", pair[0][13].logprob, name, pair[1][13].logprob)
			}
		}
	})
}

// ropeLength: a sequence that is taken for longer than it is, as its prompt
// will be, has the frequencies of that length from the first token on.
func (s *suite) ropeLength(t *testing.T) {
	for _, dynamic := range []bool{false, true} {
		b := newBuilder(670, 28, plan.F32)
		x := b.embed(48, 1)
		q, k, v := b.linear(x, 48, false), b.linear(x, 16, false), b.linear(x, 16, false)
		b.plan.RopeOriginal, b.plan.RopeDynamic = 12, dynamic
		for _, x := range []int32{q, k} {
			op := b.rope(x, 16, 16, 1.1)
			op.I[plan.RopeOriginal], op.F[plan.RopeFactor], op.F[plan.RopeTheta] = 12, 4, 10000
			if !dynamic {
				long := b.table(frequencies(16, 0.2)...)
				op.I[plan.RopeLong], op.F[plan.RopeFactor], op.F[plan.RopeTheta] = long, 0, 0
			}
		}
		m := b.logits(b.attend(q, k, v, heads{heads: 3, kvHeads: 1, headDim: 16}), 0)
		script := func(length int32, n ...int) func(h *host) []answer {
			return func(h *host) []answer {
				x, y := h.start(prompt(1, 30, 28), sample.Greedy()), h.start(prompt(2, 30, 28), sample.Greedy())
				x.ropeLen = length
				var out []answer
				for _, n := range n {
					out = append(out, h.step(chunk{seq: x, n: n, score: true})...)
					h.step(chunk{seq: y, n: 1})
				}
				return out
			}
		}
		for _, length := range []int32{0, 12, 13, 30, 77} {
			s.compare(t, m, plan.F32, script(length, 5, 8, 17))
			s.unchanged(t, script(length, 5, 8, 17)(s.host(t, m, limits)), script(length, 30)(s.host(t, m, limits)), plan.F32)
		}
	}
}
