package backendtest

import (
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// drafting is a transformer with a head that predicts one more token.
func drafting(format plan.Format) *model {
	const hidden = 40
	h := heads{heads: 4, kvHeads: 2, headDim: 16}
	b := newBuilder(640, 60, format)
	embedding := b.matrix(60, hidden)
	layer := func(x int32) int32 {
		n := b.rmsNorm(x, hidden, 0)
		q, k, v := b.linear(n, 64, false), b.linear(n, 32, false), b.linear(n, 32, false)
		b.rope(q, 16, 16, 1)
		b.rope(k, 16, 16, 1)
		x = b.add(x, b.linear(b.attend(q, k, v, h), hidden, true), 1)
		n = b.rmsNorm(x, hidden, 0)
		return b.add(x, b.linear(b.activate(plan.ActSilu, b.linear(n, 51, false), b.linear(n, 51, false)), hidden, false), 1)
	}
	x := layer(b.embedOf(embedding, hidden, 3))
	b.logits(b.rmsNorm(x, hidden, 0), 0)
	n := len(b.plan.Ops)
	state := b.rmsNorm(x, hidden, 0)
	next := b.rmsNorm(b.embedOf(embedding, hidden, 3), hidden, 0)
	x = layer(b.linear(b.join(next, state), hidden, false))
	m := b.logits(b.rmsNorm(x, hidden, 0), 5)
	m.plan.Ops, m.plan.Draft = m.plan.Ops[:n:n], m.plan.Ops[n:]
	return m
}

// drafts compares what a head drafts: of prompts in pieces, of tokens one by one, after
// right and wrong guesses, in company, and after a step without it, one token or several
// at a time, across ends of pages. Tokens that are chosen do not depend on it.
func (s *suite) drafts(t *testing.T) {
	b := s.open(t, limits)
	caps := b.Caps()
	b.Close()
	if !caps.Has(device.FeatureDraft | device.FeatureVerify) {
		t.Skip("the backend cannot draft")
	}
	got := draftAll(s.host(t, drafting(plan.F32), limits), true)
	want := draftAll(s.oracle(t, drafting(plan.F32), limits), true)
	plain := draftAll(s.host(t, drafting(plan.F32), limits), false)
	different, lengths := map[int32]bool{}, map[int]bool{}
	for i, w := range want {
		g, p := got[i], plain[i]
		if g.void != w.void || !w.void && g.token != w.token {
			t.Fatalf("%s: token %d, void %v; want %d, %v", w.what, g.token, g.void, w.token, w.void)
		}
		if w.void {
			continue
		}
		if g.token != p.token || g.logprob != p.logprob {
			t.Errorf("%s: token %d, %v; without drafts %d, %v", w.what, g.token, g.logprob, p.token, p.logprob)
		}
		if g.drafts != w.drafts {
			t.Errorf("%s: the draft is %d, want %d", w.what, g.drafts, w.drafts)
		}
		for _, token := range w.drafts {
			different[token] = true
		}
		lengths[slices.Index(append(w.drafts[:], device.NoDraft), device.NoDraft)] = true
	}
	if len(different) < 8 || len(lengths) != device.MaxDrafts+1 {
		t.Errorf("%d different tokens drafted, %v at a time", len(different), lengths)
	}
}

// draftAll runs two sequences and returns all rows that chose a token.
func draftAll(h *host, draft bool) (out []answer) {
	h.t.Helper()
	vocab := h.plan.Vocab
	x, beside := h.start(prompt(5, 20, vocab), sampled(func(p *sample.Params) { p.Temperature = 2 })), h.start(prompt(6, 90, vocab), sample.Greedy())
	h.draft, h.drafts = draft, 1
	h.step(chunk{seq: x, n: 7}, chunk{seq: beside, n: 3, score: true})
	h.step(chunk{seq: x, n: 12}, chunk{seq: beside, n: 5})
	for i := range int32(40) {
		h.draft, h.drafts = draft && i != 9, int(i)%(device.MaxDrafts+1)
		known := len(x.tokens)
		if i%4 == 3 { // a guess that is wrong, or may be
			x.tokens = append(x.tokens, (i*7)%int32(vocab))
			rows := h.step(chunk{seq: beside, n: 1, sample: i%8 == 3, index: i, topN: 1}, chunk{seq: x, n: len(x.tokens) - x.computed, verify: 2, index: i, topN: 1})
			out = append(out, rows...)
			if i%8 == 3 {
				rows = rows[1:]
			}
			x.tokens = x.tokens[:known]
			for _, r := range rows {
				if !r.void {
					x.tokens = append(x.tokens, r.token)
				}
			}
			x.computed = len(x.tokens) - 1
			continue
		}
		a := h.step(chunk{seq: x, n: 1, sample: true, index: i, topN: 1}, chunk{seq: beside, n: 1})[0]
		x.tokens = append(x.tokens, a.token)
		if !h.draft {
			a.drafts = [device.MaxDrafts]int32{} // they mean nothing
		}
		out = append(out, a)
	}
	return out
}
