// Rows of floats to what products take; a block packs a row.
#ifndef MILLRACE_CUDA_PACK_CUH
#define MILLRACE_CUDA_PACK_CUH

#include "common.cuh"

namespace millrace {

constexpr int kPackThreads = 128;

// The row of a plane of codes.
template <class T>
__device__ __forceinline__ T* packed_row(const Packed& p, int plane, int head, int r) {
  return reinterpret_cast<T*>(p.codes) + ((size_t(plane) * p.heads + head) * p.capacity + r) * p.padded_cols;
}

struct Source {
  const float* x;
  float factor;
  int cols;
  __device__ float operator()(int i) const { return i < cols ? x[i] * factor : 0.f; }
};

__device__ inline void pack_floats(const Packed& p, int head, int r, const Source& x) {
  float* out = packed_row<float>(p, 0, head, r);
  for (int i = threadIdx.x; i < p.padded_cols; i += kPackThreads) out[i] = x(i);
}

__device__ inline void pack_bf16(const Packed& p, int head, int r, const Source& x) {
  uint16_t *high = packed_row<uint16_t>(p, 0, head, r), *low = packed_row<uint16_t>(p, 1, head, r);
  for (int i = threadIdx.x; i < p.padded_cols; i += kPackThreads) {
    const float v = x(i);
    high[i] = to_bf16(v);
    low[i] = to_bf16(v - from_bf16(high[i]));
  }
}

__device__ inline void pack_f16(const Packed& p, int head, int r, const Source& x) {
  float most = 0;
  for (int i = threadIdx.x; i < p.cols; i += kPackThreads) most = fmaxf(most, fabsf(x(i)));
  most = block_reduce(most, Most());
  const int shift = f16_shift(most);
  const float up = power_of_two(shift), down = power_of_two(-shift);
  uint16_t *high = packed_row<uint16_t>(p, 0, head, r), *low = packed_row<uint16_t>(p, 1, head, r);
  for (int i = threadIdx.x; i < p.padded_cols; i += kPackThreads) {
    const float v = x(i) * up;
    high[i] = to_f16(v);
    low[i] = to_f16(v - from_f16(high[i]));
  }
  if (threadIdx.x == 0) p.scales[size_t(head) * p.capacity + r] = down;
}

// Rounds each group as package plan's Format says; a warp takes a group.
__device__ inline void pack_integers(const Packed& p, int head, int r, const Source& x) {
  int8_t* out = packed_row<int8_t>(p, 0, head, r);
  const size_t at = (size_t(head) * p.capacity + r) * p.groups;
  const int lane = threadIdx.x % 32;
  for (int g = threadIdx.x / 32; g < p.groups; g += kPackThreads / 32) {
    const int first = g * p.group, end = min(first + p.group, p.cols), filled = g + 1 == p.groups ? p.padded_cols : end;
    float most = 0;
    for (int i = first + lane; i < end; i += 32) most = Most()(fabsf(x(i)), most);
    most = warp_reduce(most, Most());
    const float inverse = 127.f / most;
    const bool none = !(most < INFINITY) || inverse == INFINITY;
    int sum = 0;
    for (int i = first + lane; i < filled; i += 32) {
      const int code = none || i >= end ? 0 : __float2int_rn(x(i) * inverse);
      out[i] = int8_t(code);
      sum += code;
    }
    sum = warp_reduce(sum, Sum());
    if (lane != 0) continue;
    p.scales[at + g] = most < INFINITY ? most / 127.f : __uint_as_float(0x7fc00000);
    p.sums[at + g] = sum;
  }
}

// pack_row is called by all of kPackThreads threads.
__device__ inline void pack_row(const Packed& p, int head, int r, const Source& source) {
  switch (p.kind) {
    case MR_F32:
      return pack_floats(p, head, r, source);
    case MR_F16:
      return pack_f16(p, head, r, source);
    case MR_W8:
    case MR_W4:
      return pack_integers(p, head, r, source);
    default:
      return pack_bf16(p, head, r, source);
  }
}

}  // namespace millrace
#endif
