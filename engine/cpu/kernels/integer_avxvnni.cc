// AVX-VNNI, the same dot products on AVX2's registers: Intel since Alder Lake and Sierra Forest,
// AMD since Zen 5.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avxvnni,avx2,fma,f16c")
#define MR_ISA avxvnni
#define MR_NAME "avxvnni"
#define MR_LANES 8
#define MR_FMA 256
#define MR_SUMS 8  // of 16 registers

#include "simd.hpp"
#include "integer_registers.hpp"
#include "integer.hpp"

const millrace::Integers* millrace::avxvnni_integers() { return &avxvnni::kIntegers; }
#else
const millrace::Integers* millrace::avxvnni_integers() { return nullptr; }
#endif
