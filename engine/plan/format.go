package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// Format is how the elements of a tensor are stored where it is resident. Part
// of the C ABI: the low byte is the kind, the next two are the group, and the byte
// above them says what the codes mean.
//
// F32, F16 and BF16 are elements and nothing else. The others are codes of a few
// bits, a group of columns sharing a scale. A row of them is laid out so:
//
//	codes     cols bytes of W8 and F8; (cols+1)/2 bytes of W4, the even column in the low half of a byte
//	scales    one for each group of columns; the last group may be shorter: F16, of F8 F32
//	minimums  one for each group, F16, if WithMinimum
//
// and element k of a row, in group g, is
//
//	W8                 scale[g] * int8(code)
//	W4                 scale[g] * (code - 8)
//	W4 with a table    scale[g] * table[code]
//	F8                 scale[g] * e4m3(code)
//	WithMinimum        scale[g] * code + minimum[g], code of W8 int8, of W4 0 to 15
//
// W8 and W4 are multiplied in integers. For that x is rounded, group by group of
// the weights' columns: with most the greatest magnitude of a group of x,
//
//	d = most/127    q = round-half-even(x * (127/most))    all in float32, and q = 0 where 127/most is infinite
//
// and x·w is the sum over the groups, in order, of d * scale * sum(q*code) + d *
// minimum * sum(q). The sums of integers are exact, so no result depends on how
// they are cut. A group of x with a NaN or an infinity makes the result NaN.
// F8 is multiplied as float32.
type Format int32

// Kinds of formats. A backend may keep a tensor in a wider one.
const (
	F32 Format = iota
	F16
	BF16
	W8 // signed integers of eight bits
	W4 // four bits
	F8 // e4m3, as in OCP 8-bit Floating Point (OFP8): no infinity, NaN is 0x7f
	numFormats
)

// What the codes of W4 stand for.
const (
	tableShift        = 24
	CodesE2M1  Format = 1 << tableShift // twice the numbers of e2m1 (MXFP4, NVFP4): ±0, 1, 2, 3, 4, 6, 8, 12
	CodesIQ4NL Format = 2 << tableShift // those of llama.cpp's IQ4_NL
	CodesNF4   Format = 3 << tableShift // 127 times QLoRA's NormalFloat, rounded
	codesMask  Format = 3 << tableShift

	// WithMinimum: each group has a minimum, too.
	WithMinimum Format = 1 << 26

	groupShift        = 8
	groupMask  Format = 0xffff << groupShift
)

// tables4 are what the codes of W4 stand for, by CodesE2M1>>24 and so on; the first
// is that of plain W4.
var tables4 = [4][16]int8{
	{-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7},
	{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
	{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
	{-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127},
}

// Grouped returns the format with scales for groups of n columns, 0 for one scale
// a row. n is a multiple of 16, at most 65,520.
func (f Format) Grouped(n int) Format { return f&^groupMask | Format(n)<<groupShift }

// Kind is F32 … F8.
func (f Format) Kind() Format { return f & 0xff }

// Group is how many columns share a scale, 0 for all of a row.
func (f Format) Group() int { return int(f & groupMask >> groupShift) }

// Minimum reports whether groups have a minimum.
func (f Format) Minimum() bool { return f&WithMinimum != 0 }

// Table is what the codes of W4 stand for.
func (f Format) Table() *[16]int8 { return &tables4[f&codesMask>>tableShift] }

// Quantized reports whether there are scales.
func (f Format) Quantized() bool { return f.Kind() >= W8 }

// Integer reports whether products are made of integers, for which the other
// factor is rounded.
func (f Format) Integer() bool { return f.Kind() == W8 || f.Kind() == W4 }

// Valid reports whether f is a format that this package defines.
func (f Format) Valid() bool {
	const all = 0xff | groupMask | codesMask | WithMinimum
	switch {
	case f < 0 || f&^all != 0 || f.Kind() >= numFormats:
		return false
	case !f.Quantized():
		return f == f.Kind()
	case f.Group()%16 != 0:
		return false
	}
	codes := f & (codesMask | WithMinimum)
	return codes == 0 || codes == WithMinimum && f.Integer() || codes&WithMinimum == 0 && f.Kind() == W4
}

// Quantizable says of each tensor of p whether a quantised format may take its
// place: whether it is only looked up by OpEmbed and multiplied.
func Quantizable(p *Plan) []bool {
	list := make([]bool, len(p.Tensors))
	for i, t := range p.Tensors {
		list[i] = len(t.Shape) > 1
	}
	for _, op := range p.AllOps() {
		for i, t := range op.Weight {
			if t != None && !(multiplies(op.Kind) && i%2 == 0) {
				list[t] = false
			}
		}
	}
	return list
}

// multiplies reports whether the even weights of an operation are matrices whose
// rows are looked up or multiplied.
func multiplies(kind Kind) bool {
	switch kind {
	case OpEmbed, OpLinear, OpLinearHeads, OpExperts, OpLogits:
		return true
	}
	return false
}

// Size returns the bytes of an element of F32, F16 and BF16.
func (f Format) Size() int {
	if f == F32 {
		return 4
	}
	return 2
}

// Groups returns how many groups cols columns have.
func (f Format) Groups(cols int) int {
	if f.Group() == 0 {
		return 1
	}
	return (cols + f.Group() - 1) / f.Group()
}

// CodeBytes returns the bytes of the codes, or elements, of a row.
func (f Format) CodeBytes(cols int) int {
	switch f.Kind() {
	case W8, F8:
		return cols
	case W4:
		return (cols + 1) / 2
	}
	return cols * f.Size()
}

// RowBytes returns the bytes of a row of cols elements.
func (f Format) RowBytes(cols int) int {
	bytes := f.CodeBytes(cols)
	if !f.Quantized() {
		return bytes
	}
	each := 2
	if f.Kind() == F8 {
		each = 4
	}
	if f.Minimum() {
		each += 2
	}
	return bytes + f.Groups(cols)*each
}

// Panels is the layout in which AdoptTensor of the CPU backend takes matrices, by a
// name that changes with it. Sixteen rows are a panel, the last one of each matrix is
// filled up with zeros, and its bytes are those of the rows interleaved:
//
//	F32, F16   [cols][16], cols rounded up to an even number
//	BF16       [cols/2][16][2], likewise
//	W8         [cols/4][16][4], cols rounded up to a multiple of 8; each code plus 128
//	W4         [cols/8][16][4], likewise; columns k … k+3 in the low halves, k+4 … k+7 in the high ones
//	F8         [cols][16], likewise
//
// then, of quantised formats, scales [groups][16] and minimums [groups][16], and
// zeros up to a multiple of 64 bytes.
const Panels = "panels16-v1"

// PanelRows is the number of rows of a panel.
const PanelRows = 16

// PanelBytes returns the bytes of a panel of cols columns.
func (f Format) PanelBytes(cols int) int {
	if !f.Quantized() {
		return PanelRows * (cols + cols%2) * f.Size()
	}
	padded := (cols + 7) / 8 * 8
	besides := f.RowBytes(cols) - f.CodeBytes(cols)
	return (PanelRows*(f.CodeBytes(padded)+besides) + 63) / 64 * 64
}

// PackedBytes returns the bytes of matrices of a shape in the layout Panels.
func (f Format) PackedBytes(shape []int) int {
	last := len(shape) - 1
	bytes := (shape[last-1] + PanelRows - 1) / PanelRows * f.PanelBytes(shape[last])
	for _, n := range shape[:last-1] {
		bytes *= n
	}
	return bytes
}

// String names the format: "BF16", "W8/128", "W4/32+min", "W4/32 e2m1".
func (f Format) String() string {
	if !f.Valid() {
		return "unknown"
	}
	name := [...]string{"F32", "F16", "BF16", "W8", "W4", "F8"}[f.Kind()]
	if !f.Quantized() {
		return name
	}
	if f.Group() == 0 {
		name += "/row"
	} else {
		name += fmt.Sprintf("/%d", f.Group())
	}
	if f.Minimum() {
		name += "+min"
	}
	return name + codeNames[f&codesMask>>tableShift]
}

var codeNames = [...]string{"", " e2m1", " iq4nl", " nf4"}

// ParseFormat returns the format that String calls name.
func ParseFormat(name string) (f Format, ok bool) {
	kind, rest, _ := strings.Cut(name, "/")
	for f = range numFormats {
		if f.String() == name {
			return f, true
		}
		if f.Quantized() && strings.TrimSuffix(f.String(), "/row") == kind {
			break
		}
	}
	for i, codes := range codeNames {
		if of, found := strings.CutSuffix(rest, codes); found && codes != "" {
			f, rest = f|Format(i)<<tableShift, of
		}
	}
	if of, found := strings.CutSuffix(rest, "+min"); found {
		f, rest = f|WithMinimum, of
	}
	if n, err := strconv.Atoi(rest); err == nil && n > 0 && n <= 0xffff {
		f = f.Grouped(n)
	}
	return f, f.Valid() && f.String() == name
}
