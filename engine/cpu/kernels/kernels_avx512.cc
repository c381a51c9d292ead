// AVX-512 F, BW, VL, DQ: Intel since Skylake-SP, AMD since Zen 4.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define MR_ISA avx512
#define MR_NAME "avx512"
#define MR_LANES 16
#define MR_FMA 512
#define MR_F16
#define MR_ROWS 12
#define MR_ACCUMULATORS 24  // of 32 registers: two panels' even and odd columns, x from memory

#include "simd.hpp"

namespace millrace {
namespace avx512 {
MR_INLINE Reg widen_f16(Halves h) {
  return (Reg)_mm512_maskz_cvtph_ps(0xffff, (__m256i)h);  // the unmasked form warns in GCC 12
}
// 16 codes of 8 bits as floats.
MR_INLINE Vec load_w8(const char* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {{(Reg)_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, codes))}};
}
MR_INLINE void store_f16(uint16_t* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)v.r[0], _MM_FROUND_TO_NEAREST_INT));
}
}  // namespace avx512
}  // namespace millrace

#include "matmul.hpp"
#include "attention.hpp"
#include "rowops.hpp"
#include "recurrent.hpp"
#include "peak.hpp"
#include "table.hpp"

const millrace::Kernels* millrace::avx512_kernels() { return &avx512::kTable; }
#else
const millrace::Kernels* millrace::avx512_kernels() { return nullptr; }
#endif
