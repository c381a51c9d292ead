package sim

import (
	"cmp"
	"fmt"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// Tensors of Model.Plan.
const (
	tensorEmbed = iota
	tensorLinear
	tensorConv // of a recurrent model
)

// width is that of the plan's rows.
func (m *Model) width() int { return cmp.Or(m.Hidden, 8) }

// Plan returns a valid plan with the model's caches: what an engine that runs it
// should be told of it. It does not compute what the model does.
func (m Model) Plan() *plan.Plan {
	w := m.width()
	p := &plan.Plan{
		Family: "sim", Vocab: m.Vocab, Hidden: w, MaxPos: 1 << 20,
		RopeOriginal: m.RopeOriginal, RopeDynamic: m.RopeDynamic,
	}
	tensor := func(name string, rows, cols int) {
		shape := []int{rows, cols}
		p.Tensors = append(p.Tensors, plan.Tensor{Name: name, Shape: shape, Parts: []plan.Part{{
			Name: name, Shape: shape, Rows: plan.Range{Step: 1, N: rows}, Cols: plan.Range{Step: 1, N: cols},
		}}})
	}
	tensor("embed", m.Vocab, w)
	tensor("linear", w, w)
	x := int32(plan.None) // the residual stream
	op := func(kind plan.Kind, weight int32, in ...int32) *plan.Op {
		o := plan.NewOp(kind)
		copy(o.In[:], in)
		o.Weight[0] = weight
		if kind != plan.OpCacheWrite && kind != plan.OpLogits {
			x = int32(len(p.Values))
			p.Values = append(p.Values, plan.Value{Width: int32(w), Of: plan.None})
			o.Out[0] = x
		}
		p.Ops = append(p.Ops, o)
		return &p.Ops[len(p.Ops)-1]
	}

	op(plan.OpEmbed, tensorEmbed).F[plan.EmbedScale] = 1
	op(plan.OpLinear, tensorLinear, x)
	if m.RopeOriginal > 0 {
		m.addRope(p, x)
	}
	for g, window := range m.windows() {
		p.Groups = append(p.Groups, plan.Group{Window: int32(window)})
		p.Caches = append(p.Caches, plan.Cache{
			Kind: plan.CacheKV, Group: int32(g), Heads: 1, KeyWidth: int32(w), ValueWidth: int32(w), Window: int32(window),
		})
		op(plan.OpCacheWrite, plan.None, x, x).I[plan.WriteCache] = int32(g)
		o := op(plan.OpAttention, plan.None, x)
		o.I[plan.AttnCache], o.I[plan.AttnHeads], o.I[plan.AttnWindow] = int32(g), 1, int32(window)
		o.I[plan.AttnSlopes], o.F[plan.AttnScale] = plan.None, 1
	}
	if m.Recurrent {
		tensor("conv", w, 2)
		op(plan.OpConv, tensorConv, x).I[plan.ConvCache] = int32(len(p.Caches))
		p.Caches = append(p.Caches, plan.Cache{
			Kind: plan.CacheState, Group: plan.None, Heads: 1, KeyWidth: 1, ValueWidth: int32(w),
		})
	}
	last := x
	op(plan.OpRows, plan.None, x)
	op(plan.OpLogits, tensorEmbed, x).F[plan.LogitsScale] = 1
	if m.Draft {
		n := len(p.Ops)
		op(plan.OpRMSNorm, plan.None, last).I[plan.NormGroup] = int32(w)
		state := x
		op(plan.OpEmbed, tensorEmbed).F[plan.EmbedScale] = 1
		op(plan.OpAdd, plan.None, x, state).F[plan.AddScale] = 1
		op(plan.OpRows, plan.None, x)
		op(plan.OpLogits, tensorEmbed, x).F[plan.LogitsScale] = 1
		p.Ops, p.Draft = p.Ops[:n:n], p.Ops[n:]
	}
	return p
}

// addRope appends rotations that depend on the length.
func (m *Model) addRope(p *plan.Plan, x int32) {
	w := m.width()
	table := make([]float32, w/2)
	for i := range table {
		table[i] = 1
	}
	p.Tables = append(p.Tables, table)
	o := plan.NewOp(plan.OpRope)
	o.In[0], o.Out[0] = x, x
	o.I[plan.RopeHeads], o.I[plan.RopeHeadDim], o.I[plan.RopeRotary] = 1, int32(w), int32(w)
	o.I[plan.RopeLong], o.I[plan.RopeAxes], o.I[plan.RopeOriginal] = plan.None, plan.None, int32(m.RopeOriginal)
	o.F[plan.RopeScale] = 1
	if m.RopeDynamic {
		o.F[plan.RopeFactor], o.F[plan.RopeTheta] = 2, 10000
	} else {
		p.Tables = append(p.Tables, table)
		o.I[plan.RopeLong] = 1
	}
	p.Ops = append(p.Ops, o)
}

// Adapter returns one that fits Plan; another seed is another adapter.
func (m Model) Adapter(seed uint64) *device.Adapter {
	w := m.width()
	a := &device.Adapter{Rank: 1, Targets: []device.AdapterTarget{{
		Tensor: tensorLinear, Rows: w, A: make([]float32, w), B: make([]float32, w),
	}}}
	for i := range w {
		a.Targets[0].A[i], a.Targets[0].B[i] = float32(mix(seed, uint64(i))>>40), 1
	}
	return a
}

// Checked returns the backend behind device.Checked, which has been given
// Model.Plan: InitCache may follow. It panics if the Model makes no valid plan.
func (b *Backend) Checked() device.Backend {
	c, p := device.Checked(b, b.limits), b.cfg.Model.Plan()
	fail := func(err error) {
		if err != nil {
			panic(fmt.Sprintf("sim: %v", err))
		}
	}
	for _, t := range p.Tensors {
		h, err := c.NewTensor(t.Name, plan.F32, t.Shape)
		fail(err)
		fail(c.WriteTensor(h, 0, t.Shape[0], make([]byte, t.Shape[0]*t.Shape[1]*plan.F32.Size())))
	}
	_, err := c.SetModel(p)
	fail(err)
	return c
}
