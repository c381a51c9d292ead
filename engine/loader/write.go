package loader

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
)

// Written is what Write has written.
type Written struct {
	Bytes   int64                  // of all tensors
	Formats map[string]plan.Format // of tensors that are in the layout plan.Panels
}

// Config returns config.json with what has been written in it.
func (w *Written) Config(config []byte) ([]byte, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(config, &keys); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	names := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(w.Formats)) {
		f := w.Formats[name].String()
		names[f] = append(names[f], name)
	}
	text, err := json.Marshal(map[string]any{"quant_method": plan.MethodRows, "layout": plan.Panels, "formats": names})
	if err != nil {
		return nil, err
	}
	delete(keys, "compression_config")
	keys["quantization_config"] = text
	return json.MarshalIndent(keys, "", "  ")
}

// Recipe is how Write makes weights of four bits.
type Recipe struct {
	// Moments are those of what matrices are multiplied with, by their names; what has
	// some is rounded for them.
	Moments map[string]*quant.Moments

	// Bits are how many a weight may take on average, of the matrices that have moments.
	// Where that is more than four bits and their scales do, those that lose the greatest
	// share of their products are kept in eight.
	Bits float64
}

// File is what Write writes to.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// writer is a safetensors file that is written row by row.
type writer struct {
	file    File
	tensors []written
}

type written struct {
	name   string
	dtype  string
	shape  []int
	width  int   // bytes of a row
	size   int64 // bytes
	offset int64 // of the file

	packed bool // in panels; width is that of a row before
	format plan.Format
	rows   int // of a matrix
	cols   int
}

// WriteTensor implements taker.
func (w *writer) WriteTensor(h device.Handle, first, n int, src []byte) error {
	t := &w.tensors[h]
	if t.packed {
		return w.pack(t, first, n, src)
	}
	_, err := w.file.WriteAt(src, t.offset+int64(first)*int64(t.width))
	return err
}

// pack writes rows into their panels. Of a panel that comes in parts, the file has
// what has come.
func (w *writer) pack(t *written, first, n int, src []byte) error {
	panel := make([]byte, t.format.PanelBytes(t.cols))
	for n > 0 {
		row := first % t.rows
		lane := row % plan.PanelRows
		some := min(n, plan.PanelRows-lane, t.rows-row)
		at := t.offset + int64(first/t.rows*ceil(t.rows, plan.PanelRows)+row/plan.PanelRows)*int64(len(panel))
		clear(panel)
		if some < min(plan.PanelRows, t.rows-row+lane) {
			if _, err := w.file.ReadAt(panel, at); err != nil && err != io.EOF {
				return err
			}
		}
		quant.Pack(panel, src, lane, some, t.cols, t.format)
		if _, err := w.file.WriteAt(panel, at); err != nil {
			return err
		}
		first, n, src = first+some, n-some, src[some*t.width:]
	}
	return nil
}

// Write writes the tensors of checkpoint c to file, an empty safetensors file, under the
// names that the plan knows them by: those that p.Quantize asks for in resident
// formats, and these and other matrices in the layout plan.Panels, of type U8. What p uses
// otherwise than in whole rows, and what it does not use, stays as it is.
func Write(file File, p *plan.Plan, c *weights.Checkpoint, recipe Recipe, progress func(done, total int64)) (*Written, error) {
	switch method := p.Stored.Method; method {
	case plan.MethodRows, "mxfp4", "bitnet":
		return nil, fmt.Errorf("%s: quant_method is %s: the weights are quantized already", c.Source(), method)
	}
	p = plan.Share(plan.Lower(p)) // what becomes one there has one format
	found, err := resolve(p, c, allKinds)
	if err != nil {
		return nil, err
	}
	if err := refuseUnused(p, c, found); err != nil {
		return nil, err
	}

	roundings := map[*quant.Moments]func() *quant.Rounding{}
	for _, m := range recipe.Moments { // matrices that are multiplied with the same share it
		roundings[m] = sync.OnceValue(m.Rounding)
	}
	if recipe.Bits > 0 {
		if p.Wide, err = wide(p, c, found.formats, recipe, roundings); err != nil {
			return nil, err
		}
		if found, err = resolve(p, c, allKinds); err != nil {
			return nil, err
		}
	}

	// What is read, and for each tensor of the file a tensor of out.
	w, out, list := &writer{file: file}, &plan.Plan{}, &resolved{}
	result := &Written{Formats: map[string]plan.Format{}}
	add := func(s *source, t written, u *use) {
		rows, _ := dimensions(t.shape)
		if len(t.shape) < 2 {
			rows = s.stored
		}
		if t.size = int64(rows) * int64(t.width); t.packed {
			t.size = int64(t.format.PackedBytes(s.part))
		}
		u.tensor = len(w.tensors)
		s.uses = []*use{u}
		w.tensors = append(w.tensors, t)
		out.Tensors = append(out.Tensors, plan.Tensor{Name: t.name})
		list.sources = append(list.sources, s)
	}
	raw := func(t weights.Tensor) {
		if t.Size == 0 {
			return
		}
		s := rowsOf(t)
		u := &use{direct: true}
		u.Rows = plan.Range{Step: 1, N: s.stored}
		add(s, written{name: t.Name, dtype: t.DType, shape: t.Shape, width: s.rowBytes}, u)
	}
	read, multiplied := map[string]bool{}, plan.Quantizable(p)
	for _, s := range found.sources {
		if s.of != nil {
			read[s.Name] = true
			list.sources = append(list.sources, s)
			continue
		}
		format, name, same := s.uses[0].to, s.uses[0].Name, true
		for _, u := range s.uses {
			if u.to != format || u.whole != nil || !u.allColumns() {
				format, same = s.float, false
			}
		}
		// Packed, what has few rows would be mostly zeros.
		packed := format.Quantized() || same && multiplied[s.uses[0].tensor] && len(s.part) > 1 && s.part[len(s.part)-2] >= plan.PanelRows
		if !packed && !s.format.Quantized() {
			continue // stays as it is
		}
		read[s.Name] = true
		_, cols := dimensions(s.part)
		t := written{name: name, dtype: format.String(), shape: s.part, width: format.RowBytes(cols)}
		if packed {
			result.Formats[name] = format
			t.dtype, t.shape = "U8", packedShape(s.part, format)
			t.packed, t.format, t.rows, t.cols = true, format, s.part[len(s.part)-2], cols
		}
		rows, _ := dimensions(s.part)
		u := &use{Part: plan.Part{Name: name, Shape: s.part, Rows: plan.Range{Step: 1, N: rows}, Cols: plan.Range{Step: 1, N: cols}}}
		assemble(&plan.Tensor{Shape: s.part}, format, []*use{u}, []*source{s})
		if m := recipe.Moments[name]; m != nil && m.Cols() == cols {
			u.rounding = roundings[m]
		}
		add(s, t, u)
	}
	for _, name := range c.Names() {
		if t, _ := c.Tensor(name); !read[name] && !(p.Stored.Method != "" && hasSuffix(name, spareSuffixes)) {
			raw(t)
		}
	}
	if result.Bytes, err = w.header(); err != nil {
		return nil, err
	}
	return result, list.read(w, out, c, progress)
}

// sampledRows is how many rows of a matrix one stands for when losses are compared.
const sampledRows = 16

// losses measures what rows of four bits lose.
type losses struct {
	tensors []loss
}

// loss is what a matrix loses.
type loss struct {
	name       string
	moments    *quant.Moments // nil: it is not measured
	rounding   func() *quant.Rounding
	format     plan.Format // of the rows
	cols, size int         // columns, elements
	lost, all  float64     // squares of the products with what is lost, and with all
}

// share is what part of the products is lost.
func (l *loss) share() float64 { return l.lost / max(l.all, math.SmallestNonzeroFloat64) }

// WriteTensor implements taker.
func (l *losses) WriteTensor(h device.Handle, first, n int, src []byte) error {
	t := &l.tensors[h]
	width := t.format.RowBytes(t.cols)
	row, again := make([]float32, t.cols), make([]float32, t.cols)
	packed := make([]byte, int4Format.RowBytes(t.cols))
	for i := range n {
		if (first+i)%sampledRows != 0 {
			continue
		}
		quant.Decode(row, src[i*width:][:width], t.format)
		t.rounding().Encode(packed, row, int4Format)
		quant.Decode(again, packed, int4Format)
		t.all += t.moments.Sum(row)
		for j, v := range row {
			again[j] -= v
		}
		t.lost += t.moments.Sum(again)
	}
	return nil
}

// wide chooses the tensors of p that are kept in eight bits, of those that formats has
// in four.
func wide(p *plan.Plan, c *weights.Checkpoint, formats []plan.Format, recipe Recipe, roundings map[*quant.Moments]func() *quant.Rounding) (map[string]bool, error) {
	floats := *p
	floats.Quantize = plan.QuantizeNone
	found, err := resolve(&floats, c, allKinds)
	if err != nil {
		return nil, err
	}
	measured := &losses{tensors: make([]loss, len(p.Tensors))}
	for i, t := range p.Tensors {
		m := recipe.Moments[t.Name]
		rows, cols := dimensions(t.Shape)
		if m == nil || formats[i] != int4Format || m.Cols() != cols {
			continue
		}
		measured.tensors[i] = loss{name: t.Name, moments: m, rounding: roundings[m], format: found.formats[i], cols: cols, size: rows * cols}
	}
	for _, s := range found.sources {
		s.uses = slices.DeleteFunc(s.uses, func(u *use) bool { return measured.tensors[u.tensor].moments == nil })
	}
	found.sources = slices.DeleteFunc(found.sources, func(s *source) bool {
		return s.of == nil && len(s.uses) == 0 || s.of != nil && len(s.of.uses) == 0
	})
	if err := found.read(measured, p, c, nil); err != nil {
		return nil, err
	}
	return widest(slices.DeleteFunc(measured.tensors, func(l loss) bool { return l.moments == nil }), int8Format(p), recipe.Bits), nil
}

// widest are the names of the matrices that bits for a weight allow to be in format wide,
// those that lose the greatest share of their products first.
func widest(list []loss, wide plan.Format, bits float64) map[string]bool {
	of := func(f plan.Format) float64 { return 8 * float64(f.RowBytes(f.Group())) / float64(f.Group()) }
	more, left := of(wide)-of(int4Format), 0.0
	for _, l := range list {
		left += (bits - of(int4Format)) * float64(l.size)
	}
	chosen := map[string]bool{}
	for _, l := range slices.SortedStableFunc(slices.Values(list), func(a, b loss) int { return cmp.Compare(b.share(), a.share()) }) {
		if needs := more * float64(l.size); needs <= left {
			left -= needs
			chosen[l.name] = true
		}
	}
	return chosen
}

// header places the tensors and writes the beginning of the file. It returns their
// bytes.
func (w *writer) header() (int64, error) {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	entries := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	at := int64(0)
	for _, packed := range []bool{true, false} { // whole cache lines first, so that they stay that
		for i := range w.tensors {
			t := &w.tensors[i]
			if t.packed != packed {
				continue
			}
			t.offset = at
			at += t.size
			shape := t.shape
			if shape == nil {
				shape = []int{}
			}
			entries[t.name] = entry{t.dtype, shape, [2]int64{t.offset, at}}
		}
	}
	text, err := json.Marshal(entries)
	if err != nil {
		return 0, err
	}
	const line = 64 // tensors begin where a cache line does
	for (8+len(text))%line != 0 {
		text = append(text, ' ')
	}
	for i := range w.tensors {
		w.tensors[i].offset += int64(8 + len(text))
	}
	_, err = w.file.WriteAt(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), 0)
	return at, err
}
