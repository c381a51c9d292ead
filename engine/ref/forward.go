package ref

import (
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// pass is a batch as the operations see it.
type pass struct {
	ids   []int32   // by token, LastToken resolved
	pos   []int32   // by token
	pages [][]int32 // by token: the page table of its sequence
	rows  []device.Row
}

func (b *Backend) newPass(batch *device.Batch) *pass {
	p := &pass{
		ids:   make([]int32, len(batch.Tokens)),
		pos:   batch.Pos,
		pages: make([][]int32, len(batch.Tokens)),
		rows:  batch.Rows,
	}
	for _, seq := range batch.Seqs {
		for t := seq.Start; t < seq.Start+seq.Count; t++ {
			p.ids[t] = batch.Tokens[t]
			if p.ids[t] == device.LastToken {
				p.ids[t] = b.slots[seq.Slot].last
			}
			p.pages[t] = b.slots[seq.Slot].pages
		}
	}
	return p
}

// forward runs all operations up to OpLogits, whose input it keeps in e.
func (b *Backend) forward(e *entry) {
	p := b.newPass(&e.batch)
	e.ids = p.ids
	n := len(p.ids) // rows of the values at this point of the plan
	for i := range b.plan.Ops {
		op := &b.plan.Ops[i]
		switch op.Kind {
		case plan.OpRows:
			b.gatherRows(op, p)
			n = len(p.rows)
		case plan.OpLogits:
			e.hidden = append(e.hidden[:0], b.value(op.In, n)...)
		default:
			b.run(op, p, n)
		}
	}
}

// value returns the first n rows of a value.
func (b *Backend) value(v int32, n int) []float32 {
	return b.values[v][:n*int(b.plan.Widths[v])]
}

// weight returns a tensor's elements, nil for plan.None.
func (b *Backend) weight(w int32) []float32 {
	if w == plan.None {
		return nil
	}
	return b.tensors[w].data
}

// run executes an operation whose rows stay what they are.
func (b *Backend) run(op *plan.Op, p *pass, n int) {
	var out, x, y []float32
	for _, v := range []struct {
		to    *[]float32
		value int32
	}{{&out, op.Out}, {&x, op.In}, {&y, op.In2}} {
		if v.value != plan.None {
			*v.to = b.value(v.value, n)
		}
	}
	switch op.Kind {
	case plan.OpEmbed:
		embed(out, p.ids, b.weight(op.Weight), int(b.plan.Widths[op.Out]), op.F0)
	case plan.OpRMSNorm:
		rmsNorm(out, x, b.weight(op.Weight), op.F0, op.F1)
	case plan.OpLinear:
		linear(out, x, b.weight(op.Weight), b.weight(op.Bias), int(b.plan.Widths[op.In]))
	case plan.OpRope:
		rope(out, p.pos, b.plan.Tables[op.Table][:op.Rotary/2], int(op.Heads), int(op.HeadDim), op.F0)
	case plan.OpKVWrite:
		b.writeKV(op, p, x, y)
	case plan.OpAttention:
		b.attend(op, p, out, x)
	case plan.OpSiluMul:
		siluMul(out, x, y)
	case plan.OpGeluMul:
		geluMul(out, x, y)
	case plan.OpAdd:
		add(out, x, y)
	}
}

func (b *Backend) writeKV(op *plan.Op, p *pass, keys, values []float32) {
	width := b.plan.KVWidth
	layer := &b.layers[op.Layer]
	for t, pos := range p.pos {
		at := cacheIndex(p.pages[t], int(pos), width)
		copy(layer.keys[at:at+width], keys[t*width:])
		copy(layer.values[at:at+width], values[t*width:])
	}
}

func (b *Backend) attend(op *plan.Op, p *pass, out, q []float32) {
	shape := attentionShape{
		heads:   int(op.Heads),
		kvHeads: int(op.KVHeads),
		headDim: int(op.HeadDim),
		scale:   op.F0,
		cap:     op.F1,
	}
	width := shape.heads * shape.headDim
	for t, pos := range p.pos {
		first := 0
		if op.Window > 0 {
			first = max(0, int(pos-op.Window)+1)
		}
		row := out[t*width:][:width]
		b.layers[op.Layer].attention(row, q[t*width:][:width], p.pages[t], first, int(pos), shape, b.scores)
	}
}

func (b *Backend) gatherRows(op *plan.Op, p *pass) {
	width := int(b.plan.Widths[op.Out])
	for r, row := range p.rows {
		copy(b.values[op.Out][r*width:][:width], b.values[op.In][int(row.Token)*width:])
	}
}

// computeLogits fills b.logits with those of row r.
func (b *Backend) computeLogits(e *entry, r int) {
	op := &b.plan.Ops[len(b.plan.Ops)-1]
	width := int(b.plan.Widths[op.In])
	linear(b.logits, e.hidden[r*width:][:width], b.weight(op.Weight), nil, width)
	if op.F0 > 0 {
		for i, l := range b.logits {
			b.logits[i] = float32(softcap(float64(l), op.F0))
		}
	}
}
