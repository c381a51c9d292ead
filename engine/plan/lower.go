package plan

import "slices"

// Lower returns p with what every fast backend wants done, done once: an
// activation joins the projection, or the gate and up projections, that it
// follows; a residual joins the projection that is added to it; and the
// projections of one input, such as queries, keys and values, become one, of
// which the old values are views. p is as Build returns it and stays as it is.
//
// Each element of each value is computed from the same numbers in the same
// order. Only what was stored in between, rounded to float32, need not be.
func Lower(p *Plan) *Plan {
	l := newLowering(p)
	for i := range l.ops {
		switch l.ops[i].Kind {
		case OpActivate:
			l.joinActivation(i)
		case OpAdd:
			l.joinResidual(i)
		}
	}
	for i := range l.ops {
		l.mergeProjections(i)
	}
	return l.finish(p)
}

// lowering is a plan being rewritten. Operations that have become part of
// another are marked in dropped.
type lowering struct {
	ops     []Op
	values  []Value
	tensors []Tensor
	dropped []bool
	made    []int // by value: the operation that writes it, None for views
	reads   []int // by value: how many operands it is, views of it included
	uses    []int // by tensor: how many operands it is
}

func newLowering(p *Plan) *lowering {
	l := &lowering{
		ops:     p.AllOps(),
		values:  slices.Clone(p.Values),
		tensors: slices.Clone(p.Tensors),
		dropped: make([]bool, len(p.Ops)+len(p.Draft)),
		made:    make([]int, len(p.Values)),
		reads:   make([]int, len(p.Values)),
		uses:    make([]int, len(p.Tensors)),
	}
	for v := range l.made {
		l.made[v] = None
	}
	for i, op := range l.ops {
		for _, v := range op.In {
			if v != None {
				l.reads[l.base(v)]++
			}
		}
		for _, w := range op.Weight {
			if w != None {
				l.uses[w]++
			}
		}
		for _, v := range op.Out {
			if v != None && l.values[v].Of == None && l.made[v] == None {
				l.made[v] = i
			}
		}
	}
	return l
}

// base returns the value whose memory v is in.
func (l *lowering) base(v int32) int32 {
	if of := l.values[v].Of; of != None {
		return of
	}
	return v
}

// projection returns the plain OpLinear whose result is v and nothing else,
// read once; None if v is something else.
func (l *lowering) projection(v int32) int {
	if v == None || l.values[v].Of != None || l.reads[v] != 1 {
		return None
	}
	i := l.made[v]
	if i == None || l.dropped[i] || l.ops[i].Kind != OpLinear || l.ops[i].In[1] != None {
		return None
	}
	return i
}

// unchanged reports whether value v is not rotated in place by an operation
// from first to last.
func (l *lowering) unchanged(v int32, first, last int) bool {
	return !slices.ContainsFunc(l.ops[first:last+1], func(op Op) bool {
		return op.Kind == OpRope && l.base(op.Out[0]) == l.base(v)
	})
}

// replace puts op in the place of operation i, which was made of others.
func (l *lowering) replace(i int, op Op, others ...int) {
	for _, o := range others {
		l.dropped[o] = true
	}
	l.ops[i] = op
	l.made[op.Out[0]] = i
}

// joinActivation makes act(x w0ᵀ + w1) or act(x w0ᵀ + w1, x w2ᵀ + w3) one
// operation, in the place of activation i.
func (l *lowering) joinActivation(i int) {
	act := l.ops[i]
	first := l.projection(act.In[0])
	if first == None || l.ops[first].I[LinearAct] != int32(ActNone) || act.Weight[0] != None {
		return
	}
	op, parts := l.ops[first], []int{first}
	if act.In[1] != None {
		second := l.projection(act.In[1])
		if second == None || second == first || l.ops[second].I[LinearAct] != int32(ActNone) ||
			l.ops[second].In[0] != op.In[0] || l.values[act.In[0]].Width != l.values[act.In[1]].Width {
			return
		}
		op.Weight[2], op.Weight[3] = l.ops[second].Weight[0], l.ops[second].Weight[1]
		parts = append(parts, second)
	}
	if !l.unchanged(op.In[0], slices.Min(parts), i) {
		return
	}
	op.Out[0] = act.Out[0]
	op.I[LinearAct] = act.I[ActKind]
	op.F[ActLimit], op.F[ActAlpha] = act.F[ActLimit], act.F[ActAlpha]
	l.replace(i, op, parts...)
}

// joinResidual makes y + scale * (x w0ᵀ + w1) one operation, in the place of
// addition i.
func (l *lowering) joinResidual(i int) {
	add := l.ops[i]
	residual, v, scale := add.In[0], add.In[1], add.F[AddScale]
	first := l.projection(v)
	if first == None && scale == 1 {
		residual, v = v, residual
		first = l.projection(v)
	}
	if first == None || l.base(residual) == v || l.values[residual].Width != l.values[v].Width {
		return
	}
	op := l.ops[first]
	if !l.unchanged(op.In[0], first, i) {
		return
	}
	op.In[1], op.Out[0], op.F[LinearScale] = residual, add.Out[0], scale
	l.replace(i, op, first)
}

// mergeProjections makes projection i and all later ones of the same input
// one, unless an activation or a residual has joined them.
func (l *lowering) mergeProjections(i int) {
	if !l.mergeable(i) {
		return
	}
	op := l.ops[i]
	group := []int{i}
	for j := i + 1; j < len(l.ops) && l.unchanged(op.In[0], j, j); j++ {
		if l.ops[j].In[0] == op.In[0] && l.mergeable(j) && (l.ops[j].Weight[1] == None) == (op.Weight[1] == None) {
			group = append(group, j)
		}
	}
	if len(group) == 1 {
		return
	}
	whole := int32(len(l.values))
	column := int32(0)
	var weights, biases []int32
	for _, j := range group {
		out := l.ops[j].Out[0]
		width := l.values[out].Width
		for v := range l.values { // views of what becomes a view
			if l.values[v].Of == out {
				l.values[v].Of, l.values[v].Column = whole, l.values[v].Column+column
			}
		}
		l.values[out] = Value{Width: width, Of: whole, Column: column}
		column += width
		weights = append(weights, l.ops[j].Weight[0])
		biases = append(biases, l.ops[j].Weight[1])
	}
	l.values = append(l.values, Value{Width: column, Of: None})
	l.made = append(l.made, i)
	l.reads = append(l.reads, 0)
	op.Out[0] = whole
	op.Weight[0] = l.concatenate(weights)
	if op.Weight[1] != None {
		op.Weight[1] = l.concatenate(biases)
	}
	l.replace(i, op, group[1:]...)
}

// mergeable reports whether operation i is a plain projection whose tensors
// are its own.
func (l *lowering) mergeable(i int) bool {
	op := &l.ops[i]
	if l.dropped[i] || op.Kind != OpLinear || op.In[1] != None || op.I[LinearAct] != int32(ActNone) ||
		op.Weight[2] != None || l.values[op.Out[0]].Of != None {
		return false
	}
	return !slices.ContainsFunc(op.Weight[:2], func(w int32) bool { return w != None && l.uses[w] > 1 })
}

// concatenate puts tensors below, or vectors after, each other, and returns
// the result, which takes the place of the first. The others stay for finish
// to remove.
func (l *lowering) concatenate(list []int32) int32 {
	first := l.tensors[list[0]]
	whole := Tensor{Name: first.Name, Shape: slices.Clone(first.Shape)}
	whole.Shape[0] = 0
	for _, w := range list {
		t := l.tensors[w]
		for _, part := range t.Parts {
			part.To += whole.Shape[0]
			whole.Parts = append(whole.Parts, part)
		}
		whole.Shape[0] += t.Shape[0]
	}
	l.tensors[list[0]] = whole
	return list[0]
}

// finish returns the plan without what was dropped: operations, and the
// tensors and values that only they used.
func (l *lowering) finish(p *Plan) *Plan {
	lowered := *p
	lowered.Ops, lowered.Draft, lowered.Values, lowered.Tensors = nil, nil, nil, nil
	tensors := make([]int32, len(l.tensors))
	values := make([]int32, len(l.values))
	for i, op := range l.ops {
		if l.dropped[i] {
			continue
		}
		for _, w := range op.Weight {
			if w != None {
				tensors[w] = 1
			}
		}
		for _, list := range [][]int32{op.In[:], op.Out[:]} {
			for _, v := range list {
				if v != None {
					values[v], values[l.base(v)] = 1, 1
				}
			}
		}
	}
	for i, used := range tensors {
		if used != 0 {
			tensors[i] = int32(len(lowered.Tensors))
			lowered.Tensors = append(lowered.Tensors, l.tensors[i])
		}
	}
	for i, used := range values {
		if used != 0 {
			values[i] = int32(len(lowered.Values))
			lowered.Values = append(lowered.Values, l.values[i])
		}
	}
	for i := range lowered.Values {
		if v := &lowered.Values[i]; v.Of != None {
			v.Of = values[v.Of]
		}
	}
	renumber := func(list, numbers []int32) {
		for i, n := range list {
			if n != None {
				list[i] = numbers[n]
			}
		}
	}
	for i, op := range l.ops {
		if l.dropped[i] {
			continue
		}
		renumber(op.Weight[:], tensors)
		renumber(op.In[:], values)
		renumber(op.Out[:], values)
		if i < len(p.Ops) {
			lowered.Ops = append(lowered.Ops, op)
		} else {
			lowered.Draft = append(lowered.Draft, op)
		}
	}
	return &lowered
}
