// The templates at 16 lanes, as AVX-512 runs them, on AVX2 registers: slow,
// chosen by name only. It lets a machine without AVX-512 test what one with it
// runs; both must agree with avx2 bit for bit.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define MR_ISA wide
#define MR_NAME "wide"
#define MR_LANES 16
#define MR_FMA 256
#define MR_F16
#define MR_ROWS 4
#define MR_ACCUMULATORS 6

#include "simd.hpp"

namespace millrace {
namespace wide {
MR_INLINE Reg widen_f16(Halves h) {
  union {
    __m256 half[2];
    Reg whole;
  } u;
  u.half[0] = _mm256_cvtph_ps(_mm256_castsi256_si128((__m256i)h));
  u.half[1] = _mm256_cvtph_ps(_mm256_extracti128_si256((__m256i)h, 1));
  return u.whole;
}
// 16 codes of 8 bits as floats.
MR_INLINE Vec load_w8(const char* p) {
  union {
    __m256 half[2];
    Reg whole;
  } u;
  for (int i = 0; i < 2; i++)
    u.half[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + i * 8))));
  return {{u.whole}};
}
MR_INLINE void store_f16(uint16_t* p, Vec v) {
  union {
    Reg whole;
    __m256 half[2];
  } u{v.r[0]};
  for (int i = 0; i < 2; i++)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + i * 8), _mm256_cvtps_ph(u.half[i], _MM_FROUND_TO_NEAREST_INT));
}
}  // namespace wide
}  // namespace millrace

#include "matmul.hpp"
#include "attention.hpp"
#include "rowops.hpp"
#include "recurrent.hpp"
#include "peak.hpp"
#include "table.hpp"

const millrace::Kernels* millrace::wide_kernels() { return &wide::kTable; }
#else
const millrace::Kernels* millrace::wide_kernels() { return nullptr; }
#endif
