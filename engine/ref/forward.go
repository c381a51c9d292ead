package ref

import (
	"math"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// matrix is a value, or the rows of it that a step has: rows of width floats,
// stride apart. An absent value has no data.
type matrix struct {
	data                []float32 // from the first element on
	rows, width, stride int
}

func (m matrix) row(r int) []float32 { return m.data[r*m.stride:][:m.width] }

// token is one token of a batch as operations see it.
type token struct {
	id    int32 // LastToken resolved; negative: a row of Batch.Embeds
	pos   int
	axes  [3]int32 // of the position
	seq   *device.Seq
	slot  *slot
	first int // of the positions of its span,
	last  int // which is itself alone where there is none
}

// pass is a batch as operations see it.
type pass struct {
	batch  *device.Batch
	picked []int32 // the tokens of the batch that OpRows picks
	rows   []token // the token after each row of a value: first all, after OpRows those of logit rows
}

func (b *Backend) newPass(batch *device.Batch) *pass {
	n := len(batch.Tokens)
	p := &pass{batch: batch, rows: make([]token, n)}
	for _, row := range batch.Rows {
		if row.Kind != device.RowAgain {
			p.picked = append(p.picked, row.Token)
		}
	}
	for i := range batch.Seqs {
		seq := &batch.Seqs[i]
		for t := int(seq.Start); t < int(seq.Start+seq.Count); t++ {
			pos := batch.Pos[t]
			tok := token{
				id: batch.Tokens[t], pos: int(pos), axes: [3]int32{pos, pos, pos},
				seq: seq, slot: &b.slots[seq.Slot], first: int(pos), last: int(pos),
			}
			if tok.id == device.LastToken {
				tok.id = tok.slot.last
			}
			for axis := range tok.axes {
				if len(batch.Axes) > 0 {
					tok.axes[axis] = batch.Axes[axis*n+t]
				}
			}
			p.rows[t] = tok
		}
	}
	for _, s := range batch.Spans {
		run := p.rows[s.Start:][:s.Count]
		for i := range run {
			run[i].first, run[i].last = run[0].pos, run[len(run)-1].pos
		}
	}
	return p
}

// forward runs all operations up to the last, whose input it keeps: by row for
// Sample, and the last row of each slot for a later RowAgain.
func (b *Backend) forward(e *entry) {
	p := b.newPass(&e.batch)
	e.tokens = slices.Clone(p.rows)
	for i := range b.plan.Ops[:len(b.plan.Ops)-1] {
		b.run(&b.plan.Ops[i], p)
	}
	x := b.value(b.head().In[0], p)
	made := 0
	for r, row := range e.batch.Rows {
		s := &b.slots[row.Slot]
		if row.Kind != device.RowAgain {
			copy(s.hidden, x.row(made))
			s.prev = p.rows[made].id
			made++
		}
		copy(e.hidden[r*x.width:], s.hidden)
		e.prev[r] = s.prev
	}
}

// value returns the rows of a value that p has.
func (b *Backend) value(v int32, p *pass) matrix {
	if v == plan.None {
		return matrix{}
	}
	at := b.plan.Values[v]
	if at.Of == plan.None {
		return matrix{b.values[v], len(p.rows), int(at.Width), int(at.Width)}
	}
	return matrix{b.values[at.Of][at.Column:], len(p.rows), int(at.Width), b.plan.Width(at.Of)}
}

// weight returns a tensor's elements, nil for plan.None.
func (b *Backend) weight(w int32) []float32 {
	if w == plan.None {
		return nil
	}
	return b.tensors[w].data
}

// table returns a table of the plan, nil for plan.None.
func (b *Backend) table(t int32) []float32 {
	if t == plan.None {
		return nil
	}
	return b.plan.Tables[t]
}

// run executes an operation.
func (b *Backend) run(op *plan.Op, p *pass) {
	var (
		in  [plan.MaxIn]matrix
		w   [plan.MaxWeights][]float32
		out = b.value(op.Out[0], p)
	)
	for i, v := range op.In {
		in[i] = b.value(v, p)
	}
	for i, t := range op.Weight {
		w[i] = b.weight(t)
	}
	x, y, z := in[0], in[1], in[2]
	switch op.Kind {
	case plan.OpEmbed:
		b.embed(op, out, p, w[0])
	case plan.OpEmbedPosition:
		for t, tok := range p.rows {
			copy(out.row(t), w[0][(tok.pos+int(op.I[plan.EmbedOffset]))*out.width:])
		}
	case plan.OpRMSNorm:
		rmsNorm(op, out, x, y, w[0])
	case plan.OpLayerNorm:
		layerNorm(op, out, x, w[0], w[1])
	case plan.OpLinear:
		b.linear(op, p, out, x, y)
	case plan.OpLinearHeads:
		b.linearHeads(op, p, out, x)
	case plan.OpRope:
		b.rope(op, p, x)
	case plan.OpCacheWrite:
		b.cacheWrite(int(op.I[plan.WriteCache]), p, x, y)
	case plan.OpAttention:
		b.attention(op, p, out, x, y, w[0])
	case plan.OpActivate:
		activate(op, out, x, y, w[0], w[1])
	case plan.OpAdd:
		for r := range out.rows {
			for i := range out.width {
				out.row(r)[i] = x.row(r)[i] + op.F[plan.AddScale]*y.row(r)[i]
			}
		}
	case plan.OpAllReduce:
		b.allReduce(op, out, x, y)
	case plan.OpRoute:
		route(op, out, b.value(op.Out[1], p), x, w[0], w[1])
	case plan.OpExperts:
		b.experts(op, p, out, x, y, z)
	case plan.OpConv:
		b.conv(op, p, out, x, w[0], w[1])
	case plan.OpGatedDelta:
		b.gatedDelta(op, p, out, in, w[0], w[1])
	case plan.OpSSM:
		b.ssm(op, p, out, in, w)
	case plan.OpScale:
		scale(op, p, out, x, w[0])
	case plan.OpSparsify:
		sparsify(op, out, x)
	case plan.OpJoin:
		join(out, in[:])
	case plan.OpSelectiveScan:
		b.selectiveScan(op, p, out, in, w[0], w[1])
	case plan.OpRows:
		b.pickRows(p, op, x)
	case plan.OpEmbeddingBag:
		embeddingBag(out, x, y, w[0])
	}
}

// pickRows is OpRows. Rows that are to be sampled again have no token and no
// part in what follows.
func (b *Backend) pickRows(p *pass, op *plan.Op, x matrix) {
	tokens := p.rows
	p.rows = nil
	for _, t := range p.picked {
		p.rows = append(p.rows, tokens[t])
	}
	out := b.value(op.Out[0], p)
	count := max(int(op.I[plan.RowsCount]), 1)
	for i, t := range p.picked {
		first := int(t) - count + 1
		if op.I[plan.RowsMean] == 1 {
			meanRows(out.row(i), x, first, count)
			continue
		}
		for k := range count {
			copy(out.row(i)[k*x.width:], x.row(first+k))
		}
	}
}

// draft runs the plan's draft after the rows of e have their tokens, and returns how long
// it took to draft more than one.
func (b *Backend) draft(e *entry) time.Duration {
	batch := &e.batch
	p := &pass{batch: batch, rows: slices.Clone(e.tokens)}
	for _, q := range batch.Seqs {
		last := q.Start + q.Count - 1
		for t := q.Start; t < last; t++ {
			p.rows[t].id = e.tokens[t+1].id
		}
		p.rows[last].id = q.Next
	}
	var rows []drafted
	most := map[int32]int32{} // by slot
	for _, q := range batch.Seqs {
		most[q.Slot] = q.Drafts
	}
	for r, row := range batch.Rows {
		result := &batch.Results[r]
		for i := range result.Drafts {
			result.Drafts[i] = device.NoDraft
		}
		if row.Kind != device.RowSample && row.Kind != device.RowVerify || result.Invalid != 0 || result.Void != 0 {
			continue
		}
		p.rows[row.Token].id = result.Token
		if most[row.Slot] > 0 && (row.Kind == device.RowSample || result.Token != row.Target) {
			p.picked, rows = append(p.picked, row.Token), append(rows, drafted{result, most[row.Slot]})
		}
	}
	b.run(&b.plan.Draft[0], p)
	b.draftToken(p, rows, 0)
	start := time.Now()
	for i := int32(1); ; i++ {
		if p, rows = b.further(p, rows, i); len(rows) == 0 {
			return time.Since(start)
		}
		b.draftToken(p, rows, i)
	}
}

// drafted is a row that is to have a draft, of so many tokens at most.
type drafted struct {
	*device.RowResult
	most int32
}

// draftToken drafts a token, the one after i others, in each of the rows that p picks.
func (b *Backend) draftToken(p *pass, rows []drafted, i int32) {
	last := len(b.plan.Draft) - 1
	for k := range b.plan.Draft[1:last] {
		b.run(&b.plan.Draft[1+k], p)
	}
	x := b.value(b.plan.Draft[last].In[0], p)
	for r, row := range rows {
		b.logitsOf(&b.plan.Draft[last], x.row(r))
		best := float32(math.Inf(-1))
		for t, l := range b.logits {
			if l > best {
				best, row.Drafts[i] = l, int32(t)
			}
		}
	}
}

// further returns a pass over those of the picked rows of p that more than i tokens are
// wanted of, each of them a token that follows, whose state is what the logits of the one
// before were made of.
func (b *Backend) further(p *pass, rows []drafted, i int32) (*pass, []drafted) {
	next, own := &pass{batch: p.batch}, b.value(b.plan.Draft[len(b.plan.Draft)-1].In[0], p)
	var left []drafted
	for r, row := range rows {
		if row.most <= i || row.Drafts[i-1] == device.NoDraft {
			continue
		}
		tok := p.rows[r]
		tok.id, tok.pos = row.Drafts[i-1], tok.pos+1
		for axis := range tok.axes {
			tok.axes[axis]++
		}
		tok.first, tok.last = tok.pos, tok.pos
		next.picked, next.rows = append(next.picked, int32(len(left))), append(next.rows, tok)
		left = append(left, row)
		copy(b.value(b.plan.Draft[0].Out[0], next).row(len(left)-1), own.row(r))
	}
	return next, left
}

// allReduce is OpAllReduce.
func (b *Backend) allReduce(op *plan.Op, out, x, y matrix) {
	var mine []float32
	for r := range x.rows {
		mine = append(mine, x.row(r)...)
	}
	all := b.meet(mine)
	for r := range out.rows {
		for i := range out.width {
			var sum float64
			for _, theirs := range all {
				sum += float64(theirs[r*out.width+i])
			}
			if y.data != nil {
				sum = float64(y.row(r)[i]) + float64(op.F[plan.AddScale])*sum
			}
			out.row(r)[i] = float32(sum)
		}
	}
}

// embed is OpEmbed.
func (b *Backend) embed(op *plan.Op, out matrix, p *pass, w []float32) {
	beside, first := op.I[plan.EmbedBeside] == 1, 0
	part := w != nil && !beside && len(w)/out.width < b.plan.Vocab // of the table
	if part {
		first = b.plan.VocabRange().First
	}
	for t, tok := range p.rows {
		row, id := out.row(t), int(tok.id)
		switch {
		case beside && (id < 0 || id >= len(w)/out.width):
			id = 0
		case part && (id < 0 && b.plan.Shard > 0 || id >= 0 && (id < first || id-first >= len(w)/out.width)):
			clear(row)
			continue
		case id < 0:
			copy(row, p.batch.Embeds[int(device.EmbedRow(0)-tok.id)*b.plan.RowWidth()+int(op.I[plan.EmbedFirst]):])
			continue
		case w == nil:
			clear(row)
			continue
		}
		for i := range row {
			row[i] = w[(id-first)*out.width+i] * op.F[plan.EmbedScale]
		}
	}
}
