package cuda_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// TestConvert compares rows that the device converts with those that package quant does: every
// format that checkpoints have floats in, to every one that they are quantised to.
func TestConvert(t *testing.T) {
	const rows, cols = 12, 100 // of which the last group is short
	from := []plan.Format{plan.F32, plan.F16, plan.BF16, plan.F8, plan.F8.Grouped(16)}
	to := []plan.Format{plan.F32, plan.F16, plan.BF16, plan.W8, plan.W8.Grouped(32), plan.W8.Grouped(64), plan.W4.Grouped(32),
		(plan.W4 | plan.CodesIQ4NL).Grouped(32), (plan.W4 | plan.CodesNF4).Grouped(64), (plan.W4 | plan.CodesE2M1).Grouped(16)}
	b, err := cuda.Open(library(t), one)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, f := range append(from, to...) {
		if f.Quantized() && f.Kind() != plan.F8 && device.Converts(b, f, plan.F32) || device.Converts(b, plan.BF16, f|plan.WithMinimum) && f.Quantized() {
			t.Errorf("the device converts %v, which it cannot", f)
		}
	}
	for _, f := range from {
		for _, g := range to {
			if f == g {
				continue
			}
			t.Run(fmt.Sprintf("%v to %v", f, g), func(t *testing.T) {
				if !device.Converts(b, f, g) {
					t.Fatal("it does not")
				}
				src, want := converted(f, g, rows, cols)
				got := uploaded(t, g, f, rows, cols, src)
				for i := range want {
					// What is 0 may have the sign of its scale.
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) && !(g.Quantized() && got[i] == want[i]) {
						t.Fatalf("row %d, column %d: %v, want %v", i/cols, i%cols, got[i], want[i])
					}
				}
			})
		}
	}
}

// converted returns rows in format from, and what they are in format to.
func converted(from, to plan.Format, rows, cols int) (src []byte, want []float32) {
	random := rand.New(rand.NewPCG(uint64(from), uint64(to)))
	for r := range rows {
		row := make([]float32, cols)
		for i := range row {
			row[i] = float32(random.NormFloat64()) * []float32{0.02, 1, 300}[r%3]
		}
		switch r {
		case 3:
			clear(row)
		case 4:
			clear(row[32:64])
			row[70] = 60 // an outlier
		case 5:
			for i := range row {
				row[i] *= 1e-7 // scales that are subnormal, or 0
			}
		case 6:
			if !to.Quantized() {
				copy(row, []float32{float32(math.Copysign(0, -1)), 1e-8, 6.1e-5, 65519, 65520, 3e38, float32(math.Inf(-1)), 1.0009765, 1.00048828})
			}
		}
		part := make([]byte, from.RowBytes(cols))
		quant.Encode(part, row, from)
		src = append(src, part...)
		quant.Decode(row, part, from)
		part = make([]byte, to.RowBytes(cols))
		quant.Encode(part, row, to)
		quant.Decode(row, part, to)
		want = append(want, row...)
	}
	return src, want
}

// uploaded returns what a tensor has after rows were written to it in another format.
func uploaded(t *testing.T, format, from plan.Format, rows, cols int, src []byte) []float32 {
	t.Helper()
	b, read := newEmbedding(t, format, rows, cols)
	size := len(src) / rows
	if err := device.ConvertTensor(b, 0, 1, rows-1, src[1:], from); err == nil {
		t.Error("rows that are not whole are taken")
	}
	for _, at := range [][2]int{{0, 1}, {1, rows}} {
		if err := device.ConvertTensor(b, 0, at[0], at[1]-at[0], src[at[0]*size:at[1]*size], from); err != nil {
			t.Fatal(err)
		}
	}
	ids := make([]int32, rows)
	for i := range ids {
		ids[i] = int32(i)
	}
	return read(ids)
}

// BenchmarkConvert measures the processor time for a gigabyte of a checkpoint in bf16: rows that the
// host converts, and that the device does, here the one that does nothing
// (MILLRACE_SHIM_SCHEDULE=null).
func BenchmarkConvert(b *testing.B) {
	const rows, cols = 1024, 4096
	src, row := make([]byte, 0, rows*cols*2), make([]float32, cols)
	random := rand.New(rand.NewPCG(1, 2))
	for range rows {
		for i := range row {
			row[i] = float32(random.NormFloat64()) / 50
		}
		part := make([]byte, plan.BF16.RowBytes(cols))
		quant.Encode(part, row, plan.BF16)
		src = append(src, part...)
	}
	for _, to := range []plan.Format{plan.F32, plan.W8.Grouped(64), (plan.W4 | plan.CodesIQ4NL).Grouped(32)} {
		for _, where := range []string{"host", "device"} {
			b.Run(fmt.Sprintf("%v/%s", to, where), func(b *testing.B) {
				d, err := cuda.Open(library(b), one)
				if err != nil {
					b.Fatal(err)
				}
				defer d.Close()
				if _, err := d.NewTensor("w", to, []int{rows, cols}); err != nil {
					b.Fatal(err)
				}
				size := to.RowBytes(cols)
				b.ResetTimer()
				for range b.N {
					if where == "device" {
						err = device.ConvertTensor(d, 0, 0, rows, src, plan.BF16)
					} else {
						packed := make([]byte, rows*size)
						for i := range rows {
							quant.Decode(row, src[i*cols*2:], plan.BF16)
							quant.Encode(packed[i*size:][:size], row, to)
						}
						err = d.WriteTensor(0, 0, rows, packed)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/float64(len(src))*1e9, "s/GB")
			})
		}
	}
}
