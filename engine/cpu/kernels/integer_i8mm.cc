// Arm's products of matrices of bytes, two rows of eight with two: Neoverse V1 (Graviton3), N2 and
// later. One row alone is multiplied as by a processor that has dot products alone.
#include "prelude.h"

#if defined(__aarch64__)
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#define MR_ISA i8mm
#define MR_NAME "i8mm"
#define MR_LANES 4
#define MR_FMA 128
#define MR_SUMS 16  // of 32 registers
#define MR_MATRIX

#include "simd.hpp"

namespace millrace {
namespace i8mm {
constexpr int kOffset = 0;
constexpr bool kWide = false;
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  return (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
}
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) { return dot(sum, w, x); }
MR_INLINE Ints dot_matrix(Ints sum, Bits w, Ints x) {
  return (Ints)vmmlaq_s32((int32x4_t)sum, (int8x16_t)x, (int8x16_t)w);
}
constexpr bool kPairs = false;
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)w); }
MR_INLINE Reg widen_f16(Halves h) { return (Reg)vcvt_f32_f16((float16x4_t)h); }
}  // namespace i8mm
}  // namespace millrace

#include "integer.hpp"

const millrace::Integers* millrace::i8mm_integers() { return &i8mm::kIntegers; }
#else
const millrace::Integers* millrace::i8mm_integers() { return nullptr; }
#endif
