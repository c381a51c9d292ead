// What every machine of an architecture can do.
#include "prelude.h"

#define MR_ISA plain
#define MR_NAME "portable"
#define MR_LANES 4
#define MR_FMA 0
#define MR_SUMS 8

#include "simd.hpp"

namespace millrace {
namespace plain {
constexpr int kOffset = 0;
#ifdef __SSE2__
// Of each 16 bits the lower and the higher byte.
MR_INLINE __m128i low(__m128i v) { return _mm_srai_epi16(_mm_slli_epi16(v, 8), 8); }
MR_INLINE __m128i high(__m128i v) { return _mm_srai_epi16(v, 8); }
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  return sum + (Ints)_mm_madd_epi16(low((__m128i)w), low((__m128i)x)) +
         (Ints)_mm_madd_epi16(high((__m128i)w), high((__m128i)x));
}
#else
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  for (int shift = 0; shift < 32; shift += 8) sum += ((Ints)(w << (24 - shift)) >> 24) * ((Ints)((Bits)x << (24 - shift)) >> 24);
  return sum;
}
#endif
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) { return dot(sum, w, x); }
constexpr bool kPairs = false;
MR_INLINE Ints widen(Ints sum) { return sum; }
MR_INLINE Bits lookup(Bits table, Bits w) {
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  return (Bits)__builtin_shuffle((Bytes)table, (Bytes)w);
}
MR_INLINE Reg widen_f16(Halves h) {
  const Bits bits = __builtin_convertvector(h, Bits), rest = bits & 0x7fff;
  const Reg finite = (Reg)(rest << 13) * 0x1p112f;  // subnormals, too
  const Bits wide = rest >= 0x7c00 ? rest << 13 | 0x7f800000u : (Bits)finite;
  return (Reg)(wide | (bits & 0x8000) << 16);
}
}  // namespace plain
}  // namespace millrace

#include "integer.hpp"

const millrace::Integers* millrace::portable_integers() { return &plain::kIntegers; }
