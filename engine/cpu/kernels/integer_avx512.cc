// AVX-512 without dot products of bytes: Intel's servers before Cascade Lake.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define MR_ISA avx512integers
#define MR_NAME "avx512"
#define MR_LANES 16
#define MR_FMA 512
#define MR_SUMS 16

#include "simd.hpp"

namespace millrace {
namespace avx512integers {
constexpr int kOffset = 128;
constexpr bool kWide = true;
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  Ints product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(w), "v"(x));
  return sum;
}
constexpr bool kPairs = true;
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) {
  Ints product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(w), "v"(x));
  return sum;
}
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)_mm512_shuffle_epi8((__m512i)table, (__m512i)w); }
MR_INLINE Reg widen_f16(Halves h) {
  return (Reg)_mm512_maskz_cvtph_ps(0xffff, (__m256i)h);  // the unmasked form warns in GCC 12
}
}  // namespace avx512integers
}  // namespace millrace

#include "integer.hpp"

const millrace::Integers* millrace::avx512_integers() { return &avx512integers::kIntegers; }
#else
const millrace::Integers* millrace::avx512_integers() { return nullptr; }
#endif
