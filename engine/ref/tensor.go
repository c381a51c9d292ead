package ref

import (
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// tensor is a weight, widened to float32 as its rows arrive.
type tensor struct {
	format plan.Format
	rows   int // of a matrix
	cols   int // elements of a row; a vector is one row
	data   []float32
}

func newTensor(format plan.Format, shape []int) *tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	t := &tensor{format: format, rows: 1, cols: shape[len(shape)-1], data: make([]float32, n)}
	if len(shape) > 1 {
		t.rows = shape[len(shape)-2]
	}
	return t
}

// write takes n rows from row first on.
func (t *tensor) write(first, n int, src []byte) {
	size := t.format.RowBytes(t.cols)
	for i := range n {
		quant.Decode(t.data[(first+i)*t.cols:][:t.cols], src[i*size:][:size], t.format)
	}
}

// times returns the product of x and the rows of matrix number m.
func (t *tensor) times(m int, x []float32) []float64 {
	out := make([]float64, t.rows)
	if t.format.Integer() {
		x = rounded(x, t.format)
	}
	for i := range out {
		out[i] = dot(x, t.data[(m*t.rows+i)*t.cols:])
	}
	return out
}

// rounded returns x as products with weights of format f take it.
func rounded(x []float32, f plan.Format) []float32 {
	codes, scales := quant.Activations(x, f)
	group := f.Group()
	if group == 0 {
		group = len(x)
	}
	out := make([]float32, len(x))
	for i, c := range codes {
		out[i] = float32(c) * scales[i/group]
	}
	return out
}
