package loader

import (
	"math"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
)

// Names that a quantised checkpoint has instead of "NAME.weight", or beside it,
// and that are not read: what was measured of activations and caches, and shapes
// that config.json says, too.
var spareSuffixes = []string{
	".input_scale", ".output_scale", ".input_zero_point", ".output_zero_point", ".input_global_scale",
	".q_scale", ".k_scale", ".v_scale", ".kv_scale", ".k_zero_point", ".v_zero_point",
	".weight_shape", ".weight_format", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4",
}

// stored reports whether checkpoint c stores a tensor called name, in whatever way,
// and its shape there.
func stored(c *weights.Checkpoint, q *plan.Quantization, name string) (shape []int, ok bool) {
	if shape, ok = c.Shape(name); !ok && q.Method != "" {
		if shape, ok = c.Shape(name + "_packed"); !ok {
			shape, ok = c.Shape(module(name) + ".qweight")
		}
	}
	return shape, ok
}

// module is what name is the weight of.
func module(name string) string { return strings.TrimSuffix(name, ".weight") }

// quantized finds a matrix that is stored by a method of quantization_config. ok is
// false if it is stored as floats.
func (r *resolver) quantized(part *plan.Part) (f *found, ok bool, err error) {
	name := part.Name
	if format, ok := r.how.Formats[name]; ok {
		if r.how.Packed {
			f, err = r.panels(part, format)
		} else {
			f, err = r.rows(part, format)
		}
		return f, true, err
	}
	if _, ok := r.c.Tensor(module(name) + ".qweight"); ok {
		if r.how.Method == "awq" {
			f, err = r.awq(part)
		} else {
			f, err = r.gptq(part)
		}
		return f, true, err
	}
	if t, ok := r.c.Tensor(name + "_packed"); ok {
		if t.DType == "U8" {
			f, err = r.e2m1(part, name+"_packed")
		} else {
			f, err = r.packed(part)
		}
		return f, true, err
	}
	switch t, _ := r.c.Tensor(name); t.DType {
	case "F8_E4M3":
		f, err = r.fp8(part)
	case "I8":
		f, err = r.int8(part)
	case "U8":
		if r.how.Method == "bitsandbytes" {
			f, err = r.nf4(part)
		} else {
			f, err = r.e2m1(part, name)
		}
	default:
		return nil, false, nil
	}
	return f, true, err
}

// rows finds rows of a resident format.
func (r *resolver) rows(part *plan.Part, f plan.Format) (*found, error) {
	last := len(part.Shape) - 1
	shape := append(slices.Clone(part.Shape[:last]), f.RowBytes(part.Shape[last]))
	codes, err := r.find(part.Name, [][]int{shape}, "U8")
	return &found{codes: codes, encoding: encoding{
		format: f, float: plan.BF16, direct: true,
		decode: func(dst []float32, src []byte, _ int) { quant.Decode(dst, src, f) },
	}}, err
}

// dimensions are rows and columns of a matrix, or of all matrices together.
func dimensions(shape []int) (rows, cols int) {
	rows, cols = 1, shape[len(shape)-1]
	for _, n := range shape[:len(shape)-1] {
		rows *= n
	}
	return rows, cols
}

func ceil(n, by int) int { return (n + by - 1) / by }

// numbers reads a tensor of floats, and refuses one that is not finite.
func (s *source) numbers() ([]float32, error) {
	var list []float32
	switch s.DType {
	case "F8_E4M3":
		list = make([]float32, len(s.data))
		for i, b := range s.data {
			list[i] = quant.E4M3(b)
		}
	case "U8", "F8_E8M0":
		list = make([]float32, len(s.data))
		for i, b := range s.data {
			list[i] = float32(math.Ldexp(1, int(b)-127))
			if b == 255 {
				list[i] = float32(math.NaN())
			}
		}
	default:
		f := rowEncodings[s.DType].format
		list = make([]float32, len(s.data)/f.Size())
		quant.Decode(list, s.data, f)
	}
	for i, v := range list {
		if v-v != 0 {
			return nil, s.errorf("scale %d is %v", i, v)
		}
	}
	return list, nil
}
