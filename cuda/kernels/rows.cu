// The rows that the batch wants answers for.
#include "common.cuh"

namespace millrace {
namespace {

// A row that is sampled again has no token: it is zeros until keep_rows.
__global__ void pick_rows_kernel(Step step, Values out, Values x) {
  const int r = blockIdx.x;
  if (r >= *step.n_rows) return;
  const int t = step.row_token[r];
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) out.row(r)[i] = t < 0 ? 0.f : x.row(t)[i];
}

__global__ void output_rows_kernel(Step step, const mr_batch* batch, Values x) {
  const int r = blockIdx.x;
  if (r >= *step.n_rows) return;
  float* out = batch->outputs + size_t(r) * x.width;
  for (int i = threadIdx.x; i < x.width; i += blockDim.x) out[i] = x.row(r)[i];
}

}  // namespace

void pick_rows(cudaStream_t stream, const Step& step, const Values& out, const Values& x, int n) {
  MR_LAUNCH(pick_rows_kernel, n, 128, stream, step, out, x);
}

void output_rows(cudaStream_t stream, const Step& step, const mr_batch* batch, const Values& x, int n) {
  MR_LAUNCH(output_rows_kernel, n, 128, stream, step, batch, x);
}

}  // namespace millrace
