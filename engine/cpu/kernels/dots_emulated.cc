// What dots_avx512bf16.cc is, with its dot products in fused multiply-adds: slow, chosen by name
// only. It lets a machine without AVX-512 BF16 test what one with it runs; both must agree bit
// for bit.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define MR_ISA bf16emulated
#define MR_LANES 16
#define MR_FMA 256

#include "simd.hpp"

namespace millrace {
namespace bf16emulated {
// v with zeros for subnormal numbers.
MR_INLINE Reg flush(Bits v) { return (Reg)((v & 0x7f800000u) == 0u ? v & 0x80000000u : v); }

MR_INLINE Reg dot_pairs(Reg sum, Bits w, Bits x) {
  const Reg upper = reg_fma(flush(w & 0xffff0000u), flush(x & 0xffff0000u), flush((Bits)sum));
  return flush((Bits)reg_fma(flush(w << 16), flush(x << 16), flush((Bits)upper)));
}
}  // namespace bf16emulated
}  // namespace millrace

#include "dots.hpp"

const millrace::Dots* millrace::emulated_dots() { return &bf16emulated::kDots; }
#else
const millrace::Dots* millrace::emulated_dots() { return nullptr; }
#endif
