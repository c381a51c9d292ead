/* What the machine can do at best, for benchmarks. */
#ifndef MILLRACE_CPU_PEAK_H
#define MILLRACE_CPU_PEAK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Both keep all threads busy for about a tenth of a second, and return the
 * best of several rounds. read: bytes per second of reading memory beyond any
 * cache; 0 without the memory for it. fma: single precision operations per
 * second of the widest fused multiply-add. */
double mr_cpu_read_peak(int threads);
double mr_cpu_fma_peak(int threads);

/* What one thread does of that fma in a product of `rows` rows, at most 128,
 * and cached weights of bf16 or, if f16 is not 0 and the kernels multiply it,
 * f16. 0 without the memory for it. */
double mr_cpu_matmul_rate(int rows, int f16);

#ifdef __cplusplus
}
#endif
#endif
