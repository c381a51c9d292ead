// What every kernels_*.cc includes before it names its instruction set:
// standard headers seen after that could leave inline functions in the binary
// that other files share and older machines cannot run.
#ifndef MILLRACE_CPU_PRELUDE_H
#define MILLRACE_CPU_PRELUDE_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels.h"

// Products and sums are fused where the code says fma and nowhere else, so
// that all sets round alike.
#pragma GCC optimize("fp-contract=off")

#define MR_LAMBDA __attribute__((always_inline))

#endif
