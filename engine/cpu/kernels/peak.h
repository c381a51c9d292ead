/* What the machine can do at best, for benchmarks, with the instruction set that MILLRACE_CPU_ISA
 * names if it does. */
#ifndef MILLRACE_CPU_PEAK_H
#define MILLRACE_CPU_PEAK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* They keep all threads busy for about a tenth of a second, and return the
 * best of several rounds. read: bytes per second of reading memory beyond any
 * cache; 0 without the memory for it. fma: single precision operations per
 * second of the widest fused multiply-add. dot: operations per second of the
 * widest dot product of bytes. */
double mr_cpu_read_peak(int threads);
double mr_cpu_fma_peak(int threads);
double mr_cpu_dot_peak(int threads);

/* What one thread does of the latter two in a product of `rows` rows, at most 128,
 * and cached weights of an mr_format. 0 without the memory for it. */
double mr_cpu_matmul_rate(int rows, int32_t format);

#ifdef __cplusplus
}
#endif
#endif
