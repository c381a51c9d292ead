// Attention over pages, the plain kernel: a block for each token and up to 8 heads that share keys.
// attention_tiled.cu and attention_latent.cu do it on tensor cores.
#include "attention.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128, kHeads = 8, kSlice = 32, kColumns = kMostValueWidth / kThreads;

struct Shared {
  float q[kHeads][kSlice], keys[kThreads][kSlice + 1];
  float scores[kHeads][kSplit];
  float most[kHeads], sum[kHeads];
};

__device__ __forceinline__ float cached(const Cache& c, const char* row, int width, int i) {
  if (c.format == MR_F32) return reinterpret_cast<const float*>(row)[i];
  if (c.format == MR_F16) return from_f16(reinterpret_cast<const uint16_t*>(row)[i]);
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(row + (width + 1) / 2 * 2);
  return from_f16(scales[i / c.scale_group]) * float(int8_t(row[i]));
}

// One block's token and heads.
struct Work {
  int t, kv, head, heads;  // the first of so many heads, of one of the cache
  const int32_t* pages;
};

// The scores of positions [from, end) to shared.scores, from its first column on.
__device__ void score(Shared& s, const Step& step, const Cache& c, const Values& x, const Values& y, const Attention& a,
                      const Work& w, int from, int end) {
  const int x_width = x.width / a.heads, y_width = c.key_width - x_width;
  for (int base = from; base < end; base += kThreads) {
    float sums[kHeads] = {};
    for (int column = 0; column < c.key_width; column += kSlice) {
      const int columns = min(kSlice, c.key_width - column);
      __syncthreads();
      for (int i = threadIdx.x; i < w.heads * kSlice; i += kThreads) {
        const int h = i / kSlice, at = column + i % kSlice;
        float v = 0;
        if (at < x_width)
          v = x.row(w.t)[(w.head + h) * x_width + at];
        else if (at < c.key_width)
          v = y.row(w.t)[(w.head + h) * y_width + at - x_width];
        s.q[h][i % kSlice] = v;
      }
      for (int i = threadIdx.x; i < min(kThreads, end - base) * kSlice; i += kThreads) {
        const int pos = base + i / kSlice, at = i % kSlice;
        const char* row = c.head(w.pages[pos / kPageTokens], w.kv) + pos % kPageTokens * c.key_bytes;
        s.keys[i / kSlice][at] = at < columns ? cached(c, row, c.key_width, column + at) : 0.f;
      }
      __syncthreads();
      if (base + int(threadIdx.x) >= end) continue;
      for (int i = 0; i < columns; i++)
        for (int h = 0; h < kHeads; h++)
          if (h < w.heads) sums[h] = fmaf(s.q[h][i], s.keys[threadIdx.x][i], sums[h]);
    }
    const int pos = base + int(threadIdx.x);
    if (pos < end)
      for (int h = 0; h < w.heads; h++) {
        float v = softcap(a.scale * sums[h], a.cap);
        if (a.slopes != nullptr) v += a.slopes[w.head + h] * float(pos - step.pos[w.t]);
        s.scores[h][pos - from] = v;
      }
  }
  __syncthreads();
}

// Makes weights of n scores of each head.
__device__ void weigh(Shared& s, const Work& w, int n) {
  const int lane = threadIdx.x % 32;
  for (int h = threadIdx.x / 32; h < w.heads; h += kThreads / 32) {
    float most = -INFINITY, sum = 0;
    for (int i = lane; i < n; i += 32) most = fmaxf(most, s.scores[h][i]);
    most = warp_reduce(most, Most());
    for (int i = lane; i < n; i += 32) {
      const float weight = expf(s.scores[h][i] - most);
      s.scores[h][i] = weight;
      sum += weight;
    }
    sum = warp_reduce(sum, Sum());
    if (lane == 0) {
      s.most[h] = most;
      s.sum[h] = sum;
    }
  }
  __syncthreads();
}

// The weighted sum of values of positions [from, end), of this thread's columns.
__device__ __forceinline__ void mix(float (&out)[kColumns][kHeads], const Shared& s, const Cache& c, const Work& w, int from,
                                    int end) {
  for (int j = 0; j < kColumns; j++) {
    const int column = int(threadIdx.x) + j * kThreads;
    for (int h = 0; h < kHeads; h++) out[j][h] = 0;
    if (column >= c.value_width) continue;
    for (int pos = from; pos < end; pos++) {
      const char* head = c.head(w.pages[pos / kPageTokens], w.kv);
      const float v = c.kind == MR_CACHE_LATENT
                          ? cached(c, head + pos % kPageTokens * c.key_bytes, c.key_width, column)
                          : cached(c, head + kPageTokens * c.key_bytes + pos % kPageTokens * c.value_bytes, c.value_width, column);
      for (int h = 0; h < kHeads; h++)
        if (h < w.heads) out[j][h] = fmaf(s.scores[h][pos - from], v, out[j][h]);
    }
  }
}

__global__ void __launch_bounds__(kThreads) attend_kernel(Step step, Slots slots, Cache c, Values out, Values x, Values y,
                                                          Attention a) {
  MR_SHARED(Shared, s);
  Work w;
  w.t = blockIdx.x;
  if (w.t >= *step.n_tokens) return;
  const int group = a.heads / c.heads, blocks = (group + kHeads - 1) / kHeads;
  w.kv = int(blockIdx.y) / blocks;
  w.head = w.kv * group + int(blockIdx.y) % blocks * kHeads;
  w.heads = min(kHeads, (w.kv + 1) * group - w.head);
  w.pages = slots.page_table(step.slot[w.t], c.group);
  const Seen range = seen(step, a, w.t);

  State state[kHeads];
  float sums[kColumns][kHeads] = {}, part[kColumns][kHeads];
  for (int h = 0; h < kHeads; h++) state[h] = begin(a, w.head + min(h, w.heads - 1));
  const bool shared_out = a.splits > 1;
  const int first = shared_out ? int(blockIdx.z) : range.first / kSplit, last = shared_out ? first : range.last / kSplit;
  if (shared_out && (first < range.first / kSplit || first > range.last / kSplit)) return;
  for (int split = first; split <= last; split++) {
    const int from = max(range.first, split * kSplit), end = min(range.last + 1, (split + 1) * kSplit);
    score(s, step, c, x, y, a, w, from, end);
    weigh(s, w, end - from);
    mix(part, s, c, w, from, end);
    if (shared_out) break;
    for (int h = 0; h < kHeads; h++) {
      if (h >= w.heads) continue;
      float before, after;
      merge(state[h], {s.most[h], s.sum[h]}, &before, &after);
      for (int j = 0; j < kColumns; j++) sums[j][h] = merge_value(sums[j][h], part[j][h], before, after);
    }
    __syncthreads();
  }
  for (int h = 0; h < w.heads; h++) {
    float* to = shared_out ? a.partial + (size_t(w.t) * a.splits + blockIdx.z) * attention_floats(a.heads, c.value_width) +
                                 size_t(w.head + h) * (c.value_width + 2)
                           : out.row(w.t) + (w.head + h) * c.value_width;
    for (int j = 0; j < kColumns; j++) {
      const int column = int(threadIdx.x) + j * kThreads;
      if (column < c.value_width) to[column] = shared_out ? part[j][h] : sums[j][h] / state[h].sum;
    }
    if (shared_out && threadIdx.x == 0) {
      to[c.value_width] = s.most[h];
      to[c.value_width + 1] = s.sum[h];
    }
  }
}

// Merges the parts of a token's head in their order.
__global__ void __launch_bounds__(kThreads) merge_kernel(Step step, Cache c, Values out, Attention a) {
  const int t = blockIdx.x, head = blockIdx.y;
  if (t >= *step.n_tokens) return;
  const Seen range = seen(step, a, t);
  for (int column = threadIdx.x; column < c.value_width; column += kThreads) {
    State state = begin(a, head);
    float sum = 0;
    for (int split = range.first / kSplit; split <= range.last / kSplit; split++) {
      const float* part = a.partial + (size_t(t) * a.splits + split) * attention_floats(a.heads, c.value_width) +
                          size_t(head) * (c.value_width + 2);
      float before, after;
      merge(state, {part[c.value_width], part[c.value_width + 1]}, &before, &after);
      sum = merge_value(sum, part[column], before, after);
    }
    out.row(t)[head * c.value_width + column] = sum / state.sum;
  }
}

}  // namespace

int attention_shape(const Cache& c) {
  const bool coded = c.format == MR_W8, groups = c.scale_group >= kLeastScaleGroup && (c.scale_group & (c.scale_group - 1)) == 0;
  if ((c.format != MR_F16 && !(coded && groups)) || c.key_width % 8 != 0 || c.value_width % 8 != 0) return -1;
  if (c.kind == MR_CACHE_LATENT)
    return c.key_width <= kMostLatentWidth && c.value_width <= kMostValueWidth ? 2 * kAttentionWidths + coded : -1;
  for (int i = 0; i < kAttentionWidths; i++)
    if (std::max(c.key_width, c.value_width) <= 64 << i) return coded * kAttentionWidths + i;
  return -1;
}

void attend(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values& x,
            const Values& y, const Attention& a, int n, int seqs) {
  const unsigned blocks = unsigned(c.heads * ((a.heads / c.heads + kHeads - 1) / kHeads));
  if (const int shape = attention_shape(c); shape < 0 || (a.tiled >> shape & 1) == 0 || (y.data != nullptr && c.kind != MR_CACHE_LATENT))
    MR_LAUNCH(attend_kernel, dim3(unsigned(n), blocks, unsigned(a.splits)), kThreads, stream, step, slots, c, out, x, y, a);
  else if (c.kind == MR_CACHE_LATENT)
    attend_latent(stream, step, slots, c, out, x, y, a, n, seqs);
  else
    attend_tiled(stream, step, slots, c, out, x, a, n, seqs);
  if (a.splits > 1) MR_LAUNCH(merge_kernel, dim3(unsigned(n), unsigned(a.heads)), kThreads, stream, step, c, out, a);
}

}  // namespace millrace
