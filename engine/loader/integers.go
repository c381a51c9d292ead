package loader

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

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
