package backendtest

import (
	"fmt"
	"slices"

	"github.com/millrace-ai/millrace/engine/plan"
)

// cloned returns a plan that can be changed: p without the parts of its tensors.
func cloned(p *plan.Plan) *plan.Plan {
	q := *p
	q.Values, q.Caches, q.Groups, q.Ops = slices.Clone(p.Values), slices.Clone(p.Caches), slices.Clone(p.Groups), slices.Clone(p.Ops)
	q.Tables, q.Tensors = slices.Clone(p.Tables), slices.Clone(p.Tensors)
	for i := range q.Tables {
		q.Tables[i] = slices.Clone(q.Tables[i])
	}
	for i := range q.Tensors {
		q.Tensors[i].Shape, q.Tensors[i].Parts = slices.Clone(q.Tensors[i].Shape), nil
	}
	return &q
}

// floats are numbers at the edges of what operations compute.
var floats = []float32{0, 1, -1, 0.5, 2, 1e-6, 1e-30, 30, 1e4, -1e4, 3e38, -3e38}

// change makes one change forevery four bytes: what, where, which field, to
// which number. Operands stay within what there is.
func change(p *plan.Plan, changes []byte) {
	for ; len(changes) >= 4; changes = changes[4:] {
		at, field, n := int(changes[1]), int(changes[2]), int(changes[3])
		i := at % len(p.Ops)
		op := &p.Ops[i]
		among := func(count int) int32 { return int32(n%(count+1)) - 1 }
		switch changes[0] % 17 {
		case 0:
			op.In[field%3] = among(len(p.Values))
		case 1:
			op.Out[field%plan.MaxOut] = among(len(p.Values))
		case 2:
			op.Weight[field%6] = among(len(p.Tensors))
		case 3:
			op.I[field%9] = int32(int8(n))
		case 4:
			op.F[field%3] = floats[n%len(floats)]
		case 5:
			op.Kind = plan.Kind(n % int(plan.OpEmbeddingBag+1))
		case 6:
			p.Values[at%len(p.Values)].Width = int32(n)
		case 7:
			v := &p.Values[at%len(p.Values)]
			v.Of, v.Column = among(len(p.Values)), int32(field)%8
		case 8: // a new view in place of an operand
			v := plan.Value{Width: 1 + int32(n%32), Of: int32(at % len(p.Values)), Column: int32(field % 16)}
			if base := p.Values[v.Of]; base.Of != plan.None {
				v.Of, v.Column = base.Of, base.Column+v.Column
			}
			p.Values = append(p.Values, v)
			op.In[field%3] = int32(len(p.Values) - 1)
		case 9:
			if len(p.Caches) > 0 {
				c := &p.Caches[at%len(p.Caches)]
				*[]*int32{&c.Heads, &c.KeyWidth, &c.ValueWidth}[field%3] = int32(n)
				p.SetCacheFormat([]plan.Format{plan.F32, plan.F16, plan.W8, plan.CacheW8}[at%4])
			}
		case 10:
			if len(p.Groups) > 0 {
				p.Groups[at%len(p.Groups)].Window = int32(n)
			}
		case 11:
			x := &p.Tensors[at%len(p.Tensors)]
			x.Shape[field%len(x.Shape)] = n
		case 12:
			if len(p.Tables) > 0 {
				table := p.Tables[at%len(p.Tables)]
				table[field%len(table)] = floats[n%len(floats)]
			}
		case 13:
			p.Ops = slices.Insert(p.Ops, n%len(p.Ops), *op)
		case 14:
			if len(p.Ops) > 1 {
				p.Ops = slices.Delete(p.Ops, i, i+1)
			}
		case 15:
			p.Ops[i], p.Ops[n%len(p.Ops)] = p.Ops[n%len(p.Ops)], p.Ops[i]
		case 16:
			*[]*int{&p.Vocab, &p.Hidden, &p.RopeOriginal}[field%3] = n
			p.RopeDynamic = at%2 == 0
		}
	}
}

// fit makes widths, caches, tables and shapes suit each other again after a
// change: without it a plan with a change is hardly ever valid.
func fit(p *plan.Plan) {
	for i := range p.Caches {
		if c := &p.Caches[i]; c.Kind != plan.CacheState && int(c.Group) < len(p.Groups) {
			c.Window = p.Groups[c.Group].Window
		}
	}
	f := fitting{p}
	for range 2 { // widths of operands that are written before come right the second time
		for i := range p.Ops {
			f.widths(&p.Ops[i])
		}
	}
	experts := map[int32]int{} // by value with a choice
	for i := range p.Ops {
		op := &p.Ops[i]
		if op.Kind == plan.OpRoute {
			experts[op.Out[0]] = f.width(op.In[0])
		}
		f.weights(op, experts)
	}
}

type fitting struct{ *plan.Plan }

// width is 0 of what is absent.
func (f fitting) width(v int32) int {
	if v == plan.None {
		return 0
	}
	return f.Width(v)
}

// set changes the width of a value that is not a view.
func (f fitting) set(v int32, width int) {
	if v != plan.None && f.Values[v].Of == plan.None {
		f.Values[v].Width = int32(width)
	}
}

// table makes a table of an operation, if there is one, as long as it has to be.
func (f fitting) table(t *int32, entries int) {
	if *t < 0 || int(*t) >= len(f.Tables) || len(f.Tables[*t]) == entries || entries < 1 {
		return
	}
	list := make([]float32, entries)
	for i := range list {
		list[i] = f.Tables[*t][i%len(f.Tables[*t])]
	}
	*t = int32(len(f.Tables))
	f.Tables = append(f.Tables, list)
}

// cache is the cache that an operation names, or one that is in no plan.
func (f fitting) cache(i int32) *plan.Cache {
	if i < 0 || int(i) >= len(f.Caches) {
		return &plan.Cache{Heads: 1}
	}
	return &f.Caches[i]
}

func (f fitting) widths(op *plan.Op) {
	x, y, out := op.In[0], op.In[1], op.Out[0]
	switch op.Kind {
	case plan.OpEmbed:
		if op.I[plan.EmbedBeside] == 0 && op.I[plan.EmbedFirst] == 0 {
			f.set(out, f.Hidden)
		}
	case plan.OpRMSNorm, plan.OpLayerNorm:
		f.set(out, f.width(x))
		f.set(y, f.width(x))
		if group := int(op.I[plan.NormGroup]); group < 1 || f.width(x)%group != 0 {
			op.I[plan.NormGroup] = int32(f.width(x))
		}
	case plan.OpLinear:
		f.set(y, f.width(out))
	case plan.OpRope:
		if dim := int(op.I[plan.RopeHeadDim]); dim < 2 || f.width(x)%dim != 0 {
			op.I[plan.RopeHeadDim] = int32(f.width(x))
		}
		op.I[plan.RopeHeads] = int32(f.width(x)) / max(1, op.I[plan.RopeHeadDim])
		for _, t := range []*int32{&op.I[plan.RopeTable], &op.I[plan.RopeLong], &op.I[plan.RopeAxes]} {
			f.table(t, int(op.I[plan.RopeRotary])/2)
		}
		if op.I[plan.RopeOriginal] != 0 {
			op.I[plan.RopeOriginal] = int32(f.RopeOriginal)
		}
	case plan.OpCacheWrite:
		switch c := f.cache(op.I[plan.WriteCache]); c.Kind {
		case plan.CacheKV:
			c.KeyWidth, c.ValueWidth = int32(f.width(x))/max(1, c.Heads), int32(f.width(y))/max(1, c.Heads)
		case plan.CacheLatent:
			c.KeyWidth = int32(f.width(x) + f.width(y))
			c.ValueWidth = min(c.ValueWidth, c.KeyWidth)
		}
	case plan.OpAttention:
		c, heads := f.cache(op.I[plan.AttnCache]), int(op.I[plan.AttnHeads])
		f.set(x, heads*int(c.KeyWidth)-f.width(y))
		f.set(out, heads*int(c.ValueWidth))
		f.table(&op.I[plan.AttnSlopes], heads)
		chunked := op.I[plan.AttnChunk] > 0 && op.I[plan.AttnChunk] <= c.Window
		if w := op.I[plan.AttnWindow]; c.Window > 0 && !chunked && (w < 1 || w > c.Window) {
			op.I[plan.AttnWindow] = c.Window
		}
	case plan.OpActivate:
		f.set(out, f.width(x))
		if y != plan.None {
			f.set(out, f.width(y))
		}
	case plan.OpAdd:
		f.set(y, f.width(x))
		f.set(out, f.width(x))
	case plan.OpRoute:
		f.set(out, int(op.I[plan.RouteTopK]))
		f.set(op.Out[1], int(op.I[plan.RouteTopK]))
	case plan.OpConv:
		f.cache(op.I[plan.ConvCache]).ValueWidth = int32(f.width(x))
		f.set(out, f.width(x))
	case plan.OpGatedDelta:
		c := f.cache(op.I[plan.DeltaCache])
		keys, heads, decays := int(op.I[plan.DeltaKeyHeads]), int(c.Heads), int(c.Heads)
		if op.I[plan.DeltaChannels] == 1 {
			decays *= int(c.KeyWidth)
		}
		for k, width := range []int{keys * int(c.KeyWidth), keys * int(c.KeyWidth), heads * int(c.ValueWidth), decays, heads} {
			f.set(op.In[k], width)
		}
		f.set(out, heads*int(c.ValueWidth))
	case plan.OpSSM:
		c := f.cache(op.I[plan.SSMCache])
		groups, heads := int(op.I[plan.SSMGroups]), int(c.Heads)
		for k, width := range []int{heads * int(c.ValueWidth), groups * int(c.KeyWidth), groups * int(c.KeyWidth), heads} {
			f.set(op.In[k], width)
		}
		f.set(out, heads*int(c.ValueWidth))
	case plan.OpSelectiveScan:
		c := f.cache(op.I[plan.ScanCache])
		for k, width := range []int32{c.ValueWidth, c.ValueWidth, c.KeyWidth, c.KeyWidth} {
			f.set(op.In[k], int(width))
		}
		f.set(out, int(c.ValueWidth))
	case plan.OpJoin:
		width := 0
		for _, v := range op.In {
			width += f.width(v)
		}
		f.set(out, width)
	case plan.OpRows:
		if count := int(op.I[plan.RowsCount]); count > 1 && op.I[plan.RowsMean] == 0 {
			f.set(out, count*f.width(x))
		} else {
			f.set(out, f.width(x))
		}
	case plan.OpScale, plan.OpSparsify:
		f.set(out, f.width(x))
	case plan.OpEmbeddingBag:
		f.set(y, f.width(x))
	}
}

// weights gives an operation weights of its own, of the shapes that it needs.
func (f fitting) weights(op *plan.Op, experts map[int32]int) {
	weight := func(k int, shape ...int) {
		if op.Weight[k] != plan.None {
			op.Weight[k] = int32(len(f.Tensors))
			f.Tensors = append(f.Tensors, plan.Tensor{Name: fmt.Sprint(op.Kind, k), Shape: shape})
		}
	}
	shapeOf := func(k int) []int {
		if op.Weight[k] == plan.None {
			return nil
		}
		return f.Tensors[op.Weight[k]].Shape
	}
	in, out := f.width(op.In[0]), f.width(op.Out[0])
	switch op.Kind {
	case plan.OpEmbed:
		rows := f.Vocab
		if s := shapeOf(0); s != nil && op.I[plan.EmbedBeside] == 1 {
			rows = s[0]
		}
		weight(0, rows, out)
	case plan.OpEmbedPosition, plan.OpEmbeddingBag:
		if s := shapeOf(0); s != nil {
			weight(0, s[0], out)
		}
	case plan.OpRMSNorm, plan.OpLayerNorm:
		for k := range 2 {
			width := int(op.I[plan.NormGroup])
			if s := shapeOf(k); s != nil && s[0] > width {
				width = in
			}
			weight(k, width)
		}
	case plan.OpLinear:
		for k := 0; k < 4; k += 2 {
			weight(k, out, in)
			weight(k+1, out)
		}
	case plan.OpLinearHeads:
		heads := max(1, int(op.I[plan.HeadsCount]))
		weight(0, heads, out/heads, in/heads)
	case plan.OpAttention:
		weight(0, int(op.I[plan.AttnHeads]))
	case plan.OpActivate:
		weight(0, 1)
		weight(1, 1)
	case plan.OpRoute:
		weight(0, in)
		weight(1, in)
	case plan.OpExperts:
		n, inner := experts[op.In[1]], 1
		if s := shapeOf(0); len(s) == 3 {
			inner = s[1]
		}
		for k, shape := range [][]int{{n, inner, in}, {n, inner}, {n, inner, in}, {n, inner}, {n, out, inner}, {n, out}} {
			weight(k, shape...)
		}
	case plan.OpConv:
		weight(0, in, int(f.cache(op.I[plan.ConvCache]).KeyWidth)+1)
		weight(1, in)
	case plan.OpGatedDelta:
		weight(0, int(f.cache(op.I[plan.DeltaCache]).Heads))
		weight(1, f.width(op.In[3]))
	case plan.OpSSM:
		for k := range 3 {
			weight(k, int(f.cache(op.I[plan.SSMCache]).Heads))
		}
	case plan.OpScale:
		if s := shapeOf(0); s != nil && s[0] > 1 {
			weight(0, out)
		}
	case plan.OpSelectiveScan:
		c := f.cache(op.I[plan.ScanCache])
		weight(0, int(c.ValueWidth), int(c.KeyWidth))
		weight(1, int(c.ValueWidth))
	case plan.OpLogits:
		weight(0, f.Vocab, in)
		weight(1, f.Vocab)
	}
}
