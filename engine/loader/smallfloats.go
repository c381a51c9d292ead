package loader

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

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
