package cpu_test

import (
	"fmt"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu/kernels"
	"github.com/millrace-ai/millrace/engine/plan"
)

// BenchmarkMatmul: the share of the arithmetic peak that the tiles reach, by rows. A
// compiler that spills a tile's registers shows here, and nowhere in the tests.
func BenchmarkMatmul(b *testing.B) {
	fma, dot := 0.0, 0.0
	for _, format := range []plan.Format{
		plan.BF16, plan.F16, plan.F8.Grouped(128),
		plan.W8, plan.W8.Grouped(32), plan.W4.Grouped(32), plan.W4.Grouped(32) | plan.WithMinimum, plan.W4.Grouped(128),
		plan.W4.Grouped(32) | plan.CodesE2M1,
	} {
		for _, rows := range []int{1, 4, 8, 12, 16, 32, 64, 128} {
			b.Run(fmt.Sprintf("%v/%d", format, rows), func(b *testing.B) {
				best := 0.0
				for range b.N { // neighbours can only lower a rate
					if format.Integer() {
						dot = max(dot, kernels.DotPeak(1))
					} else {
						fma = max(fma, kernels.FMAPeak(1))
					}
					best = max(best, kernels.MatmulRate(rows, int32(format)))
				}
				b.ReportMetric(best/1e9, "GOP/s")
				if format.Integer() {
					b.ReportMetric(best/dot, "of-dot-peak")
				} else {
					b.ReportMetric(best/fma, "of-FMA-peak")
				}
			})
		}
	}
}
