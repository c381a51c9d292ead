// Embeddings.
#include "common.cuh"

namespace millrace {
namespace {

// EmbedRow of package device: row i of Batch.Embeds is token -1-i.
__device__ __forceinline__ int embedded_row(int32_t id) { return -1 - id; }

__global__ void embed_kernel(Step step, Values out, Weight w, bool none, const mr_batch* batch, float scale, bool beside) {
  const int t = blockIdx.x;
  if (t >= *step.n_tokens) return;
  int32_t id = step.token[t];
  if (beside && (id < 0 || id >= w.rows)) id = 0;
  if (id < 0 || none) {
    const float* from = batch->embeds + size_t(embedded_row(id)) * out.width;
    for (int i = threadIdx.x; i < out.width; i += blockDim.x) out.row(t)[i] = from[i];
    return;
  }
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) out.row(t)[i] = element(w, 0, id, i) * scale;
}

__global__ void embed_position_kernel(Step step, Values out, Weight w, int offset) {
  const int t = blockIdx.x;
  if (t >= *step.n_tokens) return;
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) out.row(t)[i] = element(w, 0, step.pos[t] + offset, i);
}

}  // namespace

void embed(cudaStream_t stream, const Step& step, const Values& out, const Weight* w, const mr_batch* batch, float scale,
           bool beside, int n) {
  MR_LAUNCH(embed_kernel, n, 128, stream, step, out, w == nullptr ? Weight{} : *w, w == nullptr, batch, scale, beside);
}

void embed_position(cudaStream_t stream, const Step& step, const Values& out, const Weight& w, int offset, int n) {
  MR_LAUNCH(embed_position_kernel, n, 128, stream, step, out, w, offset);
}

}  // namespace millrace
