// Choosing tokens from logits, as package sample defines it: a block for each run of rows
// of a slot that depend on each other.
//
// Probabilities that are added up are integers, 2^40 times those of the best token: their
// sums are exact, so that they do not depend on which thread was first.
#include "common.cuh"

namespace millrace {
namespace {

// A warp is enough for a small vocabulary.
constexpr int kMostThreads = 256, kSmall = 512;
constexpr float kOne = 0x1p40f;
constexpr float kLargest = 3.40282347e38f;

// The watermark of package sample.
constexpr uint32_t kWatermarkKey = 15485863, kGreenBelow = 1u << 31;
constexpr float kWatermarkDelta = 2;
__device__ __forceinline__ uint32_t mix(uint32_t x) {
  x = (x ^ x >> 16) * 0x85ebca6b;
  x = (x ^ x >> 13) * 0xc2b2ae35;
  return x ^ x >> 16;
}

using Mass = unsigned long long;

__device__ __forceinline__ Mass weight(float l, float peak) { return Mass(expf(l - peak) * kOne); }

// What a block knows of the row it works on.
struct Row {
  float* l;  // scores, -inf of what is filtered out
  int vocab;
};

__device__ float largest(const Row& row) {
  float most = -INFINITY;
  for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) most = Most()(row.l[i], most);
  return block_reduce(most, Most());
}

__device__ Mass total(const Row& row, float peak) {
  Mass sum = 0;
  for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) sum += weight(row.l[i], peak);
  return block_reduce(sum, Sum());
}

// The sum of v of the threads before this one.
struct Scanned {
  Mass v[kMostThreads / 32];
};
__device__ Mass scan(Mass v) {
  MR_SHARED(Scanned, shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Mass sum = v;
  for (int by = 1; by < 32; by *= 2) {
    const Mass before = __shfl_up_sync(kFullWarp, sum, by);
    if (lane >= by) sum += before;
  }
  __syncthreads();
  if (lane == 31) shared.v[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; w++) sum += shared.v[w];
  return sum - v;
}

// Each thread's part of the row where order counts.
struct Part {
  int first, end;
};
__device__ __forceinline__ Part part_of(const Row& row) {
  const int each = (row.vocab + int(blockDim.x) - 1) / int(blockDim.x), first = min(row.vocab, int(threadIdx.x) * each);
  return {first, min(row.vocab, first + each)};
}

// keep_shortest filters out all but the shortest prefix that weighs at least need, in the
// order of key, then of id; with ties, all that have the last key are kept. It finds that
// key by 8 bits at a time, the highest first.
struct Histogram {
  Mass mass[256];
  Mass before;
  int bin;
};
template <int bits, class Key, class Weight>
__device__ void keep_shortest(const Row& row, Mass need, bool ties, Key key, Weight weight) {
  MR_SHARED(Histogram, h);
  Mass prefix = 0, before = 0;
  for (int shift = bits - 8; shift >= 0; shift -= 8) {
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += int(blockDim.x)) h.mass[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) {
      if (row.l[i] == -INFINITY) continue;
      const Mass k = key(i);
      if (shift + 8 < 64 && (k >> (shift + 8)) != prefix) continue;
      atomicAdd(&h.mass[k >> shift & 255], weight(i));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = 0, last = 0;
      Mass sum = before;
      for (; bin < 256; bin++) {
        if (h.mass[bin] != 0) last = bin;
        if (sum + h.mass[bin] >= need) break;
        sum += h.mass[bin];
      }
      h.bin = bin < 256 ? bin : last;  // all of it weighs less: the last one that there is
      h.before = bin < 256 ? sum : sum - h.mass[last];
    }
    __syncthreads();
    prefix = prefix << 8 | Mass(h.bin);
    before = h.before;
  }
  Mass tied = 0;
  const Part part = part_of(row);
  for (int i = part.first; i < part.end; i++)
    if (row.l[i] != -INFINITY && key(i) == prefix) tied += weight(i);
  tied = before + scan(tied);
  for (int i = part.first; i < part.end; i++) {
    if (row.l[i] == -INFINITY) continue;
    const Mass k = key(i);
    if (k > prefix || (k == prefix && !ties && tied >= need)) {
      row.l[i] = -INFINITY;
      continue;
    }
    if (k == prefix) tied += weight(i);
  }
  __syncthreads();
}

__device__ Mass share(float p, Mass of) {
  const Mass need = Mass(ceil(double(p) * double(of)));
  return need == 0 ? 1 : need;
}

__device__ void top_k(const Row& row, int k) {
  keep_shortest<32>(row, Mass(k), true, [&](int i) { return Mass(descending(row.l[i])); }, [](int) { return Mass(1); });
}

__device__ void top_p(const Row& row, float peak, float p) {
  const Mass need = share(p, total(row, peak));
  keep_shortest<32>(row, need, false, [&](int i) { return Mass(descending(row.l[i])); }, [&](int i) { return weight(row.l[i], peak); });
}

__device__ void typical_p(const Row& row, float peak, float p) {
  double mass = 0, mean = 0;
  for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) {
    if (row.l[i] == -INFINITY) continue;
    const double w = expf(row.l[i] - peak);
    mass += w;
    mean += w * (double(row.l[i]) - double(peak));
  }
  mass = block_reduce(mass, Sum());
  mean = block_reduce(mean, Sum()) / mass;  // of ln p + ln mass, so that |-ln p - H| = |mean - key|
  const Mass need = share(p, total(row, peak));
  keep_shortest<64>(
      row, need, false,
      [&](int i) { return Mass(__double_as_longlong(fabs(mean - (double(row.l[i]) - double(peak))))); },
      [&](int i) { return weight(row.l[i], peak); });
}

__device__ void min_p(const Row& row, float peak, float p) {
  for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) {
    // Exponentials in float64 near the bound only, where they decide.
    const float w = expf(row.l[i] - peak);
    const bool near = fabsf(w - p) < 1e-5f * p;
    if (near ? exp(double(row.l[i]) - double(peak)) < double(p) : w < p) row.l[i] = -INFINITY;
  }
  __syncthreads();
}

// Philox4x32-10 (Salmon et al. 2011, §4.3), keyed by the seed, counting tokens.
__device__ double uniform(uint64_t seed, int32_t index) {
  uint32_t c[4] = {uint32_t(index), 0, 0, 0}, k[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t(0xD2511F53) * c[0], p1 = uint64_t(0xCD9E8D57) * c[2];
    c[0] = uint32_t(p1 >> 32) ^ c[1] ^ k[0];
    c[1] = uint32_t(p1);
    c[2] = uint32_t(p0 >> 32) ^ c[3] ^ k[1];
    c[3] = uint32_t(p0);
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return double((uint64_t(c[0]) << 32 | c[1]) >> 11) * 0x1p-53;
}

struct Chosen {
  int token;
};

// Walks the row until the running sum of weights exceeds u times the whole.
__device__ int draw(const Row& row, float peak, Mass all, double u) {
  MR_SHARED(Chosen, shared);
  const Mass target = Mass(u * double(all));
  const Part part = part_of(row);
  Mass mine = 0;
  for (int i = part.first; i < part.end; i++) mine += weight(row.l[i], peak);
  Mass sum = scan(mine);
  if (sum <= target && target < sum + mine)
    for (int i = part.first; i < part.end; i++) {
      sum += weight(row.l[i], peak);
      if (sum > target) {
        shared.token = i;
        break;
      }
    }
  __syncthreads();
  return shared.token;
}

// The first of this thread's tokens after `after` in the order of scores, then of ids;
// ~0: there is none.
__device__ Mass next_of_mine(const Row& row, Mass after, bool any) {
  Mass best = ~Mass(0);
  for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) {
    if (row.l[i] == -INFINITY) continue;
    const Mass at = Mass(descending(row.l[i])) << 32 | unsigned(i);
    if ((any || at > after) && at < best) best = at;
  }
  return best;
}

__device__ float logprob(float l, double norm) { return float(double(l) - norm); }

// Writes the n best kept tokens, and those that tie with the last.
__device__ int alternatives(const Row& row, double norm, int n, mr_alternative* top) {
  if (n <= 0) return 0;
  Mass at = 0, mine = next_of_mine(row, 0, true);
  int found = 0;
  for (; found < MR_MAX_TOP_N; found++) {
    const Mass next = block_reduce(mine, Least());
    if (next == ~Mass(0) || (found >= n && next >> 32 != at >> 32)) break;
    at = next;
    if (mine == at) mine = next_of_mine(row, at, false);
    const int token = int(uint32_t(at));
    if (threadIdx.x == 0) top[found] = {token, logprob(row.l[token], norm)};
  }
  return found;
}

// Steps 1 to 7, of which a score has the first alone. Returns the greatest score: a NaN
// or an infinity of an invalid row.
__device__ float adjust(const Row& row, const Head& head, const mr_params* params, const uint32_t* mask, const Slots& s, int slot,
                        int32_t prev) {
  float peak = -INFINITY;
  for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) {
    const float v = softcap(head.scale * (head.bias == nullptr ? row.l[i] : row.l[i] + head.bias[i]), head.cap);
    peak = Most()(v, peak);
    row.l[i] = v;
    if (params != nullptr && mask != nullptr && (mask[i / 32] >> i % 32 & 1) == 0) row.l[i] = -INFINITY;
  }
  peak = block_reduce(peak, Most());
  if (params == nullptr || !(fabsf(peak) < INFINITY)) return peak;
  const mr_bias_delta* biases = s.biases + size_t(slot) * MR_MAX_BIASES;
  const int n = s.n_biases[slot];
  for (int i = threadIdx.x; i < n; i += int(blockDim.x)) {
    // One thread adds all those of a token, in their order.
    bool first = true;
    for (int j = 0; j < i; j++) first = first && biases[j].token != biases[i].token;
    if (!first) continue;
    float l = row.l[biases[i].token];
    for (int j = i; j < n; j++)
      if (biases[j].token == biases[i].token) l += biases[j].bias;
    row.l[biases[i].token] = l;
  }
  __syncthreads();
  const bool penalised =
      params->repetition_penalty != 1 || params->frequency_penalty != 0 || params->presence_penalty != 0;
  const uint32_t* counts = s.counts + size_t(slot) * s.vocab;
  const uint32_t split = mix(uint32_t(prev) ^ kWatermarkKey);
  for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) {
    float l = row.l[i];
    if (params->watermark == 1 && mix(uint32_t(i) ^ split) < kGreenBelow) l += kWatermarkDelta;
    if (penalised && counts[i] != 0) {
      l = l < 0 ? l * params->repetition_penalty : l / params->repetition_penalty;
      const uint32_t generated = counts[i] >> 1;
      if (generated > 0) {
        l -= params->frequency_penalty * float(generated);
        l -= params->presence_penalty;
      }
      l = l > kLargest ? kLargest : l;
    }
    row.l[i] = l;
  }
  __syncthreads();
  return largest(row);
}

// Steps 8 to 12. Returns the greatest score that is left.
__device__ float filter(const Row& row, const mr_params& p, float peak) {
  if (p.temperature != 1) {
    for (int i = threadIdx.x; i < row.vocab; i += int(blockDim.x)) row.l[i] = (row.l[i] - peak) / p.temperature;
    __syncthreads();
    peak = 0;
  }
  if (p.top_k > 0 && p.top_k < row.vocab) top_k(row, p.top_k);
  if (p.top_p < 1) top_p(row, peak, p.top_p);
  if (p.typical_p < 1) {
    typical_p(row, peak, p.typical_p);
    peak = largest(row);
  }
  if (p.min_p > 0) min_p(row, peak, p.min_p);
  return peak;
}

__device__ void answer(const Step& step, const Slots& s, const mr_batch& b, const Row& row, const Head& head, int r) {
  const mr_row asked = b.rows[r];
  mr_row_result result = {};
  for (int32_t& draft : result.drafts) draft = MR_NONE;
  const bool scores = asked.kind == MR_ROW_SCORE;
  const mr_params& params = s.params[asked.slot];
  const int32_t prev = asked.kind == MR_ROW_AGAIN ? s.prev[asked.slot] : step.token[asked.token];
  if (asked.kind == MR_ROW_VERIFY && s.is_void[asked.slot] != 0) {
    result.is_void = 1;
    if (threadIdx.x == 0) b.results[r] = result;
    return;
  }
  const uint32_t* mask = asked.mask == 0 ? nullptr : b.masks + size_t(asked.mask - 1) * b.mask_words;
  float peak = adjust(row, head, scores ? nullptr : &params, mask, s, asked.slot, prev);
  result.invalid = !(fabsf(peak) < INFINITY);
  if (result.invalid == 0) {
    __syncthreads();
    if (!scores && params.sample == 1) peak = filter(row, params, peak);
    const Mass all = total(row, peak);
    const double norm = double(peak) + log(double(all) * 0x1p-40);
    if (scores)
      result.token = asked.target;
    else if (params.sample == 1)
      result.token = draw(row, peak, all, uniform(params.seed, asked.index));
    else
      result.token = int(uint32_t(block_reduce(next_of_mine(row, 0, true), Least())));
    result.logprob = logprob(row.l[result.token], norm);
    result.top_count = alternatives(row, norm, asked.top_n, b.top + size_t(r) * MR_MAX_TOP_N);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  b.results[r] = result;
  if (scores) return;
  s.is_void[asked.slot] = result.invalid != 0 || result.token != asked.target;
  if (result.invalid != 0) return;
  s.last[asked.slot] = result.token;
  uint32_t& count = s.counts[size_t(asked.slot) * s.vocab + result.token];
  count = (count | 1) + 2;
}

// At most 64 blocks run, so that registers are not short.
__global__ void __launch_bounds__(kMostThreads, 1) sample_kernel(Step step, Slots s, Values logits, Head head, int first, int n) {
  const mr_batch& b = **step.batch;
  const int end = min(first + n, b.n_rows);
  int r = first + int(blockIdx.x);
  const auto follows = [&](int r) {
    return r > first && r < end && b.rows[r].kind == MR_ROW_VERIFY && b.rows[r].slot == b.rows[r - 1].slot;
  };
  if (r >= end || follows(r)) return;
  do {
    answer(step, s, b, {logits.row(r - first), s.vocab}, head, r);
    __syncthreads();
    r++;
  } while (follows(r));
}

__global__ void begin_kernel(Step step, Slots s) {
  // The rows of a slot follow each other.
  const int r = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (r < *step.n_rows && (r == 0 || step.row_slot[r - 1] != step.row_slot[r])) s.is_void[step.row_slot[r]] = 0;
}

}  // namespace

void begin_sample(cudaStream_t stream, const Step& step, const Slots& slots, int n) {
  MR_LAUNCH(begin_kernel, unsigned(n + 127) / 128, 128, stream, step, slots);
}

void sample_rows(cudaStream_t stream, const Step& step, const Slots& slots, const Values& logits, const Head& head, int first,
                 int n) {
  MR_LAUNCH(sample_kernel, unsigned(n), slots.vocab <= kSmall ? 32 : kMostThreads, stream, step, slots, logits, head, first, n);
}

}  // namespace millrace
