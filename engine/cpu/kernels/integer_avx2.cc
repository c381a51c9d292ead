// AVX2, which multiplies unsigned bytes by signed ones and adds pairs in 16 bits, where sums
// larger than those saturate. With the signs moved from w to x no sum of two is: that of two times 128 * 127.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define MR_ISA avx2integers
#define MR_NAME "avx2"
#define MR_LANES 8
#define MR_FMA 256
#define MR_SUMS 8  // of 16 registers

#include "simd.hpp"

namespace millrace {
namespace avx2integers {
constexpr int kOffset = 0;
constexpr bool kPairs = true;
MR_INLINE Ints widen(Ints sum) { return (Ints)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1)); }
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) {
  return (Ints)_mm256_add_epi16((__m256i)sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)x));
}
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  const __m256i magnitudes = _mm256_abs_epi8((__m256i)w), signs = _mm256_sign_epi8((__m256i)x, (__m256i)w);
  return sum + widen((Ints)_mm256_maddubs_epi16(magnitudes, signs));
}
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)_mm256_shuffle_epi8((__m256i)table, (__m256i)w); }
MR_INLINE Reg widen_f16(Halves h) { return (Reg)_mm256_cvtph_ps((__m128i)h); }
}  // namespace avx2integers
}  // namespace millrace

#include "integer.hpp"

const millrace::Integers* millrace::avx2_integers() { return &avx2integers::kIntegers; }
#else
const millrace::Integers* millrace::avx2_integers() { return nullptr; }
#endif
