package quant

import (
	"encoding/binary"
	"math"

	"github.com/millrace-ai/millrace/engine/plan"
)

// Block is one of the types that GGUF stores matrices in: a row is blocks of
// Elements elements in Bytes bytes each.
type Block struct {
	Elements, Bytes int

	// Format is the one that rows become. It holds what the block does, but for
	// scales and minimums of K-quants, which are products and rounded to F16; and
	// Q6_K, with its small groups, has twice as large ones.
	Format plan.Format

	native plan.Format // that unpack makes codes of
	// unpack reads the codes of a block, and the scale and minimum of each group.
	unpack func(b []byte, codes []byte, scales, minimums []float32)
}

// Blocks are these types by their names.
var Blocks = map[string]Block{
	"Q8_0":   simple(32, 34, w8of(32), unpackQ8_0),
	"Q4_0":   simple(32, 18, w4of(32), unpackQ4_0),
	"Q4_1":   simple(32, 20, w4of(32)|plan.WithMinimum, unpackQ4_1),
	"Q5_0":   simple(32, 22, w8of(32), unpackQ5_0),
	"Q5_1":   simple(32, 24, w8of(32)|plan.WithMinimum, unpackQ5_1),
	"Q2_K":   simple(256, 84, w4of(16)|plan.WithMinimum, unpackQ2_K),
	"Q3_K":   simple(256, 110, w4of(16), unpackQ3_K),
	"Q4_K":   simple(256, 144, w4of(32)|plan.WithMinimum, unpackQ4_K),
	"Q5_K":   simple(256, 176, w8of(32)|plan.WithMinimum, unpackQ5_K),
	"Q6_K":   {256, 210, w8of(32), w8of(16), unpackQ6_K},
	"IQ4_NL": simple(32, 18, w4of(32)|plan.CodesIQ4NL, unpackQ4_0),
	"IQ4_XS": simple(256, 136, w4of(32)|plan.CodesIQ4NL, unpackIQ4_XS),
	"MXFP4":  simple(32, 17, w4of(32)|plan.CodesE2M1, unpackMXFP4),
}

func w8of(group int) plan.Format { return plan.W8.Grouped(group) }
func w4of(group int) plan.Format { return plan.W4.Grouped(group) }

func simple(elements, bytes int, f plan.Format, unpack func(b, codes []byte, scales, minimums []float32)) Block {
	return Block{elements, bytes, f, f, unpack}
}

// Exact reports whether Pack can make rows of Format without going through
// floats.
func (b *Block) Exact() bool { return b.Format == b.native }

// groups is room for the scales of a block.
type groups [16]float32

// Decode writes the elements of a row.
func (b *Block) Decode(dst []float32, row []byte) {
	var codes [256]byte
	var scales, minimums groups
	group, table := b.native.Group(), b.native.Table()
	for len(dst) > 0 {
		b.unpack(row[:b.Bytes], codes[:], scales[:], minimums[:])
		for i := range dst[:b.Elements] {
			var code float32
			switch {
			case b.native.Kind() == plan.W8:
				code = float32(int8(codes[i]))
			case b.native.Minimum():
				code = float32(codes[i])
			default:
				code = float32(table[codes[i]])
			}
			dst[i] = scales[i/group] * code
			if b.native.Minimum() {
				dst[i] = float32(dst[i]) + minimums[i/group]
			}
		}
		dst, row = dst[b.Elements:], row[b.Bytes:]
	}
}

// Pack writes a row of cols elements in Format, if that can be done exactly but for
// the rounding of K-quants' scales. It reports whether that was possible: whether F16
// holds the scales.
func (b *Block) Pack(dst, row []byte, cols int) bool {
	if !b.Exact() {
		return false
	}
	var codes [256]byte
	var scales, minimums groups
	count := b.Elements / b.Format.Group()
	at := b.Format.CodeBytes(cols)
	minimumsAt := at + 2*b.Format.Groups(cols)
	half := func(at int, v float32) bool {
		bits := ToHalf(v)
		binary.LittleEndian.PutUint16(dst[at:], bits)
		return bits&0x7c00 != 0x7c00 && (b.Elements > 32 || Half(bits) == v)
	}
	for first := 0; first < cols; first += b.Elements {
		b.unpack(row[:b.Bytes], codes[:], scales[:], minimums[:])
		if b.Format.Kind() == plan.W8 {
			copy(dst[first:], codes[:b.Elements])
		} else {
			for i := 0; i < b.Elements; i += 2 {
				dst[(first+i)/2] = codes[i] | codes[i+1]<<4
			}
		}
		for g := range count {
			if !half(at+2*g, scales[g]) || b.Format.Minimum() && !half(minimumsAt+2*g, minimums[g]) {
				return false
			}
		}
		at, minimumsAt, row = at+2*count, minimumsAt+2*count, row[b.Bytes:]
	}
	return true
}

func halfAt(b []byte) float32 { return Half(binary.LittleEndian.Uint16(b)) }

// nibbles writes the low halves of bytes, then the high ones.
func nibbles(codes, b []byte) {
	for i, v := range b {
		codes[i], codes[i+len(b)] = v&15, v>>4
	}
}

func unpackQ8_0(b, codes []byte, scales, _ []float32) {
	scales[0] = halfAt(b)
	copy(codes, b[2:])
}

func unpackQ4_0(b, codes []byte, scales, _ []float32) {
	scales[0] = halfAt(b)
	nibbles(codes, b[2:])
}

func unpackQ4_1(b, codes []byte, scales, minimums []float32) {
	scales[0], minimums[0] = halfAt(b), halfAt(b[2:])
	nibbles(codes, b[4:])
}

// fifths adds the fifth bits of 32 codes.
func fifths(codes, b []byte) {
	bits := binary.LittleEndian.Uint32(b)
	for i := range 32 {
		codes[i] |= byte(bits>>i&1) << 4
	}
}

func unpackQ5_0(b, codes []byte, scales, _ []float32) {
	scales[0] = halfAt(b)
	nibbles(codes, b[6:])
	fifths(codes, b[2:])
	for i := range codes[:32] {
		codes[i] -= 16
	}
}

func unpackQ5_1(b, codes []byte, scales, minimums []float32) {
	scales[0], minimums[0] = halfAt(b), halfAt(b[2:])
	nibbles(codes, b[8:])
	fifths(codes, b[4:])
}

func unpackQ2_K(b, codes []byte, scales, minimums []float32) { //nolint:revive,staticcheck // the type's name
	d, m := halfAt(b[80:]), halfAt(b[82:])
	for g, v := range b[:16] {
		scales[g], minimums[g] = d*float32(v&15), -(m * float32(v>>4))
	}
	pairs(codes, b[16:80])
}

// pairs writes the four codes of two bits of each byte, 32 bytes after the other:
// first all lowest ones.
func pairs(codes, b []byte) {
	for i, v := range b {
		at := i/32*128 + i%32
		for k := range 4 {
			codes[at+32*k] = v >> (2 * k) & 3
		}
	}
}

func unpackQ3_K(b, codes []byte, scales, _ []float32) { //nolint:revive,staticcheck // likewise
	d := halfAt(b[108:])
	packed := b[96:108] // scales of six bits: four of each low, two of each high
	for g := range 16 {
		low := packed[g%8] >> (g / 8 * 4) & 15
		high := packed[8+g%4] >> (g / 4 * 2) & 3
		scales[g] = d * float32(int(low|high<<4)-32)
	}
	pairs(codes, b[32:96])
	for i := range codes[:256] {
		// The code is four less where the third bit is missing; plain W4 subtracts 8.
		codes[i] += b[i%32]>>(i/32)&1*4 + 4
	}
}

// sixBits reads the scales and minimums of Q4_K and Q5_K, which lie in twelve bytes.
func sixBits(b []byte, scales, minimums []float32) {
	d, m := halfAt(b), halfAt(b[2:])
	p := b[4:16]
	for g := range 4 {
		scales[g], minimums[g] = d*float32(p[g]&63), -(m * float32(p[4+g]&63))
		scales[4+g] = d * float32(p[8+g]&15|p[g]>>6<<4)
		minimums[4+g] = -(m * float32(p[8+g]>>4|p[4+g]>>6<<4))
	}
}

func unpackQ4_K(b, codes []byte, scales, minimums []float32) { //nolint:revive,staticcheck // likewise
	sixBits(b, scales, minimums)
	for i := range 4 {
		nibbles(codes[64*i:], b[16+32*i:][:32])
	}
}

func unpackQ5_K(b, codes []byte, scales, minimums []float32) { //nolint:revive,staticcheck // likewise
	sixBits(b, scales, minimums)
	for i := range 4 {
		nibbles(codes[64*i:], b[48+32*i:][:32])
	}
	for i := range codes[:256] {
		codes[i] |= b[16+i%32] >> (i / 32) & 1 << 4
	}
}

func unpackQ6_K(b, codes []byte, scales, _ []float32) { //nolint:revive,staticcheck // likewise
	d := halfAt(b[208:])
	for g, v := range b[192:208] {
		scales[g] = d * float32(int8(v))
	}
	for half := range 2 {
		low, high := b[64*half:], b[128+32*half:]
		for i := range 32 {
			to := codes[128*half+i:]
			to[0] = low[i]&15 | high[i]&3<<4
			to[32] = low[i+32]&15 | high[i]>>2&3<<4
			to[64] = low[i]>>4 | high[i]>>4&3<<4
			to[96] = low[i+32]>>4 | high[i]>>6<<4
		}
	}
	for i := range codes[:256] {
		codes[i] -= 32
	}
}

func unpackIQ4_XS(b, codes []byte, scales, _ []float32) { //nolint:revive,staticcheck // likewise
	d, high := halfAt(b), binary.LittleEndian.Uint16(b[2:])
	for g := range 8 {
		low := b[4+g/2] >> (g % 2 * 4) & 15
		scales[g] = d * float32(int(low|byte(high>>(2*g)&3)<<4)-32)
		nibbles(codes[32*g:], b[8+16*g:][:16])
	}
}

func unpackMXFP4(b, codes []byte, scales, _ []float32) {
	scales[0] = float32(math.Ldexp(1, int(b[0])-128)) // codes stand for twice the numbers
	nibbles(codes, b[1:])
}
