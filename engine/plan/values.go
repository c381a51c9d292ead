package plan

import "slices"

// shareValues renames the values of p so that a value whose last use is past
// gives its name, and with it its memory, to a later one of the same width:
// the smallest name that is free, so that layers come out alike.
//
// Values before and after OpRows never share: their row counts differ.
func shareValues(p *Plan) {
	last := make([]int, len(p.Widths)) // index of the last operation that touches a value
	for i, op := range p.Ops {
		for _, v := range []int32{op.Out, op.In, op.In2} {
			if v != None {
				last[v] = i
			}
		}
	}

	var (
		widths []int32
		free   = map[int32][]int32{} // names by width
		name   = make([]int32, len(p.Widths))
	)
	for v := range name {
		name[v] = None
	}
	give := func(v int32, i int) {
		if v != None && last[v] == i {
			free[p.Widths[v]] = append(free[p.Widths[v]], name[v])
			last[v] = None // once
		}
	}
	take := func(v int32) int32 {
		width := p.Widths[v]
		if names := free[width]; len(names) > 0 {
			least := slices.Min(names)
			free[width] = slices.DeleteFunc(names, func(n int32) bool { return n == least })
			return least
		}
		widths = append(widths, width)
		return int32(len(widths) - 1)
	}

	for i := range p.Ops {
		op := &p.Ops[i]
		out, in, in2 := op.Out, op.In, op.In2
		inPlace := op.Kind == OpRMSNorm || op.Kind == OpAdd // may overwrite an operand
		if inPlace {
			give(in, i)
			give(in2, i)
		}
		if op.Kind == OpRows {
			clear(free)
		}
		if out != None && name[out] == None {
			name[out] = take(out)
		}
		if !inPlace {
			give(in, i)
			give(in2, i)
		}
		if op.Kind == OpRows {
			clear(free)
		}
		for _, v := range []*int32{&op.Out, &op.In, &op.In2} {
			if *v != None {
				*v = name[*v]
			}
		}
	}
	p.Widths = widths
}
