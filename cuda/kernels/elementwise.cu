// What is done to each element of a row, or to each row with numbers of its own.
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128;

__global__ void activate_kernel(Rows rows, Values out, Values x, Values y, int act, float limit, float alpha,
                                const float* w0, const float* w1) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  for (int i = threadIdx.x; i < out.width; i += kThreads) {
    const float v = x.row(r)[x.width == 1 ? 0 : i];
    float result;
    if (act == MR_ACT_XIELU) {
      const float p = softplus(*w0), n = alpha + softplus(*w1);
      result = (v > 0.f ? p * v * v : n * (expm1f(v) - v)) + alpha * v;
    } else if (act == MR_ACT_CLIP && w0 != nullptr) {
      result = v < *w0 ? *w0 : v > *w1 ? *w1 : v;
    } else {
      result = y.data == nullptr ? single(act, v, limit) : gated(act, v, y.row(r)[i], limit, alpha);
    }
    out.row(r)[i] = result;
  }
}

__global__ void add_kernel(Rows rows, Values out, Values x, Values y, float scale) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  for (int i = threadIdx.x; i < out.width; i += kThreads) out.row(r)[i] = x.row(r)[i] + scale * y.row(r)[i];
}

__global__ void scale_kernel(Rows rows, const int32_t* pos, Values out, Values x, const float* w, int weights, float factor,
                             float log_factor, int offset, int length) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  if (length > 0) factor *= 1.f + log_factor * log1pf(float((pos[r] + offset) / length));
  for (int i = threadIdx.x; i < out.width; i += kThreads) {
    const float v = x.row(r)[i] * factor;
    out.row(r)[i] = w == nullptr ? v : v * w[weights == 1 ? 0 : i];
  }
}

__global__ void sparsify_kernel(Rows rows, Values out, Values x, float deviations) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  const float* in = x.row(r);
  float sum = 0, squares = 0;
  for (int i = threadIdx.x; i < x.width; i += kThreads) sum += in[i];
  const float mean = block_reduce(sum, Sum()) / float(x.width);
  for (int i = threadIdx.x; i < x.width; i += kThreads) squares = fmaf(in[i] - mean, in[i] - mean, squares);
  const float least = mean + deviations * sqrtf(block_reduce(squares, Sum()) / float(x.width));
  for (int i = threadIdx.x; i < x.width; i += kThreads) {
    const float v = in[i] - least;
    out.row(r)[i] = v < 0.f ? 0.f : v;
  }
}

__global__ void copy_columns_kernel(Rows rows, Values out, Values x) {
  const int r = blockIdx.x;
  if (r >= *rows.count) return;
  for (int i = threadIdx.x; i < x.width; i += kThreads) out.row(r)[i] = x.row(r)[i];
}

}  // namespace

void activate(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, const Values& y, int act, float limit,
              float alpha, const float* w0, const float* w1, int n) {
  MR_LAUNCH(activate_kernel, n, kThreads, stream, rows, out, x, y, act, limit, alpha, w0, w1);
}
void add(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, const Values& y, float scale, int n) {
  MR_LAUNCH(add_kernel, n, kThreads, stream, rows, out, x, y, scale);
}
void scale(cudaStream_t stream, const Rows& rows, const Step& step, const Values& out, const Values& x, const float* w,
           int weights, float factor, float log_factor, int offset, int length, int n) {
  MR_LAUNCH(scale_kernel, n, kThreads, stream, rows, step.pos, out, x, w, weights, factor, log_factor, offset, length);
}
void sparsify(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, float deviations, int n) {
  MR_LAUNCH(sparsify_kernel, n, kThreads, stream, rows, out, x, deviations);
}
void copy_columns(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, int n) {
  MR_LAUNCH(copy_columns_kernel, n, kThreads, stream, rows, out, x);
}

}  // namespace millrace
