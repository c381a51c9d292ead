package cpu_test

import (
	"fmt"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu/kernels"
)

// BenchmarkMatmul: the share of the FMA peak that the tiles reach, by rows. A
// compiler that spills a tile's registers shows here, and nowhere in the tests.
func BenchmarkMatmul(b *testing.B) {
	peak := 0.0
	for _, format := range []string{"bf16", "f16"} {
		for _, rows := range []int{1, 4, 8, 12, 16, 32, 64, 128} {
			b.Run(fmt.Sprintf("%s/%d", format, rows), func(b *testing.B) {
				best := 0.0
				for range b.N {
					peak = max(peak, kernels.FMAPeak(1)) // neighbours can only lower it
					best = max(best, kernels.MatmulRate(rows, format == "f16"))
				}
				b.ReportMetric(best/1e9, "GFLOP/s")
				b.ReportMetric(best/peak, "of-FMA-peak")
			})
		}
	}
}
