// Device code that several operations share.
#ifndef MILLRACE_CUDA_COMMON_CUH
#define MILLRACE_CUDA_COMMON_CUH

#include "cuda.h"
#include "kernels.h"

namespace millrace {

__device__ __forceinline__ float from_bf16(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

// Rounds to nearest, ties to even; a NaN stays one.
__device__ __forceinline__ uint16_t to_bf16(float v) {
  const uint32_t bits = __float_as_uint(v);
  if (v != v) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ __forceinline__ float from_f16(uint16_t bits) {
  const uint32_t exponent = bits >> 10 & 31, sign = uint32_t(bits & 0x8000) << 16;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | uint32_t(bits & 1023) << 13);
  // 2^112 moves the exponent, and makes subnormals normal.
  return __uint_as_float(__float_as_uint(__uint_as_float(uint32_t(bits & 0x7fff) << 13) * 0x1p112f) | sign);
}

__device__ __forceinline__ uint16_t to_f16(float v) {
  const uint32_t sign = __float_as_uint(v) >> 16 & 0x8000;
  const float a = fabsf(v);
  if (a != a) return uint16_t(sign | 0x7e00);
  if (a >= 65520.f) return uint16_t(sign | 0x7c00);
  // Adding a number whose last bit is that of the result rounds to it.
  const uint32_t exponent = max(__float_as_uint(a) >> 23, 113u);
  const float magic = __uint_as_float((exponent + 13) << 23);
  const uint32_t mantissa = __float_as_uint(a + magic) - __float_as_uint(magic);  // 1024 … 2048, or a subnormal
  return uint16_t(sign | (((exponent - 113) << 10) + mantissa));
}

// two_f16 rounds two numbers likewise, the first to the low half.
__device__ __forceinline__ uint32_t two_f16(float low, float high) {
#ifdef __CUDACC__
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return to_f16(low) | uint32_t(to_f16(high)) << 16;
#endif
}

// scaled_f16 makes four f16 of the codes of four bytes, each rounded once it is multiplied with
// scale: two to low, which are those of the lower bytes, and two to high.
__device__ __forceinline__ void scaled_f16(uint32_t codes, uint16_t scale, uint32_t* low, uint32_t* high) {
#ifdef __CUDACC__
  // In the mantissa of 1024 a byte adds itself: a code that is moved by 128 makes 1152 + code.
  const uint32_t moved = codes ^ 0x80808080, scales = scale | uint32_t(scale) << 16, bias = 0x64806480;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(*low) : "r"(__byte_perm(moved, 0x64, 0x4140)), "r"(bias));
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(*high) : "r"(__byte_perm(moved, 0x64, 0x4342)), "r"(bias));
  asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(*low) : "r"(scales));
  asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(*high) : "r"(scales));
#else
  const auto one = [=](int i) { return uint32_t(to_f16(from_f16(scale) * float(int8_t(codes >> 8 * i)))); };
  *low = one(0) | one(1) << 16;
  *high = one(2) | one(3) << 16;
#endif
}

// f16_shift is the power of two that moves the greatest magnitude of a row to 2^14 to 2^15, where
// f16 has numbers: nothing overflows, and what is lost of a number in two planes of f16 is less
// than float32 would lose in a sum.
__device__ __forceinline__ int f16_shift(float most) {
  if (most == 0.f || !(most < INFINITY)) return 0;
  return max(-126, min(126, 14 - (int(__float_as_uint(most) >> 23) - 127)));
}
__device__ __forceinline__ float power_of_two(int exponent) { return __uint_as_float(unsigned(127 + exponent) << 23); }

// e4m3 of OFP8: no infinity, NaN is 0x7f.
__device__ __forceinline__ float from_e4m3(uint8_t bits) {
  if ((bits & 0x7f) == 0x7f) return __uint_as_float(0x7fc00000);
  const float v = __uint_as_float(uint32_t(bits & 0x7f) << 20) * 0x1p120f;
  return (bits & 0x80) != 0 ? -v : v;
}

// What the codes of W4 stand for: package plan's tables4, and codes that are themselves
// (WithMinimum).
__constant__ const int8_t kCodes[5][16] = {
    {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7},
    {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
    {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
    {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
};

// element decodes one element of a row.
__device__ __forceinline__ float element(const Weight& w, int matrix, int r, int c) {
  const char* row = w.row(matrix, r);
  switch (w.kind) {
    case MR_F32:
      return reinterpret_cast<const float*>(row)[c];
    case MR_F16:
      return from_f16(reinterpret_cast<const uint16_t*>(row)[c]);
    case MR_BF16:
      return from_bf16(reinterpret_cast<const uint16_t*>(row)[c]);
  }
  const size_t at = w.scale_at(matrix, c / w.group, r);
  if (w.kind == MR_F8) return static_cast<const float*>(w.scales)[at] * from_e4m3(uint8_t(row[c]));
  const int code = w.kind == MR_W8 ? int8_t(row[c]) : kCodes[w.table][row[c / 2] >> c % 2 * 4 & 15];
  const float v = from_f16(static_cast<const uint16_t*>(w.scales)[at]) * float(code);
  return w.minimums == nullptr ? v : v + from_f16(w.minimums[at]);
}

// Reductions over a warp and over a block; every thread gets the result. The order of
// sums depends on the size of the block alone.
template <class T, class Fn>
__device__ __forceinline__ T warp_reduce(T v, Fn fn) {
  for (int by = 16; by > 0; by /= 2) v = fn(v, __shfl_xor_sync(kFullWarp, v, by));
  return v;
}
constexpr int kMostReduced = 256;  // threads of a block that reduces
template <class T>
struct OfThreads {
  T v[kMostReduced], all;
};
template <class T, class Fn>
__device__ __forceinline__ T block_reduce(T v, Fn fn) {
  MR_SHARED(OfThreads<T>, shared);
  __syncthreads();  // the result of a reduction before this one may still be read
  shared.v[threadIdx.x] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    for (unsigned i = threadIdx.x + 32; i < blockDim.x; i += 32) v = fn(v, shared.v[i]);
    v = warp_reduce(v, fn);
    if (threadIdx.x == 0) shared.all = v;
  }
  __syncthreads();
  return shared.all;
}
struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
// Of a NaN and a number it is the NaN.
struct Most {
  __device__ float operator()(float a, float b) const { return a >= b || a != a ? a : b; }
};

struct Least {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

// descending is smaller for greater numbers; -0 is 0.
__device__ __forceinline__ uint32_t descending(float v) {
  const uint32_t bits = __float_as_uint(v + 0.f);
  return ~(bits ^ ((bits >> 31) != 0 ? ~0u : 1u << 31));
}

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.f) + log1pf(expf(-fabsf(x))); }
__device__ __forceinline__ float softcap(float v, float limit) { return limit > 0.f ? limit * tanhf(v / limit) : v; }
// clamp keeps a NaN.
__device__ __forceinline__ float clamp(float v, float limit) { return v > limit ? limit : v < -limit ? -limit : v; }

// single is an activation of one input, but for xielu.
__device__ __forceinline__ float single(int kind, float x, float limit) {
  switch (kind) {
    case MR_ACT_SILU:
      return silu(x);
    case MR_ACT_GELU:
      return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    case MR_ACT_GELU_TANH:
      return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case MR_ACT_RELU:
      return x < 0.f ? 0.f : x;
    case MR_ACT_RELU2:
      return x < 0.f ? 0.f : x * x;
    case MR_ACT_SIGMOID:
      return sigmoid(x);
    case MR_ACT_TANH:
      return tanhf(x);
    case MR_ACT_QUICK_GELU:
      return x * sigmoid(1.702f * x);
    case MR_ACT_CLIP:
      return clamp(x, limit);
  }
  return x;
}
// gated is an activation of x that y is multiplied with.
__device__ __forceinline__ float gated(int kind, float x, float y, float limit, float alpha) {
  if (kind != MR_ACT_CLAMPED_SWIGLU) return single(kind, x, limit) * y;
  x = x > limit ? limit : x;
  return x * sigmoid(alpha * x) * (clamp(y, limit) + 1.f);
}

}  // namespace millrace
#endif
