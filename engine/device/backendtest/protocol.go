package backendtest

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// tiny is the model of tests that look at calls, not at numbers.
func tiny() *model {
	return transformer(600, plan.F32, shape{heads: heads{heads: 2, kvHeads: 1, headDim: 8}, vocab: 19, hidden: 16, inner: 24, layers: 1})
}

// calls checks what a backend says of itself and the order of calls.
func (s *suite) calls(t *testing.T) {
	m := tiny()
	b := s.load(t, m, limits)
	caps := b.Caps()
	if caps.Name == "" || caps.Ops == 0 || caps.Formats == 0 || caps.Devices < 1 || caps.StepTokens < 1 ||
		caps.LaunchDepth < 0 || caps.LaunchDepth >= device.RingDepth {
		t.Errorf("Caps: %+v", caps)
	}
	axes, embeds := 0, 0
	if caps.Has(device.FeatureAxes) {
		axes = 3 * limits.MaxTokens
	}
	if caps.Has(device.FeatureEmbeds) {
		embeds = limits.MaxTokens * m.plan.RowWidth()
	}
	for i := range device.RingDepth {
		batch := b.Batch(i)
		for _, c := range []struct {
			name      string
			got, want int
		}{
			{"Tokens", cap(batch.Tokens), limits.MaxTokens},
			{"Pos", cap(batch.Pos), limits.MaxTokens},
			{"Seqs", cap(batch.Seqs), limits.MaxSlots},
			{"Rows", cap(batch.Rows), limits.MaxRows},
			{"Axes", cap(batch.Axes), axes},
			{"Embeds", cap(batch.Embeds), embeds},
			{"Pages", cap(batch.Pages), limits.MaxSlots + 2*limits.MaxPagesPerSlot + limits.MaxTokens/device.PageTokens},
			{"States", cap(batch.States), limits.MaxSlots},
			{"Spans", cap(batch.Spans), limits.MaxSlots},
			{"Params", cap(batch.Params), limits.MaxSlots},
			{"Counts", cap(batch.Counts), limits.MaxTokens + limits.MaxPagesPerSlot*device.PageTokens},
			{"Biases", cap(batch.Biases), limits.MaxTokens + sample.MaxBiases},
			{"Masks", cap(batch.Masks), limits.MaxSlots * device.MaskWords(19)},
			{"MaskWords", batch.MaskWords, device.MaskWords(19)},
		} {
			if c.got < c.want {
				t.Errorf("Batch(%d).%s has capacity %d, want at least %d", i, c.name, c.got, c.want)
			}
		}
	}
	if err := b.Sample(0); err == nil {
		t.Error("Sample without Forward succeeded")
	}

	// All deltas at their capacity at once, and the most tokens and rows.
	h := newHost(t, b, m, limits)
	var chunks []chunk
	for i := range limits.MaxSlots {
		x := h.start(prompt(uint64(i), limits.MaxTokens/limits.MaxSlots, 19), greedy(func(p *sample.Params) { p.RepetitionPenalty = 2 }))
		x.counts = promptCounts(x.tokens)
		chunks = append(chunks, chunk{seq: x, n: len(x.tokens), score: true})
	}
	if got := h.step(chunks...); len(got) != limits.MaxTokens {
		t.Errorf("%d answers to a full batch, want %d", len(got), limits.MaxTokens)
	}
}

// ring: batches enqueued before the first was waited for run in order, each
// seeing what the one before sampled.
func (s *suite) ring(t *testing.T) {
	m := transformer(601, plan.F32, shapes[0].shape)
	const steps = 9
	run := func(ahead int) []answer {
		h := s.host(t, m, limits)
		p := sampled(func(p *sample.Params) { p.RepetitionPenalty, p.FrequencyPenalty = 1.3, 0.5 })
		a, b := h.start(prompt(1, 20, m.plan.Vocab), p), h.start(prompt(2, 3, m.plan.Vocab), p)
		type pending struct {
			entry  int
			chunks []chunk
		}
		var (
			queue []pending
			out   []answer
		)
		collect := func() {
			out = append(out, h.wait(queue[0].entry, queue[0].chunks...)...)
			queue = queue[1:]
		}
		for i := range int32(steps) {
			var chunks []chunk
			for _, x := range []*seq{a, b} {
				c := chunk{seq: x, n: len(x.tokens) - x.computed, sample: true, index: i, topN: 3, last: i > 0}
				chunks = append(chunks, c)
			}
			queue = append(queue, pending{h.enqueue(chunks...), chunks})
			a.tokens, b.tokens = append(a.tokens, 0), append(b.tokens, 0)
			if len(queue) > ahead {
				collect()
			}
		}
		for len(queue) > 0 {
			collect()
		}
		return out
	}
	want := run(0)
	for _, ahead := range []int{1, device.RingDepth - 1} {
		t.Run(fmt.Sprintf("%d ahead", ahead), func(t *testing.T) { s.unchanged(t, run(ahead), want, plan.F32) })
	}
}

// warmUp: it may come again, and leaves caches, slots and results as they are.
// Stats count steps, tokens and memory, and may be asked at any time.
func (s *suite) warmUp(t *testing.T) {
	for _, tt := range models() {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.build(plan.F32)
			run := func(warm bool) []answer {
				h := s.host(t, m, limits)
				var out []answer
				var before device.Stats
				x := h.start(prompt(1, 40, m.plan.Vocab), sampled(func(p *sample.Params) { p.RepetitionPenalty = 1.2 }))
				for i, n := range []int{20, 1, 17} {
					if warm {
						if err := h.b.WarmUp(); err != nil {
							t.Fatalf("WarmUp: %v", err)
						}
						before = h.b.Stats()
					}
					out = append(out, h.step(chunk{seq: x, n: n, score: true, sample: true, index: int32(i), topN: 4})...)
					after := h.b.Stats()
					if warm && (after.Steps != before.Steps+1 || after.Tokens != before.Tokens+int64(n) || after.Busy <= before.Busy || after.Bytes <= 0) {
						t.Errorf("Stats: %+v, after a step of %d tokens %+v", before, n, after)
					}
				}
				x.tokens = append(x.tokens, 0)
				return append(out, h.step(chunk{seq: x, n: 1, sample: true, index: 3, topN: 4})...)
			}
			s.unchanged(t, run(true), run(false), plan.F32)
		})
	}
}

// descriptors: a batch that cannot be right is refused by Forward and changes
// nothing: neither tables, parameters, counts nor cache.
func (s *suite) descriptors(t *testing.T) {
	m := tiny()
	vocab, slots, tables := int32(m.plan.Vocab), int32(limits.MaxSlots), int32(limits.MaxPagesPerSlot)
	for _, tt := range []struct {
		name string
		bad  func(b *device.Batch)
	}{
		{"token id is the vocabulary's size", func(b *device.Batch) { b.Tokens[1] = vocab }},
		{"negative token id", func(b *device.Batch) { b.Tokens[1] = -1 }},
		{"sequence of a slot too high", func(b *device.Batch) { b.Seqs[0].Slot = slots }},
		{"sequence of a negative slot", func(b *device.Batch) { b.Seqs[0].Slot = -1 }},
		{"sequence past the tokens", func(b *device.Batch) { b.Seqs[1].Count += 100 }},
		{"sequence before the tokens", func(b *device.Batch) { b.Seqs[1].Start = -1 }},
		{"negative count", func(b *device.Batch) { b.Seqs[1].Count = -1 }},
		{"cache longer than the table", func(b *device.Batch) {
			b.Seqs[1].KVLen = tables*device.PageTokens + 1
			b.Pos[len(b.Pos)-1] = b.Seqs[1].KVLen - 1
		}},
		{"position outside of the table", func(b *device.Batch) { b.Pos[0] = tables * device.PageTokens }},
		{"negative position", func(b *device.Batch) { b.Pos[0] = -1 }},
		{"page too high", func(b *device.Batch) { b.Pages[0].Page = int32(m.pages(limits)) }},
		{"negative page", func(b *device.Batch) { b.Pages[0].Page = -1 }},
		{"page index too high", func(b *device.Batch) { b.Pages[0].Index = tables }},
		{"negative page index", func(b *device.Batch) { b.Pages[0].Index = -1 }},
		{"page of a slot too high", func(b *device.Batch) { b.Pages[0].Slot = slots }},
		{"parameters of a slot too high", func(b *device.Batch) { b.Params[0].Slot = slots }},
		{"parameters of a negative slot", func(b *device.Batch) { b.Params[0].Slot = -1 }},
		{"count of a slot too high", func(b *device.Batch) { b.Counts[0].Slot = slots }},
		{"count of a token too high", func(b *device.Batch) { b.Counts[0].Token = vocab }},
		{"count of a negative token", func(b *device.Batch) { b.Counts[0].Token = -5 }},
		{"bias of a slot too high", func(b *device.Batch) { b.Biases[0].Slot = slots }},
		{"bias of a negative slot", func(b *device.Batch) { b.Biases[0].Slot = -1 }},
		{"bias of a slot without parameters", func(b *device.Batch) { b.Biases[0].Slot = slots - 1 }},
		{"bias of a token too high", func(b *device.Batch) { b.Biases[0].Token = vocab }},
		{"bias of a negative token", func(b *device.Batch) { b.Biases[0].Token = -1 }},
		{"bias too high", func(b *device.Batch) { b.Biases[0].Bias = sample.MaxBias + 1 }},
		{"bias too low", func(b *device.Batch) { b.Biases[0].Bias = -sample.MaxBias - 1 }},
		{"infinite bias", func(b *device.Batch) { b.Biases[0].Bias = float32(math.Inf(1)) }},
		{"bias that is NaN", func(b *device.Batch) { b.Biases[0].Bias = float32(math.NaN()) }},
		{"too many biases of a slot", func(b *device.Batch) {
			for range sample.MaxBiases {
				b.Biases = append(b.Biases, b.Biases[0])
			}
		}},
		{"row past the tokens", func(b *device.Batch) { b.Rows[0].Token = int32(len(b.Tokens)) }},
		{"row before the tokens", func(b *device.Batch) { b.Rows[0].Token = -1 }},
		{"row of a slot too high", func(b *device.Batch) { b.Rows[0].Slot = slots }},
		{"row of an unknown kind", func(b *device.Batch) { b.Rows[0].Kind = 7 }},
		{"too many alternatives", func(b *device.Batch) { b.Rows[0].TopN = device.MaxTopN + 1 }},
		{"negative alternatives", func(b *device.Batch) { b.Rows[0].TopN = -1 }},
		{"scored token too high", func(b *device.Batch) { b.Rows[0].Target = vocab }},
		{"negative scored token", func(b *device.Batch) { b.Rows[0].Target = -1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.disturbed(t, m, tt.bad)
			if err == nil {
				t.Fatal("Forward succeeded")
			}
			if errors.Is(err, device.ErrLost) {
				t.Errorf("Forward: %v, want an error that leaves the device alive", err)
			}
			if s.opt.NoNumerics {
				return
			}
			want, _ := s.disturbed(t, m, nil)
			s.unchanged(t, got, want, plan.F32)
		})
	}
}

// disturbed runs three batches, corrupting the second before it is run as it
// should be, and returns the answers and what Forward said to the corrupted one.
func (s *suite) disturbed(t *testing.T, m *model, corrupt func(b *device.Batch)) ([]answer, error) {
	t.Helper()
	h := s.host(t, m, limits)
	penalised := greedy(func(p *sample.Params) { p.RepetitionPenalty, p.FrequencyPenalty = 1.4, 0.3 })
	old := h.start(prompt(1, 22, m.plan.Vocab), penalised)
	old.counts = promptCounts(old.tokens)
	out := h.step(chunk{seq: old, n: 20, sample: true, topN: 4})

	// Three tokens of a resident sequence, a new one, and deltas of all sorts.
	fresh := h.start(prompt(2, 18, m.plan.Vocab), penalised)
	fresh.counts = promptCounts(fresh.tokens)
	fresh.biases = []sample.Bias{{Token: 3, Bias: 0.5}, {Token: 7, Bias: -2}}
	chunks := []chunk{{seq: old, n: 2, score: true}, {seq: fresh, n: 18, sample: true, topN: 4}}
	i := h.prepare(chunks...)
	batch := h.b.Batch(i)
	var err error
	if corrupt != nil {
		good := clone(batch)
		// What must not stick: another token, pages, parameters, counts and bias.
		batch.Tokens[0] = (batch.Tokens[0] + 1) % int32(m.plan.Vocab)
		for index := range int32(2) {
			batch.Pages = append(batch.Pages, device.PageDelta{Slot: old.slot, Index: index, Page: h.freePages[index]})
		}
		batch.Params = append(batch.Params, device.ParamDelta{Slot: old.slot, Params: sample.Greedy()})
		batch.Counts = append(batch.Counts, device.CountDelta{Slot: old.slot, Token: 2, Generated: 1})
		batch.Biases = append(batch.Biases, device.BiasDelta{Slot: old.slot, Token: 1, Bias: 50})
		corrupt(batch)
		err = h.b.Forward(i)
		if err == nil { // keep the order of calls for the rest
			return nil, nil
		}
		restore(batch, good)
	}
	h.run(i)
	out = append(out, h.wait(i, chunks...)...)

	old.tokens = append(old.tokens, 1)
	fresh.tokens = append(fresh.tokens, 0)
	return append(out, h.step(
		chunk{seq: old, n: 1, sample: true, topN: 4, index: 1},
		chunk{seq: fresh, n: 1, last: true, sample: true, topN: 4, index: 1},
	)...), err
}

func clone(b *device.Batch) *device.Batch {
	c := &device.Batch{}
	restore(c, b)
	return c
}

// restore copies the inputs of from into to, whose arrays are kept.
func restore(to, from *device.Batch) {
	to.Clear()
	to.Tokens, to.Pos = append(to.Tokens, from.Tokens...), append(to.Pos, from.Pos...)
	to.Axes, to.Embeds = append(to.Axes, from.Axes...), append(to.Embeds, from.Embeds...)
	to.Seqs, to.Rows, to.Spans = append(to.Seqs, from.Seqs...), append(to.Rows, from.Rows...), append(to.Spans, from.Spans...)
	to.Pages, to.States = append(to.Pages, from.Pages...), append(to.States, from.States...)
	to.Params, to.Counts = append(to.Params, from.Params...), append(to.Counts, from.Counts...)
	to.Biases, to.Masks = append(to.Biases, from.Biases...), append(to.Masks, from.Masks...)
}

// plans: tensors and plans that cannot be right are refused.
func (s *suite) plans(t *testing.T) {
	t.Run("tensors", s.badTensors)
	for _, tt := range []struct {
		name string
		bad  func(p *plan.Plan)
	}{
		{"unknown operation", func(p *plan.Plan) { p.Ops[1].Kind = 99 }},
		{"weight that does not exist", func(p *plan.Plan) { p.Ops[1].Weight[0] = int32(len(p.Tensors)) }},
		{"no weight", func(p *plan.Plan) { p.Ops[kindAt(p, plan.OpLinear)].Weight[0] = plan.None }},
		{"value that does not exist", func(p *plan.Plan) { p.Ops[1].In[0] = int32(len(p.Values)) }},
		{"no output", func(p *plan.Plan) { p.Ops[1].Out[0] = plan.None }},
		{"weight of another shape", func(p *plan.Plan) { p.Ops[2].Weight[0] = 0 }},
		{"cache that does not exist", func(p *plan.Plan) { p.Ops[kindAt(p, plan.OpCacheWrite)].I[plan.WriteCache] = int32(len(p.Caches)) }},
		{"table that does not exist", func(p *plan.Plan) { p.Ops[kindAt(p, plan.OpRope)].I[plan.RopeTable] = int32(len(p.Tables)) }},
		{"heads wider than the queries", func(p *plan.Plan) { p.Ops[kindAt(p, plan.OpAttention)].I[plan.AttnHeads] *= 2 }},
		{"no logits", func(p *plan.Plan) { p.Ops = p.Ops[:len(p.Ops)-1] }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tiny()
			b := device.Checked(s.open(t, limits), limits)
			defer b.Close()
			for i, w := range m.weights {
				announce(t, b, i, w)
				write(t, b, i, w)
			}
			tt.bad(&m.plan)
			if err := b.CheckPlan(&m.plan); err == nil {
				t.Error("CheckPlan succeeded")
			}
			if _, err := b.SetModel(&m.plan); err == nil {
				t.Error("SetModel succeeded")
			}
		})
	}
}

func kindAt(p *plan.Plan, kind plan.Kind) int {
	for i, op := range p.Ops {
		if op.Kind == kind {
			return i
		}
	}
	panic("no such operation: " + kind.String())
}

func (s *suite) badTensors(t *testing.T) {
	b := device.Checked(s.open(t, limits), limits)
	defer b.Close()
	for _, tt := range []struct {
		name   string
		format plan.Format
		shape  []int
	}{
		{"no dimension", plan.F32, nil},
		{"four dimensions", plan.F32, []int{2, 2, 2, 2}},
		{"empty", plan.F32, []int{4, 0}},
		{"negative", plan.F32, []int{-4, 4}},
		{"unknown type", plan.Format(7), []int{4, 4}},
	} {
		if _, err := b.NewTensor("bad", tt.format, tt.shape); err == nil {
			t.Errorf("NewTensor of %s succeeded", tt.name)
		}
	}
	h, err := b.NewTensor("good", plan.BF16, []int{3, 5})
	if err != nil {
		t.Fatal(err)
	}
	row := make([]byte, 10)
	for _, tt := range []struct {
		name     string
		h        device.Handle
		first, n int
		src      []byte
	}{
		{"an unknown handle", h + 1, 0, 1, row},
		{"a negative handle", -1, 0, 1, row},
		{"a row too high", h, 3, 1, row},
		{"a negative row", h, -1, 1, row},
		{"more rows than there are", h, 0, 4, make([]byte, 40)},
		{"too few bytes", h, 0, 1, row[:9]},
		{"too many bytes", h, 0, 1, make([]byte, 11)},
	} {
		if err := b.WriteTensor(tt.h, tt.first, tt.n, tt.src); err == nil {
			t.Errorf("WriteTensor of %s succeeded", tt.name)
		}
	}
	if err := b.WriteTensor(h, 0, 3, make([]byte, 30)); err != nil {
		t.Errorf("WriteTensor after refused calls: %v", err)
	}
}
