// What the devices that share a model tell each other (one-shot all-reduce over peer memory).
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 256;

// The buffer of the exchange number n. The next but one uses it again: a device begins that
// one after all have begun the one between, and so have read this one.
__device__ __forceinline__ float* buffer(const Peers& p, int device, uint32_t n) {
  return p.buffers[device] + (n & 1) * p.floats;
}

// Copies rows of x to where the others read them. The last block to end says that they
// are there.
__global__ void show_kernel(Rows rows, Values x, Peers p) {
  const uint32_t n = *p.exchanges + 1;
  const int r = blockIdx.x;
  if (r < *rows.count)
    for (int i = threadIdx.x; i < x.width; i += kThreads) buffer(p, p.device, n)[size_t(r) * x.width + i] = x.row(r)[i];
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x > 0 || atomicAdd(p.ended, 1) + 1 < int(gridDim.x)) return;
  *p.ended = 0;
  *p.exchanges = n;
  for (int d = 0; d < p.devices; d++) raise(p.flags[d] + p.device, n);
}

// Waits for what the others show; false if one of them never will.
__device__ __forceinline__ bool all_show(const Peers& p, uint32_t n) {
  const bool mine = int(threadIdx.x) >= p.devices || wait_until(p.flags[p.device] + threadIdx.x, n, p.abandoned);
  return __syncthreads_or(!mine) == 0;
}

// The order of the sum is that of the devices, so that all of them get the same bits.
__global__ void sum_kernel(Rows rows, Values out, Values y, float scale, Peers p) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  const uint32_t n = *p.exchanges;
  if (!all_show(p, n)) return;
  for (int i = threadIdx.x; i < out.width; i += kThreads) {
    float sum = 0;
    for (int d = 0; d < p.devices; d++) sum += of_peer(buffer(p, d, n) + size_t(r) * out.width + i);
    out.row(r)[i] = y.data == nullptr ? sum : y.row(r)[i] + scale * sum;
  }
}

__global__ void gather_kernel(Rows rows, Values out, Peers p) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  const uint32_t n = *p.exchanges;
  if (!all_show(p, n)) return;
  for (int d = 0; d < p.devices; d++) {
    const int first = shard_first(out.width, d, p.devices), width = shard_first(out.width, d + 1, p.devices) - first;
    for (int i = threadIdx.x; i < width; i += kThreads)
      out.row(r)[first + i] = of_peer(buffer(p, d, n) + size_t(r) * width + i);
  }
}

}  // namespace

void all_reduce(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, const Values& y, float scale,
                const Peers& p, int n) {
  MR_LAUNCH(show_kernel, n, kThreads, stream, rows, x, p);
  MR_LAUNCH(sum_kernel, n, kThreads, stream, rows, out, y, scale, p);
}

void all_gather(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, const Peers& p, int n) {
  MR_LAUNCH(show_kernel, n, kThreads, stream, rows, x, p);
  MR_LAUNCH(gather_kernel, n, kThreads, stream, rows, out, p);
}

}  // namespace millrace
