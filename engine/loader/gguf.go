package loader

import (
	"fmt"
	"maps"
	"slices"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
)

// withBlocks adds the types of GGUF to encodings.
func withBlocks(encodings map[string]encoding) map[string]encoding {
	for name, b := range quant.Blocks {
		e := encoding{
			format: b.Format, float: plan.F32,
			decode: func(dst []float32, src []byte, _ int) { b.Decode(dst, src) },
		}
		if b.Exact() {
			e.pack = func(dst, src []byte, _ int) bool { return b.Pack(dst, src, len(src)/b.Bytes*b.Elements) }
		}
		encodings[name] = e
	}
	return encodings
}

// mapped is an encoding whose rows stand for others.
func mapped(e encoding, of func(row []float32)) encoding {
	format := e.format
	if format.Quantized() {
		format = mixedFormat // the codes stand for something else
	}
	return encoding{
		format: format, float: e.float,
		decode: func(dst []float32, src []byte, row int) {
			e.decode(dst, src, row)
			of(dst)
		},
	}
}

// storedTypes are the types of stored tensors that can be read.
func storedTypes() []string { return slices.Sorted(maps.Keys(rowEncodings)) }

// fileParts returns what a part is made of in the files, which may have its rows
// in another order, or in several tensors.
func (r *resolver) fileParts(part plan.Part) ([]plan.Part, error) {
	t, ok := r.c.Tensor(part.Name)
	if !ok || t.Rows == nil {
		return []plan.Part{part}, nil
	}
	if _, err := r.find(part.Name, [][]int{part.Shape}, storedTypes()...); err != nil {
		return nil, err
	}
	if part.Encoding != plan.EncodingPlain {
		return nil, fmt.Errorf("%s: tensor %q: expected packed numbers, found %s", t.File, t.Name, t.DType)
	}
	r.views = append(r.views, part.Name)
	var parts []plan.Part
	first := 0
	for _, run := range t.Rows {
		one, n := inRun(part, run, first)
		first += run.N
		if n == 0 {
			continue
		}
		if part.Transpose && n != part.Rows.N {
			return nil, fmt.Errorf("%s: tensor %q: a part of it is in several places of the file", t.File, t.Name)
		}
		r.inFiles[run.From.Name] = storedTensor{*run.From, t.Map}
		parts = append(parts, one)
	}
	return parts, nil
}

// storedTensor is one that a tensor of the model is made of.
type storedTensor struct {
	weights.Tensor
	of func(row []float32)
}

// inRun returns the n rows of part that are in run, which begins with row first of
// the tensor.
func inRun(part plan.Part, run weights.Run, first int) (one plan.Part, n int) {
	rows := part.Rows
	from := max(0, (first-rows.First+rows.Step-1)/rows.Step) // of the part's rows
	n = max(0, min(rows.N, (first+run.N-1-rows.First)/rows.Step+1)-from)
	if first+run.N <= rows.First {
		n = 0
	}
	at := rows.First + from*rows.Step - first // in the run
	one = part
	one.Name, one.Shape = run.From.Name, run.From.Shape
	if !part.Transpose {
		one.To += from
	}
	one.Rows = plan.Range{First: run.First + at*run.Step, Step: rows.Step * run.Step, N: n}
	if run.Transposed {
		one.Rows = plan.Range{First: run.First + part.Cols.First, Step: part.Cols.Step, N: part.Cols.N}
		one.Cols = plan.Range{First: at, Step: rows.Step, N: n}
		one.Transpose = !part.Transpose
	}
	return one, n
}
