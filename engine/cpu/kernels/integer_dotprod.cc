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
#include "integer_registers.hpp"
#include "integer.hpp"

const millrace::Integers* millrace::dotprod_integers() { return &dotprod::kIntegers; }
#else
const millrace::Integers* millrace::dotprod_integers() { return nullptr; }
#endif
