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

static void add(const float* x, const float* y, float* out, int n) {
  map2(x, y, out, n, [](Vec a, Vec b) MR_LAMBDA { return a + b; });
}

// a * sigmoid(s)
MR_INLINE Vec gate(Vec a, Vec s) { return a / (splat(1) + exp(splat(0) - s)); }

static void silu_mul(const float* x, const float* y, float* out, int n) {
  map2(x, y, out, n, [](Vec a, Vec b) MR_LAMBDA { return gate(a, a) * b; });
}

// gelu_tanh(a) = a/2 (1 + tanh u) = a * sigmoid(2u), u = sqrt(2/π) (a + 0.044715 a³)
static void gelu_mul(const float* x, const float* y, float* out, int n) {
  map2(x, y, out, n, [](Vec a, Vec b) MR_LAMBDA {
    const Vec u = splat(1.5957691216f) * fma(splat(0.044715f) * a * a, a, a);
    return gate(a, u) * b;
  });
}

static void scale(const float* x, float f, float* out, int n) {
  map(x, out, n, [f](Vec v) MR_LAMBDA { return v * splat(f); });
}

static void rmsnorm(const float* x, const float* w, float* out, int n, float eps, float offset) {
  Vec squares = splat(0);
  int i = 0;
  for (; i + kPanel <= n; i += kPanel) {
    const Vec v = load(x + i);
    squares = fma(v, v, squares);
  }
  if (i < n) {
    const Vec v = load_some(x + i, n - i, 0);
    squares = fma(v, v, squares);
  }
  const float factor = 1 / std::sqrt(lane_sum(squares) / n + eps);
  map2(x, w, out, n,
       [factor, offset](Vec v, Vec g) MR_LAMBDA { return v * splat(factor) * (g + splat(offset)); });
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
