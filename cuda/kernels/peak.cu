// What a GPU can do at most, for benchmarks to compare with.
#include <chrono>

#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128, kChains = 8;
constexpr double kFlops = 2. * 16 * 8 * 16;  // of a product

// Multiplies what is in registers, in chains that do not wait for each other.
__global__ void __launch_bounds__(kThreads) multiply_kernel(float* out, int n) {
  uint32_t a[4] = {threadIdx.x, 1, 2, 3}, b[2] = {4, threadIdx.x};
  float sums[kChains][4] = {};
  MR_LOOP
  for (int i = 0; i < n; i++)
    MR_UNROLL
    for (int c = 0; c < kChains; c++) mma_bf16(sums[c], a, b);
  float all = 0;
  for (int c = 0; c < kChains; c++)
    for (int i = 0; i < 4; i++) all += sums[c][i];
  if (all == 1.f) *out = all;  // never: the inputs are less than a normal number
}

// seconds_of_one calls work(n) for n that double until it takes long enough, and
// returns the seconds of one.
template <class Work>
double seconds_of_one(cudaStream_t stream, Work work) {
  using Clock = std::chrono::steady_clock;
  for (int n = 1;; n *= 2) {
    const auto start = Clock::now();
    work(n);
    if (cudaStreamSynchronize(stream) != cudaSuccess) return 0;
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds > 0.02 || n >= 1 << 24) return seconds / n;
  }
}

}  // namespace

double copy_peak(cudaStream_t stream, void* to, const void* from, size_t bytes) {
  const double seconds = seconds_of_one(stream, [&](int n) {
    for (int i = 0; i < n; i++) cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  });
  return seconds > 0 ? 2. * double(bytes) / seconds : 0;
}

double product_peak(cudaStream_t stream, float* scratch, int multiprocessors) {
  const unsigned blocks = unsigned(multiprocessors) * 8;
  const double seconds =
      seconds_of_one(stream, [&](int n) { MR_LAUNCH(multiply_kernel, blocks, kThreads, stream, scratch, n); });
  return seconds > 0 ? kFlops * kChains * (kThreads / 32) * blocks / seconds : 0;
}

}  // namespace millrace
