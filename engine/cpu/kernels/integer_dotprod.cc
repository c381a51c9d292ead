// Arm's dot products: Neoverse N1 (Graviton2) and later, Apple M1 and later.
#include "prelude.h"

#if defined(__aarch64__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#define MR_ISA dotprod
#define MR_NAME "dotprod"
#define MR_LANES 4
#define MR_FMA 128
#define MR_SUMS 16  // of 32 registers

#include "simd.hpp"

namespace millrace {
namespace dotprod {
constexpr int kOffset = 0;
constexpr bool kWide = false;
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  return (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
}
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) { return dot(sum, w, x); }
constexpr bool kPairs = false;
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)w); }
MR_INLINE Reg widen_f16(Halves h) { return (Reg)vcvt_f32_f16((float16x4_t)h); }
}  // namespace dotprod
}  // namespace millrace

#include "integer.hpp"

const millrace::Integers* millrace::dotprod_integers() { return &dotprod::kIntegers; }
#else
const millrace::Integers* millrace::dotprod_integers() { return nullptr; }
#endif
