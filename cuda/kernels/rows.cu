// The rows that the batch wants answers for.
#include "common.cuh"

namespace millrace {
namespace {

// A row that is sampled again has no token: it is zeros until keep_rows.
__global__ void pick_rows_kernel(Step step, Values out, Values x, int count, bool mean) {
  const int r = blockIdx.x;
  if (r >= *step.n_rows) return;
  const int t = step.row_token[r];
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) {
    if (t < 0) {
      out.row(r)[i] = 0;
    } else if (!mean) {
      out.row(r)[i] = x.row(t - count + 1 + i / x.width)[i % x.width];
    } else {
      float sum = 0;
      for (int k = 0; k < count; k++) sum += x.row(t - count + 1 + k)[i];
      out.row(r)[i] = sum / float(count);
    }
  }
}

__global__ void output_rows_kernel(Step step, Values x) {
  const int r = blockIdx.x;
  if (r >= *step.n_rows) return;
  float* out = (*step.batch)->outputs + size_t(r) * x.width;
  for (int i = threadIdx.x; i < x.width; i += blockDim.x) out[i] = x.row(r)[i];
}

}  // namespace

void pick_rows(cudaStream_t stream, const Step& step, const Values& out, const Values& x, int count, bool mean, int n) {
  MR_LAUNCH(pick_rows_kernel, n, 128, stream, step, out, x, count, mean);
}

void output_rows(cudaStream_t stream, const Step& step, const Values& x, int n) {
  MR_LAUNCH(output_rows_kernel, n, 128, stream, step, x);
}

}  // namespace millrace
