// AMX: Intel's servers since Sapphire Rapids. Few rows take AVX-512 VNNI, which they have as well.
#include "prelude.h"

#if defined(__x86_64__)
#pragma GCC target("amx-tile,amx-int8,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define MR_ISA amx
#define MR_NAME "amx"
#define MR_LANES 16
#define MR_FMA 512
#define MR_SUMS 16
#define MR_TILES

#include "simd.hpp"
#include "tiles.hpp"

namespace millrace {
namespace amx {
using Tiles = ProcessorTiles;
}  // namespace amx
}  // namespace millrace

#include "integer_registers.hpp"
#include "integer.hpp"

const millrace::Integers* millrace::amx_integers() { return &amx::kIntegers; }
#else
const millrace::Integers* millrace::amx_integers() { return nullptr; }
#endif
