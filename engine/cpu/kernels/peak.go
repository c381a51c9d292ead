package kernels

// #include "peak.h"
import "C"

// ReadPeak measures how many bytes a second threads threads read from memory
// that no cache holds: the limit of decoding. It takes half a gigabyte and
// some tenths of a second; 0 if the memory cannot be allocated.
func ReadPeak(threads int) float64 { return float64(C.mr_cpu_read_peak(C.int(threads))) }

// FMAPeak measures how many float32 operations a second threads threads do in
// the widest fused multiply-adds, each counting as two: the limit of prefill.
func FMAPeak(threads int) float64 { return float64(C.mr_cpu_fma_peak(C.int(threads))) }

// DotPeak measures how many operations on bytes a second threads threads do in the widest dot
// products: the limit of prefill with weights of integers.
func DotPeak(threads int) float64 { return float64(C.mr_cpu_dot_peak(C.int(threads))) }

// MatmulRate measures how many operations a second one thread does in a product of
// rows rows, at most 128, with cached weights of a plan.Format. 0 if there is no
// memory for it.
func MatmulRate(rows int, format int32) float64 {
	return float64(C.mr_cpu_matmul_rate(C.int(rows), C.int32_t(format)))
}
