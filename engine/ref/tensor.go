package ref

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/millrace-ai/millrace/engine/device"
)

// tensor is a weight, converted to float32 as its rows arrive.
type tensor struct {
	name    string
	dtype   device.DType
	shape   []int
	cols    int // elements of a row; a vector is one row
	data    []float32
	written []bool // by row
}

func newTensor(name string, dtype device.DType, shape []int) (*tensor, error) {
	if dtype < device.F32 || dtype > device.BF16 {
		return nil, fmt.Errorf("tensor %s: unknown element type %v", name, dtype)
	}
	if len(shape) != 1 && len(shape) != 2 {
		return nil, fmt.Errorf("tensor %s: shape %v, expected one or two dimensions", name, shape)
	}
	rows, cols := 1, shape[len(shape)-1]
	if len(shape) == 2 {
		rows = shape[0]
	}
	if rows <= 0 || cols <= 0 {
		return nil, fmt.Errorf("tensor %s: shape %v, expected positive dimensions", name, shape)
	}
	return &tensor{
		name:    name,
		dtype:   dtype,
		shape:   append([]int(nil), shape...),
		cols:    cols,
		data:    make([]float32, rows*cols),
		written: make([]bool, rows),
	}, nil
}

func (t *tensor) write(first, n int, src []byte) error {
	if first < 0 || n < 0 || first > len(t.written)-n {
		return fmt.Errorf("tensor %s: rows %d to %d written, it has %d", t.name, first, first+n, len(t.written))
	}
	if want := n * t.cols * t.dtype.Size(); len(src) != want {
		return fmt.Errorf("tensor %s: %d bytes for %d rows, expected %d", t.name, len(src), n, want)
	}
	for r := first; r < first+n; r++ {
		if t.written[r] {
			return fmt.Errorf("tensor %s: row %d written twice", t.name, r)
		}
	}
	for r := first; r < first+n; r++ {
		t.written[r] = true
	}
	convert(t.data[first*t.cols:], src, t.dtype)
	return nil
}

// complete reports the first row that was never written as an error.
func (t *tensor) complete() error {
	for r, ok := range t.written {
		if !ok {
			return fmt.Errorf("tensor %s: row %d was never written", t.name, r)
		}
	}
	return nil
}

// convert widens little-endian elements to float32, which is exact.
func convert(dst []float32, src []byte, dtype device.DType) {
	size := dtype.Size()
	for i := range len(src) / size {
		at := src[i*size:]
		switch dtype {
		case device.F32:
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(at))
		case device.BF16:
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(at)) << 16)
		case device.F16:
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
