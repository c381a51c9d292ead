// AVX-512 without dot products of bytes: Intel's servers before Cascade Lake.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define MR_ISA avx512integers
#define MR_NAME "avx512"
#define MR_LANES 16
#define MR_FMA 512
#define MR_SUMS 16
#define MR_WIDE

#include "simd.hpp"
#include "integer_registers.hpp"
#include "integer.hpp"

const millrace::Integers* millrace::avx512_integers() { return &avx512integers::kIntegers; }
#else
const millrace::Integers* millrace::avx512_integers() { return nullptr; }
#endif
