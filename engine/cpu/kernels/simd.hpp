// Vectors of 16 floats on registers of MR_LANES floats, for the instruction
// set whose file includes this (kernels_*.cc define MR_ISA, MR_LANES, MR_FMA).
// No include guard: it is compiled once a set, in that set's namespace.

namespace millrace {
namespace MR_ISA {

typedef float Reg __attribute__((vector_size(4 * MR_LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * MR_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * MR_LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * MR_LANES)));  // as many f16
typedef Reg RegAt __attribute__((aligned(4), may_alias));
typedef Bits BitsAt __attribute__((aligned(2), may_alias));

constexpr int kRegs = kPanel / MR_LANES;  // registers of a Vec

#define MR_INLINE static inline __attribute__((always_inline))

// x*y + z, rounded once where the set can.
MR_INLINE Reg reg_fma(Reg x, Reg y, Reg z) {
#if MR_FMA == 512
  return (Reg)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
#elif MR_FMA == 256 && MR_LANES == 8
  return (Reg)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)z);
#elif MR_FMA == 256
  union Halves {
    Reg whole;
    __m256 half[2];
  } a{x}, b{y}, c{z};
  c.half[0] = _mm256_fmadd_ps(a.half[0], b.half[0], c.half[0]);
  c.half[1] = _mm256_fmadd_ps(a.half[1], b.half[1], c.half[1]);
  return c.whole;
#elif MR_FMA == 128
  return (Reg)vfmaq_f32((float32x4_t)z, (float32x4_t)x, (float32x4_t)y);
#else
  return x * y + z;
#endif
}

// sum += x*y. Written out for 16-register sets: GCC's choice of operand order
// for its fma moves sums between registers, and a full tile has none to spare.
MR_INLINE void reg_accumulate(Reg& sum, Reg x, Reg y) {
#if MR_FMA == 256 && MR_LANES == 8
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(x), "x"(y));
#else
  sum = reg_fma(x, y, sum);
#endif
}

MR_INLINE Reg reg_splat(float x) { return x - Reg{}; }
// x within [low, high], NaN for NaN. GCC makes a comparison and a blend of what
// x86 has an instruction for.
MR_INLINE Reg reg_clamp(Reg x, Reg low, Reg high) {
#if MR_FMA == 512
  const __m512 above = _mm512_maskz_max_ps(0xffff, (__m512)low, (__m512)x);
  return (Reg)_mm512_maskz_min_ps(0xffff, (__m512)high, above);
#elif MR_FMA == 256 && MR_LANES == 8
  return (Reg)_mm256_min_ps((__m256)high, _mm256_max_ps((__m256)low, (__m256)x));
#else
  x = x < low ? low : x;
  return x > high ? high : x;
#endif
}
// first, first + 1, …
MR_INLINE Bits reg_numbers(uint32_t first) {
  Bits b;
  for (int i = 0; i < MR_LANES; i++) b[i] = first + i;
  return b;
}
MR_INLINE Bits reg_bits(const void* p) { return *static_cast<const BitsAt*>(p); }

struct Vec {
  Reg r[kRegs];
};

#define MR_EACH                  \
  _Pragma("GCC unroll 4") for (int i = 0; i < kRegs; i++)

MR_INLINE Vec splat(float x) {
  Vec v;
  MR_EACH v.r[i] = reg_splat(x);
  return v;
}
MR_INLINE Vec load(const float* p) {
  Vec v;
  MR_EACH v.r[i] = *reinterpret_cast<const RegAt*>(p + i * MR_LANES);
  return v;
}
MR_INLINE void store(float* p, Vec v) { MR_EACH *reinterpret_cast<RegAt*>(p + i * MR_LANES) = v.r[i]; }
// The first n lanes of p, fill in the others.
MR_INLINE Vec load_some(const float* p, int n, float fill) {
  float lane[kPanel];
  for (int i = 0; i < kPanel; i++) lane[i] = i < n ? p[i] : fill;
  return load(lane);
}
MR_INLINE void store_some(float* p, int n, Vec v) {
  float lane[kPanel];
  store(lane, v);
  for (int i = 0; i < n; i++) p[i] = lane[i];
}

MR_INLINE Vec operator+(Vec a, Vec b) {
  MR_EACH a.r[i] += b.r[i];
  return a;
}
MR_INLINE Vec operator-(Vec a, Vec b) {
  MR_EACH a.r[i] -= b.r[i];
  return a;
}
MR_INLINE Vec operator*(Vec a, Vec b) {
  MR_EACH a.r[i] *= b.r[i];
  return a;
}
MR_INLINE Vec operator/(Vec a, Vec b) {
  MR_EACH a.r[i] /= b.r[i];
  return a;
}
MR_INLINE Vec fma(Vec a, Vec b, Vec c) {
  MR_EACH c.r[i] = reg_fma(a.r[i], b.r[i], c.r[i]);
  return c;
}
// b where a or b is NaN.
MR_INLINE Vec max(Vec a, Vec b) {
  MR_EACH a.r[i] = a.r[i] > b.r[i] ? a.r[i] : b.r[i];
  return a;
}
// x where |key| < limit, y elsewhere.
MR_INLINE Vec choose_small(Vec key, float limit, Vec x, Vec y) {
  MR_EACH y.r[i] = (key.r[i] < reg_splat(limit)) & (key.r[i] > reg_splat(-limit)) ? x.r[i] : y.r[i];
  return y;
}
// v in lanes [from, to), -inf elsewhere.
MR_INLINE Vec keep_lanes(Vec v, int from, int to) {
  float lane[kPanel];
  store(lane, v);
  for (int i = 0; i < kPanel; i++) lane[i] = i >= from && i < to ? lane[i] : -INFINITY;
  return load(lane);
}
// 0 in every lane that holds a number.
MR_INLINE Vec nan_mark(Vec v) { return v - v; }

MR_INLINE float lane_sum(Vec v) {
  float l[kPanel];
  store(l, v);
  for (int width = kPanel / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) l[i] += l[i + width];
  return l[0];
}
MR_INLINE float lane_max(Vec v) {
  float l[kPanel];
  store(l, v);
  for (int width = kPanel / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) l[i] = l[i] > l[i + width] ? l[i] : l[i + width];
  return l[0];
}

// e^x to 1e-7 relative, 0 below the smallest normal number, e^88 above 88, NaN
// for NaN: x = n ln2 + r, e^r by the polynomial of Cephes' expf (Moshier), and
// 2^n put together from its bits.
MR_INLINE Vec exp(Vec x) {
  constexpr float kLowest = -87.336544f, kHighest = 88.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  MR_EACH {
    Reg v = x.r[i];
    const Ints vanishes = v < reg_splat(kLowest);
    v = reg_clamp(v, reg_splat(kLowest), reg_splat(kHighest));
    const Reg shifted = reg_fma(v, reg_splat(1.44269504f), reg_splat(kRound));
    const Reg n = shifted - reg_splat(kRound);
    Reg r = reg_fma(n, reg_splat(-0.693359375f), v);
    r = reg_fma(n, reg_splat(2.12194440e-4f), r);
    Reg p = reg_splat(1.9875691500e-4f);
    p = reg_fma(p, r, reg_splat(1.3981999507e-3f));
    p = reg_fma(p, r, reg_splat(8.3334519073e-3f));
    p = reg_fma(p, r, reg_splat(4.1665795894e-2f));
    p = reg_fma(p, r, reg_splat(1.6666665459e-1f));
    p = reg_fma(p, r, reg_splat(5.0000001201e-1f));
    p = reg_fma(p, r * r, r) + reg_splat(1.0f);
    const Bits exponent = ((Bits)shifted - (Bits)reg_splat(kRound) + 127u) << 23;
    x.r[i] = vanishes ? Reg{} : p * (Reg)exponent;
  }
  return x;
}

// log(1 + e^x) to 3e-7 relative: with u = e^-|x| that is max(x, 0) + 2 atanh(u/(2 + u)),
// by the series of atanh.
MR_INLINE Vec softplus(Vec x) {
  const Vec u = exp(splat(0) - max(x, splat(0) - x));
  const Vec t = u / (splat(2.0f) + u), s = t * t;
  Vec p = splat(1.0f / 15);
  p = fma(p, s, splat(1.0f / 13));
  p = fma(p, s, splat(1.0f / 11));
  p = fma(p, s, splat(1.0f / 9));
  p = fma(p, s, splat(1.0f / 7));
  p = fma(p, s, splat(1.0f / 5));
  p = fma(p, s, splat(1.0f / 3));
  p = fma(p, s, splat(1.0f));
  return fma(t + t, p, max(splat(0), x));
}

// tanh(x) to 4e-7 relative: its series near 0, where 1 - 2/(e^2x + 1) cancels.
MR_INLINE Vec tanh(Vec x) {
  const Vec s = x * x;
  Vec p = splat(62.0f / 2835);
  p = fma(p, s, splat(-17.0f / 315));
  p = fma(p, s, splat(2.0f / 15));
  p = fma(p, s, splat(-1.0f / 3));
  const Vec small = fma(p * s, x, x);
  const Vec large = splat(1.0f) - splat(2.0f) / (exp(x + x) + splat(1.0f));
  return choose_small(x, 0.25f, small, large);
}

}  // namespace MR_ISA
}  // namespace millrace
