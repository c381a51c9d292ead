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
		inverse := 127 / most
		if math.IsInf(float64(inverse), 0) {
			continue
		}
		for i, v := range part {
			codes[at+i] = int8(math.RoundToEven(float64(v * inverse)))
		}
	}
	return codes, scales
}

// Encode writes row in format f, which may be any, to dst, f.RowBytes(len(row))
// bytes: elements rounded to the nearest, ties to even, each code the nearest one
// that the scale of its group allows. Scales of W4 are those that lose little.
func Encode(dst []byte, row []float32, f plan.Format) {
	switch f.Kind() {
	case plan.F32:
		for i, v := range row {
			binary.LittleEndian.PutUint32(dst[i*4:], math.Float32bits(v))
		}
		return
	case plan.F16:
		for i, v := range row {
			binary.LittleEndian.PutUint16(dst[i*2:], ToHalf(v))
		}
		return
	case plan.BF16:
		for i, v := range row {
			binary.LittleEndian.PutUint16(dst[i*2:], toBF16(v))
		}
		return
	}
	cols, group := len(row), f.Group()
	if group == 0 {
		group = cols
	}
	clear(dst[:f.RowBytes(cols)])
	for g := range f.Groups(cols) {
		first, last := g*group, min(g*group+group, cols)
		encodeGroup(dst, row[first:last], f, cols, g, first)
	}
}

// encodeGroup writes group g of a row of cols elements, the first of which is
// number first.
func encodeGroup(dst []byte, part []float32, f plan.Format, cols, g, first int) {
	scale, minimum := putScale(dst, part, nil, f, cols, g)
	if scale == 0 {
		if f.Kind() == plan.W4 && !f.Minimum() {
			for i := range part {
				putNibble(dst, first+i, nearest(f.Table(), 0))
			}
		}
		return
	}
	inverse := 1 / scale
	switch {
	case f.Kind() == plan.F8:
		for i, v := range part {
			dst[first+i] = toE4M3(v / scale)
		}
	case f.Kind() == plan.W8:
		for i, v := range part {
			dst[first+i] = byte(int8(round(min(max((v-minimum)*inverse, -127), 127))))
		}
	case f.Minimum():
		for i, v := range part {
			putNibble(dst, first+i, byte(round(min(max((v-minimum)*inverse, 0), 15))))
		}
	default:
		table := f.Table()
		for i, v := range part {
			putNibble(dst, first+i, nearest(table, v*inverse))
		}
	}
}

// putScale chooses and writes scale and minimum of group g of a row of cols elements:
// of W4 those that lose little of part, whose squares count by weights, if there are any.
func putScale(dst []byte, part, weights []float32, f plan.Format, cols, g int) (scale, minimum float32) {
	low, high := float32(0), float32(0)
	for _, v := range part {
		low, high = min(low, v), max(high, v)
	}
	at := f.CodeBytes(cols)
	put := func(i int, bits uint16) float32 {
		binary.LittleEndian.PutUint16(dst[at+i*2:], bits)
		return Half(bits)
	}
	most := max(-low, high)
	switch {
	case f.Kind() == plan.F8:
		scale = most / 448
		binary.LittleEndian.PutUint32(dst[at+g*4:], math.Float32bits(scale))
	case f.Minimum() && f.Kind() == plan.W8:
		scale = put(g, ToHalf((high-low)/127))
		minimum = put(f.Groups(cols)+g, ToHalf(low))
	case f.Minimum():
		scale, minimum = fitMinimum(part, weights, low, high)
		scale, minimum = put(g, ToHalf(scale)), put(f.Groups(cols)+g, ToHalf(minimum))
	case f.Kind() == plan.W8:
		scale = put(g, ToHalf(most/127))
	default:
		if -low > high {
			most = low
		}
		scale = put(g, ToHalf(fit(part, weights, f.Table(), most)))
	}
	return scale, minimum
}

// round rounds a number below 2^22 to the nearest, ties to even.
func round(v float32) float32 {
	const shift = 3 << 22 // there, numbers are whole
	return v + shift - shift
}

// fit returns the scale for codes of a table that loses least of part, of those
// near the one that brings most, the number of the greatest magnitude, to the
// greatest code.
func fit(part, weights []float32, table *[16]int8, most float32) float32 {
	if most == 0 {
		return 0
	}
	far := float32(0)
	for _, c := range table {
		if c := float32(c); max(c, -c) > max(far, -far) {
			far = c
		}
	}
	best, gain := most/far, float32(-1)
	for _, stretch := range [...]float32{1, 0.95, 0.9, 0.85, 1.05, 1.1} {
		inverse := far / most * stretch
		// The scale that loses least with these codes, and what it keeps.
		var xc, cc float32
		for i, v := range part {
			c := float32(table[nearest(table, v*inverse)])
			if w := c; weights != nil {
				w *= weights[i]
				xc += w * v
				cc += w * c
			} else {
				xc += c * v
				cc += c * c
			}
		}
		if keeps := xc * xc / cc; cc > 0 && keeps > gain {
			best, gain = xc/cc, keeps
		}
	}
	return best
}

// fitMinimum returns scale and minimum for codes from 0 to 15 that lose little of
// part, whose elements are from low to high.
func fitMinimum(part, weights []float32, low, high float32) (scale, minimum float32) {
	bestScale, bestMinimum, least := (high-low)/15, low, float32(math.Inf(1))
	for _, shrink := range [...]float32{1, 0.95, 0.9, 0.85} {
		middle := (low + high) / 2
		scale = (high - low) / 15 * shrink
		minimum = middle - scale*7.5
		if scale == 0 {
			break
		}
		for range 2 { // with these codes, the scale and minimum that lose least, and codes again
			var sum, x, c, xc, cc, xx float32
			inverse := 1 / scale
			for i, v := range part {
				code, w := round(min(max((v-minimum)*inverse, 0), 15)), float32(1)
				if weights != nil {
					w = weights[i]
				}
				sum, x, c = sum+w, x+w*v, c+w*code
				xc, cc, xx = xc+w*v*code, cc+w*code*code, xx+w*v*v
			}
			lost := xx - 2*(scale*xc+minimum*x) + scale*scale*cc + 2*scale*minimum*c + minimum*minimum*sum
			if lost < least {
				bestScale, bestMinimum, least = scale, minimum, lost
			}
			d := sum*cc - c*c
			if !(d > 0) {
				break
			}
			if scale, minimum = (sum*xc-c*x)/d, (x*cc-c*xc)/d; !(scale > 0) {
				break
			}
		}
	}
	return bestScale, bestMinimum
}

func putNibble(dst []byte, i int, code byte) { dst[i/2] |= code << (i % 2 * 4) }

// The tables whose numbers ascend, and where the nearest of them changes.
var (
	iq4nlTable, nf4Table = (plan.W4 | plan.CodesIQ4NL).Table(), (plan.W4 | plan.CodesNF4).Table()
	iq4nlTurns, nf4Turns = turns(iq4nlTable), turns(nf4Table)
)

// turns are the middles between the numbers of a table that ascend.
func turns(table *[16]int8) (middles [15]float32) {
	for i := range middles {
		middles[i] = (float32(table[i]) + float32(table[i+1])) / 2
	}
	return middles
}

// search returns how many of turns are below v.
func search(turns *[15]float32, v float32) byte {
	i := 0
	if v > turns[7] {
		i = 8
	}
	if v > turns[i+3] {
		i += 4
	}
	if v > turns[i+1] {
		i += 2
	}
	if v > turns[i] {
		i++
	}
	return byte(i)
}

// nearest returns the code whose number is nearest to v.
func nearest(table *[16]int8, v float32) byte {
	switch table {
	case plan.W4.Table():
		return byte(round(min(max(v, -8), 7)) + 8)
	case iq4nlTable:
		return search(&iq4nlTurns, v)
	case nf4Table:
		return search(&nf4Turns, v)
	}
	best, at := float32(math.Inf(1)), 0
	for i, c := range table {
		d := v - float32(c)
		if d = max(d, -d); d < best {
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
