// The CUDA that g++ compiles: the part of CUDA's headers that Millrace uses, for running
// kernels on the CPU (shim.h says how). It stands before CUDA's own on the include path of
// the shim's builds and has the names, types and meanings of those.
#ifndef MILLRACE_SHIM_CUDA_RUNTIME_H
#define MILLRACE_SHIM_CUDA_RUNTIME_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "shim.h"

#ifndef CUDART_VERSION
#define CUDART_VERSION 13000  // the shim for drivers of CUDA 12 says another
#endif

#define __global__ __attribute__((unused))
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct float2 {
  float x, y;
} __align__(8);
struct float4 {
  float x, y, z, w;
} __align__(16);
struct int2 {
  int x, y;
} __align__(8);
struct int4 {
  int x, y, z, w;
} __align__(16);
struct uint2 {
  unsigned x, y;
} __align__(8);
struct uint4 {
  unsigned x, y, z, w;
} __align__(16);
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using dim3 = shim::Size;

#define threadIdx (shim::running.thread)
#define blockIdx (shim::running.block)
#define blockDim (shim::running.block_size)
#define gridDim (shim::running.grid_size)
constexpr int warpSize = 32;

// Barriers and warp collectives. The last two arguments say where a thread is, for the
// checks; nobody gives them.
#define MR_SHIM_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(MR_SHIM_SITE) { shim::barrier(shim::kNoVote, file, line); }
inline int __syncthreads_or(int vote, MR_SHIM_SITE) { return shim::barrier(vote != 0, file, line) != 0; }
inline int __syncthreads_count(int vote, MR_SHIM_SITE) { return shim::barrier(vote != 0, file, line); }
inline void __syncwarp(unsigned mask = ~0u, MR_SHIM_SITE) { shim::sync_warp(mask, file, line); }
inline void __threadfence() {}
inline void __threadfence_system() {}

template <class T>
T __shfl_sync(unsigned mask, T v, int from, int width = 32, MR_SHIM_SITE) {
  return shim::exchange(mask, v, shim::kShuffle, from, width, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, MR_SHIM_SITE) {
  return shim::exchange(mask, v, shim::kShuffleXor, by, width, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, MR_SHIM_SITE) {
  return shim::exchange(mask, v, shim::kShuffleUp, int(by), width, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, MR_SHIM_SITE) {
  return shim::exchange(mask, v, shim::kShuffleDown, int(by), width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int vote, MR_SHIM_SITE) {
  return unsigned(shim::combine(mask, vote != 0, shim::kBallot, file, line));
}
inline int __any_sync(unsigned mask, int vote, MR_SHIM_SITE) {
  return shim::combine(mask, vote != 0, shim::kBallot, file, line) != 0;
}
inline int __all_sync(unsigned mask, int vote, MR_SHIM_SITE) {
  return unsigned(shim::combine(mask, vote != 0, shim::kBallot, file, line)) == mask;
}
inline unsigned __match_any_sync(unsigned mask, unsigned v, MR_SHIM_SITE) {
  return unsigned(shim::combine(mask, v, shim::kMatch, file, line));
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v, MR_SHIM_SITE) {
  return unsigned(shim::combine(mask, v, shim::kReduceAdd, file, line));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned v, MR_SHIM_SITE) {
  return unsigned(shim::combine(mask, v, shim::kReduceMax, file, line));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned v, MR_SHIM_SITE) {
  return unsigned(shim::combine(mask, v, shim::kReduceMin, file, line));
}

// Atomics. One fibre runs at a time, so that an ordinary change is atomic.
template <class T>
T atomicAdd(T* at, T v) {
  return shim::change(at, [=](T old) { return T(old + v); });
}
template <class T>
T atomicMax(T* at, T v) {
  return shim::change(at, [=](T old) { return old < v ? v : old; });
}
template <class T>
T atomicMin(T* at, T v) {
  return shim::change(at, [=](T old) { return v < old ? v : old; });
}
template <class T>
T atomicOr(T* at, T v) {
  return shim::change(at, [=](T old) { return T(old | v); });
}
template <class T>
T atomicExch(T* at, T v) {
  return shim::change(at, [=](T) { return v; });
}
template <class T>
T atomicCAS(T* at, T want, T v) {
  return shim::change(at, [=](T old) { return old == want ? v : old; });
}

// Bits and arithmetic.
template <class To, class From>
inline To __shim_bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  __builtin_memcpy(&to, &v, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float v) { return __shim_bits<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return __shim_bits<float>(v); }
inline int __float_as_int(float v) { return __shim_bits<int>(v); }
inline float __int_as_float(int v) { return __shim_bits<float>(v); }
inline long long __double_as_longlong(double v) { return __shim_bits<long long>(v); }
inline double __longlong_as_double(long long v) { return __shim_bits<double>(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __float2int_rn(float v) { return int(std::nearbyint(v)); }
inline float __int2float_rn(int v) { return float(v); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned select) {
  const uint64_t both = uint64_t(y) << 32 | x;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) out |= unsigned(both >> (select >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return out;
}
inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
using std::max;
using std::min;

// The runtime.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorPeerAccessUnsupported = 217,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorPeerAccessAlreadyEnabled = 704,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};
enum { cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventDisableTiming = 2, cudaHostAllocMapped = 2 };

using cudaStream_t = shim::Stream*;
using cudaEvent_t = shim::Event*;
using cudaGraph_t = shim::Graph*;
using cudaGraphExec_t = shim::Graph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer);
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDeviceReset();
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);

cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

#endif
