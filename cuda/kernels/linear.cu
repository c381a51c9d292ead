// Products of packed rows and matrices, with what follows them: the kernels that are plainly
// right, which those of tiled.cu are compared with.
//
// A block makes 16 rows of 64 columns of the result, in tiles of 32 columns of x, three of
// which are on their way at once. Each of its four warps has 16 of the 64 columns.
#include <type_traits>

#include "linear.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128, kStages = 3;

// How the tiles of a kind of weights lie in shared memory: rows padded by 16 bytes, so that
// the 8 rows of a matrix of ldmatrix are in different banks.
template <int kind>
struct Shape {
  static constexpr int kPlanes = packed_planes(kind), kElement = packed_element(kind);
  static constexpr int kRow = kTileK * kElement, kRowStride = kRow + 16;  // of x
  static constexpr int kWeights = kind == MR_W4 ? kTileK / 2 : kind == MR_W8 || kind == MR_F8 ? kTileK : kTileK * kElement;
  static constexpr int kWeightStride = kWeights + 16;
  static constexpr bool kInteger = kind == MR_W8 || kind == MR_W4;
};

template <int kind>
struct Stage {
  alignas(16) char x[Shape<kind>::kPlanes][16][Shape<kind>::kRowStride];
  alignas(16) char w[kTileN][Shape<kind>::kWeightStride];
};

template <int kind>
__device__ __forceinline__ void copy_tile(Stage<kind>& to, const Packed& x, const Weight& w, const Block& b, int k) {
  using S = Shape<kind>;
  constexpr int kChunks = S::kRow / 16, kWeightChunks = S::kWeights / 16;
  for (int i = threadIdx.x; i < S::kPlanes * 16 * kChunks; i += kThreads) {
    const int chunk = i % kChunks, row = i / kChunks % 16, plane = i / (kChunks * 16);
    const size_t at = (size_t(plane) * x.heads + b.head) * x.capacity + b.row + row;
    copy16(&to.x[plane][row][chunk * 16], x.codes + (at * x.padded_cols + k) * S::kElement + chunk * 16);
  }
  for (int i = threadIdx.x; i < kTileN * kWeightChunks; i += kThreads) {
    const int chunk = i % kWeightChunks, row = i / kWeightChunks;
    copy16(&to.w[row][chunk * 16], w.row(b.matrix, b.column + row) + k / kTileK * S::kWeights + chunk * 16);
  }
}

// The fragments of two times 8 of the warp's columns, of step ks of the tile.
template <int kind>
__device__ __forceinline__ void load_weights(uint32_t (&out)[2][2], const Stage<kind>& s, int ks, int table) {
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16;
  if constexpr (kind == MR_W4) {
    MR_UNROLL
    for (int j = 0; j < 2; j++)
      MR_UNROLL
      for (int half = 0; half < 2; half++) {
        const uint32_t nibbles = load<uint16_t>(&s.w[first + j * 8 + lane / 4][half * 8 + lane % 4 * 2]);
        uint32_t codes = 0;
        MR_UNROLL
        for (int i = 0; i < 4; i++) codes |= uint32_t(uint8_t(kCodes[table][nibbles >> 4 * i & 15])) << 8 * i;
        out[j][half] = codes;
      }
  } else if constexpr (kind == MR_F8) {
    MR_UNROLL
    for (int j = 0; j < 2; j++)
      MR_UNROLL
      for (int half = 0; half < 2; half++) {
        const uint32_t two = load<uint16_t>(&s.w[first + j * 8 + lane / 4][ks * 16 + half * 8 + lane % 4 * 2]);
        const uint32_t low = __float_as_uint(from_e4m3(uint8_t(two))), high = __float_as_uint(from_e4m3(uint8_t(two >> 8)));
        out[j][half] = low >> 16 | (high & 0xffff0000);  // exact in bf16
      }
  } else {
    uint32_t all[4];
    load_matrices4(all, &s.w[first + lane / 16 * 8 + lane % 8][ks * 32 + lane / 8 % 2 * 16]);
    out[0][0] = all[0];
    out[0][1] = all[1];
    out[1][0] = all[2];
    out[1][1] = all[3];
  }
}

// Sums of a warp's 16 columns, in the layout of mma: [half of the columns][register].
template <class T>
struct Sums {
  T v[2][4] = {};
};

// Adds what a group of columns came to. n is of integers. The minimum counts where the group
// ends, which is not where a sum does that has but one group.
template <int kind, class T>
__device__ __forceinline__ void add_group(Sums<float>& sums, Sums<T>& n, const Packed& x, const Weight& w, const Block& b, int g,
                                          bool whole) {
  const int lane = threadIdx.x % 32;
  MR_UNROLL
  for (int j = 0; j < 2; j++)
    MR_UNROLL
    for (int c = 0; c < 2; c++) {
      const int column = b.column + int(threadIdx.x) / 32 * 16 + j * 8 + lane % 4 * 2 + c;
      const size_t at = w.scale_at(b.matrix, g, column);
      float scale, minimum = 0;
      if constexpr (kind == MR_F8) {
        scale = static_cast<const float*>(w.scales)[at];
      } else {
        scale = from_f16(static_cast<const uint16_t*>(w.scales)[at]);
        if (w.minimums != nullptr) minimum = from_f16(w.minimums[at]);
      }
      MR_UNROLL
      for (int half = 0; half < 2; half++) {
        T& sum = n.v[j][half * 2 + c];
        float& to = sums.v[j][half * 2 + c];
        const int row = lane / 4 + half * 8;
        if constexpr (kind == MR_F8) {
          to = fmaf(scale, sum, to);
        } else if (row < b.rows) {
          const size_t of = (size_t(b.head) * x.capacity + b.row + row) * x.groups + g;
          const float d = x.scales[of];
          float v = d * scale * float(sum);
          if (w.minimums != nullptr && whole) v += d * minimum * float(x.sums[of]);
          to += v;
        }
        sum = 0;
      }
    }
}

template <int kind>
__device__ __forceinline__ void multiply(Sums<float>& sums, Stage<kind> (&stages)[kStages], const Packed& x, const Weight& w,
                                         const Block& b) {
  using S = Shape<kind>;
  using N = std::conditional_t<S::kInteger, int32_t, float>;
  const int lane = threadIdx.x % 32, steps = x.padded_cols / kTileK, chunk = chunk_columns(w);
  Sums<N> n;         // of a group; of 16-bit weights unused
  Sums<float> part;  // of a chunk
  // One group ends where tiles do, or, if it is an odd multiple of 16, in the middle.
  const auto ends = [&](int k) { return k >= x.cols || k % chunk == 0 || (w.groups > 1 && k % w.group == 0); };
  const auto add = [&](int k) {
    add_group<kind>(part, n, x, w, b, w.groups > 1 ? (k - 1) / w.group : 0, w.groups > 1 || k >= x.cols);
  };
  __syncthreads();  // the matrix before this one may still be read
  for (int s = 0; s < kStages - 1; s++) {
    if (s < steps) copy_tile(stages[s], x, w, b, s * kTileK);
    commit_copies();
  }
  for (int step = 0; step < steps; step++) {
    wait_copies<kStages - 2>();
    __syncthreads();
    if (step + kStages - 1 < steps) copy_tile(stages[(step + kStages - 1) % kStages], x, w, b, (step + kStages - 1) * kTileK);
    commit_copies();
    const Stage<kind>& s = stages[step % kStages];
    const int k = step * kTileK;
    if constexpr (S::kInteger) {
      uint32_t fw[2][2], fx[4];
      load_weights<kind>(fw, s, 0, w.table);
      const bool split = w.groups > 1 && w.group % kTileK != 0;
      for (int half = 0; half < (split ? 2 : 1); half++) {
        if (split && k + half * 16 >= x.cols) break;
        load_matrices4(fx, &s.x[0][lane % 16][lane / 16 * 16]);
        if (split && half == 0) fx[2] = fx[3] = 0;
        if (split && half == 1) fx[0] = fx[1] = 0;
        MR_UNROLL
        for (int j = 0; j < 2; j++) mma_s8(n.v[j], fx, fw[j]);
        const int end = split ? k + half * 16 + 16 : k + kTileK;
        if (ends(end)) add(end);
      }
    } else {
      MR_UNROLL
      for (int ks = 0; ks < 2; ks++) {
        uint32_t fw[2][2], fx[4];
        load_weights<kind>(fw, s, ks, 0);
        MR_UNROLL
        for (int plane = 0; plane < S::kPlanes; plane++) {
          load_matrices4(fx, &s.x[plane][lane % 16][ks * 32 + lane / 16 * 16]);
          MR_UNROLL
          for (int j = 0; j < 2; j++) {
            if constexpr (kind == MR_F8)
              mma_bf16(n.v[j], fx, fw[j]);
            else
              kind == MR_F16 ? mma_f16(part.v[j], fx, fw[j]) : mma_bf16(part.v[j], fx, fw[j]);
          }
        }
        if constexpr (kind == MR_F8) {
          const int end = k + ks * 16 + 16;
          if (end - 16 < x.cols && ends(end)) add(end);
        }
      }
    }
    if ((k + kTileK) % chunk == 0 || step + 1 == steps)
      MR_UNROLL
      for (int j = 0; j < 2; j++)
        MR_UNROLL
        for (int i = 0; i < 4; i++) {
          sums.v[j][i] += part.v[j][i];
          part.v[j][i] = 0;
        }
  }
  wait_copies<0>();
  if constexpr (kind == MR_F16)
    MR_UNROLL
    for (int half = 0; half < 2; half++) {
      const int row = lane / 4 + half * 8;
      const float scale = row < b.rows ? x.scales[size_t(b.head) * x.capacity + b.row + row] : 0.f;
      MR_UNROLL
      for (int j = 0; j < 2; j++)
        MR_UNROLL
        for (int c = 0; c < 2; c++) sums.v[j][half * 2 + c] *= scale;
    }
}

// Sums on their way from the layout of mma to rows of the output. They are where the stages
// were.
template <int kind>
union Memory {
  Stage<kind> stages[kStages];
  float sums[2][16][kTileN + 2];
};

template <int kind>
__global__ void __launch_bounds__(kThreads, 3) linear_kernel(Rows rows, Values out, Packed x, Weight w0, Weight w1, bool gate,
                                                          Epilogue e, Routing routing) {
  MR_SHARED(Memory<kind>, shared);
  Block b;
  if (!find_block(b, rows, routing, int(blockIdx.z), 16, kTileN)) return;
  Sums<float> first, second;
  multiply<kind>(first, shared.stages, x, w0, b);
  if (gate) multiply<kind>(second, shared.stages, x, w1, b);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // stages may still be read
  MR_UNROLL
  for (int j = 0; j < 2; j++)
    MR_UNROLL
    for (int i = 0; i < 4; i++) {
      const int row = lane / 4 + i / 2 * 8, column = warp * 16 + j * 8 + lane % 4 * 2 + i % 2;
      shared.sums[0][row][column] = first.v[j][i];
      if (gate) shared.sums[1][row][column] = second.v[j][i];
    }
  __syncthreads();
  MR_LOOP
  for (int at = threadIdx.x; at < 16 * kTileN; at += kThreads) {
    const int r = at / kTileN, c = at % kTileN, row = b.row + r, column = b.column + c;
    if (r >= b.rows || column >= w0.rows) continue;
    finish(e, out, rows.adapter == nullptr ? 0 : rows.adapter[row], b.head, b.matrix, w0.rows, row, column, shared.sums[0][r][c],
           gate ? shared.sums[1][r][c] : 0.f, gate);
  }
}

// Weights in float32: 16 rows and 32 columns by four numbers a thread.
struct FloatTiles {
  float x[16][kTileK + 1], w[32][kTileK + 1];
};

__global__ void __launch_bounds__(kThreads) linear_f32_kernel(Rows rows, Values out, Packed x, Weight w0, Weight w1, bool gate,
                                                              Epilogue e, Routing routing) {
  MR_SHARED(FloatTiles, shared);
  Block b;
  if (!find_block(b, rows, routing, int(blockIdx.z), 16, 32)) return;
  const int mine = threadIdx.x % 32, first = threadIdx.x / 32 * 4;
  float sums[2][4] = {};
  MR_UNROLL
  for (int m = 0; m < 2; m++) {
    if (m == 1 && !gate) break;
    const Weight& w = m == 0 ? w0 : w1;
    MR_LOOP
    for (int k = 0; k < x.padded_cols; k += kTileK) {
      __syncthreads();
      for (int i = threadIdx.x; i < 16 * kTileK; i += kThreads) {
        const int row = i / kTileK;
        const size_t at = (size_t(b.head) * x.capacity + b.row + row) * x.padded_cols + k + i % kTileK;
        shared.x[row][i % kTileK] = row < b.rows ? reinterpret_cast<const float*>(x.codes)[at] : 0.f;
      }
      for (int i = threadIdx.x; i < 32 * kTileK; i += kThreads)
        shared.w[i / kTileK][i % kTileK] =
            reinterpret_cast<const float*>(w.row(b.matrix, b.column + i / kTileK))[k + i % kTileK];
      __syncthreads();
      for (int i = 0; i < kTileK; i++)
        MR_UNROLL
        for (int r = 0; r < 4; r++) sums[m][r] = fmaf(shared.x[first + r][i], shared.w[mine][i], sums[m][r]);
    }
  }
  if (b.column + mine >= w0.rows) return;
  MR_UNROLL
  for (int r = 0; r < 4; r++) {
    if (first + r >= b.rows) break;
    const int row = b.row + first + r;
    finish(e, out, rows.adapter == nullptr ? 0 : rows.adapter[row], b.head, b.matrix, w0.rows, row, b.column + mine,
           sums[0][r], sums[1][r], gate);
  }
}

template <int kind>
void launch_kind(cudaStream_t stream, dim3 grid, const Rows& rows, const Values& out, const Packed& x, const Weight& w0,
                 const Weight& w1, bool gate, const Epilogue& e, const Routing& routing) {
  MR_LAUNCH(linear_kernel<kind>, grid, kThreads, stream, rows, out, x, w0, w1, gate, e, routing);
}

}  // namespace

void linear(cudaStream_t stream, const Rows& rows, const Values& out, const Packed& x, const Weight& w0, const Weight* second,
            const Epilogue& e, const Routing* routed, const Tiled& tiled, int n) {
  if (linear_tiled(stream, rows, out, x, w0, second, e, routed, tiled, n)) return;
  const bool gate = second != nullptr;
  const Weight w1 = gate ? *second : Weight{};
  const Routing routing = routed == nullptr ? Routing{} : *routed;
  const unsigned tiles = routed != nullptr ? unsigned(routing.most * (routing.rows / 16)) : unsigned(n + 15) / 16;
  const dim3 grid(unsigned(w0.padded_rows / kTileN), tiles, unsigned(x.heads));
  const bool multiplied = with_kind(w0.kind, [&](auto kind) {
    launch_kind<kind()>(stream, grid, rows, out, x, w0, w1, gate, e, routing);
    return true;
  });
  if (!multiplied)
    MR_LAUNCH(linear_f32_kernel, dim3(unsigned(w0.padded_rows / 32), tiles, unsigned(x.heads)), kThreads, stream, rows, out, x, w0, w1,
              gate, e, routing);
}

}  // namespace millrace
