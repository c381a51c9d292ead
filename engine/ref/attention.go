package ref

import (
	"math"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// layOutCaches decides where each cache begins in a page, or in a state. The
// caches of a group share pages, and all groups share one size of page.
func (b *Backend) layOutCaches() {
	groups := make([]int, len(b.plan.Groups)) // floats so far
	b.offsets = make([]int, len(b.plan.Caches))
	for i := range b.plan.Caches {
		c := &b.plan.Caches[i]
		if c.Kind == plan.CacheState {
			b.offsets[i] = b.stateWidth
			b.stateWidth += c.Elements()
			continue
		}
		b.offsets[i] = groups[c.Group]
		groups[c.Group] += device.PageTokens * c.Elements()
		b.pageWidth = max(b.pageWidth, groups[c.Group])
	}
}

// cached returns what a cache keeps of a position of a slot's sequence: the
// keys of all heads, then the values, which in a latent are part of the key.
func (b *Backend) cached(cache int, s *slot, pos int) []float32 {
	c := &b.plan.Caches[cache]
	page, width := int(s.pages[c.Group][pos/device.PageTokens]), c.Elements()
	return b.pages[page*b.pageWidth+b.offsets[cache]+pos%device.PageTokens*width:][:width]
}

// cacheWrite is OpCacheWrite: keys and values, or the parts of a latent, each head
// rounded to the format of the cache.
func (b *Backend) cacheWrite(cache int, p *pass, x, y matrix) {
	c := &b.plan.Caches[cache]
	for t := range p.rows {
		to := b.cached(cache, p.rows[t].slot, p.rows[t].pos)
		copy(to, x.row(t))
		if y.data != nil {
			copy(to[x.width:], y.row(t))
		}
		keys := int(c.Heads) * int(c.KeyWidth)
		roundRows(to[:keys], int(c.KeyWidth), c.Format)
		roundRows(to[keys:], int(c.ValueWidth), c.Format)
	}
}

// roundRows rounds rows of width elements to a format.
func roundRows(x []float32, width int, f plan.Format) {
	if f == plan.F32 {
		return
	}
	code := make([]byte, f.RowBytes(width))
	for ; len(x) > 0; x = x[width:] {
		quant.Encode(code, x[:width], f)
		quant.Decode(x[:width], code, f)
	}
}

// attention is OpAttention.
func (b *Backend) attention(op *plan.Op, p *pass, out, x, y matrix, sinks []float32) {
	cache := int(op.I[plan.AttnCache])
	c := &b.plan.Caches[cache]
	heads, window, chunk := int(op.I[plan.AttnHeads]), int(op.I[plan.AttnWindow]), int(op.I[plan.AttnChunk])
	keyWidth, valueWidth := int(c.KeyWidth), int(c.ValueWidth)
	slopes := b.table(op.I[plan.AttnSlopes])
	for t := range p.rows {
		tok := &p.rows[t]
		first, last := 0, tok.last
		switch plan.Sight(op.I[plan.AttnSight]) {
		case plan.SightSpan:
			first = tok.first
		case plan.SightAll:
			last = int(tok.seq.KVLen) - 1
		case plan.SightCausal:
			last = tok.pos
		}
		if window > 0 {
			first = min(max(0, tok.pos-window+1), tok.first)
		}
		if chunk > 0 {
			first = max(first, min(tok.pos-tok.pos%chunk, tok.first))
		}
		for h := range heads {
			kv := h * int(c.Heads) / heads
			q := append([]float32(nil), part(x, t, h, heads)...)
			valuesAt := int(c.Heads)*keyWidth + kv*valueWidth
			if c.Kind == plan.CacheLatent {
				valuesAt = 0
				if y.data != nil {
					q = append(q, part(y, t, h, heads)...)
				}
			}

			var scores []float64
			peak, sum := math.Inf(-1), 0.0
			for pos := first; pos <= last; pos++ {
				key := b.cached(cache, tok.slot, pos)[kv*keyWidth:][:keyWidth]
				s := softcap(float64(op.F[plan.AttnScale])*dot(q, key), op.F[plan.AttnCap])
				if slopes != nil {
					s += float64(slopes[h]) * float64(pos-tok.pos)
				}
				scores, peak = append(scores, s), max(peak, s)
			}
			if sinks != nil {
				peak = max(peak, float64(sinks[h]))
				sum = math.Exp(float64(sinks[h]) - peak)
			}
			mix := make([]float64, valueWidth)
			for i, s := range scores {
				weight := math.Exp(s - peak)
				sum += weight
				for j, v := range b.cached(cache, tok.slot, first+i)[valuesAt:][:valueWidth] {
					mix[j] += weight * float64(v)
				}
			}
			to := part(out, t, h, heads)
			for j, v := range mix {
				to[j] = float32(v / sum)
			}
		}
	}
}

// part returns one head of a row.
func part(m matrix, row, head, heads int) []float32 {
	width := m.width / heads
	return m.row(row)[head*width:][:width]
}
