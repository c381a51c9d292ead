// What kernels of products share: which part of a product a block makes, and what follows.
#ifndef MILLRACE_CUDA_LINEAR_CUH
#define MILLRACE_CUDA_LINEAR_CUH

#include <type_traits>

#include "common.cuh"

namespace millrace {

// with_kind calls fn with a format that is multiplied on tensor cores, as std::integral_constant,
// and returns what it does; of others it returns false.
template <class Fn>
bool with_kind(int kind, const Fn& fn) {
  switch (kind) {
    case MR_F16:
      return fn(std::integral_constant<int, MR_F16>());
    case MR_BF16:
      return fn(std::integral_constant<int, MR_BF16>());
    case MR_W8:
      return fn(std::integral_constant<int, MR_W8>());
    case MR_W4:
      return fn(std::integral_constant<int, MR_W4>());
    case MR_F8:
      return fn(std::integral_constant<int, MR_F8>());
  }
  return false;
}

// What a block multiplies.
struct Block {
  int matrix, head, row, rows, column;  // the first row and column; how many rows
};

// What adapters add to a column.
__device__ __forceinline__ float adapted(const Adapted& a, int adapter, int head, int matrix, int row, int column) {
  float sum = 0;
  for (int i = 0; i < kMostTargets; i++) {
    const AdapterTarget& target = a.targets[size_t(adapter) * kMostTargets + i];
    if (target.a == nullptr || column < target.first || column >= target.first + target.rows) continue;
    const float* b = target.b + (size_t(matrix) * target.rows + column - target.first) * target.rank;
    const float* low = a.low + (size_t(head) * a.capacity + row) * a.width + target.low;
    for (int k = 0; k < target.rank; k++) sum = fmaf(b[k], low[k], sum);
  }
  return sum;
}

// Finishes one number, of which second is that of the other matrix, if gated.
__device__ __forceinline__ void finish(const Epilogue& e, const Values& out, int adapter, int head, int matrix, int columns,
                                       int row, int column, float first, float second, bool gate) {
  float v[2] = {first, second};
  MR_UNROLL
  for (int m = 0; m < 2; m++) {
    if (m == 1 && !gate) break;
    if (adapter != 0 && e.adapted[m].targets != nullptr) v[m] += adapted(e.adapted[m], adapter, head, matrix, row, column);
    if (e.bias[m] != nullptr) v[m] += e.bias[m][size_t(matrix) * columns + column];
  }
  float result = gate ? gated(e.act, v[0], v[1], e.limit, e.alpha) : single(e.act, v[0], e.limit);
  const int at = head * columns + column;
  if (e.residual.data != nullptr) result = e.residual.row(row)[at] + e.scale * result;
  out.row(row)[at] = result;
}

// Finds out what a block has to do, which makes so many rows and columns; false: nothing. A tile of
// a routing that has more rows than a block makes has several blocks.
__device__ __forceinline__ bool find_block(Block& b, const Rows& rows, const Routing& routing, int head, int most, int columns) {
  b.column = int(blockIdx.x) * columns;
  b.head = b.matrix = head;
  b.row = int(blockIdx.y) * most;
  b.rows = *rows.count - b.row;
  if (routing.tiles != nullptr) {
    const int blocks = routing.rows / most, at = int(blockIdx.y) % blocks * most;
    if (int(blockIdx.y) / blocks >= *routing.n_tiles) return false;
    const Tile tile = routing.tiles[int(blockIdx.y) / blocks];
    b.matrix = tile.matrix;
    b.row = tile.first + at;
    b.rows = tile.count - at;
  }
  return b.rows > 0;
}

}  // namespace millrace
#endif
