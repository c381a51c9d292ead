package cpu_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
)

// What an encoder's linear layer with weights of bf16 adds to the residual stream is, to the bit,
// what dotPairs says of x rounded to bf16: whatever the shape, and how many rows share a step.
func TestBF16Products(t *testing.T) {
	for _, shape := range []struct{ rows, cols, most int }{
		{1, 1, 37}, {16, 17, 37}, {35, 129, 150}, {70, 40, 37}, {20, 1100, 37},
	} {
		rng := rand.New(rand.NewPCG(uint64(shape.rows), uint64(shape.cols)))
		w := make([]uint16, shape.rows*shape.cols)
		for i := range w {
			w[i] = toBF16(oddly(rng, i))
		}
		x := make([]float32, shape.most*shape.cols)
		for i := range x {
			x[i] = oddly(rng, i)
		}
		// Ties, which go to the even neighbour, what rounding makes infinite, and what is not a number.
		copy(x, []float32{0x1.01p0, 0x1.03p0, -0x1.0100002p0, math.MaxFloat32})
		x[2*shape.cols] = float32(math.NaN())
		x[3*shape.cols] = float32(math.Inf(1))
		weights := make([]byte, 0, 2*len(w))
		for _, v := range w {
			weights = binary.LittleEndian.AppendUint16(weights, v)
		}
		want := make([][]float32, shape.most)
		for i := range want {
			want[i] = bf16Product(x[i*shape.cols:][:shape.cols], w, shape.rows)
		}
		for _, set := range dotSets {
			t.Run(fmt.Sprintf("%d by %d/%s", shape.rows, shape.cols, set), func(t *testing.T) {
				choose(t, set)
				give := written(weights, shape.rows, shape.cols, plan.BF16)
				for _, n := range []int{1, 2, 7, 8, 9, 17, shape.most} {
					testBranch(t, x[:n*shape.cols], shape.rows, shape.cols, give, want[:n])
				}
			})
		}
	}
}

// testBranch runs a step of the rows x, each with a residual stream of zeros.
func testBranch(t *testing.T, x []float32, rows, cols int, give giver, want [][]float32) {
	t.Helper()
	p := newBuilder(0, cols+rows)
	both, out := p.value(cols+rows), p.value(rows)
	in, residual := p.view(both, 0, cols), p.view(both, cols, rows)
	p.op(plan.OpEmbed, both, nil, nil, func(o *plan.Op) { o.F[plan.EmbedScale] = 1 })
	p.linear(out, in, residual, false)
	var embeds []float32
	for row := range slices.Chunk(x, cols) {
		embeds = append(append(embeds, row...), make([]float32, rows)...)
	}
	testLinear(t, p, out, embeds, rows, cols, plan.BF16, give, want)
}

// oddly is a number of either sign: most are near one, and every seventh is near the smallest
// or, as its products and their sums then are, subnormal.
func oddly(rng *rand.Rand, i int) float32 {
	if i%7 == 3 {
		return float32(math.Ldexp(rng.NormFloat64(), -40-rng.IntN(100)))
	}
	return float32(rng.NormFloat64())
}

// bf16Product is x times each of rows rows w.
func bf16Product(x []float32, w []uint16, rows int) []float32 {
	at := func(v []uint16, i int) float32 {
		if i < len(v) {
			return fromBF16(v[i])
		}
		return 0
	}
	rounded := make([]uint16, len(x))
	for i, v := range x {
		rounded[i] = toBF16(v)
	}
	out := make([]float32, rows)
	for r := range out {
		row := w[r*len(x):][:len(x)]
		for i := 0; i < len(x); i += 2 {
			out[r] = dotPairs(out[r], at(row, i), at(row, i+1), at(rounded, i), at(rounded, i+1))
		}
	}
	return out
}

// dotPairs is what VDPBF16PS adds to sum: first the product of the upper halves of a pair, then
// that of the lower, each rounded with the sum. Subnormal numbers count as zeros.
func dotPairs(sum, w0, w1, x0, x1 float32) float32 {
	sum = flush(fma32(flush(w1), flush(x1), flush(sum)))
	return flush(fma32(flush(w0), flush(x0), sum))
}

// flush returns v, or a zero if it is subnormal.
func flush(v float32) float32 {
	if bits := math.Float32bits(v); bits&0x7f800000 == 0 {
		return math.Float32frombits(bits & 0x80000000)
	}
	return v
}

// fma32 is x*y + z of bf16 x and y, rounded once. The product is exact in float64; the sum is
// rounded to odd there, so that it is not rounded twice.
func fma32(x, y, z float32) float32 {
	product := float64(x) * float64(y)
	sum := product + float64(z)
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return float32(sum)
	}
	of := sum - product
	if lost := (product - (sum - of)) + (float64(z) - of); lost != 0 && math.Float64bits(sum)%2 == 0 {
		sum = math.Nextafter(sum, math.Copysign(math.Inf(1), lost))
	}
	return float32(sum)
}

// toBF16 rounds to the nearest bf16, ties to even.
func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func fromBF16(bits uint16) float32 { return math.Float32frombits(uint32(bits) << 16) }
