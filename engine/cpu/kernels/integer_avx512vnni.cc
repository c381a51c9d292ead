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
#include "integer_registers.hpp"
#include "integer.hpp"

const millrace::Integers* millrace::avx512vnni_integers() { return &avx512vnni::kIntegers; }
#else
const millrace::Integers* millrace::avx512vnni_integers() { return nullptr; }
#endif
