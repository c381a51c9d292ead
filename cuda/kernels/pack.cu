// Rows of floats to what products take: a block for each row of each head.
#include "pack.cuh"

namespace millrace {
namespace {

__global__ void __launch_bounds__(kPackThreads) pack_kernel(const int* count, Packed p, Values x, const int32_t* gather,
                                                        const float* factors) {
  let_next_begin();  // what multiplies x begins with its weights
  const int r = blockIdx.x, head = blockIdx.y;
  if (r >= *count) return;
  const int from = gather == nullptr ? r : gather[r];
  const Source source = {x.row(from) + head * p.cols, factors == nullptr ? 1.f : factors[r], p.cols};
  pack_row(p, head, r, source);
}

}  // namespace

void pack(cudaStream_t stream, const int* count, const Packed& p, const Values& x, const int32_t* gather, const float* factors,
          int n) {
  MR_LAUNCH(pack_kernel, dim3(n, p.heads), kPackThreads, stream, count, p, x, gather, factors);
}

}  // namespace millrace
