// Rows to their experts and back.
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 256;

struct Shared {
  int first[kMostExperts + 1], next[kMostExperts], tile[kMostExperts];
};

// Sorts rows by expert, and cuts those of each into tiles.
__global__ void __launch_bounds__(kThreads) group_rows_kernel(Rows rows, Chosen c, int tile_rows) {
  MR_SHARED(Shared, s);
  const int pairs = *rows.count * c.top_k;
  for (int e = threadIdx.x; e < c.n_experts; e += kThreads) s.next[e] = 0;
  __syncthreads();
  const auto expert = [&](int pair) { return int(c.experts.row(pair / c.top_k)[pair % c.top_k]); };
  for (int i = threadIdx.x; i < pairs; i += kThreads) atomicAdd(&s.next[expert(i)], 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    int at = 0, tile = 0;
    for (int e = 0; e < c.n_experts; e++) {
      s.first[e] = at;
      s.tile[e] = tile;
      at += s.next[e];
      tile += (s.next[e] + tile_rows - 1) / tile_rows;
      s.next[e] = s.first[e];
    }
    s.first[c.n_experts] = at;
    *c.count = pairs;
    *c.n_tiles = tile;
  }
  __syncthreads();
  for (int e = threadIdx.x; e < c.n_experts; e += kThreads)
    for (int row = s.first[e], tile = s.tile[e]; row < s.first[e + 1]; row += tile_rows)
      c.tiles[tile++] = {e, row, min(tile_rows, s.first[e + 1] - row)};
  for (int i = threadIdx.x; i < pairs; i += kThreads) {
    const int r = i / c.top_k, e = expert(i), at = atomicAdd(&s.next[e], 1);
    c.place[i] = at;
    c.row[at] = r;
    c.expert[at] = e;
    c.adapter[at] = rows.adapter[r];
    c.factor[at] = c.scale_input ? c.weights.row(r)[i % c.top_k] : 1.f;
  }
}

// Adds up what the experts of a row made of it, in the order of its choices.
__global__ void combine_kernel(Rows rows, Values out, Values y, Chosen c) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) {
    float sum = 0;
    for (int k = 0; k < c.top_k; k++) {
      const float weight = c.scale_input ? 1.f : c.weights.row(r)[k];
      sum = fmaf(weight, y.row(c.place[r * c.top_k + k])[i], sum);
    }
    out.row(r)[i] = sum;
  }
}

}  // namespace

void group_rows(cudaStream_t stream, const Rows& rows, const Chosen& chosen, int tile_rows) {
  MR_LAUNCH(group_rows_kernel, 1, kThreads, stream, rows, chosen, tile_rows);
}

void combine(cudaStream_t stream, const Rows& rows, const Values& out, const Values& y, const Chosen& chosen, int n) {
  MR_LAUNCH(combine_kernel, unsigned(n), 128, stream, rows, out, y, chosen);
}

}  // namespace millrace
