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

// MatmulRate measures how many float32 operations a second one thread does in a
// product of rows rows, at most 128, with cached weights of bf16, or of f16 if
// f16 is set and the machine converts it. 0 if there is no memory for it.
func MatmulRate(rows int, f16 bool) float64 {
	var half C.int
	if f16 {
		half = 1
	}
	return float64(C.mr_cpu_matmul_rate(C.int(rows), half))
}
