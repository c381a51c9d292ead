// Products of bf16: rows of x rounded to bf16, and tiles of M of them by P panels, with dot
// products of pairs. A file that includes this has defined, besides what simd.hpp wants (16
// lanes),
//
//   dot_pairs(sum, w, x)   adds the products of the two bf16 of w and of x in each lane to sum,
//                          as VDPBF16PS does: first that of the upper, then that of the lower,
//                          each rounded with the sum to the nearest float, ties to even.
//                          Subnormal numbers count as zeros, in what it takes and what it gives.

namespace millrace {
namespace MR_ISA {

static_assert(kRegs == 1);

// The 16 floats at p, rounded to the nearest bf16, ties to even. NaN stays NaN.
MR_INLINE Bits round_bf16(Reg x) {
  const Bits bits = (Bits)x, rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return x == x ? rounded : bits >> 16 | 0x40u;
}

// The pairs of a row stand tile_rows apart.
static void round_pairs(const float* x, int k, char* tile, int tile_rows, int row) {
  char* to = tile + row * sizeof(uint32_t);
  for (int i = 0; i < k; i += kPanel, to += size_t(kPanel / 2) * tile_rows * sizeof(uint32_t)) {
    const Vec v = k - i < kPanel ? load_some(x + i, k - i, 0) : load(x + i);
    const Bits rounded = round_bf16(v.r[0]);
    const int n = k - i < kPanel ? (k - i + 1) / 2 : kPanel / 2;
    for (int j = 0; j < n; j++) {
      const uint32_t pair = rounded[2 * j] | rounded[2 * j + 1] << 16;
      __builtin_memcpy(to + size_t(j) * tile_rows * sizeof pair, &pair, sizeof pair);
    }
  }
}

// M rows of a tile against P panels, `pairs` pairs of columns from `first` on.
template <int M, int P>
MR_INLINE void dot_tile(const DotArgs& a, const char* x, const char* w, float* out, int first, int pairs) {
  const size_t step = a.tile_rows * sizeof(uint32_t);
  Reg sum[M][P];
  _Pragma("GCC unroll 8") for (int m = 0; m < M; m++)
    _Pragma("GCC unroll 2") for (int p = 0; p < P; p++)
      sum[m][p] = first == 0 ? Reg{} : load(out + m * a.out_stride + p * kPanel).r[0];
  x += first * step;
  w += size_t(first) * 4 * kPanel;
  for (int i = 0; i < pairs; i++, x += step, w += 4 * kPanel) {
    Bits column[P];
    _Pragma("GCC unroll 2") for (int p = 0; p < P; p++) column[p] = reg_bits(w + p * a.panel_bytes);
    _Pragma("GCC unroll 8") for (int m = 0; m < M; m++) {
      uint32_t pair;
      __builtin_memcpy(&pair, x + m * sizeof pair, sizeof pair);
      const Bits xm = pair - Bits{};
      _Pragma("GCC unroll 2") for (int p = 0; p < P; p++) sum[m][p] = dot_pairs(sum[m][p], column[p], xm);
    }
  }
  _Pragma("GCC unroll 8") for (int m = 0; m < M; m++)
    _Pragma("GCC unroll 2") for (int p = 0; p < P; p++) store(out + m * a.out_stride + p * kPanel, {{sum[m][p]}});
}

constexpr int kDotRows = 8;  // of a tile of registers: with two panels all chains of sums hide their latency

template <int M>
static void dot_rows(const DotArgs& a, const char* x, float* out, int panel, int end, int first, int pairs) {
  for (; panel + 2 <= end; panel += 2)
    dot_tile<M, 2>(a, x, a.w + panel * a.panel_bytes, out + panel * kPanel, first, pairs);
  if (panel < end) dot_tile<M, 1>(a, x, a.w + panel * a.panel_bytes, out + panel * kPanel, first, pairs);
}

using DotRowsFn = void (*)(const DotArgs&, const char*, float*, int, int, int, int);

template <int... M>
constexpr DotRowsFn dot_rows_fn(int m, std::integer_sequence<int, M...>) {
  constexpr DotRowsFn fns[] = {dot_rows<M + 1>...};
  return fns[m - 1];
}

// Blocks of columns of two panels stay in the first-level cache while all rows pass. A block
// continues the sums of the one before, so where it ends changes nothing.
static void dot_matmul(const DotArgs& a) {
  constexpr int kPairs = 256, kAtOnce = 2;
  const int pairs = (a.k + 1) / 2;
  for (int first = 0; first < pairs; first += kPairs)
    for (int p = 0; p < a.panels; p += kAtOnce)
      for (int row = 0; row < a.rows; row += kDotRows) {
        const int rows = a.rows - row < kDotRows ? a.rows - row : kDotRows;
        const char* x = a.x + row / a.tile_rows * a.tile_bytes + row % a.tile_rows * sizeof(uint32_t);
        dot_rows_fn(rows, std::make_integer_sequence<int, kDotRows>())(
            a, x, a.out + row * a.out_stride, p, p + kAtOnce < a.panels ? p + kAtOnce : a.panels, first,
            pairs - first < kPairs ? pairs - first : kPairs);
      }
}

static const Dots kDots = {round_pairs, dot_matmul};

}  // namespace MR_ISA
}  // namespace millrace
