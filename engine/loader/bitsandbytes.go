package loader

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

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
