package quant

import (
	"math"
	"slices"
	"sync"

	"github.com/millrace-ai/millrace/engine/plan"
)

// momentBlock is how many neighbouring columns make up for each other's losses. The
// work and the memory of a matrix grow with it; more columns gain little.
const momentBlock = 256

// Moments are the second moments of the rows that a matrix is multiplied with: for
// columns i and j of the same block, the sum of x[i]*x[j].
type Moments struct {
	cols   int
	adding sync.Mutex
	blocks [][]float32 // [n, n] each, of which the lower triangle is used
}

// NewMoments returns those of no rows of cols columns.
func NewMoments(cols int) *Moments {
	m := &Moments{cols: cols}
	for first := 0; first < cols; first += momentBlock {
		n := min(momentBlock, cols-first)
		m.blocks = append(m.blocks, make([]float32, n*n))
	}
	return m
}

// Cols is how many columns the rows have.
func (m *Moments) Cols() int { return m.cols }

// Add counts n rows, stride apart in x. Several goroutines may call it.
func (m *Moments) Add(x []float32, n, stride int) {
	m.adding.Lock()
	defer m.adding.Unlock()
	columns := make([]float32, (momentBlock+1)*n) // of a block, one after the other, and zeros
	for b, sums := range m.blocks {
		first := b * momentBlock
		width := min(momentBlock, m.cols-first)
		for i := range n {
			for j, v := range x[i*stride+first:][:width] {
				columns[j*n+i] = v
			}
		}
		clear(columns[width*n:])
		column := func(i int) []float32 { return columns[i*n:][:n] }
		for i := 0; i < width; i += 2 { // two by two, since loads would take longer than products
			a0, a1 := column(i), column(i+1)
			for j := 0; j <= i; j += 2 {
				b0, b1 := column(j), column(j+1)
				var s00, s01, s10, s11 float32
				for k, a := range a0 {
					c := a1[k]
					s00 += a * b0[k]
					s01 += a * b1[k]
					s10 += c * b0[k]
					s11 += c * b1[k]
				}
				sums[i*width+j] += s00
				if i+1 < width {
					sums[(i+1)*width+j] += s10
					sums[(i+1)*width+j+1] += s11
				}
				if j < i {
					sums[i*width+j+1] += s01
				}
			}
		}
	}
}

// Sum returns, over all rows that were counted, the squares of their products with d, a
// row of a matrix or what it has lost. Each block counts by itself.
func (m *Moments) Sum(d []float32) (sum float64) {
	for b, sums := range m.blocks {
		part := d[b*momentBlock : min((b+1)*momentBlock, m.cols)]
		for i, v := range part {
			of := float32(0)
			for j, w := range part[:i] {
				of += sums[i*len(part)+j] * w
			}
			sum += float64(v) * float64(2*of+sums[i*len(part)+i]*v)
		}
	}
	return sum
}

// Rounding rounds rows of W4 so that their products with rows of known moments change
// little: what a column loses is made up for by the columns of its block after it
// (GPTQ, arXiv 2210.17323).
type Rounding struct {
	cols    int
	factors [][]float32 // of each block [n, n], upper triangles U: UᵀU is the inverse of the moments
	weights []float32   // of each column's squares, once later columns have made up for what they can
}

// Rounding returns the one for these moments.
func (m *Moments) Rounding() *Rounding {
	r := &Rounding{cols: m.cols}
	for b, sums := range m.blocks {
		n := min(momentBlock, m.cols-b*momentBlock)
		u := inverseFactor(sums, n)
		r.factors = append(r.factors, u)
		for i := range n {
			r.weights = append(r.weights, 1/(u[i*n+i]*u[i*n+i]))
		}
	}
	return r
}

// damping is the share of the mean square that is added to all squares, so that
// columns which depend on each other in few rows do not seem to do so always.
const damping = 0.01

// inverseFactor returns the upper triangular U for which UᵀU is the inverse of the
// symmetric sums [n, n], damped, in units of their mean square.
func inverseFactor(sums []float32, n int) []float32 {
	mean := 0.0
	for i := range n {
		mean += float64(sums[i*n+i]) / float64(n)
	}
	unit := 1 / mean
	if !(mean > 0) || unit == 0 {
		unit = 0 // nothing is known: no column depends on another
	}
	// R is upper triangular, R Rᵀ the sums: then U is R's inverse.
	r := make([]float64, n*n)
	for j := n - 1; j >= 0; j-- {
		after := r[j*n+j+1 : (j+1)*n]
		for i := j; i >= 0; i-- {
			sum := unit * float64(sums[j*n+i])
			if i == j {
				sum += damping
			}
			for k, v := range r[i*n+j+1 : (i+1)*n] {
				sum -= v * after[k]
			}
			if i == j {
				r[j*n+j] = math.Sqrt(max(sum, damping))
			} else {
				r[i*n+j] = sum / r[j*n+j]
			}
		}
	}
	u, row := make([]float32, n*n), make([]float64, n)
	inverse := make([]float64, n*n)
	for i := n - 1; i >= 0; i-- {
		clear(row)
		for k := i + 1; k < n; k++ {
			of := r[i*n+k]
			for c, v := range inverse[k*n+k : (k+1)*n] {
				row[k+c] -= of * v
			}
		}
		row[i] = 1
		for k := i; k < n; k++ {
			v := row[k] / r[i*n+i]
			inverse[i*n+k], u[i*n+k] = v, float32(v)
		}
	}
	return u
}

// Encode is the function Encode, with this rounding where f is W4 with groups that
// blocks consist of. A nil Rounding does not change anything.
func (r *Rounding) Encode(dst []byte, row []float32, f plan.Format) {
	if r == nil || f.Kind() != plan.W4 || f.Group() == 0 || momentBlock%f.Group() != 0 {
		Encode(dst, row, f)
		return
	}
	clear(dst[:f.RowBytes(r.cols)])
	left := slices.Clone(row)
	for g := range f.Groups(r.cols) {
		first, last := g*f.Group(), min((g+1)*f.Group(), r.cols)
		block := first / momentBlock
		start := block * momentBlock
		n := min(momentBlock, r.cols-start)
		scale, minimum := putScale(dst, left[first:last], r.weights[first:last], f, r.cols, g)
		inverse := float32(0)
		if scale != 0 {
			inverse = 1 / scale
		}
		for i := first; i < last; i++ {
			var code byte
			var value float32
			if f.Minimum() {
				code = byte(round(min(max((left[i]-minimum)*inverse, 0), 15)))
				value = scale*float32(code) + minimum
			} else {
				code = nearest(f.Table(), left[i]*inverse)
				value = scale * float32(f.Table()[code])
			}
			putNibble(dst, i, code)
			u := r.factors[block][(i-start)*n:][i-start : n]
			lost := (left[i] - value) / u[0]
			rest := left[i+1 : start+n]
			for k, v := range u[1:] {
				rest[k] -= lost * v
			}
		}
	}
}
