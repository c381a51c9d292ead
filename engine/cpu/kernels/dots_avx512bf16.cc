// AVX-512 BF16: Intel's servers since Cooper Lake, AMD since Zen 4.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define MR_ISA avx512bf16
#define MR_LANES 16
#define MR_FMA 512

#include "simd.hpp"

namespace millrace {
namespace avx512bf16 {
MR_INLINE Reg dot_pairs(Reg sum, Bits w, Bits x) { return (Reg)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x); }
}  // namespace avx512bf16
}  // namespace millrace

#include "dots.hpp"

const millrace::Dots* millrace::avx512bf16_dots() { return &avx512bf16::kDots; }
#else
const millrace::Dots* millrace::avx512bf16_dots() { return nullptr; }
#endif
