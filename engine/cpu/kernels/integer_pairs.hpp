// Products of bytes without dot products of bytes, for integer.hpp: many rows with the codes of
// a panel spread to 16 bits once for all of them. Of two columns,
//
//   x0 w0 + x1 w1 = (x0 + w1)(x1 + w0) - x0 x1 - w0 w1  (Winograd, 1968)
//
// What is taken away is summed once for each row of x, while it is rounded, and once for each
// row of w, while it is spread. That leaves one multiplication and three additions of pairs for
// what takes two of each otherwise: as many instructions, but processors add on more ports than
// they multiply on. int32 wraps around, so the sums are as exact as before.
namespace millrace {
namespace MR_ISA {

// Up to so many rows are multiplied with the codes as they stand. From a cache, spreading pays from
// some ten rows on; but memory is waited for while codes are spread, so that 16 rows of weights that
// no cache holds took a quarter longer.
constexpr int kDirectRows = 32;

// Four columns of a panel: the first and the third, and the second and the fourth.
struct Four {
  Bits even[kRegs], odd[kRegs];
};

// Adds (x0 + w1)(x1 + w0) + (x2 + w3)(x3 + w2) in each lane for each of M rows x and columns
// [from, to), of codes w0 and w2 in even, w1 and w3 in odd. Of the rows, whose wide codes are at x,
// each has x0 and x2 in a word, and x1 and x3 in one kNextColumns further on. The loop is written
// out, since sums, codes and what is between take all of AVX2's 16 registers: GCC would spill some
// of them.
#if MR_LANES == 8
constexpr int kMost = 4;  // rows of x that are multiplied at once, at most
#define MR_PAIRS(m, sum0, sum1)                  \
  ".if %c[rows] > " #m "\n\t"                    \
  "vpbroadcastd 4*" #m "(%[x]), %%ymm12\n\t"     \
  "vpbroadcastd 32+4*" #m "(%[x]), %%ymm13\n\t"  \
  "vpaddw %%ymm10, %%ymm12, %%ymm14\n\t"         \
  "vpaddw %%ymm8, %%ymm13, %%ymm15\n\t"          \
  "vpmaddwd %%ymm15, %%ymm14, %%ymm14\n\t"       \
  "vpaddd %%ymm14, " sum0 ", " sum0 "\n\t"       \
  "vpaddw %%ymm11, %%ymm12, %%ymm12\n\t"         \
  "vpaddw %%ymm9, %%ymm13, %%ymm13\n\t"          \
  "vpmaddwd %%ymm13, %%ymm12, %%ymm12\n\t"       \
  "vpaddd %%ymm12, " sum1 ", " sum1 "\n\t"       \
  ".endif\n\t"
template <int M>
MR_INLINE void add_pairs(Ints (&sum)[kMost][kRegs], const Four* from, const Four* to, const char* x) {
  asm volatile(
      ".p2align 5\n"
      "1:\n\t"
      "vmovdqa (%[w]), %%ymm8\n\t"
      "vmovdqa 32(%[w]), %%ymm9\n\t"
      "vmovdqa 64(%[w]), %%ymm10\n\t"
      "vmovdqa 96(%[w]), %%ymm11\n\t"  // clang-format off
      MR_PAIRS(0, "%0", "%1")
      MR_PAIRS(1, "%2", "%3")
      MR_PAIRS(2, "%4", "%5")
      MR_PAIRS(3, "%6", "%7")  // clang-format on
      "add $64, %[x]\n\t"
      "sub $-128, %[w]\n\t"
      "cmp %[end], %[w]\n\t"
      "jne 1b"
      : "+x"(sum[0][0]), "+x"(sum[0][1]), "+x"(sum[1][0]), "+x"(sum[1][1]), "+x"(sum[2][0]), "+x"(sum[2][1]),
        "+x"(sum[3][0]), "+x"(sum[3][1]), [w] "+r"(from), [x] "+r"(x)
      : [end] "r"(to), [rows] "i"(M)
      : "memory", "cc", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}
#else
constexpr int kMost = 8;
#define MR_PAIRS(m, sum)                        \
  ".if %c[rows] > " #m "\n\t"                   \
  "vpbroadcastd 4*" #m "(%[x]), %%zmm18\n\t"    \
  "vpbroadcastd 32+4*" #m "(%[x]), %%zmm19\n\t" \
  "vpaddw %%zmm17, %%zmm18, %%zmm18\n\t"        \
  "vpaddw %%zmm16, %%zmm19, %%zmm19\n\t"        \
  "vpmaddwd %%zmm19, %%zmm18, %%zmm18\n\t"      \
  "vpaddd %%zmm18, " sum ", " sum "\n\t"        \
  ".endif\n\t"
template <int M>
MR_INLINE void add_pairs(Ints (&sum)[kMost][kRegs], const Four* from, const Four* to, const char* x) {
  asm volatile(
      ".p2align 5\n"
      "1:\n\t"
      "vmovdqa64 (%[w]), %%zmm16\n\t"
      "vmovdqa64 64(%[w]), %%zmm17\n\t"  // clang-format off
      MR_PAIRS(0, "%0")
      MR_PAIRS(1, "%1")
      MR_PAIRS(2, "%2")
      MR_PAIRS(3, "%3")
      MR_PAIRS(4, "%4")
      MR_PAIRS(5, "%5")
      MR_PAIRS(6, "%6")
      MR_PAIRS(7, "%7")  // clang-format on
      "add $64, %[x]\n\t"
      "sub $-128, %[w]\n\t"
      "cmp %[end], %[w]\n\t"
      "jne 1b"
      : "+v"(sum[0][0]), "+v"(sum[1][0]), "+v"(sum[2][0]), "+v"(sum[3][0]), "+v"(sum[4][0]), "+v"(sum[5][0]),
        "+v"(sum[6][0]), "+v"(sum[7][0]), [w] "+r"(from), [x] "+r"(x)
      : [end] "r"(to), [rows] "i"(M)
      : "memory", "cc", "xmm16", "xmm17", "xmm18", "xmm19");
}
#endif
#undef MR_PAIRS
static_assert(sizeof(Four) == 128 && kNextColumns == 32, "as the loops have it");

// A product of C's codes with one panel.
template <class C>
struct PairProduct {
  static constexpr int kSpan = 512;  // columns that are spread at once: they stay in the nearest cache
  static constexpr int kLineBytes = kLine * C::kLines / 2;  // of four columns

  const IntegerMatmulArgs& a;
  const C& codes;
  const int columns, each, count;  // of all groups, of one, groups
  const size_t code_bytes, scale_bytes;
  const size_t scales_at, codes_at, scales_of_tile;  // in a tile: its scales, its wide codes, and bytes of scales
  const char *panel = nullptr, *next = nullptr;  // next: the panel that follows, null for none
  alignas(64) Four spread[kSpan / 4];
  alignas(64) Ints products[kSpan / 8][kRegs];  // of neighbouring codes, of each group in spread
  alignas(64) Ints sums[kMostRows][kRegs];      // of a group that does not end in spread
  alignas(64) Reg totals[kMostRows][kRegs];

  PairProduct(const IntegerMatmulArgs& a, const C& codes) : PairProduct(a, codes, {a.codes.groups, kOrder}) {}
  PairProduct(const IntegerMatmulArgs& a, const C& codes, const RoundedTile& tile)
      : a(a),
        codes(codes),
        columns(tile.groups.padded()),
        each(tile.groups.each()),
        count(tile.groups.count()),
        code_bytes(a.codes.code_bytes()),
        scale_bytes(a.codes.scale_bytes()),
        scales_at(tile.scales()),
        codes_at(tile.wide_codes()),
        scales_of_tile(tile.each()) {}

  int group_end(int g) const { return g + 1 < count ? (g + 1) * each : columns; }

  // Where the columns end that are spread with those from column `from` of group g on.
  int span_end(int g, int from) const {
    if (group_end(g) > from + kSpan) return from + kSpan;
    while (g + 1 < count && group_end(g + 1) <= from + kSpan) g++;
    return group_end(g);
  }

  void run(int p) {
    const size_t bytes = a.codes.panel_bytes();
    panel = a.w + p * bytes;
    next = p + 1 < a.panels ? panel + bytes : a.then;
    if (next != nullptr)
      for (size_t i = code_bytes; i < bytes; i += 64) __builtin_prefetch(next + i, 0, 2);
    for (int row = 0; row < a.rows; row++)
      for (int r = 0; r < kRegs; r++) totals[row][r] = Reg{};
    for (int from = 0, g = 0, to; from < columns; from = to) {
      to = span_end(g, from);
      spread_columns(g, from, to);
      for (int row = 0; row < a.rows; row += kMost)
        multiply_rows(g, from, to, row, std::make_integer_sequence<int, kMost>());
      while (g < count && group_end(g) <= to) g++;
    }
    for (int row = 0; row < a.rows; row++)
      for (int r = 0; r < kRegs; r++)
        *reinterpret_cast<RegAt*>(a.out + row * a.out_stride + p * kPanel + r * MR_LANES) = totals[row][r];
  }

  // Spreads columns [from, to) of the panel, of group g and those that follow.
  void spread_columns(int g, int from, int to) {
    const char* w = panel + size_t(from) / 4 * kLineBytes;
    Four* four = spread;
    for (int i = 0; from < to; i++, g++) {
      const int end = std::min(to, group_end(g));
      Ints sum[kRegs] = {};
      for (; from < end; from += 8, w += 2 * kLineBytes)
        _Pragma("GCC unroll 2") for (int half = 0; half < 2; half++, four++)
          _Pragma("GCC unroll 2") for (int r = 0; r < kRegs; r++) {
            const char* at = w + r * 4 * MR_LANES;
            const Bits line = half == 0 ? C::first(codes, at) : C::second(codes, at);
            four->even[r] = line & 0x00ff00ffu;
            four->odd[r] = (Bits)((Pairs)line >> 8);
            sum[r] = dot(sum[r], four->even[r], (Ints)four->odd[r]);
          }
      for (int r = 0; r < kRegs; r++) products[i][r] = sum[r];
    }
  }

  // Multiplies up to kMost rows, from row `row` on, with the columns in spread, those from `from`
  // to `to`, of which the first is in group g.
  template <int... M>
  void multiply_rows(int g, int from, int to, int row, std::integer_sequence<int, M...>) {
    constexpr void (PairProduct::*fns[])(int, int, int, int) = {&PairProduct::multiply<M + 1>...};
    (this->*fns[std::min(kMost, a.rows - row) - 1])(g, from, to, row);
  }

  // Fetches lines of what is spread next, the share of the rows from row `row` on of n lines that
  // are `at` bytes after the start of the panel.
  void fetch(ptrdiff_t at, int n, int row) {
    const char* from = panel + at;
    if (at >= ptrdiff_t(code_bytes)) {
      if (next == nullptr) return;
      from = next + (at - code_bytes);
    }
    for (int i = n * row / a.rows; i < n * std::min(row + kMost, a.rows) / a.rows; i++)
      __builtin_prefetch(from + i * 64, 0, 2);
  }

  // The same of M rows.
  template <int M>
  void multiply(int g, int from, int to, int row) {
    // What stores to totals could change, as far as the compiler knows.
    const size_t scales_of_tile = this->scales_of_tile, scale_bytes = this->scale_bytes;
    const char* const tile = a.x + size_t(row / kTileRows) * a.tile_bytes + row % kTileRows * 4;
    const char *x = tile + codes_at + size_t(from) * 2 * kTileRows, *row_scales = tile + scales_at + size_t(g) * kTileRows * 4;
    const char* scales = panel + code_bytes + size_t(g) * kPanel * 2;
    const Ints(*product)[kRegs] = products;
    Reg(*const total)[kRegs] = totals + row;
    const Four* four = spread;
    bool resume = from > g * each;
    for (; from < to; g++, product++, row_scales += kTileRows * 4, scales += kPanel * 2, resume = false) {
      const int whole = group_end(g), end = std::min(to, whole);
      fetch(ptrdiff_t(from + kSpan) / 4 * kLineBytes, (end - from) / 4 * kLineBytes / 64, row);
      Ints sum[kMost][kRegs] = {};
      _Pragma("GCC unroll 8") for (int m = 0; m < M; m++)
        _Pragma("GCC unroll 2") for (int r = 0; r < kRegs; r++)
          sum[m][r] = (resume ? sums[row + m][r] : splat_int(word(row_scales + 3 * scales_of_tile + m * 4))) - product[0][r];
      const int fours = (end - from) / 4;
      add_pairs<M>(sum, four, four + fours, x);
      four += fours;
      x += fours * 2 * kNextColumns;
      if (end < whole) {
        _Pragma("GCC unroll 8") for (int m = 0; m < M; m++)
          _Pragma("GCC unroll 2") for (int r = 0; r < kRegs; r++) sums[row + m][r] = sum[m][r];
        return;
      }
      from = end;
      Reg scale[kRegs], least[kRegs];
      _Pragma("GCC unroll 2") for (int r = 0; r < kRegs; r++) {
        scale[r] = halves(scales + r * 2 * MR_LANES);
        if (C::kMinimum) least[r] = halves(scales + r * 2 * MR_LANES + scale_bytes);
      }
      _Pragma("GCC unroll 8") for (int m = 0; m < M; m++) {
        float x_scale, scaled_sum;
        __builtin_memcpy(&x_scale, row_scales + m * 4, 4);
        __builtin_memcpy(&scaled_sum, row_scales + 2 * scales_of_tile + m * 4, 4);
        _Pragma("GCC unroll 2") for (int r = 0; r < kRegs; r++) {
          total[m][r] += __builtin_convertvector(sum[m][r], Reg) * x_scale * scale[r];
          if (C::kMinimum) total[m][r] += least[r] * scaled_sum;
        }
      }
    }
  }
};

template <class C>
static void pair_panels(const IntegerMatmulArgs& a) {
  const C codes(a.codes);
  PairProduct<C> product(a, codes);
  for (int p = 0; p < a.panels; p++) product.run(p);
}

}  // namespace MR_ISA
}  // namespace millrace
