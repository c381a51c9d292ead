// AVX2, which multiplies unsigned bytes by signed ones and adds pairs in 16 bits, where sums
// that are larger saturate. Codes of 4 bits stay below that. Those of 8 bits are multiplied in 16
// bits: to move their signs to x instead takes the ports that multiply half as long again.
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
constexpr int kOffset = 128;
constexpr bool kWide = true;
// Written out, as GCC would add products to each other before it adds them to the sum, and a
// full tile has no registers for those.
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  Ints product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(x));
  return sum;
}
constexpr bool kPairs = true;
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) {
  Ints product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(x));
  return sum;
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
