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
#include "integer_registers.hpp"

namespace millrace {
namespace i8mm {
MR_INLINE Ints dot_matrix(Ints sum, Bits w, Ints x) {
  return (Ints)vmmlaq_s32((int32x4_t)sum, (int8x16_t)x, (int8x16_t)w);
}
}  // namespace i8mm
}  // namespace millrace

#include "integer.hpp"

const millrace::Integers* millrace::i8mm_integers() { return &i8mm::kIntegers; }
#else
const millrace::Integers* millrace::i8mm_integers() { return nullptr; }
#endif
