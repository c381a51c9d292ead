// Norms: a block for each group of a row. One of a whole row also packs it, for the product that
// follows.
#include "pack.cuh"

namespace millrace {
namespace {

constexpr int kThreads = kPackThreads;

__device__ void pack_normed(const Packed& packed, const Values& out, int r) {
  if (packed.codes == nullptr) return;
  __syncthreads();  // the row is written
  pack_row(packed, 0, r, {out.row(r), 1.f, packed.cols});
}

__global__ void __launch_bounds__(kThreads, 12) rms_norm_kernel(Rows rows, Values out, Values x, Values gate, Norm norm, Packed packed) {
  let_next_begin();
  const int r = blockIdx.x, at = int(blockIdx.y) * norm.group, n = norm.group;
  if (r >= *rows.count) return;
  const float *in = x.row(r) + at, *y = gate.data == nullptr ? nullptr : gate.row(r) + at;
  float squares = 0, magnitude = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const float v = norm.gate == MR_GATE_BEFORE ? in[i] * silu(y[i]) : in[i];
    squares = fmaf(v, v, squares);
    if (norm.gate == MR_GATE_MAGNITUDE) magnitude = fmaf(y[i], y[i], magnitude);
  }
  squares = block_reduce(squares, Sum());
  if (norm.gate == MR_GATE_MAGNITUDE) magnitude = sqrtf(block_reduce(magnitude, Sum()) / float(n));
  const float inverse = 1.f / sqrtf(squares / float(n) + norm.eps);
  for (int i = threadIdx.x; i < n; i += kThreads) {
    float v = norm.gate == MR_GATE_BEFORE ? in[i] * silu(y[i]) : in[i];
    v *= inverse;
    if (norm.weight != nullptr) v *= norm.weight[(at + i) % norm.weights] + norm.shift;
    if (norm.gate == MR_GATE_AFTER) v *= silu(y[i]);
    if (norm.gate == MR_GATE_SIGMOID) v *= sigmoid(y[i]);
    if (norm.gate == MR_GATE_MAGNITUDE) v *= magnitude;
    out.row(r)[at + i] = v;
  }
  pack_normed(packed, out, r);
}

__global__ void __launch_bounds__(kThreads, 12) layer_norm_kernel(Rows rows, Values out, Values x, Norm norm, Packed packed) {
  let_next_begin();
  const int r = blockIdx.x, at = int(blockIdx.y) * norm.group, n = norm.group;
  if (r >= *rows.count) return;
  const float* in = x.row(r) + at;
  float sum = 0, squares = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) sum += in[i];
  const float mean = block_reduce(sum, Sum()) / float(n);
  for (int i = threadIdx.x; i < n; i += kThreads) squares = fmaf(in[i] - mean, in[i] - mean, squares);
  const float inverse = 1.f / sqrtf(block_reduce(squares, Sum()) / float(n) + norm.eps);
  for (int i = threadIdx.x; i < n; i += kThreads) {
    float v = (in[i] - mean) * inverse;
    if (norm.weight != nullptr) v *= norm.weight[(at + i) % norm.weights] + norm.shift;
    if (norm.bias != nullptr) v += norm.bias[(at + i) % norm.biases];
    out.row(r)[at + i] = v;
  }
  pack_normed(packed, out, r);
}

}  // namespace

void rms_norm(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, const Values& gate, const Norm& norm,
              const Packed& packed, int n) {
  MR_LAUNCH(rms_norm_kernel, dim3(n, x.width / norm.group), kThreads, stream, rows, out, x, gate, norm, packed);
}

void layer_norm(cudaStream_t stream, const Rows& rows, const Values& out, const Values& x, const Norm& norm,
                const Packed& packed, int n) {
  MR_LAUNCH(layer_norm_kernel, dim3(n, x.width / norm.group), kThreads, stream, rows, out, x, norm, packed);
}

}  // namespace millrace
