// Choosing experts: a warp for each row.
#include "common.cuh"

namespace millrace {
namespace {

struct Scores {
  float score[kMostExperts], compared[kMostExperts], sums[kMostExperts];
  bool taken[kMostExperts];
  int chosen[kMostExperts];
};

// Finds the k greatest of n, the lower index first among equals. A NaN is the least. The
// lanes that find them hand them to fn, one after the other.
template <class Fn>
__device__ void best(const float* v, int n, int k, bool* taken, Fn fn) {
  for (int i = threadIdx.x; i < n; i += 32) taken[i] = false;
  __syncwarp();
  for (int j = 0; j < k; j++) {
    unsigned long long least = ~0ull;
    for (int i = threadIdx.x; i < n; i += 32) {
      if (taken[i]) continue;
      const unsigned long long key = static_cast<unsigned long long>(descending(v[i] != v[i] ? -INFINITY : v[i])) << 32 | unsigned(i);
      least = key < least ? key : least;
    }
    const int found = int(uint32_t(warp_reduce(least, Least())));
    if (int(threadIdx.x) == found % 32) {
      taken[found] = true;
      fn(j, found);
    }
    __syncwarp();
  }
}

__device__ void softmax(float* v, int n) {
  float peak = -INFINITY, sum = 0;
  for (int i = threadIdx.x; i < n; i += 32) peak = fmaxf(peak, v[i]);
  peak = warp_reduce(peak, Most());
  for (int i = threadIdx.x; i < n; i += 32) sum += expf(v[i] - peak);
  sum = warp_reduce(sum, Sum());
  for (int i = threadIdx.x; i < n; i += 32) v[i] = expf(v[i] - peak) / sum;
  __syncwarp();
}

// Makes -inf of the scores in all but the best groups, which are judged by the sum of their
// best, one or two.
__device__ void drop_groups(Scores& s, const Route& route) {
  const int size = route.experts / route.groups, judges = min(size, route.group_best != 0 ? 1 : 2);
  for (int g = threadIdx.x; g < route.groups; g += 32) {
    const float* group = s.compared + g * size;
    int first = 0, second = -1;
    for (int i = 1; i < size; i++)
      if (group[i] > group[first]) first = i;
    for (int i = 0; i < size; i++)
      if (i != first && (second < 0 || group[i] > group[second])) second = i;
    s.sums[g] = judges == 1 ? group[first] : group[first] + group[second];
  }
  __syncwarp();
  best(s.sums, route.groups, route.top_groups, s.taken, [](int, int) {});
  for (int e = threadIdx.x; e < route.experts; e += 32)
    if (!s.taken[e / size]) s.compared[e] = -INFINITY;
  __syncwarp();
}

// The weights of MR_SCORE_SPARSE_MIXER: compared holds the logits of those not chosen
// before.
__device__ void mix(Scores& s, const Route& route, float* weights) {
  for (int i = 0; i < route.top_k; i++) {
    const int chosen = s.chosen[i];
    const float peak = s.score[chosen];
    float sum = 0;
    for (int e = threadIdx.x; e < route.experts; e += 32) {
      const float l = s.score[e];
      const bool far = (peak - l) / fmaxf(fabsf(l), peak) > 2.f * route.jitter;
      if (!far) sum += expf(s.compared[e] - peak);
    }
    sum = warp_reduce(sum, Sum());
    __syncwarp();
    if (threadIdx.x == 0) {
      weights[i] = 1.f / sum;
      s.compared[chosen] = -INFINITY;
    }
    __syncwarp();
  }
}

__global__ void __launch_bounds__(32) route_kernel(Rows rows, Values experts, Values out, Values x, Route route) {
  MR_SHARED(Scores, s);
  const int r = blockIdx.x, n = route.experts;
  if (r >= *rows.count) return;
  for (int e = threadIdx.x; e < n; e += 32) {
    const float l = x.row(r)[e];
    s.score[e] = route.score == MR_SCORE_SIGMOID ? sigmoid(l) : l;
  }
  __syncwarp();
  if (route.score == MR_SCORE_SOFTMAX) softmax(s.score, n);
  for (int e = threadIdx.x; e < n; e += 32) s.compared[e] = route.bias == nullptr ? s.score[e] : s.score[e] + route.bias[e];
  __syncwarp();
  if (route.groups > 1) drop_groups(s, route);
  float* weights = out.row(r);
  best(s.compared, n, route.top_k, s.taken, [&](int i, int e) {
    s.chosen[i] = e;
    experts.row(r)[i] = float(e);
    weights[i] = s.score[e];
  });
  if (route.score == MR_SCORE_SOFTMAX_CHOSEN) softmax(weights, route.top_k);
  if (route.score == MR_SCORE_SPARSE_MIXER) {
    for (int e = threadIdx.x; e < n; e += 32) s.compared[e] = s.score[e];
    __syncwarp();
    mix(s, route, weights);
  }
  float scale = route.scale;
  if (route.normalize != 0) {
    float sum = 0;
    for (int i = threadIdx.x; i < route.top_k; i += 32) sum += weights[i];
    scale /= route.eps + warp_reduce(sum, Sum());
  }
  for (int i = threadIdx.x; i < route.top_k; i += 32) {
    weights[i] *= scale;
    if (route.factors != nullptr) weights[i] *= route.factors[s.chosen[i]];
  }
}

}  // namespace

void route(cudaStream_t stream, const Rows& rows, const Values& experts, const Values& weights, const Values& x,
           const Route& route, int n) {
  MR_LAUNCH(route_kernel, unsigned(n), 32, stream, rows, experts, weights, x, route);
}

}  // namespace millrace
