// The compiler's vectors at the architecture's baseline: SSE2 on x86-64, NEON
// on arm64, whatever there is elsewhere.
#include "prelude.h"

#define MR_ISA portable
#define MR_LANES 4
#if defined(__aarch64__)
#define MR_NAME "neon"
#define MR_FMA 128
#define MR_F16
#define MR_ROWS 6
#define MR_ACCUMULATORS 24
#else
#define MR_NAME "portable"
#define MR_FMA 0
#define MR_ROWS 2
#define MR_ACCUMULATORS 8
#endif

#include "simd.hpp"

#ifdef MR_F16
namespace millrace {
namespace portable {
MR_INLINE Reg widen_f16(Halves h) { return (Reg)vcvt_f32_f16((float16x4_t)h); }
// 16 codes of 8 bits as floats.
MR_INLINE Vec load_w8(const char* p) {
  const int8x16_t codes = vld1q_s8(reinterpret_cast<const int8_t*>(p));
  const int16x8_t half[2] = {vmovl_s8(vget_low_s8(codes)), vmovl_s8(vget_high_s8(codes))};
  Vec v;
  for (int i = 0; i < 2; i++) {
    v.r[2 * i] = (Reg)vcvtq_f32_s32(vmovl_s16(vget_low_s16(half[i])));
    v.r[2 * i + 1] = (Reg)vcvtq_f32_s32(vmovl_s16(vget_high_s16(half[i])));
  }
  return v;
}
MR_INLINE void store_f16(uint16_t* p, Vec v) {
  MR_EACH vst1_f16(reinterpret_cast<float16_t*>(p) + i * MR_LANES, vcvt_f16_f32((float32x4_t)v.r[i]));
}
}  // namespace portable
}  // namespace millrace
#endif

#include "matmul.hpp"
#include "attention.hpp"
#include "rowops.hpp"
#include "recurrent.hpp"
#include "peak.hpp"
#include "table.hpp"

const millrace::Kernels* millrace::portable_kernels() { return &portable::kTable; }
