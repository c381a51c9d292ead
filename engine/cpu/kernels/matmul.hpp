// The register tile: M rows of x times P panels, in MR_ISA's registers. Linear
// layers, attention scores and attention values all run on it.

namespace millrace {
namespace MR_ISA {

// How a panel's elements become floats: the even and the odd column of a pair.
struct PanelF32 {
  static constexpr Element kElement = kF32;
  MR_INLINE Vec even(const char* w) { return load(reinterpret_cast<const float*>(w)); }
  MR_INLINE Vec odd(const char* w) { return load(reinterpret_cast<const float*>(w) + kPanel); }
};

struct PanelBF16 {
  static constexpr Element kElement = kBF16;
  MR_INLINE Vec even(const char* w) {
    Vec v;
    MR_EACH v.r[i] = (Reg)(reg_bits(w + i * 4 * MR_LANES) << 16);
    return v;
  }
  MR_INLINE Vec odd(const char* w) {
    Vec v;
    MR_EACH v.r[i] = (Reg)(reg_bits(w + i * 4 * MR_LANES) & 0xffff0000u);
    return v;
  }
};

#ifdef MR_F16
MR_INLINE Vec load_f16(const char* p) {
  Vec v;
  MR_EACH {
    Halves h;
    __builtin_memcpy(&h, p + i * sizeof h, sizeof h);
    v.r[i] = widen_f16(h);
  }
  return v;
}

struct PanelF16 {
  static constexpr Element kElement = kF16;
  MR_INLINE Vec even(const char* w) { return load_f16(w); }
  MR_INLINE Vec odd(const char* w) { return load_f16(w + 2 * kPanel); }
};
#endif

// The bits of an e4m3 are those of an f16 of 2^-8 its size. Its NaN becomes 480 and is that
// of the scale, as Tensor sees to. (A float would do, but subnormal ones are slow.)
struct PanelF8 {
  static constexpr Element kElement = kF8;
  static constexpr float kScale = 256;
  MR_INLINE Vec widen(const char* w) {
    typedef int8_t Bytes __attribute__((vector_size(MR_LANES)));
    Vec v;
    MR_EACH {
      Bytes codes;
      __builtin_memcpy(&codes, w + i * MR_LANES, sizeof codes);
#ifdef MR_F16
      v.r[i] = widen_f16(__builtin_convertvector(codes, Halves) << 7 & 0xbf80);
#else
      const Ints code = __builtin_convertvector(codes, Ints) & 0x7f;
      const Reg small = __builtin_convertvector(code, Reg) * 0x1p-17f;
      const Bits large = (Bits)(code << 20) + (112u << 23);
      const Bits sign = (Bits)__builtin_convertvector(codes, Ints) & 0x80000000u;
      v.r[i] = (Reg)((code < 8 ? (Bits)small : large) | sign);
#endif
    }
    return v;
  }
  MR_INLINE Vec even(const char* w) { return widen(w); }
  MR_INLINE Vec odd(const char* w) { return widen(w + kPanel); }
};

// How many panels a tile of m rows takes: as many as the accumulators allow,
// since few rows alone cannot hide the latency of their additions.
constexpr int tile_panels(int m) {
  const int fit = MR_ACCUMULATORS / (m * kRegs);
  return fit < 1 ? 1 : fit > 4 ? 4 : fit;
}

template <class Panel>
constexpr size_t pair_bytes = 2 * kPanel * element_bytes(Panel::kElement);

template <class Panel, int M, int P>
struct Tile {
  Vec sum[M][P];

  // The functions are static and are given their tile, since a Tile reached
  // through `this` would have to be in memory and not in registers.

  MR_INLINE void zero(Tile& t) {
    _Pragma("GCC unroll 16") for (int m = 0; m < M; m++)
      _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) t.sum[m][p] = splat(0);
  }
  MR_INLINE void resume(Tile& t, const float* out, size_t stride) {
    _Pragma("GCC unroll 16") for (int m = 0; m < M; m++)
      _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) t.sum[m][p] = load(out + m * stride + p * kPanel);
  }
  MR_INLINE void save(const Tile& t, float* out, size_t stride) {
    _Pragma("GCC unroll 16") for (int m = 0; m < M; m++)
      _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) store(out + m * stride + p * kPanel, t.sum[m][p]);
  }
  // Adds a column of x, the rows of which are `stride` apart from x[0], x[1], …
  // in threes, times the even or odd column of P panels.
  template <bool kOdd>
  MR_INLINE void add_column(Tile& t, const float* const* x, size_t stride, const char* const* w) {
    // Where a Vec takes several registers there are none to keep all columns,
    // or the pair until its odd half is due: they are read again instead.
    constexpr int kAtOnce = kRegs == 1 ? P : 1;
    _Pragma("GCC unroll 4") for (int p0 = 0; p0 < P; p0 += kAtOnce) {
      Vec column[kAtOnce];
      _Pragma("GCC unroll 4") for (int p = 0; p < kAtOnce; p++)
        column[p] = kOdd ? Panel::odd(w[p0 + p]) : Panel::even(w[p0 + p]);
      _Pragma("GCC unroll 16") for (int m = 0; m < M; m++) {
        const Reg xm = reg_splat(x[m / 3][m % 3 * stride + kOdd]);
        _Pragma("GCC unroll 4") for (int p = 0; p < kAtOnce; p++)
          MR_EACH reg_accumulate(t.sum[m][p0 + p].r[i], xm, column[p].r[i]);
      }
      asm volatile("" ::: "memory");
    }
  }
  // Adds k columns of x and of the P panels. While at it, asks for `ahead` bytes
  // a pair of columns from each panel + next on: what the next tiles read is on
  // its way while this one computes.
  MR_INLINE void run(Tile& t, const float* x, size_t stride, const char* const* panels, int k, size_t next = 0,
                     size_t ahead = 0) {
    // A pointer serves three rows, by an index of 0, 1 or 2 strides: one for each
    // row would not fit the general registers. GCC would go back to one for each
    // if it saw how they are related, which the empty asm below hides.
    constexpr int kRuns = (M + 2) / 3;
    const float* rows[kRuns];
    const char* w[P];
    _Pragma("GCC unroll 4") for (int r = 0; r < kRuns; r++) rows[r] = x + r * 3 * stride;
    _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) w[p] = panels[p];
    int i = 0;
    for (; i + 2 <= k; i += 2) {
      _Pragma("GCC unroll 4") for (int r = 0; r < kRuns; r++) asm("" : "+r"(rows[r]));
      if (ahead != 0)
        _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) __builtin_prefetch(w[p] + next, 0, 2);
      add_column<false>(t, rows, stride, w);
      add_column<true>(t, rows, stride, w);
      _Pragma("GCC unroll 4") for (int r = 0; r < kRuns; r++) rows[r] += 2;
      _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) w[p] += pair_bytes<Panel>;
      next += ahead - pair_bytes<Panel>;
    }
    if (i < k) add_column<false>(t, rows, stride, w);
  }
};

// A part of a matmul: columns [k0, k0+k), which of how many row tiles, and how
// many panels the tiles take turns on.
struct Part {
  int k0, k, tile, tiles, group;
};

// M rows against the panels [p, end).
template <class Panel, int M, int P>
MR_INLINE void tile_row(const MatmulArgs& a, const float* x, float* out, int& p, int end, const Part& part) {
  const size_t skip = panel_bytes(Panel::kElement, part.k0);
  // Few rows wait for memory, so they fetch ahead. A lone tile fetches a little
  // of each of its panels, the fewer the further, so that as much is being fetched.
  // Several tiles, or the tile of a single panel, fetch all of the panels that
  // follow, each tile its share, which then overlaps with computing. Many rows
  // compute long enough on each panel.
  constexpr size_t kNear = 4096 / P;
  const size_t ahead = part.k == a.k ? pair_bytes<Panel> / part.tiles : 0;
  const bool alone = part.tiles == 1;
  const size_t next = alone && P > 1 ? kNear
                                     : (alone ? 1 : part.group) * a.panel_bytes + ahead * (part.k / 2) * part.tile;
  for (; p + P <= end; p += P) {
    const char* w[P];
    for (int j = 0; j < P; j++) w[j] = a.w + size_t(p + j) * a.panel_bytes + skip;
    Tile<Panel, M, P> t;
    if (part.k0 == 0)
      t.zero(t);
    else
      t.resume(t, out + p * kPanel, a.out_stride);
    t.run(t, x + part.k0, a.x_stride, w, part.k, next, ahead);
    t.save(t, out + p * kPanel, a.out_stride);
  }
}

template <class Panel, int M>
static void matmul_rows(const MatmulArgs& a, int row, int p, int end, const Part& part) {
  const float* x = a.x + row * a.x_stride;
  float* out = a.out + row * a.out_stride;
  // Panels come in fours, which 2 and 2 share better than 3 and 1.
  if constexpr (tile_panels(M) > 3) tile_row<Panel, M, 4>(a, x, out, p, end, part);
  if constexpr (tile_panels(M) > 1) tile_row<Panel, M, 2>(a, x, out, p, end, part);
  tile_row<Panel, M, 1>(a, x, out, p, end, part);
}

// matmul_rows for a row count known at run time, 1 … MR_ROWS.
template <class Panel>
using RowsFn = void (*)(const MatmulArgs&, int, int, int, const Part&);

template <class Panel, int... M>
constexpr RowsFn<Panel> matmul_rows_fn(int m, std::integer_sequence<int, M...>) {
  constexpr RowsFn<Panel> fns[] = {matmul_rows<Panel, M + 1>...};
  return fns[m - 1];
}

// Rows are cut into even tiles, columns into blocks whose panels stay in the
// first-level cache while all tiles pass. A block continues the sums of the one
// before, so where it ends changes nothing.
template <class Panel>
static void matmul(const MatmulArgs& a) {
  constexpr int kColumns = 512, kFewTiles = 8;
  const int tiles = (a.rows + MR_ROWS - 1) / MR_ROWS;
  const bool few = tiles <= kFewTiles;
  // Several tiles of few rows take turns on a tile's panels, read from memory once.
  const int block = few ? a.k : kColumns, group = few && tiles > 1 ? tile_panels(MR_ROWS) : 4;
  for (int k0 = 0; k0 < a.k; k0 += block)
    for (int p = 0; p < a.panels; p += group) {
      const int end = p + group < a.panels ? p + group : a.panels;
      for (int t = 0; t < tiles; t++) {
        const int row = int64_t(a.rows) * t / tiles, next = int64_t(a.rows) * (t + 1) / tiles;
        const Part part = {k0, a.k - k0 < block ? a.k - k0 : block, t, tiles, group};
        matmul_rows_fn<Panel>(next - row, std::make_integer_sequence<int, MR_ROWS>())(a, row, p, end, part);
      }
    }
}

// M rows against panels [p, end) of e4m3, group by group: each is summed alone, then
// scaled and added.
template <int M, int P>
MR_INLINE void tile_row_f8(const MatmulArgs& a, const float* x, float* out, int& p, int end, size_t ahead) {
  const Codes codes = {kF8, {a.k, a.group}, false, nullptr};
  const Groups& groups = codes.groups;
  for (; p + P <= end; p += P) {
    float* to = out + p * kPanel;
    for (int g = 0; g < groups.count(); g++) {
      const int first = g * groups.each(), left = a.k - first;
      const char* w[P];
      for (int j = 0; j < P; j++) w[j] = a.w + size_t(p + j) * a.panel_bytes + size_t(first) * kPanel;
      Tile<PanelF8, M, P> t;
      t.zero(t);
      t.run(t, x + first, a.x_stride, w, left < groups.each() ? left : groups.each(), ahead, pair_bytes<PanelF8>);
      for (int j = 0; j < P; j++) {
        const char* scales = a.w + size_t(p + j) * a.panel_bytes + codes.code_bytes();
        const Vec scale = load(reinterpret_cast<const float*>(scales) + g * kPanel) * splat(PanelF8::kScale);
        for (int m = 0; m < M; m++) {
          float* at = to + m * a.out_stride + j * kPanel;
          store(at, g == 0 ? t.sum[m][j] * scale : fma(t.sum[m][j], scale, load(at)));
        }
      }
    }
  }
}

template <int M>
static void matmul_rows_f8(const MatmulArgs& a, int row, int p, int end, size_t ahead) {
  const float* x = a.x + row * a.x_stride;
  float* out = a.out + row * a.out_stride;
  if constexpr (tile_panels(M) > 3) tile_row_f8<M, 4>(a, x, out, p, end, ahead);
  if constexpr (tile_panels(M) > 1) tile_row_f8<M, 2>(a, x, out, p, end, ahead);
  tile_row_f8<M, 1>(a, x, out, p, end, ahead);
}

template <int... M>
constexpr auto matmul_rows_f8_fn(int m, std::integer_sequence<int, M...>) {
  constexpr void (*fns[])(const MatmulArgs&, int, int, int, size_t) = {matmul_rows_f8<M + 1>...};
  return fns[m - 1];
}

static void matmul_f8(const MatmulArgs& a) {
  // What widens codes takes registers, too: the highest tiles would have none left.
  constexpr int kAtOnce = 4, kNear = 1024, kRows = MR_ROWS < 8 ? MR_ROWS : 8;
  const int tiles = (a.rows + kRows - 1) / kRows;
  for (int p = 0; p < a.panels; p += kAtOnce) {
    const int end = p + kAtOnce < a.panels ? p + kAtOnce : a.panels;
    for (int t = 0; t < tiles; t++) {
      const int row = int64_t(a.rows) * t / tiles, next = int64_t(a.rows) * (t + 1) / tiles;
      matmul_rows_f8_fn(next - row, std::make_integer_sequence<int, kRows>())(a, row, p, end, kNear);
    }
  }
}

}  // namespace MR_ISA
}  // namespace millrace
