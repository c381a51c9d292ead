package cpu

// #include "peak.h"
import "C"

// ReadPeak measures how many bytes a second threads threads read from memory
// that no cache holds: the limit of decoding. It takes half a gigabyte and
// some tenths of a second; 0 if the memory is not to be had.
func ReadPeak(threads int) float64 { return float64(C.mr_cpu_read_peak(C.int(threads))) }

// FMAPeak measures how many float32 operations a second threads threads do in
// the widest fused multiply-adds, each counting as two: the limit of prefill.
func FMAPeak(threads int) float64 { return float64(C.mr_cpu_fma_peak(C.int(threads))) }
