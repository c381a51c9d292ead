// Embeddings.
#include "common.cuh"

namespace millrace {
namespace {

// EmbedRow of package device: row i of Batch.Embeds is token -1-i.
__device__ __forceinline__ int embedded_row(int32_t id) { return -1 - id; }

__global__ void embed_kernel(Step step, Values out, Weight w, bool none, float scale, bool beside,
                             int first, int embeds_width, int at) {
  const int t = blockIdx.x;
  if (t >= *step.n_tokens) return;
  int32_t id = step.token[t];
  if (beside && (id < 0 || id >= w.rows)) id = 0;
  if (at >= 0) {
    if (id >= 0) id -= at;
    none = id < 0 || id >= w.rows;
    if (id < 0 && (at > 0 || step.token[t] >= 0)) id = 0;  // not a row of the batch, or not this device's
  }
  if (id < 0) {
    const float* from = (*step.batch)->embeds + size_t(embedded_row(id)) * size_t(embeds_width) + first;
    for (int i = threadIdx.x; i < out.width; i += blockDim.x) out.row(t)[i] = from[i];
    return;
  }
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) out.row(t)[i] = none ? 0.f : element(w, 0, id, i) * scale;
}

__global__ void embedding_bag_kernel(Rows rows, Values out, Values numbers, Values weights, Weight w) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  const float last = float(w.rows - 1);
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) {
    float sum = 0;
    for (int k = 0; k < numbers.width; k++) {
      const float number = numbers.row(r)[k] > 0 ? numbers.row(r)[k] : 0;  // NaN is 0
      sum = fmaf(weights.row(r)[k], element(w, 0, number < last ? int(number) : w.rows - 1, i), sum);
    }
    out.row(r)[i] = sum;
  }
}

__global__ void embed_position_kernel(Step step, Values out, Weight w, int offset) {
  const int t = blockIdx.x;
  if (t >= *step.n_tokens) return;
  for (int i = threadIdx.x; i < out.width; i += blockDim.x) out.row(t)[i] = element(w, 0, step.pos[t] + offset, i);
}

}  // namespace

void embed(cudaStream_t stream, const Step& step, const Values& out, const Weight* w, float scale,
           bool beside, int first, int embeds_width, int at, int n) {
  MR_LAUNCH(embed_kernel, n, 128, stream, step, out, w == nullptr ? Weight{} : *w, w == nullptr, scale, beside,
            first, embeds_width, at);
}

void embedding_bag(cudaStream_t stream, const Rows& rows, const Values& out, const Values& numbers, const Values& weights,
                   const Weight& w, int n) {
  MR_LAUNCH(embedding_bag_kernel, n, 128, stream, rows, out, numbers, weights, w);
}

void embed_position(cudaStream_t stream, const Step& step, const Values& out, const Weight& w, int offset, int n) {
  MR_LAUNCH(embed_position_kernel, n, 128, stream, step, out, w, offset);
}

}  // namespace millrace
