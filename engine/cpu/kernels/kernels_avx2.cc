// AVX2, FMA, F16C: x86-64 since 2013 (Intel) and 2015 (AMD), AWS Lambda's floor.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define MR_ISA avx2
#define MR_NAME "avx2"
#define MR_LANES 8
#define MR_FMA 256
#define MR_F16
#define MR_ROWS 6
#define MR_ACCUMULATORS 12  // of 16 registers: two for panels, one for x

#include "simd.hpp"

namespace millrace {
namespace avx2 {
MR_INLINE Reg widen_f16(Halves h) { return (Reg)_mm256_cvtph_ps((__m128i)h); }
// 16 codes of 8 bits as floats.
MR_INLINE Vec load_w8(const char* p) {
  Vec v;
  MR_EACH v.r[i] = (Reg)_mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + i * MR_LANES))));
  return v;
}
MR_INLINE void store_f16(uint16_t* p, Vec v) {
  MR_EACH _mm_storeu_si128(reinterpret_cast<__m128i*>(p + i * MR_LANES),
                           _mm256_cvtps_ph((__m256)v.r[i], _MM_FROUND_TO_NEAREST_INT));
}
}  // namespace avx2
}  // namespace millrace

#include "matmul.hpp"
#include "attention.hpp"
#include "rowops.hpp"
#include "recurrent.hpp"
#include "peak.hpp"
#include "table.hpp"

const millrace::Kernels* millrace::avx2_kernels() { return &avx2::kTable; }
#else
const millrace::Kernels* millrace::avx2_kernels() { return nullptr; }
#endif
