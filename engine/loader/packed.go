package loader

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
)

// packedShape is the shape under which matrices in the layout plan.Panels are stored.
func packedShape(shape []int, f plan.Format) []int {
	last := len(shape) - 1
	return append(slices.Clone(shape[:last-1]), ceil(shape[last-1], plan.PanelRows), f.PanelBytes(shape[last]))
}

// panels finds matrices in the layout plan.Panels. Where no backend adopts them, they
// become rows again.
func (r *resolver) panels(part *plan.Part, f plan.Format) (*found, error) {
	codes, err := r.find(part.Name, [][]int{packedShape(part.Shape, f)}, "U8")
	if err != nil {
		return nil, err
	}
	all, cols := dimensions(part.Shape)
	rows := part.Shape[len(part.Shape)-2]
	each, size, width := ceil(rows, plan.PanelRows), f.PanelBytes(cols), f.RowBytes(cols)
	e := encoding{
		format: f, float: f, rows: all, cols: width,
		decode: func(dst []float32, src []byte, _ int) { quant.Decode(dst, src, f) },
		pack:   func(dst, src []byte, _ int) bool { return copy(dst, src) > 0 },
		spread: func(dst, panels []byte, first, n int) {
			for i := range n {
				row := (first + i) % each * plan.PanelRows // of its matrix
				at := (first+i)/each*rows + row
				quant.Unpack(dst[at*width:], panels[i*size:], min(plan.PanelRows, rows-row), cols, f)
			}
		},
	}
	if f.Quantized() {
		e.float = plan.BF16
	}
	e.stored = all / rows * each
	return &found{codes: codes, encoding: e}, nil
}

// adoption is a tensor of the plan that lies in a file as backends adopt it.
type adoption struct {
	tensor int
	panel  int            // bytes of one
	source weights.Tensor // of which only the place counts
}

// adoptable takes the tensors that a backend adopts out of those that are read row by
// row.
func (r *resolved) adoptable(p *plan.Plan, caps device.Caps) (list []*adoption) {
	if caps.Layout != plan.Panels || !p.Stored.Packed {
		return nil
	}
	places, refused := make([]*adoption, len(p.Tensors)), make([]bool, len(p.Tensors))
	for _, s := range r.sources {
		for _, u := range s.uses {
			t, f := p.Tensors[u.tensor], r.formats[u.tensor]
			if refused[u.tensor] = refused[u.tensor] || caps.Adopted>>f.Kind()&1 == 0 || len(t.Shape) < 2; refused[u.tensor] {
				continue
			}
			size := f.PanelBytes(t.Shape[len(t.Shape)-1])
			at, ok := u.begin(s, t.Shape[len(t.Shape)-2], size)
			if places[u.tensor] == nil {
				places[u.tensor] = &adoption{tensor: u.tensor, panel: size, source: weights.Tensor{File: s.File, Offset: at, Size: int64(f.PackedBytes(t.Shape))}}
			}
			refused[u.tensor] = !ok || places[u.tensor].source.File != s.File || places[u.tensor].source.Offset != at
		}
	}
	for i, a := range places {
		if a != nil && !refused[i] {
			list = append(list, a)
		}
	}
	adopted := func(u *use) bool { return places[u.tensor] != nil && !refused[u.tensor] }
	r.sources = slices.DeleteFunc(r.sources, func(s *source) bool {
		some := len(s.uses) > 0
		s.uses = slices.DeleteFunc(s.uses, adopted)
		return some && len(s.uses) == 0
	})
	return list
}

// begin returns where in its file a tensor, of matrices of so many rows, begins whose
// panels are those of the part's source. ok is false if there is no such place.
func (u *use) begin(s *source, rows, panel int) (at int64, ok bool) {
	if s.spread == nil || !u.packed || u.Rows.Step != 1 {
		return 0, false
	}
	own := s.part[len(s.part)-2]
	for i := range u.Rows.N {
		row, from := u.To+i, u.Rows.First+i
		to := row/rows*ceil(rows, plan.PanelRows) + row%rows/plan.PanelRows // its panel there, and here
		of := from/own*ceil(own, plan.PanelRows) + from%own/plan.PanelRows
		begins := s.Offset + int64(of-to)*int64(panel)
		if i == 0 {
			at = begins
		}
		lane := row % rows % plan.PanelRows
		last := row%rows == rows-1 && lane < plan.PanelRows-1 // zeros follow
		if begins != at || from%own%plan.PanelRows != lane || last && from%own != own-1 {
			return 0, false
		}
	}
	return at, true
}

// adopt gives tensors to backend b: those of a file that can be mapped at once, in the
// order in which a forward pass comes to them; others when the sources that it
// returns, which are read like any others, have come.
func adopt(b device.Backend, p *plan.Plan, c *weights.Checkpoint, list []*adoption) (mapped []*weights.Mapping, read []*source, err error) {
	first := make([]int, len(p.Tensors)) // operation that needs all of a tensor
	for i := range first {
		first[i] = len(p.Ops)
	}
	for i := len(p.Ops) - 1; i >= 0; i-- {
		for _, w := range p.Ops[i].Weight {
			if w != plan.None && p.Ops[i].Kind != plan.OpEmbed {
				first[w] = i
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *adoption) int { return cmp.Compare(first[a.tensor], first[b.tensor]) })
	for _, a := range list {
		h, size := device.Handle(a.tensor), int(a.source.Size)
		var m *weights.Mapping
		if a.source.Offset%device.PackedAlign == 0 {
			m, _ = c.Map(a.source.File, a.source.Offset, a.source.Size) //nolint:errcheck // not every file system maps files; all can be read
		}
		if m != nil {
			if err = b.AdoptTensor(h, m.Bytes(), m.Close); err != nil {
				m.Close()
			}
			mapped = append(mapped, m)
		} else {
			var memory []byte
			memory, err = b.HostAlloc(size)
			read = append(read, &source{Tensor: a.source, stored: size / a.panel, rowBytes: a.panel, missing: size, data: memory,
				adopt: func() error { return b.AdoptTensor(h, memory, nil) }})
		}
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", p.Tensors[a.tensor].Name, err)
		}
	}
	return mapped, read, nil
}
