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

// kDelta: the gated delta rule, else the state space of Mamba 2.
template <bool kDelta>
static void scan(const ScanArgs& a) {
  const bool whole = a.columns == kPanel;
  const int n = a.key_dim;
  for (int t = 0; t < a.tokens; t++) {
    const float *k = a.k + t * a.k_stride, *q = a.q + t * a.q_stride, *v = a.v + t * a.v_stride;
    const Vec decay = splat(a.decay[t * a.gate_stride]);
    const Vec value = whole ? load(v) : load_some(v, a.columns, 0);
    Vec change = value;
    if constexpr (kDelta) {  // less what the state holds under k already
      Vec known[kStrands];
      for (int s = 0; s < kStrands; s++) known[s] = splat(0);
      int i = 0;
      for (; i + kStrands <= n; i += kStrands)
        _Pragma("GCC unroll 4") for (int s = 0; s < kStrands; s++)
          known[s] = fma(load(a.state + (i + s) * kPanel), splat(k[i + s]), known[s]);
      for (; i < n; i++) known[i % kStrands] = fma(load(a.state + i * kPanel), splat(k[i]), known[i % kStrands]);
      change = value - decay * ((known[0] + known[1]) + (known[2] + known[3]));
    }
    change = splat(a.factor[t * a.gate_stride]) * change;

    Vec read[kStrands];
    for (int s = 0; s < kStrands; s++) read[s] = splat(0);
    const auto update = [&](int i, int strand) MR_LAMBDA {
      const Vec row = fma(splat(k[i]), change, decay * load(a.state + i * kPanel));
      store(a.state + i * kPanel, row);
      read[strand] = fma(row, splat(q[i]), read[strand]);
    };
    int i = 0;
    for (; i + kStrands <= n; i += kStrands)
      _Pragma("GCC unroll 4") for (int s = 0; s < kStrands; s++) update(i + s, s);
    for (; i < n; i++) update(i, i % kStrands);

    Vec sum = (read[0] + read[1]) + (read[2] + read[3]);
    if constexpr (!kDelta) sum = fma(splat(a.skip), value, sum);
    float* out = a.out + t * a.out_stride;
    if (whole)
      store(out, sum);
    else
      store_some(out, a.columns, sum);
  }
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
