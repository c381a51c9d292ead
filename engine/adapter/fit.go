package adapter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// place is where a tensor of the checkpoint is part of one of the plan.
type place struct {
	tensor    int
	rows      int // of one of the tensor's matrices
	kind      plan.Kind
	adaptable bool // backends apply adapters there
	part      plan.Part
}

// layout is where a model has what adapters name.
type layout struct {
	plan     *plan.Plan
	prefixes []string
	places   map[string][]place // by name of the module or, of experts in one tensor, the parameter
	experts  map[string]*plan.Op
}

// Fit returns the change that a makes to the model of plan p, the one that the
// backend has: loader.Resident.
func (a *Adapter) Fit(p *plan.Plan) (*device.Adapter, error) {
	l := newLayout(p)
	f := fitting{plan: p, out: &device.Adapter{}, taken: map[rows]string{}, target: map[rows]int{}, shared: map[string][]float32{}}
	for i := range a.modules {
		f.out.Rank = max(f.out.Rank, a.modules[i].rank)
	}
	for i := range a.modules {
		m := &a.modules[i]
		if err := l.fit(&f, m); err != nil {
			return nil, fmt.Errorf("%s: tensor %q: %w", m.a.File, m.a.Name, err)
		}
	}
	if len(f.out.Targets) == 0 {
		return nil, fmt.Errorf("%s: all its modules are beside the language model, which it leaves as it is", WeightsFile)
	}
	return f.out, nil
}

func newLayout(p *plan.Plan) *layout {
	l := &layout{plan: p, places: map[string][]place{}, experts: map[string]*plan.Op{}}
	l.prefixes = append([]string{p.Prefix}, plan.Prefixes(p.Family)...)
	seen := map[int32]bool{}
	for i := range p.Ops {
		op := &p.Ops[i]
		for w, t := range op.Weight {
			if t == plan.None || seen[t] || len(p.Tensors[t].Shape) < 2 {
				continue
			}
			seen[t] = true
			adaptable := slices.Contains(device.Adaptable(op), t)
			tensor := &p.Tensors[t]
			for _, part := range tensor.Parts {
				name := canonical(strings.TrimSuffix(part.Name, ".weight"))
				if part.Encoding == plan.EncodingMXFP4 {
					name = strings.TrimSuffix(name, "_blocks")
				}
				at := place{tensor: int(t), rows: tensor.Shape[len(tensor.Shape)-2], kind: op.Kind, adaptable: adaptable, part: part}
				l.places[name] = append(l.places[name], at)
				if before, _, ok := strings.Cut(name, ".experts."); ok && op.Kind == plan.OpExperts && w == 0 {
					l.experts[before+".experts"] = op
				}
			}
		}
	}
	return l
}

// canonical is one spelling of names that transformers 5 has changed.
func canonical(name string) string { return strings.Replace(name, ".block_sparse_moe.", ".mlp.", 1) }

// lookUp returns what of the model the name stands for, whichever way the model
// it was trained on was wrapped.
func lookUp[T any](l *layout, in map[string]T, name string) (found T, ok bool) {
	name = canonical(name)
	if found, ok = in[name]; ok {
		return found, true
	}
	for _, prefix := range l.prefixes {
		if rest, cut := strings.CutPrefix(name, prefix); cut {
			if found, ok = in[l.plan.Prefix+rest]; ok {
				return found, true
			}
		}
	}
	return found, false
}

// fitting is a device.Adapter that is being made.
type fitting struct {
	plan   *plan.Plan
	out    *device.Adapter
	taken  map[rows]string      // by which module
	target map[rows]int         // of tensors of several matrices: index in out.Targets, by the rows of each
	shared map[string][]float32 // A of targets of tensors of one matrix, by what it is made of
}

// rows are rows of a tensor of the plan.
type rows struct{ tensor, first, n int }

// fit adds the change of a module.
func (l *layout) fit(f *fitting, m *module) error {
	name := m.name
	if m.parameter != "" && m.parameter != "weight" {
		name += "." + m.parameter
	}
	places, ok := lookUp(l, l.places, name)
	if !ok && m.parameter != "" {
		if op, found := lookUp(l, l.experts, m.name); found {
			return l.fitExperts(f, m, op)
		}
	}
	if !ok {
		if l.plan.Spares(name+".weight") || slices.ContainsFunc(l.prefixes, func(p string) bool { return l.plan.Spares(p + name + ".weight") }) {
			return nil // of a tower that is not served
		}
		return fmt.Errorf("the model has no module %q; it has %s", name, l.some())
	}
	for _, at := range places {
		if !at.adaptable {
			return fmt.Errorf("module %q is not a linear layer of this build: adapters of %s are not supported", name, what(at.kind))
		}
		if err := f.change(m, at); err != nil {
			return err
		}
	}
	return nil
}

func what(kind plan.Kind) string {
	switch kind {
	case plan.OpEmbed, plan.OpEmbedPosition:
		return "embeddings"
	case plan.OpLogits:
		return "the output layer"
	case plan.OpConv:
		return "convolutions"
	}
	return kind.String()
}

// some names a few modules, for a message.
func (l *layout) some() string {
	names := slices.Sorted(maps.Keys(l.places))
	return strings.Join(names[:min(3, len(names))], ", ") + " …"
}

// fitExperts adds the change of a parameter of all experts, as transformers 5 has
// them, to a model whose checkpoint has each expert's matrices by themselves: gate
// and up are halves of one parameter [experts, out, in].
func (l *layout) fitExperts(f *fitting, m *module, op *plan.Op) error {
	gate, up, down := op.Weight[0], op.Weight[2], op.Weight[4]
	var tensors []int32
	switch {
	case m.parameter == "gate_up_proj" && up != plan.None:
		tensors = []int32{gate, up}
	case m.parameter == "up_proj" && up == plan.None:
		tensors = []int32{gate}
	case m.parameter == "down_proj":
		tensors = []int32{down}
	default:
		return fmt.Errorf("the model's experts have no parameter %q", m.parameter)
	}
	for half, t := range tensors {
		shape := l.plan.Tensors[t].Shape
		experts, rows, cols := shape[0], shape[1], shape[2]
		for e := range experts {
			part := plan.Part{
				Shape: []int{experts, len(tensors) * rows, cols},
				Rows:  plan.Range{First: (e*len(tensors) + half) * rows, Step: 1, N: rows},
				Cols:  plan.Range{First: 0, Step: 1, N: cols},
				To:    e * rows,
			}
			if err := f.change(m, place{tensor: int(t), rows: rows, kind: plan.OpExperts, part: part}); err != nil {
				return err
			}
		}
	}
	return nil
}

// change is what a module adds to one matrix of the checkpoint: the sum over k of
// left(row, k) times right(column, k).
type change struct {
	left, right func(i, k int) float32
}

// changeOf returns what m adds to matrix e of the tensor that part is of.
func (m *module) changeOf(part *plan.Part, e int, transposed bool) change {
	experts := 1
	if len(part.Shape) == 3 {
		experts = part.Shape[0]
	}
	a := func(i, k int) float32 { return m.a.data[(e*m.rank+k)*m.a.cols+i] }
	b := func(i, k int) float32 { return m.scale * m.b.data[i*m.b.cols+k*experts+e] }
	if transposed {
		return change{left: a, right: b}
	}
	return change{left: b, right: a}
}

// change makes targets of what m changes at a place.
func (f *fitting) change(m *module, at place) error {
	part := &at.part
	// All matrices of the plan are [out, in]: what is turned around there is [in, out]
	// in the checkpoint (Conv1D). That of heads was turned for another reason.
	stored := part.Transpose && at.kind != plan.OpLinearHeads
	experts, height, width := 1, part.Shape[0], part.Shape[len(part.Shape)-1]
	if len(part.Shape) == 3 {
		experts, height = part.Shape[0], part.Shape[1]
	}
	out, in := height, width
	if stored {
		out, in = in, out
	}
	if want := []int{m.rank * experts, in}; !slices.Equal(m.a.Shape, want) {
		return fmt.Errorf("the model needs shape %v for rank %d, found %v", want, m.rank, m.a.Shape)
	}
	if want := []int{out, m.rank * experts}; !slices.Equal(m.b.Shape, want) {
		return fmt.Errorf("the model needs shape %v of %q for rank %d, found %v", want, m.b.Name, m.rank, m.b.Shape)
	}

	if other, ok := f.taken[rows{at.tensor, part.To, part.Rows.N}]; ok {
		return fmt.Errorf("module %q is module %q as well", m.name, other)
	}
	f.taken[rows{at.tensor, part.To, part.Rows.N}] = m.name
	if part.Transpose {
		e := part.Rows.First / height
		c := m.changeOf(part, e, stored)
		first := part.Rows.First % height
		// The plan's matrix is the transpose: its rows are columns, and left and right change places.
		f.add(m, at, rows{at.tensor, part.To, part.Cols.N}, fmt.Sprint(m.name, m.parameter, e, "left", first, part.Rows),
			func(j, k int) float32 { return c.left(first+j*part.Rows.Step, k) },
			func(i, k int) float32 { return c.right(part.Cols.First+i*part.Cols.Step, k) })
		return nil
	}
	// Rows of several matrices may follow each other.
	for done := 0; done < part.Rows.N; {
		row := part.Rows.First + done*part.Rows.Step
		e, first := row/height, row%height
		n := min(part.Rows.N-done, (height-first+part.Rows.Step-1)/part.Rows.Step, at.rows-(part.To+done)%at.rows)
		c := m.changeOf(part, e, stored)
		f.add(m, at, rows{at.tensor, part.To + done, n}, fmt.Sprint(m.name, m.parameter, e, "right", part.Cols),
			func(j, k int) float32 { return c.right(part.Cols.First+j*part.Cols.Step, k) },
			func(i, k int) float32 { return c.left(first+i*part.Rows.Step, k) })
		done += n
	}
	return nil
}

// add adds b aᵀ to rows of a tensor of the plan, counted through all its matrices and
// within one of them. Targets of one matrix that have the same a share it; where their
// rows follow each other they become one.
func (f *fitting) add(m *module, at place, r rows, key string, a, b func(i, k int) float32) {
	shape, rank := f.plan.Tensors[r.tensor].Shape, f.out.Rank
	cols := shape[len(shape)-1]
	fill := func(into []float32, n int, of func(i, k int) float32, byRank bool) {
		if byRank {
			for k := range m.rank {
				row := into[k*n:][:n]
				for i := range row {
					row[i] = of(i, k)
				}
			}
			return
		}
		for i := range n { // row by row: the memory is read and written in its order
			row := into[i*rank:][:m.rank]
			for k := range row {
				row[k] = of(i, k)
			}
		}
	}
	if len(shape) == 3 {
		matrix := r.first / at.rows
		r.first %= at.rows
		t, ok := f.target[r]
		if !ok {
			t = len(f.out.Targets)
			f.target[r] = t
			f.out.Targets = append(f.out.Targets, device.AdapterTarget{
				Tensor: r.tensor, First: r.first, Rows: r.n,
				A: make([]float32, shape[0]*rank*cols), B: make([]float32, shape[0]*r.n*rank),
			})
		}
		fill(f.out.Targets[t].A[matrix*rank*cols:], cols, a, true)
		fill(f.out.Targets[t].B[matrix*r.n*rank:], r.n, b, false)
		return
	}
	shared := f.shared[key]
	if shared == nil {
		shared = make([]float32, rank*cols)
		fill(shared, cols, a, true)
		f.shared[key] = shared
	}
	low := make([]float32, r.n*rank)
	fill(low, r.n, b, false)
	if last := len(f.out.Targets) - 1; last >= 0 {
		t := &f.out.Targets[last]
		if t.Tensor == r.tensor && t.First+t.Rows == r.first && &t.A[0] == &shared[0] {
			t.Rows += r.n
			t.B = append(t.B, low...)
			return
		}
	}
	f.out.Targets = append(f.out.Targets, device.AdapterTarget{Tensor: r.tensor, First: r.first, Rows: r.n, A: shared, B: low})
}
