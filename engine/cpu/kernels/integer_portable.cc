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
#ifdef __SSE2__
constexpr int kOffset = 128;
constexpr bool kWide = true;
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) { return sum + (Ints)_mm_madd_epi16((__m128i)w, (__m128i)x); }
#else
constexpr int kOffset = 0;
constexpr bool kWide = false;
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  for (int shift = 0; shift < 32; shift += 8) sum += ((Ints)(w << (24 - shift)) >> 24) * ((Ints)((Bits)x << (24 - shift)) >> 24);
  return sum;
}
#endif
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) { return dot(sum, w, x); }
constexpr bool kPairs = false;
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
