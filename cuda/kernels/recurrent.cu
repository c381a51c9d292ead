// Recurrences: a block goes through the tokens of a sequence, a thread for each column of
// the state. States are rounded to float32 after each token, so that where a prompt is cut
// does not show.
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128;

// The columns of the state that are this thread's: one, or none beyond the width.
__device__ __forceinline__ int column() { return int(blockIdx.x) * kThreads + int(threadIdx.x); }

__global__ void __launch_bounds__(kThreads) conv_kernel(Step step, Slots slots, Cache c, Values out, Values x, const float* w,
                                                        const float* bias, int act) {
  if (int(blockIdx.y) >= *step.n_seqs || column() >= x.width) return;
  const mr_seq seq = step.seqs[blockIdx.y];
  const int i = column(), taps = c.key_width;  // before the current
  float* state = c.state(slots.state[seq.slot]);
  float last[kMostTaps];
  for (int j = 0; j < kMostTaps; j++) last[j] = j < taps ? state[j * x.width + i] : 0.f;
  for (int t = seq.start; t < seq.start + seq.count; t++) {
    const float now = x.row(t)[i];
    float sum = w[i * (taps + 1) + taps] * now;
    for (int j = 0; j < kMostTaps; j++)
      if (j < taps) sum = fmaf(w[i * (taps + 1) + j], last[j], sum);
    if (bias != nullptr) sum += bias[i];
    out.row(t)[i] = single(act, sum, 0.f);
    for (int j = 0; j < kMostTaps; j++)
      if (j < taps) last[j] = j + 1 < taps ? last[min(j + 1, kMostTaps - 1)] : now;
  }
  for (int j = 0; j < kMostTaps; j++)
    if (j < taps) state[j * x.width + i] = last[j];
}

struct DeltaShared {
  float q[kMostKeyWidth], k[kMostKeyWidth], decay[kMostKeyWidth];
};

struct DeltaInputs {
  Values q, k, v, a, b;
};

// Eight blocks of a multiprocessor: with more, the compiler keeps registers in memory.
__global__ void __launch_bounds__(kThreads, 8) gated_delta_kernel(Step step, Slots slots, Cache c, Values out, DeltaInputs in,
                                                                  Delta d) {
  MR_SHARED(DeltaShared, s);
  if (int(blockIdx.z) >= *step.n_seqs) return;
  const mr_seq seq = step.seqs[blockIdx.z];
  const int h = blockIdx.y, width = c.key_width, key_head = h * d.key_heads / c.heads, j = column();
  float* state = c.state(slots.state[seq.slot]) + size_t(h) * width * c.value_width;
  for (int t = seq.start; t < seq.start + seq.count; t++) {
    const float *q = in.q.row(t) + key_head * width, *k = in.k.row(t) + key_head * width;
    float inverse_q = 1, inverse_k = 1;
    if (d.eps > 0) {
      float qq = 0, kk = 0;
      for (int i = threadIdx.x; i < width; i += kThreads) {
        qq = fmaf(q[i], q[i], qq);
        kk = fmaf(k[i], k[i], kk);
      }
      inverse_q = 1.f / sqrtf(block_reduce(qq, Sum()) + d.eps);
      inverse_k = 1.f / sqrtf(block_reduce(kk, Sum()) + d.eps);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < width; i += kThreads) {
      const int at = d.channels != 0 ? h * width + i : h;
      s.q[i] = q[i] * inverse_q;
      s.k[i] = k[i] * inverse_k;
      s.decay[i] = expf(-expf(d.log_a[h]) * softplus(in.a.row(t)[at] + d.bias[at]));
    }
    __syncthreads();
    if (j >= c.value_width) continue;
    const float beta = sigmoid(in.b.row(t)[h]) * float(1 + d.negative);
    float known = 0, sum = 0;
    for (int i = 0; i < width; i++) known = fmaf(s.decay[i] * state[i * c.value_width + j], s.k[i], known);
    const float change = beta * (in.v.row(t)[h * c.value_width + j] - known);
    for (int i = 0; i < width; i++) {
      const float now = fmaf(s.k[i], change, s.decay[i] * state[i * c.value_width + j]);
      state[i * c.value_width + j] = now;
      sum = fmaf(now, s.q[i], sum);
    }
    out.row(t)[h * c.value_width + j] = sum * d.scale;
  }
}

struct SpaceShared {
  float from[kMostKeyWidth], to[kMostKeyWidth];
};
struct SpaceInputs {
  Values x, from, to, dt;
};

// Brings B and C of a token to shared memory.
__device__ __forceinline__ void load_space(SpaceShared& s, const float* from, const float* to, int width) {
  __syncthreads();
  for (int i = threadIdx.x; i < width; i += kThreads) {
    s.from[i] = from[i];
    s.to[i] = to[i];
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) state_space_kernel(Step step, Slots slots, Cache c, Values out, SpaceInputs in,
                                                               StateSpace p) {
  MR_SHARED(SpaceShared, s);
  if (int(blockIdx.z) >= *step.n_seqs) return;
  const mr_seq seq = step.seqs[blockIdx.z];
  const int h = blockIdx.y, width = c.key_width, group = h * p.groups / c.heads, j = column();
  float* state = c.state(slots.state[seq.slot]) + size_t(h) * width * c.value_width;
  for (int t = seq.start; t < seq.start + seq.count; t++) {
    load_space(s, in.from.row(t) + group * width, in.to.row(t) + group * width, width);
    if (j >= c.value_width) continue;
    const float d = fminf(fmaxf(softplus(in.dt.row(t)[h] + p.bias[h]), p.least), p.most);
    const float decay = expf(-expf(p.log_a[h]) * d), x = in.x.row(t)[h * c.value_width + j];
    float sum = p.skip[h] * x;
    for (int i = 0; i < width; i++) {
      const float now = fmaf(s.from[i], d * x, decay * state[i * c.value_width + j]);
      state[i * c.value_width + j] = now;
      sum = fmaf(now, s.to[i], sum);
    }
    out.row(t)[h * c.value_width + j] = sum;
  }
}

__global__ void __launch_bounds__(kThreads) selective_scan_kernel(Step step, Slots slots, Cache c, Values out, SpaceInputs in,
                                                                  const float* log_a, const float* skip) {
  MR_SHARED(SpaceShared, s);
  if (int(blockIdx.y) >= *step.n_seqs) return;
  const mr_seq seq = step.seqs[blockIdx.y];
  const int width = c.key_width, j = column();
  float* state = c.state(slots.state[seq.slot]);
  for (int t = seq.start; t < seq.start + seq.count; t++) {
    load_space(s, in.from.row(t), in.to.row(t), width);
    if (j >= c.value_width) continue;
    const float d = softplus(in.dt.row(t)[j]), x = in.x.row(t)[j];
    float sum = skip[j] * x;
    for (int i = 0; i < width; i++) {
      const float decay = expf(-expf(log_a[j * width + i]) * d);
      const float now = fmaf(s.from[i], d * x, decay * state[i * c.value_width + j]);
      state[i * c.value_width + j] = now;
      sum = fmaf(now, s.to[i], sum);
    }
    out.row(t)[j] = sum;
  }
}

unsigned column_blocks(int width) { return unsigned(width + kThreads - 1) / kThreads; }

}  // namespace

void conv(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values& x,
          const float* w, const float* bias, int act, int n_seqs) {
  MR_LAUNCH(conv_kernel, dim3(column_blocks(x.width), unsigned(n_seqs)), kThreads, stream, step, slots, c, out, x, w, bias, act);
}

void gated_delta(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values* in,
                 const Delta& d, int n_seqs) {
  const DeltaInputs inputs = {in[0], in[1], in[2], in[3], in[4]};
  MR_LAUNCH(gated_delta_kernel, dim3(column_blocks(c.value_width), unsigned(c.heads), unsigned(n_seqs)), kThreads, stream, step,
            slots, c, out, inputs, d);
}

void state_space(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values* in,
                 const StateSpace& p, int n_seqs) {
  const SpaceInputs inputs = {in[0], in[1], in[2], in[3]};
  MR_LAUNCH(state_space_kernel, dim3(column_blocks(c.value_width), unsigned(c.heads), unsigned(n_seqs)), kThreads, stream, step,
            slots, c, out, inputs, p);
}

void selective_scan(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values* in,
                    const float* log_a, const float* skip, int n_seqs) {
  const SpaceInputs inputs = {in[0], in[2], in[3], in[1]};
  MR_LAUNCH(selective_scan_kernel, dim3(column_blocks(c.value_width), unsigned(n_seqs)), kThreads, stream, step, slots, c, out,
            inputs, log_a, skip);
}

}  // namespace millrace
