// Recurrent layers: each column of a state evolves on its own, so 16 of them
// are a vector, the block of a state they make stays in the first-level cache,
// and the tokens of a step pass over it one after the other. A prompt is never
// computed in chunks at once, as in training: that would round differently
// wherever it was cut.

namespace millrace {
namespace MR_ISA {

// Sums over the key's width run in so many strands, strand s taking the
// elements s, s+4, …, since one alone would wait for its own additions.
constexpr int kStrands = 4;

enum class Rule { gated_delta, kimi_delta, ssm, selective };

template <Rule kRule>
static void scan(const ScanArgs& a) {
  constexpr bool kDelta = kRule == Rule::gated_delta || kRule == Rule::kimi_delta;
  const bool whole = a.columns == kPanel;
  const int n = a.key_dim;
  const auto columns = [&](const float* p) MR_LAMBDA { return whole ? load(p) : load_some(p, a.columns, 0); };
  for (int t = 0; t < a.tokens; t++) {
    const float *k = a.k + t * a.k_stride, *q = a.q + t * a.q_stride;
    const float* decay = kRule == Rule::selective ? nullptr : a.decay + t * a.gate_stride;
    const float* factor = a.factor + t * a.gate_stride;
    const Vec value = columns(a.v + t * a.v_stride);
    const Vec step = kRule == Rule::selective ? softplus(columns(factor)) : splat(*factor);
    const Vec same = splat(kRule == Rule::selective ? 0 : *decay);
    const auto kept = [&](int i) MR_LAMBDA {  // what row i of the state is multiplied with
      if constexpr (kRule == Rule::selective) return exp(load(a.rates + i * kPanel) * step);
      return kRule == Rule::kimi_delta ? splat(decay[i]) : same;
    };
    Vec change = value;
    if constexpr (kDelta) {  // less what the state holds under k already
      Vec known[kStrands];
      for (int s = 0; s < kStrands; s++) known[s] = splat(0);
      const auto look_up = [&](int i, int strand) MR_LAMBDA {
        const float key = kRule == Rule::kimi_delta ? decay[i] * k[i] : k[i];
        known[strand] = fma(load(a.state + i * kPanel), splat(key), known[strand]);
      };
      int i = 0;
      for (; i + kStrands <= n; i += kStrands)
        _Pragma("GCC unroll 4") for (int s = 0; s < kStrands; s++) look_up(i + s, s);
      for (; i < n; i++) look_up(i, i % kStrands);
      const Vec all = (known[0] + known[1]) + (known[2] + known[3]);
      change = value - (kRule == Rule::gated_delta ? same * all : all);
    }
    change = step * change;

    Vec read[kStrands];
    for (int s = 0; s < kStrands; s++) read[s] = splat(0);
    const auto update = [&](int i, int strand) MR_LAMBDA {
      const Vec row = fma(splat(k[i]), change, kept(i) * load(a.state + i * kPanel));
      store(a.state + i * kPanel, row);
      read[strand] = fma(row, splat(q[i]), read[strand]);
    };
    int i = 0;
    for (; i + kStrands <= n; i += kStrands)
      _Pragma("GCC unroll 4") for (int s = 0; s < kStrands; s++) update(i + s, s);
    for (; i < n; i++) update(i, i % kStrands);

    Vec sum = (read[0] + read[1]) + (read[2] + read[3]);
    if constexpr (kRule == Rule::ssm) sum = fma(splat(a.skip), value, sum);
    if constexpr (kRule == Rule::selective) sum = fma(columns(a.skips), value, sum);
    float* out = a.out + t * a.out_stride;
    if (whole)
      store(out, sum);
    else
      store_some(out, a.columns, sum);
  }
}

static void decays(const float* x, const float* bias, float rate, float* out, int n) {
  map2(x, bias, out, n, [rate](Vec a, Vec b) MR_LAMBDA { return exp(splat(rate) * softplus(a + b)); });
}

static void conv(const float* const* taps, int k, const float* weight, size_t stride, const float* bias, bool with_silu,
                 float* out, int n) {
  for (int i = 0; i < n; i += kPanel) {
    const int m = n - i < kPanel ? n - i : kPanel;
    const auto at = [&](const float* p) MR_LAMBDA { return m == kPanel ? load(p + i) : load_some(p + i, m, 0); };
    Vec sum = bias != nullptr ? at(bias) : splat(0);
    for (int j = 0; j < k; j++) sum = fma(at(weight + j * stride), at(taps[j]), sum);
    if (with_silu) sum = silu(sum);
    if (m == kPanel)
      store(out + i, sum);
    else
      store_some(out + i, m, sum);
  }
}

}  // namespace MR_ISA
}  // namespace millrace
