// What both kernels of attention share: which positions a token sees, and how parts of a softmax
// are merged.
#ifndef MILLRACE_CUDA_ATTENTION_CUH
#define MILLRACE_CUDA_ATTENTION_CUH

#include "common.cuh"

namespace millrace {

// Softmax over part of the positions: the sum of e^(score - most), and that times values.
struct State {
  float most, sum;
};
// merge adds what a further part of the positions came to, and returns the factors of
// both parts' values.
__device__ __forceinline__ void merge(State& to, const State& part, float* before, float* after) {
  const float most = fmaxf(to.most, part.most);
  *before = expf(to.most - most);
  *after = expf(part.most - most);
  to.sum = fmaf(to.sum, *before, part.sum * *after);
  to.most = most;
}
__device__ __forceinline__ float merge_value(float to, float part, float before, float after) {
  return fmaf(to, before, part * after);
}
__device__ __forceinline__ State begin(const Attention& a, int head) {
  if (a.sinks == nullptr) return {-INFINITY, 0};
  return {a.sinks[head], 1};
}

// The positions that a token sees.
struct Seen {
  int first, last;
};
__device__ __forceinline__ Seen seen(const Step& step, const Attention& a, int t) {
  if (a.sight == MR_SIGHT_ALL) return {0, step.end[t] - 1};
  if (a.sight == MR_SIGHT_SPAN) return {step.first[t], step.last[t]};
  const int pos = step.pos[t];
  if (a.sight == MR_SIGHT_CAUSAL) return {0, pos};
  Seen s = {0, step.last[t]};
  if (a.window > 0) s.first = min(max(0, pos - a.window + 1), step.first[t]);
  if (a.chunk > 0) s.first = max(s.first, min(pos - pos % a.chunk, step.first[t]));
  return s;
}

}  // namespace millrace
#endif
