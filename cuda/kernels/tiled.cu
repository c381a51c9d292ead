// Products in tiles that keep the tensor cores and the memory busy.
//
// A block makes kRows rows of kColumns columns: a column is a row of a matrix; of two that meet
// in an activation it has half of each. Four stages of x and weights go through shared memory,
// three of them on their way while one is multiplied. Rows there are not padded: the pieces of
// 16 bytes of each are permuted (swizzle), so that eight rows of a piece lie in different banks.
// Codes become numbers in registers; their scales travel with the stage.
//
//   tiling   rows  columns  threads  in flight, of 16-bit weights
//   kDecode    16       64      128   24 KiB of weights, 12 of x
//   kFew       64       64      256   24 and 48
//   kMany     128      128      256   24 and 48
//
// Reading weights at 4.8 TB/s takes 25 KiB in flight on each of 132 multiprocessors, if memory
// answers in 700 ns; at 0.9 TB/s 4 KiB on each of 142. kMany does 2 x 128 x 128 x 32 operations of
// each of two planes for 24 KiB, 85 a byte: at 500 TFLOP/s it takes 5.9 TB/s from the L2 cache.
// Codes have half as many columns, since three sums of each number are in registers.
// RESOURCES.md says how many blocks a multiprocessor has room for.
//
// Where a product has fewer blocks than two for each multiprocessor, each chunk of its columns
// (chunk_columns) gets blocks of its own, and the last of them to arrive adds what all left.
#include "linear.cuh"

// Like MR_UNROLL, of so many copies.
#ifdef __CUDACC__
#define MR_PRAGMA(text) _Pragma(#text)
#define MR_UNROLL_BY(n) MR_PRAGMA(unroll (n))
#else
#define MR_UNROLL_BY(n)
#endif

namespace millrace {
namespace {

template <int kind_, int tiling>
struct Shape {
  static constexpr int kind = kind_;
  static constexpr bool kInteger = kind == MR_W8 || kind == MR_W4, kCoded = kInteger || kind == MR_F8;
  static constexpr int kPlanes = packed_planes(kind), kElement = packed_element(kind);
  static constexpr int kStageK = (tiling == kMany ? 1 : 2) * (kInteger ? 64 : 32), kStages = 4;
  // A warp of kMany has 32 rows of 64 columns: it reads as much of x, in two planes, as of weights.
  // Codes it decodes for 64 rows.
  static constexpr bool kWide = tiling == kMany && !kCoded;
  static constexpr int kTiles = tiling == kDecode ? 1 : tiling == kFew || kWide ? 2 : 4;  // of 16 rows, of a warp
  static constexpr int kUnits = kWide ? 8 : 2;                                           // of 8 columns, of a warp
  static constexpr int kWarpRows = tiling == kDecode ? 1 : kWide ? 4 : 2, kWarpColumns = kWide ? 2 : 4;
  static constexpr int kThreads = 32 * kWarpRows * kWarpColumns;
  static constexpr int kBlocks = tiling == kDecode ? 3 : 1;  // that registers must leave room for
  static constexpr int kRows = 16 * kTiles * kWarpRows, kColumns = 8 * kUnits * kWarpColumns;
  static_assert(kRows == kTilingRows[tiling]);
  static constexpr int kStepK = kInteger ? 32 : 16;  // of mma
  // Steps of which there is a copy each; adding a group to sums takes too many registers for that.
  static constexpr int kUnrolled = tiling == kDecode && kCoded ? 1 : kStageK / kStepK;
  // Pieces of 16 bytes of a row, and the columns of x in one.
  static constexpr int kXPieces = kStageK * kElement / 16, kXPieceK = 16 / kElement;
  static constexpr int kPieceK = kind == MR_W4 ? 32 : kCoded ? 16 : 8, kPieces = kStageK / kPieceK;
  using Number = std::conditional_t<kInteger, int32_t, float>;
  using Scale = std::conditional_t<kind == MR_F8, float, uint16_t>;
};

template <class S, bool coded>
struct Scales {
  static constexpr int kGroups = S::kStageK / 32;  // that a stage has at most
  alignas(16) typename S::Scale w[kGroups][S::kColumns];
  alignas(16) uint16_t minimums[kGroups][S::kColumns];
  float x[kGroups][S::kRows];
  int32_t sums[kGroups][S::kRows];
};
template <class S>
struct Scales<S, false> {};

template <class S>
struct Stage {
  alignas(128) char x[S::kPlanes][S::kRows][S::kXPieces][16];
  alignas(128) char w[S::kColumns][S::kPieces][16];
};
template <class S>
struct Stages {
  Stage<S> stage[S::kStages];
  Scales<S, S::kCoded> scales[S::kCoded ? S::kStages : 1];
};
template <class S>
union Memory {
  Stages<S> stages;
  float sums[S::kWarpRows * 16][S::kColumns + 2];
};

// Where a piece of a row is.
template <int pieces>
__device__ __forceinline__ int swizzle(int row, int piece) {
  return piece ^ (row / (8 / pieces) % pieces);
}

// Part is what a block multiplies, and how its columns lie in one matrix or two.
struct Part {
  Block b;
  int half;           // from this column on they are those of the second matrix
  int begin, end;     // columns of x
  int chunk;
  // What w0 or w1 has for a column; without an address, which would make copies of both.
  template <class T>
  __device__ T of(T first, T second, int column) const {
    return column < half ? first : second;
  }
  __device__ int row_of(int column) const { return b.column + (column < half ? column : column - half); }
  __device__ int group(const Weight& w, int k) const { return w.groups > 1 ? k / w.group : 0; }
};

// Copies is what a thread copies of each stage: pieces that are at one place of rows so far apart
// that their places in shared memory are, too. So an address is a pointer that moves by a constant.
template <class S>
struct Copies {
  static constexpr int kOfW = S::kColumns * S::kPieces, kOfX = S::kPlanes * S::kRows * S::kXPieces;
  static constexpr int kW = (kOfW + S::kThreads - 1) / S::kThreads, kX = kOfX / S::kThreads;
  static constexpr int kRowsAtOnce = S::kThreads / S::kXPieces, kPasses = S::kRows / kRowsAtOnce;  // over the rows of a plane
  static_assert(kOfX % S::kThreads == 0 && S::kRows % kRowsAtOnce == 0 && kRowsAtOnce % 8 == 0 && S::kThreads / S::kPieces % 8 == 0);
  const char *w[kW], *x[kX];
  bool has_row[kPasses];

  __device__ static int w_piece() { return threadIdx.x % S::kPieces; }
  __device__ static int x_piece() { return threadIdx.x % S::kXPieces; }

  __device__ __forceinline__ Copies(const Packed& packed, const Weight& w0, const Weight& w1, const Part& p) {
    MR_UNROLL
    for (int i = 0; i < kW; i++) {
      const int column = threadIdx.x / S::kPieces + i * (S::kThreads / S::kPieces);
      // What is beyond the matrix is not used: the last row will do.
      const int row = min(p.row_of(column), w0.padded_rows - 1);
      w[i] = p.of(w0.codes, w1.codes, column) + (size_t(p.b.matrix) * w0.padded_rows + row) * w0.row_bytes + p.begin / S::kPieceK * 16 +
             w_piece() * 16;
    }
    MR_UNROLL
    for (int i = 0; i < kX; i++) {
      const int row = threadIdx.x / S::kXPieces + i % kPasses * kRowsAtOnce;
      has_row[i % kPasses] = row < p.b.rows;
      const size_t at = (size_t(i / kPasses) * packed.heads + p.b.head) * packed.capacity + p.b.row + row;
      x[i] = packed.codes + (has_row[i % kPasses] ? (at * packed.padded_cols + p.begin) * S::kElement + x_piece() * 16 : 0);
    }
  }

  // Each copies the next stage, of a row of which so many columns are left.
  __device__ __forceinline__ void copy_weights(Stage<S>& to, int left) {
    char* first = to.w[threadIdx.x / S::kPieces][swizzle<S::kPieces>(threadIdx.x / S::kPieces, w_piece())];
    const bool valid = w_piece() * S::kPieceK < left;
    MR_UNROLL
    for (int i = 0; i < kW; i++) {
      if (kOfW >= S::kThreads || threadIdx.x < kOfW) copy16(first + i * S::kThreads * 16, w[i], valid);
      w[i] += S::kPieces * 16;
    }
  }
  __device__ __forceinline__ void copy_x(Stage<S>& to, int left) {
    char* first = to.x[0][threadIdx.x / S::kXPieces][swizzle<S::kXPieces>(threadIdx.x / S::kXPieces, x_piece())];
    const bool valid = x_piece() * S::kXPieceK < left;
    MR_UNROLL
    for (int i = 0; i < kX; i++) {
      copy16(first + i * S::kThreads * 16, x[i], valid && has_row[i % kPasses]);
      x[i] += S::kXPieces * 16;
    }
  }
};

// ScaleCopies is which scales a thread copies of each stage: at most one piece of 16 bytes of the
// weights', and one of x.
template <class S, bool coded>
struct ScaleCopies {
  static constexpr int kGroups = Scales<S, true>::kGroups, kEach = 16 / int(sizeof(typename S::Scale)), kPieces = S::kColumns / kEach;
  static_assert(kGroups * kPieces <= S::kThreads && kGroups * S::kRows <= S::kThreads);
  const typename S::Scale* w;
  const uint16_t* minimums;
  const float* x;
  const int32_t* sums;
  int group, groups, padded_rows;

  __device__ static int column() { return threadIdx.x % kPieces * kEach; }
  __device__ static int row() { return threadIdx.x % S::kRows; }

  __device__ __forceinline__ ScaleCopies(const Packed& packed, const Weight& w0, const Weight& w1, const Part& p)
      : w(static_cast<const typename S::Scale*>(p.of(w0.scales, w1.scales, column())) + w0.scale_at(p.b.matrix, 0, p.row_of(column()))),
        minimums(w0.minimums == nullptr ? nullptr
                                        : p.of(w0.minimums, w1.minimums, column()) + w0.scale_at(p.b.matrix, 0, p.row_of(column()))),
        x(nullptr),
        sums(nullptr),
        group(w0.group),
        groups(w0.groups),
        padded_rows(w0.padded_rows) {
    if (!S::kInteger || row() >= p.b.rows) return;
    const size_t at = (size_t(p.b.head) * packed.capacity + p.b.row + row()) * packed.groups;
    x = packed.scales + at;
    sums = packed.sums + at;
  }

  // How many groups of columns [k, k + kStageK) there are from `first` on, which k is in.
  __device__ __forceinline__ int count(int first, int k) const {
    int n = 1;
    MR_UNROLL
    for (int g = 1; g < kGroups; g++) n += first + g < groups && (first + g) * group < k + S::kStageK;
    return n;
  }
  __device__ __forceinline__ void copy_weights(Scales<S, true>& to, int first, int k) const {
    const int g = threadIdx.x / kPieces;
    if (g >= count(first, k)) return;
    const size_t at = size_t(first + g) * padded_rows;
    copy16(&to.w[g][column()], w + at);
    if (S::kInteger && minimums != nullptr) copy16(&to.minimums[g][column()], minimums + at);
  }
  __device__ __forceinline__ void copy_x(Scales<S, true>& to, int first, int k) const {
    const int g = threadIdx.x / S::kRows;
    if (!S::kInteger || x == nullptr || g >= count(first, k)) return;
    copy4(&to.x[g][row()], x + first + g);
    if (minimums != nullptr) copy4(&to.sums[g][row()], sums + first + g);
  }
};
template <class S>
struct ScaleCopies<S, false> {
  __device__ ScaleCopies(const Packed&, const Weight&, const Weight&, const Part&) {}
};

// Four codes of W4 as bytes. table has what each of 16 codes stands for.
__device__ __forceinline__ uint32_t look_up(const uint32_t (&table)[4], uint32_t nibbles) {
  const uint32_t of = nibbles & 0x7777, low = __byte_perm(table[0], table[1], of), high = __byte_perm(table[2], table[3], of);
  return __byte_perm(low, high, 0x3210 | (nibbles & 0x8888) >> 1);
}

// The fragments of a warp's columns, of step ks of the stage.
template <class S>
__device__ __forceinline__ void load_weights(uint32_t (&out)[S::kUnits][2], const Stage<S>& s, int first, int ks,
                                             const uint32_t (&table)[4]) {
  const int lane = threadIdx.x % 32;
  if constexpr (S::kind == MR_W4 || S::kind == MR_F8) {
    MR_UNROLL
    for (int j = 0; j < S::kUnits; j++)
      MR_UNROLL
      for (int half = 0; half < 2; half++) {
        const int row = first + j * 8 + lane / 4;
        const uint32_t two = load<uint16_t>(&s.w[row][swizzle<S::kPieces>(row, ks)][half * 8 + lane % 4 * 2]);
        if constexpr (S::kind == MR_W4)
          out[j][half] = look_up(table, two);
        else  // exact in bf16
          out[j][half] = __byte_perm(__float_as_uint(from_e4m3(uint8_t(two))), __float_as_uint(from_e4m3(uint8_t(two >> 8))), 0x7632);
      }
  } else {
    MR_UNROLL
    for (int j = 0; j < S::kUnits; j += 2) {
      uint32_t all[4];
      const int row = first + j * 8 + lane / 16 * 8 + lane % 8;
      load_matrices4(all, s.w[row][swizzle<S::kPieces>(row, ks * 2 + lane / 8 % 2)]);
      out[j][0] = all[0];
      out[j][1] = all[1];
      out[j + 1][0] = all[2];
      out[j + 1][1] = all[3];
    }
  }
}

// Sums of a warp, in the layout of mma.
template <class S, class T>
struct Sums {
  T v[S::kTiles][S::kUnits][4] = {};
};

// The row and column of the block that number i of a unit and tile is of.
template <class S>
__device__ __forceinline__ int row_at(int t, int i) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  return (warp / S::kWarpColumns * S::kTiles + t) * 16 + lane / 4 + i / 2 * 8;
}
template <class S>
__device__ __forceinline__ int column_at(int j, int i) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  return (warp % S::kWarpColumns * S::kUnits + j) * 8 + lane % 4 * 2 + i % 2;
}

// Adds what a group of columns came to, as linear.cu does.
template <class S>
__device__ __forceinline__ void add_group(Sums<S, float>& sums, Sums<S, typename S::Number>& n, const Scales<S, true>& scales, int g,
                                          bool minimums) {
  MR_UNROLL
  for (int j = 0; j < S::kUnits; j++)
    MR_UNROLL
    for (int c = 0; c < 2; c++) {
      const int column = column_at<S>(j, c);
      float scale, minimum = 0;
      if constexpr (S::kind == MR_F8) {
        scale = scales.w[g][column];
      } else {
        scale = from_f16(scales.w[g][column]);
        if (minimums) minimum = from_f16(scales.minimums[g][column]);
      }
      MR_UNROLL
      for (int t = 0; t < S::kTiles; t++)
        MR_UNROLL
        for (int half = 0; half < 2; half++) {
          auto& sum = n.v[t][j][half * 2 + c];
          float& to = sums.v[t][j][half * 2 + c];
          if constexpr (S::kind == MR_F8) {
            to = fmaf(scale, sum, to);
          } else {
            const int row = row_at<S>(t, half * 2);
            const float d = scales.x[g][row];
            float v = d * scale * float(sum);
            if (minimums) v += d * minimum * float(scales.sums[g][row]);
            to += v;
          }
          sum = 0;
        }
    }
}

// Split says which blocks share a sum: splits for each, or 1.
struct Split {
  int splits;
  float* partial;
  int32_t* arrived;
};

template <class S>
__device__ __forceinline__ void multiply(Sums<S, float>& sums, Stages<S>& shared, const Packed& x, const Weight& w0, const Weight& w1,
                                         const Part& p) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_row = warp / S::kWarpColumns * S::kTiles * 16, first_column = warp % S::kWarpColumns * S::kUnits * 8;
  const int steps = (p.end - p.begin + S::kStageK - 1) / S::kStageK;
  uint32_t table[4] = {};
  if constexpr (S::kind == MR_W4)
    MR_UNROLL
    for (int i = 0; i < 4; i++) table[i] = load<uint32_t>(&kCodes[w0.table][4 * i]);
  Copies<S> copies(x, w0, w1, p);
  const ScaleCopies<S, S::kCoded> scales(x, w0, w1, p);
  const auto copy_weights = [&](int s, int first) {
    const int k = p.begin + s * S::kStageK;
    copies.copy_weights(shared.stage[s % S::kStages], x.padded_cols - k);
    if constexpr (S::kCoded) scales.copy_weights(shared.scales[s % S::kStages], first, k);
  };
  const auto copy_x = [&](int s, int first) {
    const int k = p.begin + s * S::kStageK;
    copies.copy_x(shared.stage[s % S::kStages], x.padded_cols - k);
    if constexpr (S::kCoded) scales.copy_x(shared.scales[s % S::kStages], first, k);
  };
  const auto first_group = [&](int s) { return S::kCoded ? p.group(w0, p.begin + s * S::kStageK) : 0; };
  MR_UNROLL
  for (int s = 0; s < S::kStages - 1; s++)
    if (s < steps) copy_weights(s, first_group(s));
  wait_for_previous();
  MR_UNROLL
  for (int s = 0; s < S::kStages - 1; s++) {
    if (s < steps) copy_x(s, first_group(s));
    commit_copies();
  }
  Sums<S, typename S::Number> n;  // of a group; of 16-bit weights unused
  Sums<S, float> part;            // of a chunk
  int group = p.group(w0, p.begin);
  int group_end = w0.groups > 1 ? (group + 1) * w0.group : x.padded_cols, chunk_end = p.begin + p.chunk;
  MR_LOOP
  for (int step = 0; step < steps; step++) {
    wait_copies<S::kStages - 2>();
    __syncthreads();
    const int next = step + S::kStages - 1, k = p.begin + step * S::kStageK;
    if (next < steps) {
      const int first = first_group(next);
      copy_weights(next, first);
      copy_x(next, first);
    }
    commit_copies();
    const Stage<S>& s = shared.stage[step % S::kStages];
    const int here = first_group(step);
    MR_UNROLL_BY(S::kUnrolled)
    for (int ks = 0; ks < S::kStageK / S::kStepK; ks++) {
      const int end = k + (ks + 1) * S::kStepK;
      if (S::kCoded && end - S::kStepK >= x.cols) break;
      uint32_t fw[S::kUnits][2];
      load_weights<S>(fw, s, first_column, ks, table);
      MR_UNROLL
      for (int t = 0; t < S::kTiles; t++)
        MR_UNROLL
        for (int plane = 0; plane < S::kPlanes; plane++) {
          uint32_t fx[4];
          const int row = first_row + t * 16 + lane % 16;
          load_matrices4(fx, s.x[plane][row][swizzle<S::kXPieces>(row, ks * 2 + lane / 16)]);
          MR_UNROLL
          for (int j = 0; j < S::kUnits; j++) {
            if constexpr (S::kInteger)
              mma_s8(n.v[t][j], fx, fw[j]);
            else if constexpr (S::kind == MR_F8)
              mma_bf16(n.v[t][j], fx, fw[j]);
            else if constexpr (S::kind == MR_F16)
              mma_f16(part.v[t][j], fx, fw[j]);
            else
              mma_bf16(part.v[t][j], fx, fw[j]);
          }
        }
      if constexpr (S::kCoded)
        if (end >= group_end || end >= chunk_end || end >= x.cols) {
          add_group<S>(part, n, shared.scales[step % S::kStages], group - here,
                       w0.minimums != nullptr && (w0.groups > 1 || end >= x.cols));
          if (end >= group_end) {
            group++;
            group_end += w0.group;
          }
        }
    }
    if (k + S::kStageK >= chunk_end || step + 1 == steps) {
      chunk_end += p.chunk;
      MR_UNROLL
      for (int t = 0; t < S::kTiles; t++)
        MR_UNROLL
        for (int j = 0; j < S::kUnits; j++)
          MR_UNROLL
          for (int i = 0; i < 4; i++) {
            sums.v[t][j][i] += part.v[t][j][i];
            part.v[t][j][i] = 0;
          }
    }
  }
  wait_copies<0>();
}

template <int kind, int tiling>
__global__ void __launch_bounds__((Shape<kind, tiling>::kThreads), (Shape<kind, tiling>::kBlocks)) tiled_kernel(Rows rows, Values out, Packed x, Weight w0, Weight w1,
                                                                               bool gate, Epilogue e, Routing routing, Split split) {
  using S = Shape<kind, tiling>;
  MR_SHARED_DYNAMIC(Memory<S>, shared);
  Part p;
  p.half = gate ? S::kColumns / 2 : S::kColumns;
  Block& b = p.b;
  if (!find_block(b, rows, routing, int(blockIdx.z) / split.splits, S::kRows, p.half)) return;
  p.chunk = chunk_columns(w0);
  const int which = int(blockIdx.z) % split.splits;
  p.begin = split.splits > 1 ? which * p.chunk : 0;
  p.end = split.splits > 1 ? min(p.begin + p.chunk, x.padded_cols) : x.padded_cols;
  Sums<S, float> sums;
  multiply<S>(sums, shared.stages, x, w0, w1, p);

  const auto done = [&](int r, int c, float first, float second) {
    const int row = b.row + r, column = b.column + c;
    if (column >= w0.rows) return;
    if (kind == MR_F16) {
      const float scale = x.scales[size_t(b.head) * x.capacity + row];
      first *= scale;
      second *= scale;
    }
    finish(e, out, rows.adapter == nullptr ? 0 : rows.adapter[row], b.head, b.matrix, w0.rows, row, column, first, second, gate);
  };
  if (split.splits > 1) {
    constexpr int kEach = S::kRows * S::kColumns;
    const size_t place = (size_t(b.head) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    float* partial = split.partial + place * split.splits * kEach;
    MR_UNROLL
    for (int t = 0; t < S::kTiles; t++)
      MR_UNROLL
      for (int j = 0; j < S::kUnits; j++)
        MR_UNROLL
        for (int i = 0; i < 4; i += 2)
          if (const int row = row_at<S>(t, i); row < b.rows)
            *reinterpret_cast<float2*>(partial + size_t(which) * kEach + row * S::kColumns + column_at<S>(j, i)) =
                make_float2(sums.v[t][j][i], sums.v[t][j][i + 1]);
    if (!last_to_arrive(split.arrived + place, split.splits)) return;
    const auto all = [&](int at) {
      float sum = 0;
      for (int s = 0; s < split.splits; s++) sum += load_shared(partial + size_t(s) * kEach + at);
      return sum;
    };
    MR_LOOP
    for (int at = threadIdx.x; at < min(b.rows, S::kRows) * p.half; at += S::kThreads) {
      const int r = at / p.half, c = at % p.half, from = r * S::kColumns + c;
      if (b.column + c < w0.rows) done(r, c, all(from), gate ? all(from + p.half) : 0.f);
    }
    return;
  }
  MR_UNROLL
  for (int t = 0; t < S::kTiles; t++) {
    __syncthreads();  // what is there may still be read
    MR_UNROLL
    for (int j = 0; j < S::kUnits; j++)
      MR_UNROLL
      for (int i = 0; i < 4; i++) shared.sums[row_at<S>(0, i) / (S::kTiles * 16) * 16 + row_at<S>(0, i) % 16][column_at<S>(j, i)] = sums.v[t][j][i];
    __syncthreads();
    MR_LOOP
    for (int at = threadIdx.x; at < S::kWarpRows * 16 * p.half; at += S::kThreads) {
      const int of = at / p.half, c = at % p.half, r = (of / 16 * S::kTiles + t) * 16 + of % 16;
      if (r < b.rows) done(r, c, shared.sums[of][c], gate ? shared.sums[of][c + p.half] : 0.f);
    }
  }
}

// What report.py cannot see: threads, and bytes of shared memory.
template <int kind, int tiling>
constexpr bool takes(int threads, size_t bytes) {
  using S = Shape<kind, tiling>;
  return S::kThreads == threads && sizeof(Memory<S>) == bytes;
}
static_assert(takes<MR_F16, kDecode>(128, 49280));
static_assert(takes<MR_F16, kFew>(256, 98432));
static_assert(takes<MR_F16, kMany>(256, 98432));
static_assert(takes<MR_BF16, kDecode>(128, 49280));
static_assert(takes<MR_BF16, kFew>(256, 98432));
static_assert(takes<MR_BF16, kMany>(256, 98432));
static_assert(takes<MR_W8, kDecode>(128, 47104));
static_assert(takes<MR_W8, kFew>(256, 77824));
static_assert(takes<MR_W8, kMany>(256, 59392));
static_assert(takes<MR_W4, kDecode>(128, 30720));
static_assert(takes<MR_W4, kFew>(256, 61440));
static_assert(takes<MR_W4, kMany>(256, 51200));
static_assert(takes<MR_F8, kDecode>(128, 36864));
static_assert(takes<MR_F8, kFew>(256, 89088));
static_assert(takes<MR_F8, kMany>(256, 79360));

// Blocks of a product before sums are shared: in x, y and z.
template <class S>
dim3 grid_of(const Weight& w, bool gate, const Routing* routing, int heads, int n) {
  const int columns = gate ? S::kColumns / 2 : S::kColumns;
  return dim3(unsigned((w.padded_rows + columns - 1) / columns), unsigned(routing != nullptr ? routing->most : (n + S::kRows - 1) / S::kRows),
              unsigned(heads));
}

template <int kind, int tiling>
bool launch(cudaStream_t stream, const Rows& rows, const Values& out, const Packed& x, const Weight& w0, const Weight* w1,
            const Epilogue& e, const Routing* routing, const Tiled& tiled, int n) {
  using S = Shape<kind, tiling>;
  if ((tiled.on & tiled_bit(kind, tiling)) == 0) return false;
  dim3 grid = grid_of<S>(w0, w1 != nullptr, routing, x.heads, n);
  Split split{1, tiled.partial, tiled.arrived};
  const int chunk = chunk_columns(w0), chunks = (x.padded_cols + chunk - 1) / chunk;
  const size_t blocks = size_t(grid.x) * grid.y * grid.z;
  if (chunks > 1 && blocks < size_t(2) * size_t(tiled.multiprocessors) && blocks <= size_t(kMostArrivals) &&
      blocks * size_t(chunks) * S::kRows * S::kColumns <= tiled.floats) {
    split.splits = chunks;
    grid.z *= unsigned(chunks);
  }
  MR_LAUNCH_EARLY((tiled_kernel<kind, tiling>), grid, S::kThreads, sizeof(Memory<S>), stream, tiled.early, rows, out, x, w0,
                  w1 == nullptr ? Weight{} : *w1, w1 != nullptr, e, routing == nullptr ? Routing{} : *routing, split);
  return true;
}

template <int kind>
bool launch_kind(cudaStream_t stream, const Rows& rows, const Values& out, const Packed& x, const Weight& w0, const Weight* w1,
                 const Epilogue& e, const Routing* routing, const Tiled& tiled, int n) {
  // Groups that end within a step of mma, and pairs of matrices whose codes stand for different
  // numbers, are left to linear.cu.
  if (Shape<kind, kDecode>::kCoded && w0.groups > 1 && w0.group % 32 != 0) return false;
  if (w1 != nullptr && (w1->table != w0.table || (w1->minimums == nullptr) != (w0.minimums == nullptr))) return false;
  switch (tiling_of(routing != nullptr ? routing->rows : n)) {
    case kDecode:
      return launch<kind, kDecode>(stream, rows, out, x, w0, w1, e, routing, tiled, n);
    case kFew:
      return launch<kind, kFew>(stream, rows, out, x, w0, w1, e, routing, tiled, n);
    default:
      return launch<kind, kMany>(stream, rows, out, x, w0, w1, e, routing, tiled, n);
  }
}

}  // namespace

// A block has no more than 128 rows and columns.
size_t tiled_floats(const Weight& w, bool gate, int heads, int n, const Tiled& tiled) {
  const size_t columns = size_t(w.padded_rows) * (gate ? 2 : 1), blocks = (columns + 127) / 128 * size_t(heads);
  const int chunk = chunk_columns(w), chunks = (w.cols + chunk - 1) / chunk;
  if (w.kind == MR_F32 || chunks == 1 || blocks >= size_t(2) * size_t(tiled.multiprocessors)) return 0;
  return blocks * 128 * size_t(chunks) * size_t((n + 127) / 128 * 128);
}

bool linear_tiled(cudaStream_t stream, const Rows& rows, const Values& out, const Packed& x, const Weight& w0, const Weight* w1,
                  const Epilogue& e, const Routing* routing, const Tiled& tiled, int n) {
  return with_kind(w0.kind, [&](auto kind) { return launch_kind<kind()>(stream, rows, out, x, w0, w1, e, routing, tiled, n); });
}

}  // namespace millrace
