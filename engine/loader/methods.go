package loader

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
)

// Names that a quantised checkpoint has in place of "NAME.weight", or beside it,
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
		f, err = r.rows(part, format)
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

// grouped is a matrix of integers whose columns share scales and zero points in
// groups: an element is scale * (code - zero).
type grouped struct {
	bits, cols int
	size       int                     // columns of a group
	scale      []float32               // [rows, groups]
	zero       []float32               // likewise; nil: all are middle
	middle     float32                 // half the codes
	order      []int32                 // the group of each column; nil: they follow each other
	unpack     func(codes, src []byte) // nil: src are codes
}

func newGrouped(bits, cols, size int) *grouped {
	return &grouped{bits: bits, cols: cols, size: size, middle: float32(int(1) << (bits - 1))}
}

// codes are those of a row, from 0 on.
func (g *grouped) codes(src []byte) []byte {
	if g.unpack == nil {
		return src
	}
	codes := make([]byte, g.cols)
	g.unpack(codes, src)
	return codes
}

// encoding describes the matrix; zeros says whether groups have zero points, shuffled
// whether columns of a group need not be neighbours.
func (g *grouped) encoding(zeros, shuffled bool) encoding {
	e := encoding{format: plan.W4, float: plan.BF16, decode: g.decode}
	if g.bits == 8 {
		e.format = plan.W8
	}
	if zeros {
		e.format |= plan.WithMinimum
	}
	if g.size < g.cols {
		e.format = e.format.Grouped(g.size)
	}
	if e.pack = g.pack; shuffled || !e.format.Valid() {
		e.format, e.pack = mixedFormat, nil
	}
	return e
}

func (g *grouped) groups() int { return ceil(g.cols, g.size) }

func (g *grouped) decode(dst []float32, src []byte, row int) {
	codes, scales := g.codes(src), g.scale[row*g.groups():][:g.groups()]
	var zeros []float32
	if g.zero != nil {
		zeros = g.zero[row*g.groups():][:g.groups()]
	}
	for i, code := range codes {
		in, zero := i/g.size, g.middle
		if g.order != nil {
			in = int(g.order[i])
		}
		if zeros != nil {
			zero = zeros[in]
		}
		dst[i] = scales[in] * (float32(code) - zero)
	}
}

// pack writes the codes as they are.
func (g *grouped) pack(dst, src []byte, row int) bool {
	groups := g.groups()
	at := row * groups
	if g.order != nil {
		return false
	}
	codes, middle := g.codes(src), g.middle // of code 0 where minimums are added
	if g.bits == 8 {
		for i, code := range codes {
			dst[i] = code ^ 0x80
		}
	} else {
		middle = 0
		for i := 0; i+1 < len(codes); i += 2 {
			dst[i/2] = codes[i] | codes[i+1]<<4
		}
		if n := len(codes); n%2 == 1 {
			dst[n/2] = codes[n-1]
		}
	}
	beside := dst[len(dst)-groups*2:]
	if g.zero == nil {
		for i := range groups {
			binary.LittleEndian.PutUint16(beside[i*2:], quant.ToHalf(g.scale[at+i]))
		}
		return true
	}
	beside = dst[len(dst)-groups*4:]
	for i := range groups {
		scale := quant.ToHalf(g.scale[at+i])
		binary.LittleEndian.PutUint16(beside[i*2:], scale)
		binary.LittleEndian.PutUint16(beside[(groups+i)*2:], quant.ToHalf(quant.Half(scale)*(middle-g.zero[at+i])))
	}
	return true
}

// transposed copies [rows, cols] to [cols, rows].
func transposed(list []float32, rows, cols int) []float32 {
	turned := make([]float32, len(list))
	for r := range rows {
		for c := range cols {
			turned[c*rows+r] = list[r*cols+c]
		}
	}
	return turned
}

// groupSize is how many of cols columns share one of groups scales.
func (r *resolver) groupSize(cols, groups int) (int, error) {
	declared := r.how.Group
	switch {
	case groups == 1:
		return cols, nil
	case declared > 0 && ceil(cols, declared) == groups:
		return declared, nil
	case groups > 0 && cols%groups == 0:
		return cols / groups, nil
	}
	return 0, fmt.Errorf("%d groups of %d columns", groups, cols)
}

// readOrder reads which group each column belongs to.
func (g *grouped) readOrder(s *source) error {
	order, neighbours := make([]int32, g.cols), true
	for i := range order {
		order[i] = int32(binary.LittleEndian.Uint32(s.data[i*4:]))
		if order[i] < 0 || int(order[i]) >= g.groups() {
			return s.errorf("column %d is in group %d of %d", i, order[i], g.groups())
		}
		neighbours = neighbours && int(order[i]) == i/g.size
	}
	if !neighbours {
		g.order = order
	}
	return nil
}

func word(stored []byte, i int) uint32 { return binary.LittleEndian.Uint32(stored[i*4:]) }

// awqOrder is the output column of each nibble of AWQ, the lowest first.
var awqOrder = [8]int{0, 2, 4, 6, 1, 3, 5, 7}

// awq finds codes [in, out/8], zero points [groups, out/8] and scales [groups, out].
func (r *resolver) awq(part *plan.Part) (*found, error) {
	out, in := dimensions(part.Shape)
	name := module(part.Name)
	codes, err := r.find(name+".qweight", [][]int{{in, ceil(out, 8)}}, "I32")
	if err != nil {
		return nil, err
	}
	scales, groups, size, err := r.groupScales(name+".scales", in, out)
	if err != nil {
		return nil, err
	}
	zeros, err := r.side(name+".qzeros", []string{"I32"}, []int{groups, ceil(out, 8)})
	if err != nil {
		return nil, err
	}
	g := newGrouped(4, in, size)
	e := g.encoding(true, false)
	e.rows, e.cols = out, in
	e.prepare = func() (err error) {
		if g.scale, err = scales.numbers(); err != nil {
			return err
		}
		g.scale = transposed(g.scale, groups, out)
		g.zero = make([]float32, out*groups)
		for i := range groups {
			for o := range out {
				g.zero[o*groups+i] = float32(word(zeros.data, i*ceil(out, 8)+o/8) >> awqShift[o%8] & 15)
			}
		}
		return nil
	}
	words := ceil(out, 8)
	e.spread = func(codes, stored []byte, first, n int) {
		for w := range words {
			for i := range n {
				bits := word(stored, i*words+w)
				for _, column := range awqOrder {
					if o := w*8 + column; o < out {
						codes[o*in+first+i] = byte(bits & 15)
					}
					bits >>= 4
				}
			}
		}
	}
	return &found{codes, e, []*source{scales, zeros}}, nil
}

// awqShift is where in a word the nibble of each output column is.
var awqShift = func() (shift [8]int) {
	for i, column := range awqOrder {
		shift[column] = i * 4
	}
	return shift
}()

// groupScales finds scales [groups, out] of in columns.
func (r *resolver) groupScales(name string, in, out int) (s *source, groups, size int, err error) {
	t, _ := r.c.Tensor(name)
	if groups = 1; len(t.Shape) == 2 && t.Shape[0] > 0 {
		groups = t.Shape[0]
	}
	if s, err = r.side(name, floatTypes, []int{groups, out}); err != nil {
		return nil, 0, 0, err
	}
	if size, err = r.groupSize(in, groups); err != nil {
		return nil, 0, 0, s.errorf("%v", err)
	}
	return s, groups, size, nil
}

// gptq finds codes [in*bits/32, out], zero points [groups, out*bits/32], scales
// [groups, out] and, maybe, the group of each column.
func (r *resolver) gptq(part *plan.Part) (*found, error) {
	out, in := dimensions(part.Shape)
	name := module(part.Name)
	bits := 4
	if t, _ := r.c.Tensor(name + ".qweight"); len(t.Shape) == 2 && t.Shape[0] == in/4 {
		bits = 8
	}
	each := 32 / bits // numbers of a word
	codes, err := r.find(name+".qweight", [][]int{{ceil(in, each), out}}, "I32")
	if err != nil {
		return nil, err
	}
	scales, groups, size, err := r.groupScales(name+".scales", in, out)
	if err != nil {
		return nil, err
	}
	zeros, err := r.side(name+".qzeros", []string{"I32"}, []int{groups, ceil(out, each)})
	if err != nil {
		return nil, err
	}
	beside := []*source{scales, zeros}
	var order, bias *source
	if _, ok := r.c.Tensor(name + ".g_idx"); ok {
		if order, err = r.side(name+".g_idx", []string{"I32"}, []int{in}); err != nil {
			return nil, err
		}
		beside = append(beside, order)
	}
	// Older writers give every projection a bias, of zeros where the model has none.
	if t, ok := r.c.Tensor(name + ".bias"); ok && !r.asked[name+".bias"] {
		if bias, err = r.side(name+".bias", floatTypes, t.Shape); err != nil {
			return nil, err
		}
		beside = append(beside, bias)
	}
	g := newGrouped(bits, in, size)
	e := g.encoding(!r.how.Symmetric, r.how.ActOrder && groups > 1)
	e.rows, e.cols = out, in
	mask := uint32(1)<<bits - 1
	e.prepare = func() (err error) {
		if g.scale, err = scales.numbers(); err != nil {
			return err
		}
		g.scale = transposed(g.scale, groups, out)
		g.zero = make([]float32, out*groups)
		middle := true
		for i := range groups {
			for o := range out {
				zero := word(zeros.data, i*ceil(out, each)+o/each) >> (o % each * bits)
				if !r.how.V2 {
					zero++
				}
				v := float32(zero & mask)
				g.zero[o*groups+i] = v
				middle = middle && v == g.middle
			}
		}
		if e.format&plan.WithMinimum == 0 {
			if !middle && e.pack != nil {
				return zeros.errorf("zero points differ from %v, though config.json says sym true", g.middle)
			}
			if middle {
				g.zero = nil
			}
		}
		if bias != nil {
			list, err := bias.numbers()
			for _, v := range list {
				if v != 0 {
					return bias.errorf("a bias that the model has no use for")
				}
			}
			if err != nil {
				return err
			}
		}
		if order != nil {
			return g.readOrder(order)
		}
		return nil
	}
	e.spread = func(codes, stored []byte, first, n int) {
		for o := range out {
			row := codes[o*in:][:in]
			for i := range n {
				bits4 := word(stored, i*out+o)
				for c := (first + i) * each; c < min((first+i+1)*each, in); c++ {
					row[c] = byte(bits4 & mask)
					bits4 >>= bits
				}
			}
		}
	}
	return &found{codes, e, beside}, nil
}

// packed finds the codes of compressed-tensors: [out, in*bits/32], rows by
// themselves, scales [out, groups], zero points [out*bits/32, groups] if not
// symmetric, and, maybe, the group of each column.
func (r *resolver) packed(part *plan.Part) (*found, error) {
	out, in := dimensions(part.Shape)
	name := part.Name
	bits := 4
	if t, _ := r.c.Tensor(name + "_packed"); len(t.Shape) == 2 && t.Shape[1] == ceil(in, 4) && ceil(in, 8) != ceil(in, 4) {
		bits = 8
	}
	each := 32 / bits
	codes, err := r.find(name+"_packed", [][]int{{out, ceil(in, each)}}, "I32")
	if err != nil {
		return nil, err
	}
	scales, groups, size, err := r.rowScales(name+"_scale", in, out)
	if err != nil {
		return nil, err
	}
	beside := []*source{scales}
	var zeros, order *source
	if _, ok := r.c.Tensor(name + "_zero_point"); ok {
		if zeros, err = r.side(name+"_zero_point", []string{"I32"}, []int{ceil(out, each), groups}); err != nil {
			return nil, err
		}
		beside = append(beside, zeros)
	}
	if _, ok := r.c.Tensor(name + "_g_idx"); ok {
		if order, err = r.side(name+"_g_idx", []string{"I32"}, []int{in}); err != nil {
			return nil, err
		}
		beside = append(beside, order)
	}
	mask := uint32(1)<<bits - 1
	g := newGrouped(bits, in, size)
	g.unpack = func(dst, src []byte) {
		for i := range dst {
			dst[i] = byte(word(src, i/each) >> (i % each * bits) & mask)
		}
	}
	e := g.encoding(zeros != nil, order != nil && groups > 1)
	e.prepare = func() (err error) {
		if g.scale, err = scales.perGroup(out, groups); err != nil {
			return err
		}
		if zeros != nil {
			g.zero = make([]float32, out*groups)
			for o := range out {
				for i := range groups {
					g.zero[o*groups+i] = float32(word(zeros.data, o/each*groups+i) >> (o % each * bits) & mask)
				}
			}
		}
		if order != nil {
			return g.readOrder(order)
		}
		return nil
	}
	return &found{codes, e, beside}, nil
}

// rowScales finds scales [out, groups], or one for each row or for all.
func (r *resolver) rowScales(name string, in, out int) (s *source, groups, size int, err error) {
	t, _ := r.c.Tensor(name)
	if groups = 1; len(t.Shape) == 2 && t.Shape[1] > 0 {
		groups = t.Shape[1]
	}
	if s, err = r.side(name, floatTypes, []int{out, groups}, []int{out}, []int{1}, []int{}); err != nil {
		return nil, 0, 0, err
	}
	if size, err = r.groupSize(in, groups); err != nil {
		return nil, 0, 0, s.errorf("%v", err)
	}
	return s, groups, size, nil
}

// perGroup reads scales, repeating one that all groups share.
func (s *source) perGroup(rows, groups int) ([]float32, error) {
	list, err := s.numbers()
	if err == nil && len(list) == 1 {
		one := list[0]
		list = make([]float32, rows*groups)
		for i := range list {
			list[i] = one
		}
	}
	return list, err
}

// int8 finds signed codes [out, in] with scales: those of compressed-tensors, or
// of bitsandbytes, whose codes are 127ths of the greatest magnitude of a row.
func (r *resolver) int8(part *plan.Part) (*found, error) {
	out, in := dimensions(part.Shape)
	codes, err := r.find(part.Name, [][]int{part.Shape}, "I8")
	if err != nil {
		return nil, err
	}
	name, divisor := part.Name+"_scale", float32(1)
	if r.how.Method == "bitsandbytes" {
		name, divisor = module(part.Name)+".SCB", 127
	}
	scales, groups, size, err := r.rowScales(name, in, out)
	if err != nil {
		return nil, err
	}
	beside := []*source{scales}
	var zeros *source
	if t, ok := r.c.Tensor(part.Name + "_zero_point"); ok {
		if zeros, err = r.side(part.Name+"_zero_point", []string{"I8"}, []int{out, groups}, []int{out}, []int{1}); err != nil {
			return nil, err
		}
		if beside = append(beside, zeros); t.Size != scales.Size/int64(rowEncodings[scales.DType].format.Size()) {
			return nil, zeros.errorf("%v, but scales %v", t.Shape, scales.Shape)
		}
	}
	g := newGrouped(8, in, size)
	g.unpack = func(dst, src []byte) {
		for i, b := range src {
			dst[i] = b ^ 0x80
		}
	}
	e := g.encoding(zeros != nil, false)
	e.prepare = func() (err error) {
		if g.scale, err = scales.perGroup(out, groups); err != nil {
			return err
		}
		for i := range g.scale {
			g.scale[i] /= divisor
		}
		if zeros != nil {
			g.zero = make([]float32, out*groups)
			for i := range g.zero {
				g.zero[i] = 128 + float32(int8(zeros.data[i%len(zeros.data)]))
			}
		}
		return nil
	}
	return &found{codes, e, beside}, nil
}

// fp8 finds e4m3 codes with a scale for each block, row or matrix, or for all. Blocks
// at the edges may be smaller.
func (r *resolver) fp8(part *plan.Part) (*found, error) {
	codes, err := r.find(part.Name, [][]int{part.Shape}, "F8_E4M3")
	if err != nil {
		return nil, err
	}
	name := part.Name + "_scale_inv"
	if _, ok := r.c.Tensor(name); !ok {
		name = part.Name + "_scale"
	}
	last := len(part.Shape) - 2
	matrices, high, wide := part.Shape[:last], part.Shape[last], part.Shape[last+1]
	blocks := r.how.Block
	if blocks == [2]int{} {
		blocks = [2]int{128, 128}
	}
	shape := func(rows, cols int) []int { return append(slices.Clone(matrices), rows, cols) }
	block := shape(ceil(high, blocks[0]), ceil(wide, blocks[1]))
	t, _ := r.c.Tensor(name)
	rows, cols := high, wide // of a block
	switch {
	case len(t.Shape) == len(block) && t.Shape[last] == block[last] && t.Shape[last+1] == block[last+1]:
		rows, cols = blocks[0], blocks[1]
	case len(t.Shape) > last && t.Shape[last] == high && high > 1:
		rows = 1
	}
	scales, err := r.side(name, append([]string{"F8_E8M0"}, floatTypes...),
		block, shape(high, 1), shape(high, 1)[:last+1], shape(1, 1), shape(1, 1)[:last+1], shape(1, 1)[:last], []int{1}, []int{})
	if err != nil {
		return nil, err
	}
	across := ceil(wide, cols)
	format := plan.F8
	if cols < wide {
		format = format.Grouped(cols)
	}
	var list []float32
	e := encoding{format: format, float: plan.BF16}
	e.prepare = func() (err error) {
		total, _ := dimensions(part.Shape)
		list, err = scales.perGroup(total/high*ceil(high, rows), across)
		return err
	}
	of := func(row int) []float32 {
		return list[(row/high*ceil(high, rows)+row%high/rows)*across:][:across]
	}
	e.decode = func(dst []float32, src []byte, row int) {
		scale := of(row)
		for i, b := range src {
			dst[i] = scale[i/cols] * e4m3[b]
		}
	}
	e.pack = func(dst, src []byte, row int) bool {
		at := copy(dst, src)
		for i, scale := range of(row) {
			binary.LittleEndian.PutUint32(dst[at+i*4:], math.Float32bits(scale))
		}
		return true
	}
	if !format.Valid() {
		e.format, e.pack = mixedFormat, nil
	}
	return &found{codes, e, []*source{scales}}, nil
}

// e4m3 are all numbers of eight bits.
var e4m3 = func() (list [256]float32) {
	for i := range list {
		list[i] = quant.E4M3(byte(i))
	}
	return list
}()

// e2m1 finds NVFP4, codes [out, in/2] with e4m3 scales of 16 columns under one for
// all, or MXFP4, with powers of 2 for 32 columns.
func (r *resolver) e2m1(part *plan.Part, name string) (*found, error) {
	_, in := dimensions(part.Shape)
	codes, err := r.find(name, [][]int{append(slices.Clone(part.Shape[:len(part.Shape)-1]), in/2)}, "U8")
	if err != nil {
		return nil, err
	}
	size, types := 16, "F8_E4M3"
	if t, _ := r.c.Tensor(part.Name + "_scale"); t.DType == "U8" || t.DType == "F8_E8M0" {
		size, types = 32, t.DType
	}
	if in%size != 0 {
		return nil, fmt.Errorf("%s: tensor %q: %d columns, expected a multiple of %d", codes.File, name, in, size)
	}
	groups := in / size
	scales, err := r.side(part.Name+"_scale", []string{types}, append(slices.Clone(part.Shape[:len(part.Shape)-1]), groups))
	if err != nil {
		return nil, err
	}
	beside := []*source{scales}
	var global *source
	divide := false
	if size == 16 {
		one := part.Name + "_scale_2"
		if _, ok := r.c.Tensor(part.Name + "_global_scale"); ok {
			one, divide = part.Name+"_global_scale", true
		}
		if global, err = r.side(one, []string{"F32"}, []int{1}, []int{}); err != nil {
			return nil, err
		}
		beside = append(beside, global)
	}
	format := (plan.W4 | plan.CodesE2M1).Grouped(size)
	var list []float32
	table := format.Table()
	e := encoding{format: format, float: plan.BF16}
	e.prepare = func() (err error) {
		if list, err = scales.numbers(); err != nil {
			return err
		}
		factor := float32(1)
		if global != nil {
			one, err := global.numbers()
			if err != nil {
				return err
			}
			if factor = one[0]; divide {
				factor = 1 / factor
			}
			if factor-factor != 0 {
				return global.errorf("the scale of all is 0")
			}
		}
		for i := range list {
			list[i] *= factor / 2 // the table has twice the numbers
		}
		return nil
	}
	e.decode = func(dst []float32, src []byte, row int) {
		scale := list[row*groups:][:groups]
		for i := range dst {
			dst[i] = scale[i/size] * float32(table[src[i/2]>>(i%2*4)&15])
		}
	}
	e.pack = func(dst, src []byte, row int) bool {
		at := copy(dst, src)
		for i, scale := range list[row*groups:][:groups] {
			binary.LittleEndian.PutUint16(dst[at+i*2:], quant.ToHalf(scale))
		}
		return true
	}
	return &found{codes, e, beside}, nil
}

// nf4 finds the codes of bitsandbytes: two a byte, the upper half first, in blocks
// that run through the rows, whose greatest magnitudes may be codes themselves.
func (r *resolver) nf4(part *plan.Part) (*found, error) {
	out, in := dimensions(part.Shape)
	name := part.Name
	count := out * in
	codes, err := r.find(name, [][]int{{ceil(count, 2), 1}, {1, ceil(count, 2)}}, "U8")
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*found, error) {
		return nil, fmt.Errorf("%s: tensor %q: %s", codes.File, name, fmt.Sprintf(format, args...))
	}
	if in%2 != 0 {
		return fail("%d columns, expected an even number", in)
	}
	most, _ := r.c.Tensor(name + ".absmax")
	block := 0
	for _, n := range []int{32, 64, 128, 256, 512, 1024, 2048, 4096} {
		if block == 0 && len(most.Shape) == 1 && most.Shape[0] == ceil(count, n) {
			block = n
		}
	}
	if block == 0 {
		return fail("absmax %v are of no block size", most.Shape)
	}
	absmax, err := r.side(name+".absmax", []string{"F32", "U8"}, most.Shape)
	if err != nil {
		return nil, err
	}
	values, err := r.side(name+".quant_map", []string{"F32"}, []int{16})
	if err != nil {
		return nil, err
	}
	beside := []*source{absmax, values}
	var nested, nestedMap, state *source
	kind := "nf4"
	if _, ok := r.c.Tensor(name + ".quant_state.bitsandbytes__fp4"); ok {
		kind = "fp4"
	}
	if absmax.DType == "U8" {
		of, _ := r.c.Tensor(name + ".nested_absmax")
		if nested, err = r.side(name+".nested_absmax", []string{"F32"}, []int{ceil(most.Shape[0], 256)}, of.Shape); err != nil {
			return nil, err
		}
		if nestedMap, err = r.side(name+".nested_quant_map", []string{"F32"}, []int{256}); err != nil {
			return nil, err
		}
		of, _ = r.c.Tensor(name + ".quant_state.bitsandbytes__" + kind)
		if state, err = r.side(name+".quant_state.bitsandbytes__"+kind, []string{"U8"}, of.Shape); err != nil {
			return nil, err
		}
		beside = append(beside, nested, nestedMap, state)
	}
	format := (plan.W4 | plan.CodesNF4).Grouped(block)
	var list, table []float32
	e := encoding{format: format, float: plan.BF16, stored: out}
	e.prepare = func() (err error) {
		if table, err = values.numbers(); err != nil {
			return err
		}
		if nested == nil {
			list, err = absmax.numbers()
			return err
		}
		list, err = doubleQuantized(absmax, nested, nestedMap, state)
		return err
	}
	e.decode = func(dst []float32, src []byte, row int) {
		for i := range dst {
			dst[i] = list[(row*in+i)/block] * table[src[i/2]>>(4-i%2*4)&15]
		}
	}
	e.pack = func(dst, src []byte, row int) bool {
		for i, b := range src {
			dst[i] = b>>4 | b<<4
		}
		for i := range in / block {
			binary.LittleEndian.PutUint16(dst[len(src)+i*2:], quant.ToHalf(list[row*in/block+i]/127))
		}
		return true
	}
	if kind != "nf4" || in%block != 0 || !format.Valid() {
		e.format, e.pack = mixedFormat, nil
	}
	return &found{codes, e, beside}, nil
}

// doubleQuantized reads greatest magnitudes that are codes in blocks, too.
func doubleQuantized(absmax, nested, nestedMap, state *source) ([]float32, error) {
	of, err := nested.numbers()
	if err != nil {
		return nil, err
	}
	values, err := nestedMap.numbers()
	if err != nil {
		return nil, err
	}
	var s struct {
		Block  int      `json:"nested_blocksize"`
		Offset *float32 `json:"nested_offset"`
	}
	if err := json.Unmarshal(state.data, &s); err != nil || s.Offset == nil || s.Block < 1 || ceil(len(absmax.data), s.Block) != len(of) {
		return nil, state.errorf("nested_offset or nested_blocksize is missing or does not fit %v", nested.Shape)
	}
	list := make([]float32, len(absmax.data))
	for i, code := range absmax.data {
		list[i] = values[code]*of[i/s.Block] + *s.Offset
	}
	return list, nil
}
