// AVX-512 VNNI: Intel since Ice Lake and Cascade Lake, AMD since Zen 4.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define MR_ISA avx512vnni
#define MR_NAME "avx512vnni"
#define MR_LANES 16
#define MR_FMA 512
#define MR_SUMS 16

#include "simd.hpp"

namespace millrace {
namespace avx512vnni {
constexpr int kOffset = 128;
constexpr bool kWide = false;
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
}
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) { return dot(sum, w, x); }
constexpr bool kPairs = false;
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)_mm512_shuffle_epi8((__m512i)table, (__m512i)w); }
MR_INLINE Reg widen_f16(Halves h) {
  return (Reg)_mm512_maskz_cvtph_ps(0xffff, (__m256i)h);  // the unmasked form warns in GCC 12
}
}  // namespace avx512vnni
}  // namespace millrace

#include "integer.hpp"

const millrace::Integers* millrace::avx512vnni_integers() { return &avx512vnni::kIntegers; }
#else
const millrace::Integers* millrace::avx512vnni_integers() { return nullptr; }
#endif
