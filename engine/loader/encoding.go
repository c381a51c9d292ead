package loader

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// encoding is how a checkpoint stores a matrix. Its functions work on rows of the
// matrix, of which src are the stored bytes, and are called by several goroutines
// at once, when all that stands beside the codes has come.
type encoding struct {
	format plan.Format // the resident one that holds the elements with the least loss
	float  plan.Format // the one of floats that does
	direct bool        // stored rows are rows of format
	stored int         // rows, in which it is read; 0: as its shape says
	rows   int         // of the matrix, if spread is not nil
	cols   int         // likewise

	// prepare checks what stands beside the codes. nil: nothing does.
	prepare func() error

	// spread writes n stored rows, from row first on, to codes [rows, cols], whose
	// rows are then src below. nil: rows of the matrix are stored one by one.
	spread func(codes, stored []byte, first, n int)

	// decode writes the elements of a row.
	decode func(dst []float32, src []byte, row int)

	// pack writes a row in format, unless that cannot hold it. nil: it never can,
	// and elements are rounded.
	pack func(dst, src []byte, row int) bool
}

// rowEncodings are those that need nothing but the row, by the type of the tensor.
var rowEncodings = withBlocks(map[string]encoding{
	"F32":  plain(plan.F32),
	"F16":  plain(plan.F16),
	"BF16": plain(plan.BF16),
})

// floatTypes are those that backends compute with.
var floatTypes = []string{"F32", "F16", "BF16"}

func plain(f plan.Format) encoding {
	return encoding{
		format: f, float: f, direct: true,
		decode: func(dst []float32, src []byte, _ int) { quant.Decode(dst, src, f) },
	}
}

// A block of MXFP4 is 32 elements in 16 bytes with one scale (OCP Microscaling
// Formats 1.0).
const (
	mxfp4Block = 32
	mxfp4Bytes = 16
)

// mxfp4Shape is the shape of the blocks of a tensor [matrices, rows, cols]; that
// of the scales is its first three dimensions.
func mxfp4Shape(shape []int) []int {
	return []int{shape[0], shape[1], shape[2] / mxfp4Block, mxfp4Bytes}
}

// mxfp4 finds a part in MXFP4.
func (r *resolver) mxfp4(part *plan.Part) (*found, error) {
	blocks := mxfp4Shape(part.Shape)
	scales, err := r.side(part.Scales, []string{"U8"}, blocks[:3])
	if err != nil {
		return nil, err
	}
	codes, err := r.find(part.Name, [][]int{blocks}, "U8")
	if err != nil {
		return nil, err
	}
	e := mxfp4(scales, part.Shape[2])
	e.stored = blocks[0] * blocks[1]
	return &found{codes, e, []*source{scales}}, nil
}

// mxfp4 are rows of two e2m1 numbers a byte, with a power of 2 for each block in
// scales. BF16 holds all of them exactly but those beyond its range, which are
// infinite.
func mxfp4(scales *source, cols int) encoding {
	const format = plan.W4 | plan.CodesE2M1 | mxfp4Block<<8
	blocks := cols / mxfp4Block
	return encoding{
		format: format, float: plan.BF16,
		prepare: func() error {
			for i, scale := range scales.data {
				if scale == 255 {
					return scales.errorf("scale %d is NaN", i)
				}
			}
			return nil
		},
		decode: func(dst []float32, src []byte, row int) {
			values := mxfp4Values()
			for i, scale := range scales.data[row*blocks:][:blocks] {
				table := &values[scale]
				for j, b := range src[i*mxfp4Bytes:][:mxfp4Bytes] {
					dst[i*mxfp4Block+j*2] = table[b&15]
					dst[i*mxfp4Block+j*2+1] = table[b>>4]
				}
			}
		},
		pack: func(dst, src []byte, row int) bool {
			to := dst[copy(dst, src):]
			for i, scale := range scales.data[row*blocks:][:blocks] {
				// The codes stand for twice the numbers.
				v := math.Ldexp(1, int(scale)-127-1)
				bits := quant.ToHalf(float32(v))
				if float64(quant.Half(bits)) != v {
					return false
				}
				binary.LittleEndian.PutUint16(to[i*2:], bits)
			}
			return true
		},
	}
}

// mxfp4Values are the sixteen elements under each scale but NaN.
var mxfp4Values = sync.OnceValue(func() *[255][16]float32 {
	var values [255][16]float32
	for scale := range values {
		for e, twice := range (plan.W4 | plan.CodesE2M1).Table() {
			v := math.Ldexp(float64(twice), scale-127-1)
			if e == 8 {
				v = math.Copysign(0, -1)
			}
			values[scale][e] = float32(v)
		}
	}
	return &values
})

// ternary finds a part of ternary numbers: four of two bits a byte, each from
// another quarter of the matrix' rows, of which a stored row has one each, with one
// scale.
func (r *resolver) ternary(part *plan.Part) (*found, error) {
	scale, err := r.side(part.Scales, floatTypes, []int{1})
	if err != nil {
		return nil, err
	}
	codes, err := r.find(part.Name, [][]int{part.Shape}, "U8")
	if err != nil {
		return nil, err
	}
	f, rows := rowEncodings[scale.DType].format, part.Shape[0]
	e := encoding{
		format: f, float: f,
		prepare: func() error { return nil },
		decode: func(dst []float32, src []byte, row int) {
			var one [1]float32
			quant.Decode(one[:], scale.data, f)
			values := [4]float32{-one[0], 0, one[0], 0} // the last does not occur
			shift := row / rows * 2
			for i, b := range src {
				dst[i] = values[b>>shift&3]
			}
		},
	}
	return &found{codes, e, []*source{scale}}, nil
}

// errorf is an error about the tensor.
func (s *source) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: tensor %q: %s", s.File, s.Name, fmt.Sprintf(format, args...))
}
