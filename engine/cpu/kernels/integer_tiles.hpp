// Products of integers on AMX's registers, for integer.hpp. A tile of rounded rows has their
// codes as such a register takes them, and so has a panel: 64 columns of 16 rows are one, and so
// are 16 lines of 64 bytes. What an instruction adds to their sums is exact, so a row has the same
// bits here as by dot products, which few rows take, and as on processors without AMX.
//
// Weights of 16 bits are not multiplied by tiles. TDPBF16PS rounds x to eight bits of precision,
// sums even and odd columns apart, 32 at a time, and takes subnormal numbers for zero. As long as
// a lone row took it as well, no row would depend on the others; but sets that have fused
// multiply-add would no longer agree to the bit.
//
// A file that includes this has defined Tiles, one of those of tiles.hpp. The registers are in use
// within a product only: its thread configures them once for thousands of cycles of work, and
// nothing of them is left when it waits or sleeps.
namespace millrace {
namespace MR_ISA {

static_assert(MR_LANES == kPanel && kOffset == 128, "a line of a panel is a row of unsigned bytes");
static_assert(kTileRows == kRegisterRows, "the rows of a tile are those of a register");

// Up to so many rows take dot products. At 1024 products a cycle an instruction on tiles takes 16
// cycles, for one row as for 16, and dot products, of which there are 128 a cycle, 8 for each row;
// but after each group tiles have more to do, and so few rows wait for memory in either way. It was
// not measured.
constexpr int kDotRows = 4;

constexpr int kAtOnce = 2;            // tiles that are multiplied with as many panels: each load serves two products
constexpr int kSpan = 512;            // columns whose codes of 4 bits are spread at once
constexpr size_t kFetchAhead = 2048;  // bytes, of a panel

// Which registers have the sums of a tile and a panel, the rows of a tile, the columns of a panel.
constexpr int sum_register(int t, int p) { return t * kAtOnce + p; }
constexpr int row_register(int t) { return kAtOnce * kAtOnce + t; }
constexpr int panel_register(int p) { return kAtOnce * (kAtOnce + 1) + p; }
static_assert(panel_register(kAtOnce) == kTileRegisters);

// How many columns one instruction multiplies. After a group the sums are scaled, so a group is a
// multiple of it, but for the last.
static int step_columns(const Groups& groups) {
  int step = kRegisterBytes;
  while (groups.count() > 1 && groups.each() % step != 0) step /= 2;
  return step;
}

static TileShapes shapes_of(int step) {
  TileShapes shapes;
  for (int i = 0; i < kAtOnce; i++) {
    for (int j = 0; j < kAtOnce; j++) shapes.set(sum_register(i, j), kTileRows, kPanel * 4);
    shapes.set(row_register(i), kTileRows, step);
    shapes.set(panel_register(i), step / 4, kPanel * 4);
  }
  return shapes;
}

// Calls f for each of T tiles and P panels.
template <int T, int P, class F>
MR_INLINE void each_sum(const F& f) {
  constexpr std::integral_constant<int, 0> zero;
  constexpr std::integral_constant<int, 1> one;
  f(zero, zero);
  if constexpr (P > 1) f(zero, one);
  if constexpr (T > 1) f(one, zero);
  if constexpr (T > 1 && P > 1) f(one, one);
}

// Adds the products of columns [first, first + columns) of T tiles with P panels, of which lines
// has those columns. If fetch, asks for what is further on in the panels.
template <int T, int P>
MR_INLINE void add_columns(const char* const (&tile)[T], int first, int columns, const char* const (&lines)[P], int step,
                           bool fetch) {
  for (int k = 0; k < columns; k += step) {
    const size_t at = code_at(first + k, 0), line = size_t(k) * kPanel;
    if (fetch)
      for (int p = 0; p < P; p++)
        for (int i = 0; i < step * kPanel; i += 64) __builtin_prefetch(lines[p] + line + kFetchAhead + i, 0, 2);
    each_sum<T, P>([&](auto t, auto p) MR_LAMBDA {
      if constexpr (p == 0) Tiles::load<row_register(t)>(tile[t] + at, kNextRow);
      if constexpr (t == 0) Tiles::load<panel_register(p)>(lines[p] + line, kPanel * 4);
      Tiles::dot<sum_register(t, p), row_register(t), panel_register(p)>();
    });
  }
}

// A product with P panels.
template <class C, int P>
struct TileProduct {
  static constexpr bool kSpread = C::kLines == 1;  // codes of 4 bits have to be spread into bytes
  typedef int32_t Sums[kTileRows][kPanel];

  const IntegerMatmulArgs& a;
  const C& codes;
  const Groups groups;
  const RoundedTile layout;
  const int step;
  const char* panels[P];
  float* out;
  int spread_from = 0;
  alignas(64) char spread[P][kPanel * (kSpread ? kSpan : kRegisterBytes)];  // columns of the panels from spread_from on
  alignas(64) Sums sums[kMostRows / kTileRows][P];

  TileProduct(const IntegerMatmulArgs& a, const C& codes, int step, int panel)
      : a(a), codes(codes), groups(a.codes.groups), layout{groups, kOrder}, step(step), out(a.out + panel * kPanel) {
    for (int p = 0; p < P; p++) panels[p] = a.w + (panel + p) * a.codes.panel_bytes();
  }

  void run() {
    const int columns = groups.padded(), rest = columns % step;
    // Bytes are multiplied where they stand, but for what is less than a step: a register would
    // take in what follows the panel.
    if (!kSpread && rest != 0) spread_columns(columns - rest, columns);
    for (int from = 0, to; from < columns; from = to) {
      to = span_end(from);
      if (kSpread) spread_columns(from, to);
      for (int row = 0; row < a.rows; row += kAtOnce * kTileRows)
        (a.rows - row > kTileRows ? run_rows<2> : run_rows<1>)(*this, row, from, to);
    }
  }

  int group_end(int g) const { return g * groups.each() + groups.columns(g); }

  // Where the columns that are multiplied with all rows before others end: groups, or a part of one.
  int span_end(int from) const {
    if (!kSpread) return groups.padded();
    int g = from / groups.each();
    if (group_end(g) > from + kSpan) return from + kSpan;
    while (g + 1 < groups.count() && group_end(g + 1) <= from + kSpan) g++;
    return group_end(g);
  }

  // Spreads columns [from, to) into bytes, with zeros up to a whole step.
  void spread_columns(int from, int to) {
    spread_from = from;
    for (int p = 0; p < P; p++) {
      char* line = spread[p];
      const char* w = panels[p] + size_t(from) * kPanel * C::kLines / 2;
      for (int k = from; k < to; k += 8, w += 64 * C::kLines, line += 128) {
        __builtin_prefetch(w + kFetchAhead, 0, 2);
        *reinterpret_cast<BitsAt*>(line) = C::first(codes, w);
        *reinterpret_cast<BitsAt*>(line + 64) = C::second(codes, w);
      }
      for (; (line - spread[p]) % (step * kPanel) != 0; line += 64) *reinterpret_cast<BitsAt*>(line) = Bits{};
    }
  }

  // Multiplies columns [from, to) of T tiles, from row `row` on.
  template <int T>
  static void run_rows(TileProduct& product, int row, int from, int to) {
    for (int g = from / product.groups.each(), end; from < to; from = end, g++) {
      end = std::min(to, product.group_end(g));
      product.template run_group<T>(g, row, from, end);
    }
  }

  // The same of one group.
  template <int T>
  void run_group(int g, int row, int from, int to) {
    const char *tile[T], *lines[P];
    for (int t = 0; t < T; t++) tile[t] = a.x + size_t(row / kTileRows + t) * a.tile_bytes;
    for (int p = 0; p < P; p++)
      lines[p] = kSpread ? spread[p] + size_t(from - spread_from) * kPanel : panels[p] + size_t(from) * kPanel;
    Sums(*const at)[P] = sums + row / kTileRows;
    const bool resume = from > g * groups.each();
    each_sum<T, P>([&](auto t, auto p) MR_LAMBDA {
      if (resume)
        Tiles::load<sum_register(t, p)>(at[t][p], sizeof at[t][p][0]);
      else
        Tiles::zero<sum_register(t, p)>();
    });
    const int rest = kSpread ? 0 : (to - from) % step;
    add_columns(tile, from, to - from - rest, lines, step, !kSpread && row == 0);
    if (rest != 0) {
      for (int p = 0; p < P; p++) lines[p] = spread[p];
      add_columns(tile, to - rest, rest, lines, step, false);
    }
    each_sum<T, P>([&](auto t, auto p) MR_LAMBDA { Tiles::store<sum_register(t, p)>(at[t][p], sizeof at[t][p][0]); });
    if (to < group_end(g)) return;
    for (int t = 0; t < T; t++)
      for (int p = 0; p < P; p++) add_group(g, row + t * kTileRows, p, tile[t], at[t][p]);
  }

  // Adds the scaled sums of a group to the result, in integer_tile's order.
  void add_group(int g, int row, int p, const char* tile, const Sums& sum) {
    const char* scales = panels[p] + a.codes.code_bytes() + size_t(g) * kPanel * 2;
    const Reg scale = halves(scales), least = C::kMinimum ? halves(scales + a.codes.scale_bytes()) : Reg{};
    const char* row_scales = tile + layout.scales() + size_t(g) * kTileRows * 4;
    const int rows = std::min(kTileRows, a.rows - row);
    for (int m = 0; m < rows; m++, row_scales += 4) {
      float x_scale, scaled_sum;
      __builtin_memcpy(&x_scale, row_scales, 4);
      __builtin_memcpy(&scaled_sum, row_scales + 2 * layout.each(), 4);
      RegAt& to = *reinterpret_cast<RegAt*>(out + (row + m) * a.out_stride + p * kPanel);
      const Ints products = (Ints)reg_bits(sum[m]) + C::start(splat_int(word(row_scales + layout.each())));
      Reg total = g == 0 ? Reg{} : Reg(to);
      total += __builtin_convertvector(products, Reg) * x_scale * scale;
      if (C::kMinimum) total += least * scaled_sum;
      to = total;
    }
  }
};

template <class C>
static void tile_panels(const IntegerMatmulArgs& a) {
  const C codes(a.codes);
  const int step = step_columns(a.codes.groups);
  Tiles::configure(shapes_of(step));
  int p = 0;
  for (; p + 2 <= a.panels; p += 2) TileProduct<C, 2>(a, codes, step, p).run();
  if (p < a.panels) TileProduct<C, 1>(a, codes, step, p).run();
  Tiles::release();
}

// What dot_loop does, on tiles.
static int64_t tile_loop(int64_t rounds) {
  Tiles::configure(shapes_of(kRegisterBytes));
  for (int64_t i = 0; i < rounds; i++)
    each_sum<kAtOnce, kAtOnce>(
        [](auto t, auto p) MR_LAMBDA { Tiles::dot<sum_register(t, p), row_register(t), panel_register(p)>(); });
  Tiles::release();
  return rounds * kAtOnce * kAtOnce * kTileRows * kPanel * kRegisterBytes * 2;
}

}  // namespace MR_ISA
}  // namespace millrace
