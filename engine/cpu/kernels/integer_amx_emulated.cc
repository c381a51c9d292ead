// What integer_amx.cc is, with tiles in C++: slow, chosen by name only. It lets a machine without
// AMX test what one with it runs; both must agree with all other sets bit for bit.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define MR_ISA amxemulated
#define MR_NAME "amx-emulated"
#define MR_LANES 16
#define MR_FMA 512
#define MR_SUMS 16
#define MR_TILES

#include "simd.hpp"
#include "tiles.hpp"

namespace millrace {
namespace amxemulated {
using Tiles = EmulatedTiles;
}  // namespace amxemulated
}  // namespace millrace

#include "integer_registers.hpp"
#include "integer.hpp"

const millrace::Integers* millrace::amx_emulated_integers() { return &amxemulated::kIntegers; }
#else
const millrace::Integers* millrace::amx_emulated_integers() { return nullptr; }
#endif
