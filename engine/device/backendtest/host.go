package backendtest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

// host drives a backend as the engine does, without its scheduling: it owns
// slots and pages, the latter in shuffled order.
type host struct {
	t         *testing.T
	b         device.Backend
	freePages []int32
	freeSlots []int32
	next      int // ring entry
}

func newHost(t *testing.T, b device.Backend, limits device.Limits, pages int) *host {
	h := &host{t: t, b: b}
	for _, p := range rand.New(rand.NewPCG(9, 9)).Perm(pages) {
		h.freePages = append(h.freePages, int32(p))
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
	pages    []int32
	params   sample.Params
	counts   []device.CountDelta // to send with the first step
	biases   []sample.Bias       // likewise
	fresh    bool                // parameters not yet sent
}

func (h *host) start(tokens []int32, params sample.Params) *seq {
	h.t.Helper()
	n := len(h.freeSlots)
	if n == 0 {
		h.t.Fatal("the test uses more slots than there are")
	}
	s := &seq{slot: h.freeSlots[n-1], tokens: tokens, params: params, fresh: true}
	h.freeSlots = h.freeSlots[:n-1]
	return s
}

// finish gives slot and pages to whoever starts next.
func (h *host) finish(s *seq) {
	h.freeSlots = append(h.freeSlots, s.slot)
	h.freePages = append(h.freePages, s.pages...)
}

// chunk is a sequence's share of a step.
type chunk struct {
	seq    *seq
	n      int      // tokens, from seq.computed on
	last   bool     // the final token is given as LastToken
	score  bool     // score each token's successor (0 if unknown), all alternatives
	sample bool     // sample after the final token
	index  int32    // of the sampled token among the generated
	topN   int32    // alternatives of the sampled token
	mask   []uint32 // of the sampled token; nil: none
}

// answer is what came back for one row.
type answer struct {
	what    string
	token   int32
	logprob float32
	invalid bool
	top     []device.Alternative
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

func clearBatch(b *device.Batch) {
	b.Tokens, b.Pos, b.Seqs, b.Rows = b.Tokens[:0], b.Pos[:0], b.Seqs[:0], b.Rows[:0]
	b.Pages, b.Params, b.Counts = b.Pages[:0], b.Params[:0], b.Counts[:0]
	b.Biases, b.Masks = b.Biases[:0], b.Masks[:0]
}

// fill writes chunks into an empty batch and counts their tokens as computed.
func (h *host) fill(b *device.Batch, chunks ...chunk) {
	h.t.Helper()
	clearBatch(b)
	for _, c := range chunks {
		s := c.seq
		if s.fresh {
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
		start := int32(len(b.Tokens))
		for j := range c.n {
			pos := s.computed + j
			id := device.LastToken
			if !c.last || j < c.n-1 {
				id = s.tokens[pos]
			}
			b.Tokens, b.Pos = append(b.Tokens, id), append(b.Pos, int32(pos))
			if c.score {
				row := device.Row{Token: start + int32(j), Slot: s.slot, Kind: device.RowScore, TopN: device.MaxTopN}
				if pos+1 < len(s.tokens) {
					row.Target = s.tokens[pos+1]
				}
				b.Rows = append(b.Rows, row)
			}
		}
		s.computed += c.n
		if c.sample {
			b.Rows = append(b.Rows, device.Row{Token: start + int32(c.n) - 1, Slot: s.slot, Kind: device.RowSample, Index: c.index, TopN: c.topN})
			if c.mask != nil {
				setMask(b, len(b.Rows)-1, c.mask)
			}
		}
		b.Seqs = append(b.Seqs, device.Seq{Slot: s.slot, Start: start, Count: int32(c.n), KVLen: int32(s.computed)})
		for len(s.pages)*device.PageTokens < s.computed {
			n := len(h.freePages)
			if n == 0 {
				h.t.Fatal("the test uses more pages than there are")
			}
			page := h.freePages[n-1]
			h.freePages = h.freePages[:n-1]
			b.Pages = append(b.Pages, device.PageDelta{Slot: s.slot, Index: int32(len(s.pages)), Page: page})
			s.pages = append(s.pages, page)
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
	for r, row := range b.Rows {
		res := b.Results[r]
		if res.TopCount < 0 || res.TopCount > device.MaxTopN {
			h.t.Fatalf("row %d: %d alternatives", r, res.TopCount)
		}
		kind := "score"
		if row.Kind == device.RowSample {
			kind = "sample"
		}
		out[r] = answer{
			what:    fmt.Sprintf("%s after position %d of slot %d", kind, b.Pos[row.Token], row.Slot),
			token:   res.Token,
			logprob: res.Logprob,
			invalid: res.Invalid != 0,
			top:     append([]device.Alternative(nil), b.Top[r*device.MaxTopN:][:res.TopCount]...),
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
