// Products of integers: rows of x rounded to 8 bits, and tiles of M of them by R registers
// of output columns. A file that includes this has defined, besides what simd.hpp wants,
//
//   kOffset                what is added to a signed code to make the bytes that dot takes
//   kWide                  whether dot takes 16 bits instead: such bytes with zeros above them
//   MR_WIDE                optional, with kWide: that many rows take integer_pairs.hpp
//   dot(sum, w, x)         sum + the products of the four bytes, or the two of 16 bits, of w and
//                          x in each lane
//   dot_small(sum, w, x)   the same for bytes of w from 0 to 15; with kPairs, which wants
//                          kWide, the sum is of 16 bits, of pairs, and holds 8 such products
//   MR_SIGN                optional: that there is dot_signed(sum, w, x, magnitude), dot of bytes
//                          that have signs and are not -128, and magnitudes(x), the bytes of x
//                          without theirs
//   lookup(table, w)       the byte of table, which is repeated every 16, for each of w
//   widen_f16(halves)      f16 as floats
//   MR_SUMS                registers for the sums of a tile
//   MR_MATRIX              optional, of four lanes: that there is dot_matrix(sum, w, x), the sum
//                          + the products of two rows of eight bytes x and two such columns w
//   MR_TILES               optional, of 16 lanes: that there is Tiles, see integer_tiles.hpp

namespace millrace {
namespace MR_ISA {

constexpr int kLine = 64;  // bytes: 16 rows of four codes, or of eight of kW4

#ifdef MR_TILES
constexpr TileOrder kOrder = kByRows;
#else
constexpr TileOrder kOrder = kWide ? kByColumnsWide : kByColumns;
#endif
constexpr int kTileRows = tile_rows(kOrder);
// Bytes from the codes of a row of x to those of the next, and to those of its next columns.
constexpr int kNextRow = kOrder == kByRows ? 64 : 4, kNextColumns = kOrder == kByRows ? 4 : kTileRows * 4;

typedef int8_t Narrow __attribute__((vector_size(MR_LANES)));
typedef Narrow NarrowAt __attribute__((aligned(1), may_alias));
typedef uint16_t Pairs __attribute__((vector_size(4 * MR_LANES)));

MR_INLINE Reg halves(const char* p) {
  Halves h;
  __builtin_memcpy(&h, p, sizeof h);
  return widen_f16(h);
}
MR_INLINE Ints splat_int(int32_t x) { return x - Ints{}; }
MR_INLINE int32_t word(const char* p) {
  int32_t w;
  __builtin_memcpy(&w, p, 4);
  return w;
}

// Folds 16 lanes into one.
template <class Op>
MR_INLINE int32_t fold(const Ints (&v)[kRegs], Op op) {
  typedef int32_t Four __attribute__((vector_size(16)));
  Four part[4];
  __builtin_memcpy(part, v, sizeof part);
  Four all = op(op(part[0], part[1]), op(part[2], part[3]));
  all = op(all, __builtin_shuffle(all, Four{2, 3, 0, 1}));
  return op(all, __builtin_shuffle(all, Four{1, 0, 3, 2}))[0];
}

MR_INLINE Ints swap_neighbours(Ints v) {
  Ints order;
  for (int i = 0; i < MR_LANES; i++) order[i] = i ^ 1;
  return __builtin_shuffle(v, order);
}

// Where the code of column k of a row stands in a tile, and those of the three that follow.
MR_INLINE size_t code_at(int k, int row) {
  if constexpr (kOrder == kByRows) return size_t(k / 64) * 64 * kTileRows + row * 64 + k % 64;
  return size_t(k) * kTileRows + row * 4;
}

// Writes n of 16 codes, of columns from `first` on, to a row of a tile, of a wide one twice.
MR_INLINE void store_codes(const int8_t (&code)[kPanel], int n, const RoundedTile& layout, char* tile, int first,
                           int row) {
  char* const codes = tile + code_at(first, row);
  if constexpr (kOrder == kByRows) {
    __builtin_memcpy(codes, code, sizeof code);  // zeros after the last
    return;
  }
  for (int k = 0; k < n; k += 4) __builtin_memcpy(codes + k / 4 * kNextColumns, code + k, 4);
  if constexpr (kWide) {
    char* const wide = tile + layout.wide_codes() + size_t(first) * 2 * kTileRows + row * 4;
    typedef int16_t Signed __attribute__((vector_size(MR_LANES)));
    for (int i = 0; i < n; i += MR_LANES) {  // as they were written: wider loads would wait for that
      Signed pairs;
      __builtin_memcpy(&pairs, code + i, sizeof pairs);
      const Signed first = pairs << 8 >> 8, second = pairs >> 8;
      for (int k = 0; k < MR_LANES && i + k < n; k += 4) {
        __builtin_memcpy(wide + 2 * (i + k) * kTileRows, reinterpret_cast<const char*>(&first) + k, 4);
        __builtin_memcpy(wide + (2 * (i + k) + 4) * kTileRows, reinterpret_cast<const char*>(&second) + k, 4);
      }
    }
  }
}

// Rounds n columns of x, one group, to codes of which `padded` are to be written to a row of a
// tile, from column `first` on. Returns the scale, in sum the sum of the codes, and in products,
// if kWide, that of the products of neighbouring ones.
MR_INLINE float round_group(const float* x, int n, int padded, const RoundedTile& layout, char* tile, int first, int row,
                            int32_t& sum, int32_t& products) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const auto part = [&](int i) MR_LAMBDA { return i + kPanel <= n ? load(x + i) : load_some(x + i, n - i, 0); };
  const auto greater = [](auto a, auto b) MR_LAMBDA { return a > b ? a : b; };
  Ints greatest[kRegs] = {};
  for (int i = 0; i < n; i += kPanel) {
    const Vec v = part(i);
    // Without their signs, floats are ordered as integers are, with NaN above all.
    MR_EACH greatest[i] = greater((Ints)v.r[i] & 0x7fffffff, greatest[i]);
  }
  const int32_t bits = fold(greatest, greater);
  float most, inverse = 0;
  __builtin_memcpy(&most, &bits, 4);
  float scale = most / 127.0f;
  if (!(most < INFINITY))
    scale = NAN;
  else if (most > 0)
    inverse = 127.0f / most;
  if (!(inverse < INFINITY)) inverse = 0;  // the group is as good as zero
  Ints sums[kRegs] = {}, twice[kRegs] = {};
  for (int i = 0; i < padded; i += kPanel) {
    alignas(64) int8_t code[kPanel] = {};
    if (inverse != 0 && i < n) {
      const Vec v = part(i);
      _Pragma("GCC unroll 4") for (int j = 0; j < kRegs; j++) {
        const Ints q = (Ints)(v.r[j] * inverse + kRound) - (Ints)reg_splat(kRound);
        sums[j] += q;
        if constexpr (kWide) twice[j] = dot(twice[j], (Bits)q & 0xffffu, swap_neighbours(q));
        *reinterpret_cast<NarrowAt*>(code + j * MR_LANES) = __builtin_convertvector(q, Narrow);
      }
    }
    store_codes(code, padded - i < kPanel ? padded - i : kPanel, layout, tile, first + i, row);
  }
  const auto add = [](auto a, auto b) MR_LAMBDA { return a + b; };
  sum = fold(sums, add);
  products = kWide ? fold(twice, add) / 2 : 0;
  return scale;
}

static void round_groups(const float* x, Groups groups, int from, int to, char* tile, int row) {
  const RoundedTile layout = {groups, kOrder};
  for (int g = from; g < to; g++) {
    const int first = g * groups.each(), left = groups.k - first;
    int32_t sum, products;
    const float scale = round_group(x + first, left < groups.each() ? left : groups.each(), groups.columns(g), layout,
                                    tile, first, row, sum, products);
    const int32_t offset = -128 * sum, pair_offset = offset - products;
    const float scaled = float(sum) * scale;
    const size_t at = (size_t(g) * kTileRows + row) * 4;
    __builtin_memcpy(tile + layout.scales() + at, &scale, 4);
    __builtin_memcpy(tile + layout.offsets() + at, &offset, 4);
    __builtin_memcpy(tile + layout.scaled_sums() + at, &scaled, 4);
    if constexpr (kWide) __builtin_memcpy(tile + layout.pair_offsets() + at, &pair_offset, 4);
  }
}

// How a line of 64 bytes, or a register of it, becomes two of bytes for dot: the first
// and the second four of eight columns. start is what takes back what was added to the codes'
// numbers, of a tile's offset.
template <bool minimum>
struct CodesW8 {
  static constexpr bool kMinimum = minimum;
  static constexpr bool kSmall = false, kSigned = false;
  static constexpr int kLines = 2;  // for eight columns
  explicit CodesW8(const Codes&) {}
  MR_INLINE Ints start(Ints offset) { return kOffset != 0 ? offset : Ints{}; }
  MR_INLINE Bits signed_or_not(Bits w) { return kOffset != 0 ? w : w ^ 0x80808080u; }
  MR_INLINE Bits first(const CodesW8&, const char* w) { return signed_or_not(reg_bits(w)); }
  MR_INLINE Bits second(const CodesW8&, const char* w) { return signed_or_not(reg_bits(w + 64)); }
};

template <bool minimum>
struct CodesW4 {
  static constexpr bool kMinimum = minimum;
  static constexpr bool kSmall = true, kSigned = false;
  static constexpr int kLines = 1;
  explicit CodesW4(const Codes&) {}
  MR_INLINE Ints start(Ints offset) { return minimum ? Ints{} : offset >> 4; }
  MR_INLINE Bits first(const CodesW4&, const char* w) { return reg_bits(w) & 0x0f0f0f0fu; }
  MR_INLINE Bits second(const CodesW4&, const char* w) { return reg_bits(w) >> 4 & 0x0f0f0f0fu; }
};

// The bytes are the numbers of the table plus offset. No table has -128.
template <int offset>
struct CodesTable {
  static constexpr bool kMinimum = false;
  static constexpr bool kSmall = false;
  static constexpr bool kSigned = offset == 0;
  static constexpr int kLines = 1;
  Bits table;
  explicit CodesTable(const Codes& c) {
    for (int i = 0; i < MR_LANES; i++) {
      const auto byte = [&](int j) { return uint32_t(uint8_t(c.table[i % 4 * 4 + j] + offset)) << 8 * j; };
      table[i] = byte(0) | byte(1) | byte(2) | byte(3);
    }
  }
  MR_INLINE Ints start(Ints sum) { return offset != 0 ? sum : Ints{}; }
  MR_INLINE Bits first(const CodesTable& c, const char* w) { return lookup(c.table, reg_bits(w) & 0x0f0f0f0fu); }
  MR_INLINE Bits second(const CodesTable& c, const char* w) { return lookup(c.table, reg_bits(w) >> 4 & 0x0f0f0f0fu); }
};

// What is fetched while a tile is multiplied: from each line `next` bytes on, and `step`
// bytes further for each of the lines that follow. From group `turn` on, near the end of the
// panels, it is `beyond` bytes on instead, in those that follow. Their scales, which no line
// leads to, are `scales` bytes on from those of the same group; 0: they are not fetched.
struct Fetch {
  ptrdiff_t next, step;
  int turn = -1;
  ptrdiff_t beyond = 0, scales = 0;
};

#ifdef MR_MATRIX
// Adds the products of eight columns to squares: of rows m and m + 1 and the four output columns
// of a register, to[m] has the first two columns and to[m + 1] the others.
template <int M, int R>
MR_INLINE void add_squares(Ints (&to)[M][R], const Bits (&line)[2][R], const char* x) {
  _Pragma("GCC unroll 4") for (int m = 0; m < M; m += 2) {
    Ints half[2] = {};
    for (int i = 0; i < 2; i++) __builtin_memcpy(&half[i], x + (i * kTileRows + m) * 4, 8);
    const Ints rows = __builtin_shuffle(half[0], half[1], Ints{0, 4, 1, 5});
    _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) {
      to[m][r] = dot_matrix(to[m][r], __builtin_shuffle(line[0][r], line[1][r], Ints{0, 4, 1, 5}), rows);
      to[m + 1][r] = dot_matrix(to[m + 1][r], __builtin_shuffle(line[0][r], line[1][r], Ints{2, 6, 3, 7}), rows);
    }
  }
}

// Makes squares of rows, and rows of squares.
template <int M, int R>
MR_INLINE void turn_squares(Ints (&sum)[M][R]) {
  _Pragma("GCC unroll 4") for (int m = 0; m < M; m += 2)
    _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) {
      const Ints left = sum[m][r], right = sum[m + 1][r];
      sum[m][r] = __builtin_shuffle(left, right, Ints{0, 1, 4, 5});
      sum[m + 1][r] = __builtin_shuffle(left, right, Ints{2, 3, 6, 7});
    }
}
#endif

// M rows of x times R registers of output columns, from register `first` on.
template <class C, int M, int R>
static void integer_tile(const IntegerMatmulArgs& a, const C& codes, const char* tile, float* out, int first,
                         Fetch fetch) {
  constexpr int kWidth = 4 * MR_LANES;
#ifdef MR_SIGN
  constexpr bool kSigned = C::kSigned;
#else
  constexpr bool kSigned = false;
#endif
  constexpr int kParts = kWide && !kSigned && !(C::kSmall && kPairs) ? 2 : 1;  // that the bytes of a line are multiplied in
#ifdef MR_MATRIX
  constexpr int kRows = M == 1 ? 1 : M + M % 2;  // a last row of no use completes squares
#else
  constexpr int kRows = M;
#endif
  const Groups groups = a.codes.groups;
  const RoundedTile layout = {groups, kOrder};
  const size_t panel_bytes = a.codes.panel_bytes(), code_bytes = a.codes.code_bytes();
  const char *w[R], *scales[R];
  _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) {
    const char* panel = a.w + size_t((first + r) / kRegs) * panel_bytes;
    w[r] = panel + (first + r) % kRegs * kWidth;
    scales[r] = panel + code_bytes + (first + r) % kRegs * kWidth / 2;
  }
  const char* x = kParts == 2 ? tile + layout.wide_codes() : tile;
  const char* row_scales = tile + layout.scales();
  const size_t to_offsets = layout.offsets() - layout.scales(), to_minimums = a.codes.scale_bytes();
  Reg total[M][R] = {};
  for (int g = 0; g < groups.count(); g++) {
    if (g == fetch.turn) fetch.next = fetch.beyond;
    if (fetch.scales != 0)
      _Pragma("GCC unroll 4") for (int r = 0; r < R; r += kRegs) __builtin_prefetch(scales[r] + fetch.scales, 0, 2);
    Ints sum[kRows][R];
    _Pragma("GCC unroll 8") for (int m = 0; m < kRows; m++)
      _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)
        sum[m][r] = C::start(splat_int(word(row_scales + to_offsets + m * 4)));
#ifdef MR_MATRIX
    if constexpr (M > 1) turn_squares(sum);
#endif
    // Adds the products of so many columns.
    const auto add = [&](Ints(&to)[kRows][R], int columns) MR_LAMBDA {
      for (; columns > 0; columns -= 8) {
        Bits lines[2][R];
        _Pragma("GCC unroll 2") for (int half = 0; half < 2; half++) {
          Bits* const line = lines[half];
          _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) {
            if ((half == 0 || C::kLines == 2) && (R < kRegs || r % kRegs == 0))
              __builtin_prefetch(w[r] + fetch.next + half * fetch.step, 0, 2);
            line[r] = half == 0 ? C::first(codes, w[r]) : C::second(codes, w[r]);
          }
#ifdef MR_MATRIX
          if constexpr (M > 1) continue;
#endif
          _Pragma("GCC unroll 2") for (int part = 0; part < kParts; part++) {
            Bits factor[R];
            _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)
              factor[r] = kParts == 1 ? line[r] : part == 0 ? line[r] & 0x00ff00ffu : (Bits)((Pairs)line[r] >> 8);
            _Pragma("GCC unroll 8") for (int m = 0; m < M; m++) {
              const Ints xm = splat_int(word(x + (half * kParts + part) * kNextColumns + m * kNextRow));
#ifdef MR_SIGN
              if constexpr (kSigned) {
                const Ints magnitude = magnitudes(xm);
                _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)
                  to[m][r] = dot_signed(to[m][r], factor[r], xm, magnitude);
                continue;
              }
#endif
              _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)
                to[m][r] = C::kSmall ? dot_small(to[m][r], factor[r], xm) : dot(to[m][r], factor[r], xm);
            }
          }
        }
#ifdef MR_MATRIX
        if constexpr (M > 1) add_squares(to, lines, x);
#endif
        x += 2 * kParts * kNextColumns;
        if constexpr (kOrder == kByRows)
          if (reinterpret_cast<uintptr_t>(x) % 64 == 0) x += (kTileRows - 1) * 64;
        _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) w[r] += C::kLines * kLine;
        fetch.next += C::kLines * (fetch.step - kLine);
      }
    };
    if constexpr (C::kSmall && kPairs) {
      constexpr int kAtOnce = 32;  // columns that 16 bits hold
      for (int left = groups.columns(g); left > 0; left -= kAtOnce) {
        Ints pairs[M][R] = {};
        add(pairs, left < kAtOnce ? left : kAtOnce);
        _Pragma("GCC unroll 8") for (int m = 0; m < M; m++)
          _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) sum[m][r] = dot(sum[m][r], (Bits)pairs[m][r], splat_int(0x00010001));
      }
    } else {
      add(sum, groups.columns(g));
    }
#ifdef MR_MATRIX
    if constexpr (M > 1) turn_squares(sum);
#endif
    Reg scale[R], least[R];
    _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) {
      scale[r] = halves(scales[r]);
      if (C::kMinimum) least[r] = halves(scales[r] + to_minimums);
      scales[r] += kPanel * 2;
    }
    _Pragma("GCC unroll 8") for (int m = 0; m < M; m++) {
      float x_scale, scaled_sum;
      __builtin_memcpy(&x_scale, row_scales + m * 4, 4);
      __builtin_memcpy(&scaled_sum, row_scales + 2 * to_offsets + m * 4, 4);
      _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) {
        total[m][r] += __builtin_convertvector(sum[m][r], Reg) * x_scale * scale[r];
        if (C::kMinimum) total[m][r] += least[r] * scaled_sum;
      }
    }
    row_scales += kTileRows * 4;
  }
  _Pragma("GCC unroll 8") for (int m = 0; m < M; m++)
    _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)
      *reinterpret_cast<RegAt*>(out + m * a.out_stride + (first + r) * MR_LANES) = total[m][r];
}

// What a lone tile fetches while it passes n panels at once, the first of them p: it uses
// weights once, at the speed of memory, so it is always as far ahead, in the panels that
// follow too.
static Fetch fetch_ahead(const IntegerMatmulArgs& a, int p, int n) {
  constexpr ptrdiff_t kAhead = 8192;
  const ptrdiff_t bytes = a.codes.panel_bytes(), group = a.codes.code_bytes() / a.codes.groups.count();
  const char *const here = a.w + p * bytes, *const next = p + n < a.panels ? here + n * bytes : a.then;
  Fetch f = {kAhead / n, kLine};
  if (a.codes.groups.count() > 1) f.turn = int(bytes > f.next ? (bytes - f.next) / group : 0);
  if (next != nullptr) {
    f.scales = next - here;
    f.beyond = f.scales - bytes + f.next;
  }
  return f;
}

// Panels of two registers are passed one by one, so that memory is read in order.
constexpr int tile_registers(int m) { return MR_SUMS / m >= 4 && kRegs != 2 ? 4 : MR_SUMS / m >= 2 ? 2 : 1; }

// M rows against registers [from, to), R at a time; returns where it ended.
template <class C, int M, int R>
static int integer_passes(const IntegerMatmulArgs& a, const C& codes, const char* tile, float* out, int from, int to,
                          Fetch fetch, bool lone) {
  for (; from + R <= to; from += R) {
    if (lone) fetch = from % kRegs == 0 ? fetch_ahead(a, from / kRegs, R > kRegs ? R / kRegs : 1) : Fetch{0, kLine};
    integer_tile<C, M, R>(a, codes, tile, out, from, fetch);
  }
  return from;
}

template <class C, int M>
static void integer_rows(const IntegerMatmulArgs& a, const C& codes, const char* tile, float* out, int from, int to,
                         Fetch fetch, bool lone) {
  if constexpr (kWide && M > MR_SUMS / 2) {
    // In 16 bits a tile of one register would load x for each product, so two have half the rows.
    constexpr int kHalf = MR_SUMS / 2;
    for (; from + 2 <= to; from += 2) {
      integer_passes<C, kHalf, 2>(a, codes, tile, out, from, from + 2, fetch, lone);
      integer_tile<C, M - kHalf, 2>(a, codes, tile + kHalf * 4, out + kHalf * a.out_stride, from, {0, kLine});
    }
  } else {
    constexpr int R = tile_registers(M);
    from = integer_passes<C, M, R>(a, codes, tile, out, from, to, fetch, lone);
    if constexpr (R > 2) from = integer_passes<C, M, 2>(a, codes, tile, out, from, to, fetch, lone);
    if constexpr (R > 1) integer_passes<C, M, 1>(a, codes, tile, out, from, to, fetch, lone);
  }
}

template <class C>
using IntegerRowsFn = void (*)(const IntegerMatmulArgs&, const C&, const char*, float*, int, int, Fetch, bool);

template <class C, int... M>
constexpr IntegerRowsFn<C> integer_rows_fn(int m, std::integer_sequence<int, M...>) {
  constexpr IntegerRowsFn<C> fns[] = {integer_rows<C, M + 1>...};
  return fns[m - 1];
}

#ifdef MR_TILES
}  // namespace MR_ISA
}  // namespace millrace
#include "integer_tiles.hpp"
namespace millrace {
namespace MR_ISA {
#else
constexpr int kDotRows = kTileRows;
#endif
#ifdef MR_WIDE
}  // namespace MR_ISA
}  // namespace millrace
#include "integer_pairs.hpp"
namespace millrace {
namespace MR_ISA {
#endif

// A few panels at a time pass all tiles while they are near. Several tiles fetch the panels
// that follow, each its share.
template <class C>
static void integer_panels(const IntegerMatmulArgs& a) {
#ifdef MR_TILES
  if (a.rows > kDotRows) return tile_panels<C>(a);
#endif
#ifdef MR_WIDE
  if constexpr (!C::kSmall && !C::kSigned)
    if (a.rows > kDirectRows) return pair_panels<C>(a);
#endif
  constexpr int kAtOnce = 4;
  const C codes(a.codes);
  const int tiles = (a.rows + kTileRows - 1) / kTileRows;
  const ptrdiff_t panel_bytes = a.codes.panel_bytes();
  for (int p = 0; p < a.panels; p += kAtOnce) {
    const int end = p + kAtOnce < a.panels ? p + kAtOnce : a.panels;
    const bool goes_elsewhere = end == a.panels && a.then != nullptr;
    const ptrdiff_t next = goes_elsewhere ? a.then - (a.w + p * panel_bytes) : kAtOnce * panel_bytes;
    for (int t = 0; t < tiles; t++) {
      const int row = t * kTileRows, rows = a.rows - row < kTileRows ? a.rows - row : kTileRows;
      integer_rows_fn<C>(rows, std::make_integer_sequence<int, kDotRows>())(
          a, codes, a.x + t * a.tile_bytes, a.out + row * a.out_stride, p * kRegs, end * kRegs,
          {next + panel_bytes / tiles * t, kLine / tiles}, tiles == 1);
    }
  }
}

static void table_panels(const IntegerMatmulArgs& a) {
#ifdef MR_SIGN
  if (a.rows == 1) return integer_panels<CodesTable<0>>(a);
#endif
  integer_panels<CodesTable<kOffset>>(a);
}

static void integer_matmul(const IntegerMatmulArgs& a) {
  if (a.codes.element == kW8)
    (a.codes.minimum ? integer_panels<CodesW8<true>> : integer_panels<CodesW8<false>>)(a);
  else if (a.codes.table != nullptr)
    table_panels(a);
  else
    (a.codes.minimum ? integer_panels<CodesW4<true>> : integer_panels<CodesW4<false>>)(a);
}

// The arithmetic peak: nothing but independent dot products. An operation is a
// multiplication or an addition.
#ifdef MR_TILES
static int64_t dot_loop(int64_t rounds) { return tile_loop(rounds); }
#else
static int64_t dot_loop(int64_t rounds) {
  constexpr int kChains = MR_SUMS < 12 ? MR_SUMS : 12;
  Ints sum[kChains], x = splat_int(0x01010101);
  const Bits w = (Bits)splat_int(0x02020202);
  for (int c = 0; c < kChains; c++) sum[c] = splat_int(c);
  for (int64_t i = 0; i < rounds; i++) {
    _Pragma("GCC unroll 12") for (int c = 0; c < kChains; c++) {
#if defined(__x86_64__)
      asm("" : "+v"(x));  // so that no part of dot serves several sums
#elif defined(__aarch64__)
      asm("" : "+w"(x));
#endif
      sum[c] = dot(sum[c], w, x);
    }
  }
  int32_t total = 0;
  for (int c = 0; c < kChains; c++) total += sum[c][0];
  asm volatile("" : : "m"(total));
  return rounds * kChains * MR_LANES * (kWide ? 4 : 8);
}
#endif

static const Integers kIntegers = {MR_NAME, kOrder, round_groups, integer_matmul, dot_loop};

}  // namespace MR_ISA
}  // namespace millrace
