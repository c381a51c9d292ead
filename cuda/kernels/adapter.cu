// What adapters make of rows: a block for each row of each head, a warp for each number.
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) reduce_adapters_kernel(Rows rows, Adapted a, Values x, Chosen chosen, int cols) {
  const int r = blockIdx.x, head = blockIdx.y;
  if (r >= *rows.count) return;
  const int adapter = rows.adapter[r];
  if (adapter == 0) return;
  const bool gathers = chosen.row != nullptr;
  const float* in = x.row(gathers ? chosen.row[r] : r) + head * cols;
  const float factor = gathers ? chosen.factor[r] : 1.f;
  const int matrix = chosen.expert == nullptr ? head : chosen.expert[r];
  float* low = a.low + (size_t(head) * a.capacity + r) * a.width;
  for (int i = 0; i < kMostTargets; i++) {
    const AdapterTarget& target = a.targets[size_t(adapter) * kMostTargets + i];
    if (target.a == nullptr) continue;
    for (int k = threadIdx.x / 32; k < target.rank; k += kThreads / 32) {
      const float* row = target.a + (size_t(matrix) * target.rank + k) * cols;
      float sum = 0;
      for (int j = threadIdx.x % 32; j < cols; j += 32) sum = fmaf(in[j] * factor, row[j], sum);
      sum = warp_reduce(sum, Sum());
      if (threadIdx.x % 32 == 0) low[target.low + k] = sum;
    }
  }
}

}  // namespace

void reduce_adapters(cudaStream_t stream, const Rows& rows, const Adapted& a, const Values& x, const Chosen& chosen, int heads,
                     int cols, int n) {
  MR_LAUNCH(reduce_adapters_kernel, dim3(unsigned(n), unsigned(heads)), kThreads, stream, rows, a, x,
            chosen, cols);
}

}  // namespace millrace
