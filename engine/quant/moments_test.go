package quant

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
)

// dependent returns n rows of columns that depend on each other, with very different
// squares, stride apart.
func dependent(rng *rand.Rand, n, cols, stride int) []float32 {
	x := make([]float32, n*stride)
	for r := range n {
		row := x[r*stride:][:cols]
		common := rng.NormFloat64()
		for i := range row {
			row[i] = float32((common*math.Sin(float64(i)) + rng.NormFloat64()) * math.Exp(math.Cos(float64(7*i))))
		}
	}
	return x
}

// solve returns the x for which a x is y. a is symmetric and positive definite.
func solve(a [][]float64, y []float64) []float64 {
	n := len(y)
	a, x := slices.Clone(a), slices.Clone(y)
	for i := range a {
		a[i] = slices.Clone(a[i])
	}
	for k := range n {
		for i := range n {
			if i == k {
				continue
			}
			of := a[i][k] / a[k][k]
			for j := k; j < n; j++ {
				a[i][j] -= of * a[k][j]
			}
			x[i] -= of * x[k]
		}
	}
	for i := range x {
		x[i] /= a[i][i]
	}
	return x
}

// TestRounding: each code is the nearest to what makes up best for all that the columns
// before it have lost, which a system of equations tells.
func TestRounding(t *testing.T) {
	const cols, samples = 80, 300
	for _, f := range []plan.Format{plan.W4.Grouped(32) | plan.CodesIQ4NL, plan.W4.Grouped(16) | plan.WithMinimum, plan.W4.Grouped(64)} {
		rng := rand.New(rand.NewPCG(7, 8))
		x := dependent(rng, samples, cols, cols)
		m := NewMoments(cols)
		m.Add(x[:100*cols], 100, cols)
		m.Add(x[100*cols:], samples-100, cols)
		moments := make([][]float64, cols)
		mean := 0.0
		for i := range moments {
			moments[i] = make([]float64, cols)
			for j := range moments[i] {
				for r := range samples {
					moments[i][j] += float64(x[r*cols+i]) * float64(x[r*cols+j])
				}
			}
			mean += moments[i][i] / cols
		}
		for i := range moments {
			moments[i][i] += damping * mean
		}

		row, again, packed := make([]float32, cols), make([]float32, cols), make([]byte, f.RowBytes(cols))
		for i := range row {
			row[i] = float32(rng.NormFloat64())
		}
		m.Rounding().Encode(packed, row, f)
		Decode(again, packed, f)
		for i := range row {
			// With columns before i as they are, the squares are least where the moments of
			// the rest times its changes are those of the rest times what was lost.
			rest := make([][]float64, cols-i)
			lost := make([]float64, cols-i)
			for k := range rest {
				rest[k] = moments[i+k][i:]
				for j := range i {
					lost[k] += moments[i+k][j] * float64(row[j]-again[j])
				}
			}
			best := float64(row[i]) + solve(rest, lost)[0]
			scale, minimum := Scale(packed, f, cols, i)
			off, least := math.Abs(best-float64(again[i])), math.Inf(1)
			for code := range 16 {
				value := float64(scale) * float64(f.Table()[code])
				if f.Minimum() {
					value = float64(scale)*float64(code) + float64(minimum)
				}
				least = min(least, math.Abs(best-value))
			}
			if off > least+1e-4 {
				t.Fatalf("%v: column %d is %v, %v from %v, where %v is possible", f, i, again[i], off, best, least)
			}
		}
	}
}

// TestRoundingLosesLess: products with such inputs lose much less than they do
// without moments, also where columns are several blocks; columns that are always 0 do no harm.
func TestRoundingLosesLess(t *testing.T) {
	const cols, stride, samples, rows = 600, 610, 2000, 20
	rng := rand.New(rand.NewPCG(9, 10))
	x := dependent(rng, samples, cols, stride)
	for r := range samples {
		x[r*stride+3], x[r*stride+599] = 0, 0
	}
	m := NewMoments(cols)
	m.Add(x, samples, stride)
	rounding := m.Rounding()
	for _, f := range []plan.Format{plan.W4.Grouped(32) | plan.CodesIQ4NL, plan.W4.Grouped(32) | plan.WithMinimum} {
		var lost [2]float64
		for range rows {
			row, again := make([]float32, cols), make([]float32, cols)
			for i := range row {
				row[i] = float32(rng.NormFloat64())
			}
			for k, r := range []*Rounding{nil, rounding} {
				packed := make([]byte, f.RowBytes(cols))
				r.Encode(packed, row, f)
				Decode(again, packed, f)
				for s := range samples {
					product := 0.0
					for i, v := range x[s*stride:][:cols] {
						product += float64(v) * float64(row[i]-again[i])
					}
					lost[k] += product * product
				}
			}
		}
		if lost[1] > 0.7*lost[0] || math.IsNaN(lost[1]) {
			t.Errorf("%v: %v lost, %v without moments", f, lost[1], lost[0])
		}
	}
}

// TestRoundingOfNothing: without rows, and in formats of other kinds, rows are rounded
// as Encode does it.
func TestRoundingOfNothing(t *testing.T) {
	const cols = 64
	row := make([]float32, cols)
	for i := range row {
		row[i] = float32(math.Sin(float64(i)))
	}
	rng := rand.New(rand.NewPCG(11, 12))
	of := NewMoments(cols)
	of.Add(dependent(rng, 50, cols, cols), 50, cols)
	for _, tt := range []struct {
		format  plan.Format
		moments *Moments
	}{
		{plan.W4.Grouped(32) | plan.CodesIQ4NL, NewMoments(cols)},
		{plan.W8.Grouped(64), of},
		{plan.W4.Grouped(48), of},
		{plan.BF16, of},
	} {
		want, got := make([]byte, tt.format.RowBytes(cols)), make([]byte, tt.format.RowBytes(cols))
		Encode(want, row, tt.format)
		tt.moments.Rounding().Encode(got, row, tt.format)
		if !bytes.Equal(got, want) {
			t.Errorf("%v: % x, want % x", tt.format, got, want)
		}
	}
}

func BenchmarkMoments(b *testing.B) {
	const cols, rows = 512, 64
	x := dependent(rand.New(rand.NewPCG(1, 2)), rows, cols, cols)
	m := NewMoments(cols)
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			m.Add(x, rows, cols)
		}
	})
	b.Run("rounding", func(b *testing.B) {
		for b.Loop() {
			m.Rounding()
		}
	})
	b.Run("encode", func(b *testing.B) {
		r, f := m.Rounding(), plan.W4.Grouped(32)|plan.CodesIQ4NL
		dst := make([]byte, f.RowBytes(cols))
		for b.Loop() {
			r.Encode(dst, x[:cols], f)
		}
	})
}
