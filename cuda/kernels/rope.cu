// Rotations of heads, in place: a block for each token.
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128;

__device__ float frequency(const Rope& rope, int length, int i) {
  if (rope.original == 0 || length <= rope.original) return rope.table[i];
  if (rope.longer != nullptr) return rope.longer[i];
  const double rotary = rope.rotary;
  const double grown = double(rope.factor) * length / rope.original - (double(rope.factor) - 1);
  const double base = rope.theta * pow(grown, rotary / (rotary - 2));
  return float(pow(base, -2.0 * i / rotary));
}

__global__ void __launch_bounds__(kThreads) rope_kernel(Step step, Values x, Rope rope) {
  const int t = blockIdx.x, half = rope.rotary / 2;
  if (t >= *step.n_tokens) return;
  for (int i = threadIdx.x; i < half; i += kThreads) {
    const int axis = rope.axes == nullptr ? 0 : int(rope.axes[i]);
    const float pos = float(rope.axes == nullptr ? step.pos[t] : step.axes[axis * step.max_tokens + t]);
    // Rounded to float, as models were trained.
    const float angle = pos * frequency(rope, step.length[t], i);
    const float sine = sinf(angle) * rope.scale, cosine = cosf(angle) * rope.scale;
    const int a = rope.first + (rope.interleaved != 0 ? 2 * i : i), b = a + (rope.interleaved != 0 ? 1 : half);
    for (int h = 0; h < rope.heads; h++) {
      float* head = x.row(t) + h * rope.head_dim;
      const float u = head[a], v = head[b];
      head[a] = u * cosine - v * sine;
      head[b] = v * cosine + u * sine;
    }
  }
}

}  // namespace

void rope(cudaStream_t stream, const Step& step, const Values& x, const Rope& rope, int n) {
  MR_LAUNCH(rope_kernel, n, kThreads, stream, step, x, rope);
}

}  // namespace millrace
