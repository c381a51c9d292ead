#include "sampler.h"

#include <algorithm>
#include <cmath>

// The definition rounds every operation on its own.
#pragma GCC optimize("fp-contract=off")

namespace millrace {
namespace {

constexpr float kInfinity = INFINITY;
constexpr float kLargest = 3.40282347e38f;

// The watermark, as package sample has it.
constexpr uint32_t kWatermarkKey = 15485863;
constexpr uint32_t kGreenBelow = uint32_t(1) << 31;  // gamma = 1/2
constexpr float kWatermarkDelta = 2;

bool penalised(const mr_params& p) {
  return p.repetition_penalty != 1 || p.frequency_penalty != 0 || p.presence_penalty != 0;
}

// Steps 5 to 7.
void penalise(float* logits, const mr_params& p, const Counts& counts) {
  for (const Counts::Entry& e : counts) {
    float l = logits[e.token];
    l = l < 0 ? l * p.repetition_penalty : l / p.repetition_penalty;
    if (e.generated > 0) {
      l -= p.frequency_penalty * float(e.generated);
      l -= p.presence_penalty;
    }
    logits[e.token] = std::min(l, kLargest);
  }
}

float logprob(float l, double norm) { return float(double(l) - norm); }

}  // namespace

Counts::Counts(int most) : most_(most) {
  uint32_t cells = 4;
  while (cells < 2 * uint32_t(most)) cells *= 2;
  mask_ = cells - 1;
  entries_ = Mapping(size_t(most) * sizeof(Entry));
  cells_ = Mapping(size_t(cells) * sizeof(uint32_t));
}

uint32_t* Counts::cell(int32_t token) const {
  uint32_t at = uint32_t(token) * 2654435769u >> 7 & mask_;  // Fibonacci hashing
  uint32_t* cells = cells_.as<uint32_t>();
  while (cells[at] != 0 && begin()[cells[at] - 1].token != token) at = (at + 1) & mask_;
  return cells + at;
}

// Removing the latest first leaves every probe sequence whole until its end.
void Counts::clear() {
  while (size_ > 0) *cell(begin()[size_-- - 1].token) = 0;
}

bool Counts::add(int32_t token, bool generated) {
  uint32_t* c = cell(token);
  if (*c == 0) {
    if (size_ == most_) return false;
    entries_.as<Entry>()[size_++] = {token, 0};
    *c = uint32_t(size_);
  }
  if (generated) entries_.as<Entry>()[*c - 1].generated++;
  return true;
}

Sampler::Sampler(const Kernels& kernels, int vocab) : kernels_(kernels), vocab_(vocab), weights_(vocab) {
  ranked_.reserve(vocab);
}

// Steps 2 to 7. Reports whether there was anything to do.
bool Sampler::adjust(float* logits, const Input& in) {
  if (in.mask != nullptr) kernels_.mask(logits, in.mask, vocab_);
  for (const mr_bias_delta& b : in.biases) logits[b.token] += b.bias;
  if (in.params.watermark == 1)
    kernels_.watermark(logits, mix(uint32_t(in.prev) ^ kWatermarkKey), kGreenBelow, kWatermarkDelta, vocab_);
  if (penalised(in.params)) penalise(logits, in.params, in.counts);
  return in.mask != nullptr || !in.biases.empty() || in.params.watermark == 1 || penalised(in.params);
}

void Sampler::choose(float* logits, const Input& in, const mr_row& row, mr_row_result* result, mr_alternative* top) {
  const mr_params& params = in.params;
  *result = {0, 0, 0, 1, 0, 0};
  float peak = kernels_.highest(logits, vocab_);
  if (!(std::fabs(peak) < kInfinity)) return;
  if (adjust(logits, in)) {
    peak = kernels_.highest(logits, vocab_);
    if (!(std::fabs(peak) < kInfinity)) return;
  }
  if (params.sample == 1) {
    if (params.temperature != 1) {
      kernels_.temper(logits, peak, params.temperature, vocab_);
      peak = 0;
    }
    if (params.top_k > 0 && params.top_k < vocab_) top_k(logits, params.top_k);
    if (params.top_p < 1) top_p(logits, peak, params.top_p);
    if (params.typical_p < 1) {
      typical_p(logits, peak, params.typical_p);
      peak = kernels_.highest(logits, vocab_);
    }
    if (params.min_p > 0) min_p(logits, peak, params.min_p);
  }
  const double sum = kernels_.exp_sum(logits, peak, vocab_), norm = peak + std::log(sum);
  const int32_t token = params.sample == 1 ? draw(logits, peak, sum, uniform(params.seed, row.index))
                                           : int32_t(std::find(logits, logits + vocab_, peak) - logits);
  *result = {token, logprob(logits[token], norm), alternatives(logits, norm, row.top_n, top), 0, 0, 0};
}

void Sampler::score(const float* logits, const mr_row& row, mr_row_result* result, mr_alternative* top) {
  *result = {row.target, 0, 0, 1, 0, 0};
  const float peak = kernels_.highest(logits, vocab_);
  if (!(std::fabs(peak) < kInfinity)) return;
  const double norm = peak + std::log(kernels_.exp_sum(logits, peak, vocab_));
  *result = {row.target, logprob(logits[row.target], norm), alternatives(logits, norm, row.top_n, top), 0, 0, 0};
}

void Sampler::top_k(float* logits, int k) {
  std::copy(logits, logits + vocab_, weights_.begin());
  std::nth_element(weights_.begin(), weights_.begin() + (k - 1), weights_.end(), std::greater<float>());
  const float least = weights_[k - 1];
  for (int i = 0; i < vocab_; i++)
    if (logits[i] < least) logits[i] = -kInfinity;
}

void Sampler::top_p(float* logits, float peak, double p) {
  kernels_.exp_shift(logits, peak, weights_.data(), vocab_);
  double mass = 0;
  for (const float w : weights_) mass += w;
  // Few tokens hold the mass that is wanted. Those within a factor e^16 of the
  // best are ranked first; the others only if that was not enough.
  for (const float least : {peak - 16, -kLargest}) {
    ranked_.clear();
    double reached = 0;
    for (int i = 0; i < vocab_; i++) {
      if (logits[i] < least) continue;
      ranked_.push_back({-double(logits[i]), weights_[i], i});
      reached += weights_[i];
    }
    if (reached < p * mass && least != -kLargest) continue;
    const size_t kept = shortest(p * mass);
    for (int i = 0; i < vocab_; i++)
      if (logits[i] < least) logits[i] = -kInfinity;
    keep(logits, kept);
    return;
  }
}

void Sampler::typical_p(float* logits, float peak, double p) {
  kernels_.exp_shift(logits, peak, weights_.data(), vocab_);
  ranked_.clear();
  double mass = 0, mean = 0;
  for (int i = 0; i < vocab_; i++) {
    if (logits[i] == -kInfinity) continue;
    const double key = double(logits[i]) - peak;
    ranked_.push_back({key, weights_[i], i});
    mass += weights_[i];
    mean += weights_[i] * key;
  }
  mean /= mass;  // of ln p + ln mass, so that |-ln p - H| = |mean - key|
  for (Candidate& c : ranked_) c.key = std::fabs(mean - c.key);
  keep(logits, shortest(p * mass));
}

void Sampler::min_p(float* logits, float peak, double p) {
  const double least = std::log(p), doubt = 1e-6;  // exponentials are worth it near the bound only
  for (int i = 0; i < vocab_; i++) {
    const double l = double(logits[i]) - double(peak);
    if (l < least - doubt || (l < least + doubt && std::exp(l) < p)) logits[i] = -kInfinity;
  }
}

// Filters out all but the first n of ranked_.
void Sampler::keep(float* logits, size_t n) {
  for (size_t i = n; i < ranked_.size(); i++) logits[ranked_[i].id] = -kInfinity;
}

// Brings the shortest prefix of ranked_, in candidate order, that weighs at
// least need to the front, unordered, and returns its length: quickselect by
// weight, linear on average.
size_t Sampler::shortest(double need) {
  const auto before = [](const Candidate& a, const Candidate& b) { return a.before(b); };
  size_t low = 0, high = ranked_.size();
  double sum = 0;  // weight of [0, low)
  while (low < high && sum < need) {
    const auto first = ranked_.begin() + low, last = ranked_.begin() + high;
    Candidate three[] = {*first, *(first + (high - low) / 2), *(last - 1)};
    std::sort(three, three + 3, before);
    const Candidate pivot = three[1];  // sorted rows are not the worst case
    const auto middle = std::partition(first, last, [&](const Candidate& c) { return before(c, pivot); });
    double left = 0;
    for (auto c = first; c != middle; ++c) left += c->weight;
    if (sum + left >= need) {
      high = size_t(middle - ranked_.begin());
      continue;
    }
    std::iter_swap(middle, std::find_if(middle, last, [&](const Candidate& c) { return c.id == pivot.id; }));
    sum += left + pivot.weight;
    low = size_t(middle - ranked_.begin()) + 1;
  }
  return std::clamp<size_t>(std::min(low, high), 1, ranked_.size());
}

int32_t Sampler::draw(const float* logits, float peak, double sum, double u) {
  constexpr int kBlock = 256;  // exp_sum adds up the same blocks
  const double target = u * sum;
  double before = 0;
  int i = 0;
  for (; i + kBlock < vocab_; i += kBlock) {
    const double block = kernels_.exp_sum(logits + i, peak, kBlock);
    if (before + block > target) break;
    before += block;
  }
  int32_t chosen = -1;
  for (; i < vocab_; i += kBlock) {
    const int n = std::min(kBlock, vocab_ - i);
    kernels_.exp_shift(logits + i, peak, weights_.data(), n);
    for (int j = 0; j < n; j++) {
      if (logits[i + j] == -kInfinity) continue;
      chosen = i + j;
      before += weights_[j];
      if (before > target) return chosen;
    }
  }
  if (chosen >= 0) return chosen;
  // Rounding left none after the last block skipped: the last kept one.
  for (i = vocab_ - 1; i > 0 && logits[i] == -kInfinity;) i--;
  return i;
}

int Sampler::alternatives(const float* logits, double norm, int n, mr_alternative* top) {
  if (n <= 0) return 0;
  int size = 0;  // of top, sorted by score, then by id
  for (int i = 0; i < vocab_; i++) {
    const float l = logits[i];
    if (l == -kInfinity || (size == MR_MAX_TOP_N && l <= top[size - 1].logprob)) continue;
    if (size < MR_MAX_TOP_N) size++;
    int at = size - 1;
    for (; at > 0 && top[at - 1].logprob < l; at--) top[at] = top[at - 1];
    top[at] = {i, l};
  }
  int end = std::min(n, size);
  while (end > 0 && end < size && top[end].logprob == top[end - 1].logprob) end++;
  for (int i = 0; i < end; i++) top[i].logprob = logprob(top[i].logprob, norm);
  return end;
}

// Philox4x32-10 (Salmon et al. 2011, §4.3), keyed by the seed, counting tokens.
double uniform(uint64_t seed, int32_t index) {
  uint32_t c[4] = {uint32_t(index), 0, 0, 0}, k[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t(0xD2511F53) * c[0], p1 = uint64_t(0xCD9E8D57) * c[2];
    const uint32_t next[4] = {uint32_t(p1 >> 32) ^ c[1] ^ k[0], uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k[1],
                              uint32_t(p0)};
    std::copy(next, next + 4, c);
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return double((uint64_t(c[0]) << 32 | c[1]) >> 11) * 0x1p-53;
}

}  // namespace millrace
