// What happens to one row at a time: norms, rotations, activations, and what
// sampling does to a row of logits. A sum runs in 16 lanes, lane i taking the
// elements i, i+16, …, and the lanes are added as a tree.

namespace millrace {
namespace MR_ISA {

// Applies f to n elements in blocks of 16; the last block may be short.
template <class F>
MR_INLINE void map2(const float* x, const float* y, float* out, int n, F f) {
  int i = 0;
  for (; i + kPanel <= n; i += kPanel) store(out + i, f(load(x + i), load(y + i)));
  if (i < n) store_some(out + i, n - i, f(load_some(x + i, n - i, 0), load_some(y + i, n - i, 0)));
}

template <class F>
MR_INLINE void map(const float* x, float* out, int n, F f) {
  map2(x, x, out, n, [&](Vec v, Vec) MR_LAMBDA { return f(v); });
}

static void add(const float* x, const float* y, float f, float* out, int n) {
  map2(x, y, out, n, [f](Vec a, Vec b) MR_LAMBDA { return a + splat(f) * b; });
}

static void scale(const float* x, float f, float* out, int n) {
  map(x, out, n, [f](Vec v) MR_LAMBDA { return v * splat(f); });
}

// a * sigmoid(s)
MR_INLINE Vec gate(Vec a, Vec s) { return a / (splat(1) + exp(splat(0) - s)); }

MR_INLINE Vec silu(Vec a) { return gate(a, a); }

// gelu_tanh(a) = a/2 (1 + tanh u) = a * sigmoid(2u), u = sqrt(2/π) (a + 0.044715 a³)
MR_INLINE Vec gelu_tanh(Vec a) {
  const Vec u = splat(1.5957691216f) * fma(splat(0.044715f) * a * a, a, a);
  return gate(a, u);
}

// a Φ(a), with Φ(-|a|) = erfc(|a|/√2)/2 by the approximation of Numerical
// Recipes (Press et al., erfcc), which is good to 1.2e-7 relative however far
// out.
MR_INLINE Vec gelu(Vec a) {
  const Vec z = max(a, splat(0) - a) * splat(0.70710678f);
  const Vec t = splat(1) / fma(splat(0.5f), z, splat(1));
  Vec p = splat(0.17087277f);
  p = fma(p, t, splat(-0.82215223f));
  p = fma(p, t, splat(1.48851587f));
  p = fma(p, t, splat(-1.13520398f));
  p = fma(p, t, splat(0.27886807f));
  p = fma(p, t, splat(-0.18628806f));
  p = fma(p, t, splat(0.09678418f));
  p = fma(p, t, splat(0.37409196f));
  p = fma(p, t, splat(1.00002368f));
  p = fma(p, t, splat(-1.26551223f));
  const Vec tail = splat(0.5f) * t * exp(fma(splat(0) - z, z, p));
  Vec phi = splat(1) - tail;
  MR_EACH phi.r[i] = a.r[i] < reg_splat(0) ? tail.r[i] : phi.r[i];
  return a * phi;
}

// max(a, 0) that keeps a NaN.
MR_INLINE Vec relu(Vec a) {
  MR_EACH a.r[i] = a.r[i] < reg_splat(0) ? Reg{} : a.r[i];
  return a;
}

MR_INLINE Vec at_most(Vec a, float limit) {
  MR_EACH a.r[i] = a.r[i] > reg_splat(limit) ? reg_splat(limit) : a.r[i];
  return a;
}
MR_INLINE Vec at_least(Vec a, float limit) {
  MR_EACH a.r[i] = a.r[i] < reg_splat(limit) ? reg_splat(limit) : a.r[i];
  return a;
}

// Agarwal et al., Deriving Activation Functions Using Integration, 2024, §3
MR_INLINE Vec xielu(Vec a, const Activation& act) {
  const Vec above = splat(act.positive) * a * a, below = splat(act.negative) * ((exp(a) - splat(1)) - a);
  Vec bent;
  MR_EACH bent.r[i] = a.r[i] > reg_splat(0) ? above.r[i] : below.r[i];
  return fma(splat(act.alpha), a, bent);
}

// out = f(x) or, gated, f(x) * y.
template <class F>
MR_INLINE void activate_with(const float* x, const float* y, float* out, int n, F f) {
  if (y == nullptr)
    map(x, out, n, f);
  else
    map2(x, y, out, n, [&](Vec a, Vec b) MR_LAMBDA { return f(a) * b; });
}

static void activate(const Activation& act, const float* x, const float* y, float* out, int n) {
  switch (act.kind) {
    case MR_ACT_SILU:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return silu(a); });
    case MR_ACT_GELU:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return gelu(a); });
    case MR_ACT_GELU_TANH:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return gelu_tanh(a); });
    case MR_ACT_RELU:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return relu(a); });
    case MR_ACT_RELU2:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return relu(a) * relu(a); });
    case MR_ACT_SIGMOID:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return gate(splat(1), a); });
    case MR_ACT_TANH:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return tanh(a); });
    case MR_ACT_QUICK_GELU:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return gate(a, splat(1.702f) * a); });
    case MR_ACT_CLIP: {
      const bool limited = act.limit > 0;
      const float most = limited ? act.limit : act.positive, least = limited ? -act.limit : act.negative;
      return activate_with(x, y, out, n, [&](Vec a) MR_LAMBDA { return at_least(at_most(a, most), least); });
    }
    case MR_ACT_XIELU:
      return map(x, out, n, [&](Vec a) MR_LAMBDA { return xielu(a, act); });
    case MR_ACT_CLAMPED_SWIGLU:
      return map2(x, y, out, n, [&](Vec a, Vec b) MR_LAMBDA {
        const Vec g = at_most(a, act.limit), u = at_least(at_most(b, act.limit), -act.limit);
        return gate(g, splat(act.alpha) * g) * (u + splat(1));
      });
    default:
      return activate_with(x, y, out, n, [](Vec a) MR_LAMBDA { return a; });
  }
}

// The sum of n elements of x after f, and of their squares.
template <class F>
MR_INLINE float sum_of(const float* x, int n, F f) {
  Vec sum = splat(0);
  int i = 0;
  for (; i + kPanel <= n; i += kPanel) sum = f(load(x + i), sum);
  if (i < n) sum = f(load_some(x + i, n - i, 0), sum);
  return lane_sum(sum);
}

MR_INLINE float sum_of_squares(const float* x, int n) {
  return sum_of(x, n, [](Vec v, Vec sum) MR_LAMBDA { return fma(v, v, sum); });
}

static void rmsnorm(const NormArgs& a) {
  const float* x = a.x;
  if (a.gate_kind == MR_GATE_BEFORE) {
    activate({MR_ACT_SILU, 0, 0}, a.gate, x, a.out, a.n);
    x = a.out;
  }
  float factor = 1 / std::sqrt(sum_of_squares(x, a.n) / a.n + a.eps);
  if (a.gate_kind == MR_GATE_MAGNITUDE) factor *= std::sqrt(sum_of_squares(a.gate, a.n) / a.n);
  if (a.weight == nullptr)
    scale(x, factor, a.out, a.n);
  else
    map2(x, a.weight, a.out, a.n, [&](Vec v, Vec g) MR_LAMBDA { return v * splat(factor) * (g + splat(a.shift)); });
  if (a.gate_kind == MR_GATE_AFTER)
    map2(a.out, a.gate, a.out, a.n, [](Vec v, Vec g) MR_LAMBDA { return v * silu(g); });
  if (a.gate_kind == MR_GATE_SIGMOID)
    map2(a.out, a.gate, a.out, a.n, [](Vec v, Vec g) MR_LAMBDA { return gate(v, g); });
}

MR_INLINE float mean_of(const float* x, int n) {
  return sum_of(x, n, [](Vec v, Vec sum) MR_LAMBDA { return sum + v; }) / n;
}

static void layernorm(const NormArgs& a) {
  const float mean = mean_of(a.x, a.n);
  map(a.x, a.out, a.n, [&](Vec v) MR_LAMBDA { return v - splat(mean); });
  const float factor = 1 / std::sqrt(sum_of_squares(a.out, a.n) / a.n + a.eps);
  if (a.weight == nullptr)
    scale(a.out, factor, a.out, a.n);
  else
    map2(a.out, a.weight, a.out, a.n,
         [&](Vec v, Vec g) MR_LAMBDA { return v * splat(factor) * (g + splat(a.shift)); });
  if (a.bias != nullptr) add(a.out, a.bias, 1, a.out, a.n);
}

static void sparsify(const float* x, float deviations, float* out, int n) {
  const float mean = mean_of(x, n);
  map(x, out, n, [mean](Vec v) MR_LAMBDA { return v - splat(mean); });
  const float cut = deviations * std::sqrt(sum_of_squares(out, n) / n);
  map(out, out, n, [cut](Vec v) MR_LAMBDA { return relu(v - splat(cut)); });
}

static void unit(const float* x, float eps, float f, float* out, int n) {
  scale(x, f / std::sqrt(sum_of_squares(x, n) + eps), out, n);
}

static void rope(float* head, const float* angles, int rotary) {
  const int half = rotary / 2;
  const float *cosine = angles, *sine = angles + half;
  for (int i = 0; i < half; i += kPanel) {
    const int n = half - i < kPanel ? half - i : kPanel;
    const bool whole = n == kPanel;
    float *x = head + i, *y = head + half + i;
    const Vec a = whole ? load(x) : load_some(x, n, 0), b = whole ? load(y) : load_some(y, n, 0);
    const Vec c = whole ? load(cosine + i) : load_some(cosine + i, n, 0);
    const Vec s = whole ? load(sine + i) : load_some(sine + i, n, 0);
    const Vec turned_a = a * c - b * s, turned_b = b * c + a * s;
    if (whole) {
      store(x, turned_a);
      store(y, turned_b);
    } else {
      store_some(x, n, turned_a);
      store_some(y, n, turned_b);
    }
  }
}

static void rope_pairs(float* x, const float* angles, int rotary) {
  const float* sine = angles + rotary;
  for (int i = 0; i < rotary; i += kPanel) {
    const int n = rotary - i < kPanel ? rotary - i : kPanel;
    const bool whole = n == kPanel;
    const Vec v = whole ? load(x + i) : load_some(x + i, n, 0);
    const Vec c = whole ? load(angles + i) : load_some(angles + i, n, 0);
    const Vec s = whole ? load(sine + i) : load_some(sine + i, n, 0);
    Bits partner = reg_numbers(0) ^ 1u;
    Vec swapped;
    MR_EACH swapped.r[i] = __builtin_shuffle(v.r[i], (Ints)partner);
    const Vec turned = v * c + swapped * s;
    if (whole)
      store(x + i, turned);
    else
      store_some(x + i, n, turned);
  }
}

#ifdef MR_F16
static void to_f16(const float* x, uint16_t* out, int n) {
  constexpr float kLargest = 65504;
  int i = 0;
  for (; i + kPanel <= n; i += kPanel) store_f16(out + i, at_least(at_most(load(x + i), kLargest), -kLargest));
  if (i == n) return;
  uint16_t tail[kPanel];
  store_f16(tail, at_least(at_most(load_some(x + i, n - i, 0), kLargest), -kLargest));
  for (int j = 0; i + j < n; j++) out[i + j] = tail[j];
}

static void to_w8(const float* x, int n, int group, int8_t* codes, uint16_t* scales) {
  const auto at = [&](int i, int end) MR_LAMBDA {
    return end - i < kPanel ? load_some(x + i, end - i, 0) : load(x + i);
  };
  for (int first = 0; first < n; first += group) {
    const int end = n - first < group ? n : first + group;
    Vec most = splat(0), mark = splat(0);
    for (int i = first; i < end; i += kPanel) {
      const Vec v = at(i, end);
      most = max(most, max(v, splat(0) - v));
      mark = mark + nan_mark(v);
    }
    const float exact = lane_max(most) / 127 + lane_sum(mark);
    uint16_t half[kPanel] = {};
    to_f16(&exact, half, 1);
    float scale[kPanel];
    store(scale, load_f16(reinterpret_cast<const char*>(half)));
    *scales++ = half[0];
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    for (int i = first; i < end; i += kPanel) {
      float code[kPanel];
      if (scale[0] > 0)
        store(code, at_least(at_most(at(i, end) / splat(scale[0]), 127), -127) + splat(kRound) - splat(kRound));
      else
        store(code, splat(0));
      for (int j = 0; j < kPanel; j++) codes[i + j] = int8_t(code[j]);
    }
  }
}
#endif

static void mask(float* x, const uint32_t* bits, int n) {
  const Reg hidden = reg_splat(-INFINITY);
  for (int at = 0; at < n; at += kPanel) {
    const uint32_t allowed = bits[at / 32] >> at % 32 & 0xffff;
    if (allowed == 0xffff) continue;
    const bool whole = at + kPanel <= n;
    Vec v = whole ? load(x + at) : load_some(x + at, n - at, 0);
    MR_EACH v.r[i] = ((Bits{} + allowed) >> reg_numbers(i * MR_LANES) & 1u) != 0u ? v.r[i] : hidden;
    if (whole)
      store(x + at, v);
    else
      store_some(x + at, n - at, v);
  }
}

static void watermark(float* x, uint32_t seed, uint32_t below, float delta, int n) {
  int at = 0;
  map(x, x, n, [&](Vec v) MR_LAMBDA {
    MR_EACH {
      const Bits hash = mix(reg_numbers(at + i * MR_LANES) ^ seed);
      v.r[i] = hash < below ? v.r[i] + reg_splat(delta) : v.r[i];
    }
    at += kPanel;
    return v;
  });
}

static void softcap(float* x, float cap, int n) {
  map(x, x, n, [cap](Vec v) MR_LAMBDA { return splat(cap) * tanh(v / splat(cap)); });
}

static float highest(const float* x, int n) {
  Vec top = splat(-INFINITY), numbers = splat(0);
  // x*0 would do too, but marks infinities as well; those the maximum shows.
  const auto take = [&](Vec v) MR_LAMBDA {
    top = max(v, top);
    MR_EACH numbers.r[i] = v.r[i] == v.r[i] ? numbers.r[i] : v.r[i];
  };
  int i = 0;
  for (; i + kPanel <= n; i += kPanel) take(load(x + i));
  if (i < n) take(load_some(x + i, n - i, -INFINITY));
  const float nan = lane_sum(numbers);
  return nan != nan ? nan : lane_max(top);
}

static void temper(float* x, float peak, float t, int n) {
  map(x, x, n, [peak, t](Vec v) MR_LAMBDA { return (v - splat(peak)) / splat(t); });
}

static void exp_shift(const float* x, float peak, float* out, int n) {
  map(x, out, n, [peak](Vec v) MR_LAMBDA { return exp(v - splat(peak)); });
}

// The sum is float64 every 256 elements, which keeps 152k terms at 1e-7.
static double exp_sum(const float* x, float peak, int n) {
  constexpr int kBlock = 256;
  double sum = 0;
  for (int i = 0; i < n; i += kBlock) {
    const int end = n - i < kBlock ? n : i + kBlock;
    Vec part = splat(0);
    int j = i;
    for (; j + kPanel <= end; j += kPanel) part = part + exp(load(x + j) - splat(peak));
    if (j < end) part = part + exp(load_some(x + j, end - j, -INFINITY) - splat(peak));
    sum += lane_sum(part);
  }
  return sum;
}

}  // namespace MR_ISA
}  // namespace millrace
