// Package quant writes rows of weights in the formats that groups of codes share
// scales in, and reads them (plan.Format says what they are).
package quant

import (
	"encoding/binary"
	"math"

	"github.com/millrace-ai/millrace/engine/plan"
)

// Decode writes the elements of a row of format f, which may be any, to dst.
func Decode(dst []float32, row []byte, f plan.Format) {
	cols := len(dst)
	switch f.Kind() {
	case plan.F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(row[i*4:]))
		}
		return
	case plan.BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(row[i*2:])) << 16)
		}
		return
	case plan.F16:
		for i := range dst {
			dst[i] = Half(binary.LittleEndian.Uint16(row[i*2:]))
		}
		return
	}
	for i := range dst {
		scale, minimum := Scale(row, f, cols, i)
		dst[i] = scale*Code(row, f, i) + minimum
	}
}

// Code returns what the code of element i of a quantised row stands for, without
// its scale.
func Code(row []byte, f plan.Format, i int) float32 {
	switch f.Kind() {
	case plan.W8:
		return float32(int8(row[i]))
	case plan.F8:
		return E4M3(row[i])
	}
	code := row[i/2] >> (i % 2 * 4) & 15
	if f.Minimum() {
		return float32(code)
	}
	return float32(f.Table()[code])
}

// Scale returns scale and minimum of element i of a quantised row of cols elements.
func Scale(row []byte, f plan.Format, cols, i int) (scale, minimum float32) {
	g := 0
	if f.Group() > 0 {
		g = i / f.Group()
	}
	at := f.CodeBytes(cols)
	if f.Kind() == plan.F8 {
		return math.Float32frombits(binary.LittleEndian.Uint32(row[at+g*4:])), 0
	}
	scale = Half(binary.LittleEndian.Uint16(row[at+g*2:]))
	if f.Minimum() {
		minimum = Half(binary.LittleEndian.Uint16(row[at+(f.Groups(cols)+g)*2:]))
	}
	return scale, minimum
}

// Activations rounds x as products with weights of format f do, group by group:
// x is about scales[group] * codes.
func Activations(x []float32, f plan.Format) (codes []int8, scales []float32) {
	codes = make([]int8, len(x))
	group := f.Group()
	if group == 0 {
		group = len(x)
	}
	for at := 0; at < len(x); at += group {
		part := x[at:min(at+group, len(x))]
		most := float32(0)
		for _, v := range part {
			most = max(most, float32(math.Abs(float64(v)))) // NaN if there is one
		}
		if most != most || math.IsInf(float64(most), 0) {
			scales = append(scales, float32(math.NaN()))
			continue
		}
		scales = append(scales, most/127)
		if most == 0 {
			continue
		}
		inverse := 127 / most
		for i, v := range part {
			codes[at+i] = int8(math.RoundToEven(float64(v * inverse)))
		}
	}
	return codes, scales
}

// Encode writes row in format f, which may be any, to dst, f.RowBytes(len(row))
// bytes: elements rounded to the nearest, ties to even, each code the nearest one
// that the scale of its group allows.
func Encode(dst []byte, row []float32, f plan.Format) {
	for i, v := range row {
		switch f.Kind() {
		case plan.F32:
			binary.LittleEndian.PutUint32(dst[i*4:], math.Float32bits(v))
		case plan.F16:
			binary.LittleEndian.PutUint16(dst[i*2:], ToHalf(v))
		case plan.BF16:
			binary.LittleEndian.PutUint16(dst[i*2:], toBF16(v))
		}
	}
	if !f.Quantized() {
		return
	}
	cols, group := len(row), f.Group()
	if group == 0 {
		group = cols
	}
	clear(dst[:f.RowBytes(cols)])
	for g := range f.Groups(cols) {
		first := g * group
		encodeGroup(dst, row[first:min(first+group, cols)], f, cols, g, first)
	}
}

// encodeGroup writes group g of a row of cols elements, the first of which is
// number first.
func encodeGroup(dst []byte, part []float32, f plan.Format, cols, g, first int) {
	low, high := float32(0), float32(0)
	for _, v := range part {
		low, high = min(low, v), max(high, v)
	}
	at := f.CodeBytes(cols)
	put := func(i int, bits uint16) float32 {
		binary.LittleEndian.PutUint16(dst[at+i*2:], bits)
		return Half(bits)
	}
	var scale, minimum float32
	switch most := max(-low, high); {
	case f.Kind() == plan.F8:
		scale = most / 448
		binary.LittleEndian.PutUint32(dst[at+g*4:], math.Float32bits(scale))
	case f.Minimum():
		steps := float32(15)
		if f.Kind() == plan.W8 {
			steps = 127
		}
		scale = put(g, ToHalf((high-low)/steps))
		minimum = put(f.Groups(cols)+g, ToHalf(low))
	case f.Kind() == plan.W8:
		scale = put(g, ToHalf(most/127))
	default:
		far := float32(0) // the code of the greatest magnitude, for the element of the greatest
		for _, c := range f.Table() {
			if math.Abs(float64(c)) > math.Abs(float64(far)) {
				far = float32(c)
			}
		}
		if -low > high {
			most = low
		}
		scale = put(g, ToHalf(most/far))
	}
	if scale == 0 {
		if f.Kind() == plan.W4 && !f.Minimum() {
			for i := range part {
				putNibble(dst, first+i, nearest(f.Table(), 0))
			}
		}
		return
	}
	for i, v := range part {
		v = (v - minimum) / scale
		switch {
		case f.Kind() == plan.F8:
			dst[first+i] = toE4M3(v)
		case f.Kind() == plan.W8:
			dst[first+i] = byte(int8(math.RoundToEven(float64(min(max(v, -127), 127)))))
		case f.Minimum():
			putNibble(dst, first+i, byte(math.RoundToEven(float64(min(max(v, 0), 15)))))
		default:
			putNibble(dst, first+i, nearest(f.Table(), v))
		}
	}
}

func putNibble(dst []byte, i int, code byte) { dst[i/2] |= code << (i % 2 * 4) }

// nearest returns the code whose number is nearest to v.
func nearest(table *[16]int8, v float32) byte {
	best, at := float32(math.Inf(1)), 0
	for i, c := range table {
		if d := float32(math.Abs(float64(v - float32(c)))); d < best {
			best, at = d, i
		}
	}
	return byte(at)
}

func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v == v { // rounding would carry a NaN's payload away
		bits += 0x7fff + bits>>16&1
	}
	return uint16(bits >> 16)
}

// E4M3 widens an OFP8 E4M3 number.
func E4M3(bits byte) float32 {
	exponent, fraction := int(bits>>3&15), float64(bits&7)
	v := math.Ldexp(1+fraction/8, exponent-7)
	switch {
	case bits&0x7f == 0x7f:
		v = math.NaN()
	case exponent == 0:
		v = math.Ldexp(fraction, -9)
	}
	if bits&0x80 != 0 {
		v = -v
	}
	return float32(v)
}

// toE4M3 rounds to OFP8 E4M3, to the nearest, ties to even; what is too large
// becomes the largest number.
func toE4M3(v float32) byte {
	a := math.Abs(float64(v))
	if a != a {
		return 0x7f
	}
	sign := byte(math.Float32bits(v) >> 24 & 0x80)
	if a >= 448 {
		return sign | 0x7e
	}
	if a < 0x1p-6 {
		return sign | byte(math.RoundToEven(a*0x1p9))
	}
	fraction, exponent := math.Frexp(a) // a = fraction * 2^exponent, fraction in [1/2, 1)
	// The leading bit is added to the exponent, and so is the carry.
	return sign | byte((exponent+5)<<3+int(math.RoundToEven(fraction*16)))
}

// Half widens an IEEE 754 binary16.
func Half(bits uint16) float32 {
	sign := uint32(bits&0x8000) << 16
	exponent, fraction := uint32(bits>>10&0x1f), uint32(bits&0x3ff)
	switch exponent {
	case 0: // zero or subnormal: the fraction in units of 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// ToHalf rounds to IEEE 754 binary16, to the nearest, ties to even.
func ToHalf(v float32) uint16 {
	sign := uint16(math.Float32bits(v) >> 16 & 0x8000)
	a := math.Abs(float64(v))
	switch {
	case a != a:
		return sign | 0x7e00
	case a >= 65520:
		return sign | 0x7c00
	case a < 0x1p-14: // subnormal: units of 2^-24
		return sign | uint16(math.RoundToEven(a*0x1p24))
	}
	fraction, exponent := math.Frexp(a) // a = fraction * 2^exponent, fraction in [1/2, 1)
	// The fraction's leading bit is added to the exponent, and so is the carry
	// of one that rounds up to 1.
	return sign | (uint16(exponent+13)<<10 + uint16(math.RoundToEven(fraction*2048)))
}
