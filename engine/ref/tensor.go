package ref

import (
	"encoding/binary"
	"math"

	"github.com/millrace-ai/millrace/engine/plan"
)

// tensor is a weight, converted to float32 as its rows arrive.
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

// convert widens little-endian elements to float32, which is exact.
func convert(dst []float32, src []byte, format plan.Format) {
	size := format.Size()
	for i := range dst {
		at := src[i*size:]
		switch format {
		case plan.F32:
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(at))
		case plan.BF16:
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(at)) << 16)
		case plan.F16:
			dst[i] = half(binary.LittleEndian.Uint16(at))
		}
	}
}

// half widens an IEEE 754 binary16.
func half(bits uint16) float32 {
	sign := uint32(bits&0x8000) << 16
	exponent, fraction := uint32(bits>>10&0x1f), uint32(bits&0x3ff)
	switch exponent {
	case 0: // zero or subnormal: the fraction in units of 2^-24
		v := float32(fraction) * 0x1p-24
		return math.Float32frombits(sign | math.Float32bits(v))
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
