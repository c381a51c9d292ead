// AVX2, which multiplies unsigned bytes by signed ones and adds pairs in 16 bits, where sums
// that are larger saturate. Codes of 4 bits stay below that. Those of 8 bits are multiplied in 16
// bits: to move signs from one factor to the other instead takes the ports that multiply half as
// long again. Only where a lone row is multiplied with codes that are looked up does that take less.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define MR_ISA avx2integers
#define MR_NAME "avx2"
#define MR_LANES 8
#define MR_FMA 256
#define MR_SUMS 8  // of 16 registers
#define MR_WIDE

#include "simd.hpp"
#include "integer_registers.hpp"
#include "integer.hpp"

const millrace::Integers* millrace::avx2_integers() { return &avx2integers::kIntegers; }
#else
const millrace::Integers* millrace::avx2_integers() { return nullptr; }
#endif
