package backendtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// host drives a backend as the engine does, without its scheduling: it owns
// slots, pages and states, the latter two in shuffled order. Pages that a window
// has left behind go to whoever needs one next, and their entries of the page
// table are overwritten with anything.
type host struct {
	t          *testing.T
	b          device.Backend
	plan       *plan.Plan
	info       device.ModelInfo
	rng        *rand.Rand
	pages      int
	freePages  []int32
	freeStates []int32
	freeSlots  []int32
	next       int  // ring entry
	draft      bool // steps end with the plan's draft
	drafts     int  // of how many tokens
}

func newHost(t *testing.T, b device.Backend, m *model, limits device.Limits) *host {
	h := &host{t: t, b: b, plan: &m.plan, info: m.info, rng: rand.New(rand.NewPCG(9, 9)), pages: m.pages(limits)}
	for _, p := range h.rng.Perm(h.pages) {
		h.freePages = append(h.freePages, int32(p))
	}
	for _, s := range h.rng.Perm(m.states(limits)) {
		h.freeStates = append(h.freeStates, int32(s))
	}
	for s := limits.MaxSlots - 1; s >= 0; s-- {
		h.freeSlots = append(h.freeSlots, int32(s))
	}
	return h
}

// seq is a resident sequence.
type seq struct {
	slot     int32
	tokens   []int32 // known so far
	computed int
	params   sample.Params
	counts   []device.CountDelta // to send with the first step
	biases   []sample.Bias       // likewise
	fresh    bool                // parameters not yet sent

	pages []pageTable // by group
	state int32
	from  int32 // the state it begins from

	adapter int32
	ropeLen int32
	embeds  map[int][]float32      // rows in place of tokens, by position
	axes    func(pos int) [3]int32 // of positions; nil: all three are the position
	spans   []device.Span          // by position; each is fed in one step
}

// pageTable is what a sequence has of a group.
type pageTable struct {
	pages  []int32
	shared int // of these, the first so many belong to another sequence
	sent   int // the backend knows
	left   int // the window has left behind
}

// snapshot is a point from which sequences can go on.
type snapshot struct {
	computed int
	state    int32
	pages    [][]int32
}

func (h *host) start(tokens []int32, params sample.Params) *seq {
	h.t.Helper()
	s := &seq{slot: take(h, &h.freeSlots, "slots"), tokens: tokens, params: params, fresh: true, from: device.ZeroState}
	s.pages = make([]pageTable, len(h.plan.Groups))
	if h.plan.HasState() {
		s.state = take(h, &h.freeStates, "states")
	}
	return s
}

// resume starts a sequence after the snapshot's tokens.
func (h *host) resume(from *snapshot, tokens []int32, params sample.Params) *seq {
	h.t.Helper()
	s := h.start(tokens, params)
	s.computed, s.from = from.computed, from.state
	for g, pages := range from.pages {
		s.pages[g] = pageTable{pages: append([]int32(nil), pages...), shared: len(pages)}
	}
	return s
}

func take(h *host, free *[]int32, what string) int32 {
	h.t.Helper()
	n := len(*free)
	if n == 0 {
		h.t.Fatalf("the test uses more %s than there are", what)
	}
	x := (*free)[n-1]
	*free = (*free)[:n-1]
	return x
}

// finish gives slot, state and pages to whoever starts next.
func (h *host) finish(s *seq) {
	h.freeSlots = append(h.freeSlots, s.slot)
	if h.plan.HasState() {
		h.freeStates = append(h.freeStates, s.state)
	}
	for _, t := range s.pages {
		h.freePages = append(h.freePages, t.pages[max(t.shared, t.left):]...)
	}
}

// chunk is a sequence's share of a step.
type chunk struct {
	seq    *seq
	n      int       // tokens, from seq.computed on
	last   bool      // the final token is given as LastToken
	output bool      // of an encoder: the output of each token, or of each few that make a row
	score  bool      // score each token's successor (0 if unknown), all alternatives
	sample bool      // sample after the final token
	verify int       // sample after the final so many tokens, all but the first of which are guesses
	again  bool      // sample once more from the row before; n is 0
	index  int32     // of the first sampled token among the generated
	topN   int32     // alternatives of a sampled token
	mask   []uint32  // of a sampled token; nil: none
	save   *snapshot // to be made after the step
}

// answer is what came back for one row.
type answer struct {
	what    string
	token   int32
	logprob float32
	invalid bool
	void    bool
	top     []device.Alternative
	drafts  [device.MaxDrafts]int32 // of a host that drafts
	output  []float32               // of an encoder
}

// step runs one batch and returns its answers, chunk by chunk, scores first.
func (h *host) step(chunks ...chunk) []answer {
	h.t.Helper()
	i := h.enqueue(chunks...)
	return h.wait(i, chunks...)
}

// enqueue fills the next ring entry and enqueues it.
func (h *host) enqueue(chunks ...chunk) int {
	h.t.Helper()
	i := h.prepare(chunks...)
	h.run(i)
	return i
}

// prepare fills the next ring entry.
func (h *host) prepare(chunks ...chunk) int {
	h.t.Helper()
	i := h.next
	h.next = (h.next + 1) % device.RingDepth
	h.fill(h.b.Batch(i), chunks...)
	return i
}

func (h *host) run(i int) {
	h.t.Helper()
	h.forward(i)
	h.sample(i)
}

func (h *host) forward(i int) {
	h.t.Helper()
	if err := h.b.Forward(i); err != nil {
		h.t.Fatalf("Forward(%d): %v", i, err)
	}
}

func (h *host) sample(i int) {
	h.t.Helper()
	if err := h.b.Sample(i); err != nil {
		h.t.Fatalf("Sample(%d): %v", i, err)
	}
}

// fill writes chunks into an empty batch and counts their tokens as computed.
func (h *host) fill(b *device.Batch, chunks ...chunk) {
	h.t.Helper()
	b.Clear()
	b.Draft = h.draft
	for i := range chunks {
		c := &chunks[i]
		if c.again {
			b.Rows = append(b.Rows, device.Row{Token: -1, Slot: c.seq.slot, Kind: device.RowAgain, Index: c.index, TopN: c.topN})
			if c.mask != nil {
				setMask(b, len(b.Rows)-1, c.mask)
			}
			continue
		}
		fresh := c.seq.fresh
		h.fillDeltas(b, c, fresh)
		h.fillTokens(b, c)
		h.fillPages(b, c.seq, c.n, max(0, h.drafts-1))
		if c.save != nil {
			c.save.computed, c.save.pages = c.seq.computed, nil
			for g := range c.seq.pages { // from now on they are not of the sequence alone
				t := &c.seq.pages[g]
				t.shared = len(t.pages)
				c.save.pages = append(c.save.pages, append([]int32(nil), t.pages...))
			}
		}
	}
	h.fillAxes(b, chunks)
}

// fillDeltas writes what is not of single tokens.
func (h *host) fillDeltas(b *device.Batch, c *chunk, fresh bool) {
	s := c.seq
	if fresh {
		b.Params = append(b.Params, device.ParamDelta{Slot: s.slot, Params: s.params})
		for _, d := range s.counts {
			d.Slot = s.slot
			b.Counts = append(b.Counts, d)
		}
		for _, bias := range s.biases {
			b.Biases = append(b.Biases, device.BiasDelta{Slot: s.slot, Token: bias.Token, Bias: bias.Bias})
		}
		s.fresh = false
	}
	if h.plan.HasState() && (fresh || c.save != nil) {
		d := device.StateDelta{Slot: s.slot, Live: s.state, From: device.NoState, Save: device.NoState}
		if fresh {
			d.From = s.from
		}
		if c.save != nil {
			c.save.state = take(h, &h.freeStates, "states")
			d.Save = c.save.state
		}
		b.States = append(b.States, d)
	}
}

// fillTokens writes a chunk's tokens and rows.
func (h *host) fillTokens(b *device.Batch, c *chunk) {
	s, start := c.seq, int32(len(b.Tokens))
	for j := range c.n {
		pos := s.computed + j
		id := device.LastToken
		if row, ok := s.embeds[pos]; ok {
			id = device.EmbedRow(len(b.Embeds) / h.plan.RowWidth())
			b.Embeds = append(b.Embeds, row...)
		} else if !c.last || j < c.n-1 {
			id = s.tokens[pos]
		}
		b.Tokens, b.Pos = append(b.Tokens, id), append(b.Pos, int32(pos))
		if c.output && (j+1)%h.joined() == 0 {
			b.Rows = append(b.Rows, device.Row{Token: start + int32(j), Slot: s.slot, Kind: device.RowOutput})
		}
		if c.score {
			row := device.Row{Token: start + int32(j), Slot: s.slot, Kind: device.RowScore, TopN: device.MaxTopN}
			if pos+1 < len(s.tokens) {
				row.Target = s.tokens[pos+1]
			}
			b.Rows = append(b.Rows, row)
		}
	}
	for _, span := range s.spans {
		if first := int(span.Start) - s.computed; first >= 0 && first < c.n {
			b.Spans = append(b.Spans, device.Span{Start: start + int32(first), Count: span.Count})
		}
	}
	s.computed += c.n
	row := device.Row{Token: start + int32(c.n) - 1, Slot: s.slot, Kind: device.RowSample, Index: c.index, TopN: c.topN}
	if c.sample {
		b.Rows = append(b.Rows, row)
	}
	for j := range c.verify {
		row.Token, row.Kind = start+int32(c.n-c.verify+j), device.RowVerify
		row.Index, row.Target = c.index+int32(j), -1
		if j < c.verify-1 {
			row.Target = b.Tokens[row.Token+1]
		}
		b.Rows = append(b.Rows, row)
	}
	if c.mask != nil {
		setMask(b, len(b.Rows)-1, c.mask)
	}
	next := int32(0)
	if s.computed < len(s.tokens) {
		next = s.tokens[s.computed]
	}
	b.Seqs = append(b.Seqs, device.Seq{
		Slot: s.slot, Start: start, Count: int32(c.n), KVLen: int32(s.computed), Adapter: s.adapter, RopeLen: s.ropeLen, Next: next, Drafts: int32(h.drafts),
	})
}

// joined is how many tokens OpRows makes a row of.
func (h *host) joined() int {
	count := 1
	for i := range h.plan.Ops {
		if op := &h.plan.Ops[i]; op.Kind == plan.OpRows {
			count = max(count, int(op.I[plan.RowsCount]))
		}
	}
	return count
}

// fillPages gives a sequence the pages that a step of n tokens and drafts of more
// positions need, and takes those that its windows have left.
func (h *host) fillPages(b *device.Batch, s *seq, n, more int) {
	for g := range s.pages {
		t := &s.pages[g]
		window := int(h.plan.Groups[g].Window)
		first := 0 // entry that the step reads first
		if window > 0 {
			first = max(0, s.computed-n-window+1) / device.PageTokens
		}
		for ; t.left < min(first, t.sent); t.left++ {
			if t.left >= t.shared {
				h.freePages = append(h.freePages, t.pages[t.left])
			}
			garbage := int32(h.rng.IntN(h.pages))
			b.Pages = append(b.Pages, device.PageDelta{Slot: s.slot, Group: int32(g), Index: int32(t.left), Page: garbage})
		}
		for len(t.pages)*device.PageTokens < s.computed+more {
			t.pages = append(t.pages, take(h, &h.freePages, "pages"))
		}
		for t.sent = max(t.sent, first); t.sent < len(t.pages); t.sent++ {
			b.Pages = append(b.Pages, device.PageDelta{Slot: s.slot, Group: int32(g), Index: int32(t.sent), Page: t.pages[t.sent]})
		}
	}
}

// fillAxes writes the axes of all positions if one sequence has some.
func (h *host) fillAxes(b *device.Batch, chunks []chunk) {
	used := false
	for _, c := range chunks {
		used = used || c.seq.axes != nil
	}
	if !used {
		return
	}
	n := len(b.Tokens)
	b.Axes = b.Axes[:3*n]
	for _, q := range b.Seqs {
		for t := int(q.Start); t < int(q.Start+q.Count); t++ {
			pos := b.Pos[t]
			at := [3]int32{pos, pos, pos}
			for _, c := range chunks {
				if c.seq.slot == q.Slot && c.seq.axes != nil {
					at = c.seq.axes(int(pos))
				}
			}
			for axis, p := range at {
				b.Axes[axis*n+t] = p
			}
		}
	}
}

// setMask gives row r of a batch a mask.
func setMask(b *device.Batch, r int, mask []uint32) {
	b.Masks = append(b.Masks, mask...)
	b.Rows[r].Mask = int32(len(b.Masks) / b.MaskWords)
}

// wait reads the results of a batch that was filled with chunks.
func (h *host) wait(i int, chunks ...chunk) []answer {
	h.t.Helper()
	if err := h.b.Wait(i); err != nil {
		h.t.Fatalf("Wait(%d): %v", i, err)
	}
	b := h.b.Batch(i)
	if len(b.Results) < len(b.Rows) || len(b.Top) < len(b.Rows)*device.MaxTopN {
		h.t.Fatalf("%d results and %d alternatives for %d rows", len(b.Results), len(b.Top), len(b.Rows))
	}
	out := make([]answer, len(b.Rows))
	if len(b.Rows) > 0 && b.Rows[0].Kind == device.RowOutput {
		width := h.plan.Width(h.plan.Ops[len(h.plan.Ops)-1].In[0])
		if len(b.Outputs) != len(b.Rows)*width {
			h.t.Fatalf("%d floats of outputs for %d rows of %d", len(b.Outputs), len(b.Rows), width)
		}
		for r, row := range b.Rows {
			what := fmt.Sprintf("output of position %d of slot %d", b.Pos[row.Token], row.Slot)
			out[r] = answer{what: what, output: slices.Clone(b.Outputs[r*width:][:width])}
		}
		return out
	}
	for r, row := range b.Rows {
		res := b.Results[r]
		if res.Void != 0 {
			out[r] = answer{what: fmt.Sprintf("row %d", r), void: true}
			continue
		}
		if res.TopCount < 0 || res.TopCount > device.MaxTopN {
			h.t.Fatalf("row %d: %d alternatives", r, res.TopCount)
		}
		what := fmt.Sprintf("sample again of slot %d", row.Slot)
		if row.Kind != device.RowAgain {
			kind := map[device.RowKind]string{device.RowScore: "score", device.RowSample: "sample", device.RowVerify: "verify"}[row.Kind]
			what = fmt.Sprintf("%s after position %d of slot %d", kind, b.Pos[row.Token], row.Slot)
		}
		out[r] = answer{
			what:    what,
			token:   res.Token,
			logprob: res.Logprob,
			invalid: res.Invalid != 0,
			top:     append([]device.Alternative(nil), b.Top[r*device.MaxTopN:][:res.TopCount]...),
			drafts:  res.Drafts,
		}
	}
	return out
}

// prompt returns n pseudo-random ids below vocab.
func prompt(seed uint64, n, vocab int) []int32 {
	rng := rand.New(rand.NewPCG(seed, 77))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(rng.IntN(vocab))
	}
	return out
}
