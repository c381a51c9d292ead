package plan

import "slices"

// Share returns a plan that computes what p does with less memory: values whose
// lives do not overlap have one name, the smallest that is free, so that layers
// come out alike. A view keeps the value that it is of alive. Values share a name
// if they have the same width; those of tokens and those of the rows that OpRows picks
// never do, as their row counts differ. An operation's result takes the place of an
// operand where the operation allows it.
func Share(p *Plan) *Plan {
	base := func(v int32) int32 {
		if of := p.Values[v].Of; of != None {
			return of
		}
		return v
	}
	ops := p.AllOps()
	last := make([]int, len(p.Values)) // index of the last operation that touches a value or a view of it
	for i := range ops {
		for _, v := range ops[i].values() {
			last[base(*v)] = i
		}
	}

	shared := *p
	shared.Values, shared.Ops, shared.Draft = nil, ops[:len(p.Ops):len(p.Ops)], ops[len(p.Ops):]
	type memory struct {
		width int32
		rows  bool // of the rows that were picked
	}
	var (
		free   = map[memory][]int32{}         // names
		name   = make([]int32, len(p.Values)) // of values with memory of their own
		picked = make([]bool, len(p.Values))  // it is of rows that were picked
		views  = map[Value]int32{}            // names of views
		rows   = false                        // OpRows has been
	)
	for v := range name {
		name[v] = None
	}
	add := func(v Value) int32 {
		shared.Values = append(shared.Values, v)
		return int32(len(shared.Values) - 1)
	}
	take := func(v int32) {
		width := p.Values[v].Width
		picked[v] = rows
		if names := free[memory{width, rows}]; len(names) > 0 {
			name[v] = slices.Min(names)
			free[memory{width, rows}] = slices.DeleteFunc(names, func(n int32) bool { return n == name[v] })
			return
		}
		name[v] = add(Value{Width: width, Of: None})
	}
	give := func(v int32, i int) {
		if last[v] == i {
			m := memory{p.Values[v].Width, picked[v]}
			free[m] = append(free[m], name[v])
			last[v] = None // once
		}
	}

	for i := range ops {
		op := &ops[i]
		if i == len(p.Ops) { // the draft has a row per token again
			rows = false
		}
		for k, v := range op.In {
			if v != None && op.mayOverwrite(k) && !op.reads(base(v), k, base) {
				give(base(v), i)
			}
		}
		if op.Kind == OpRows {
			rows = true
		}
		for _, v := range op.Out {
			if v != None && name[base(v)] == None {
				take(base(v))
			}
		}
		used := op.values()
		for _, v := range used {
			give(base(*v), i)
		}
		for _, v := range used {
			value := p.Values[*v]
			if value.Of == None {
				*v = name[*v]
				continue
			}
			value.Of = name[value.Of]
			if _, ok := views[value]; !ok {
				views[value] = add(value)
			}
			*v = views[value]
		}
	}
	return &shared
}

// values are the places of all values that the operation names.
func (op *Op) values() (list []*int32) {
	for _, part := range [][]int32{op.Out[:], op.In[:]} {
		for i := range part {
			if part[i] != None {
				list = append(list, &part[i])
			}
		}
	}
	return list
}

// mayOverwrite reports whether the result may be in the memory of input k.
func (op *Op) mayOverwrite(k int) bool {
	switch op.Kind {
	case OpRMSNorm, OpLayerNorm, OpRope, OpScale, OpSparsify:
		return k == 0
	case OpAdd, OpAllReduce:
		return k <= 1
	case OpLinear:
		return k == 1
	}
	return false
}

// reads reports whether the operation has an input in the memory of value b,
// other than input k, that its result must not overwrite.
func (op *Op) reads(b int32, k int, base func(int32) int32) bool {
	for j, v := range op.In {
		if v != None && j != k && base(v) == b && !op.mayOverwrite(j) {
			return true
		}
	}
	return false
}
