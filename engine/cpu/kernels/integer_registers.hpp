// What instruction sets whose registers are alike do alike, for integer.hpp: those of 16 and of 8
// lanes of x86-64, and Arm's. The file that includes this defines MR_WIDE before if its
// processors have no dot products of bytes.
namespace millrace {
namespace MR_ISA {

#if defined(__x86_64__)
constexpr int kOffset = 128;
#if MR_LANES == 16
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)_mm512_shuffle_epi8((__m512i)table, (__m512i)w); }
MR_INLINE Reg widen_f16(Halves h) {
  return (Reg)_mm512_maskz_cvtph_ps(0xffff, (__m256i)h);  // the unmasked form warns in GCC 12
}
#else
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)_mm256_shuffle_epi8((__m256i)table, (__m256i)w); }
MR_INLINE Reg widen_f16(Halves h) { return (Reg)_mm256_cvtph_ps((__m128i)h); }
#endif

// Without dot products of bytes: products of 16 bits, and of 8 where codes are small. They are
// written out, as GCC would add products to each other before it adds them to the sum, and a full
// tile has no registers for those.
#ifdef MR_WIDE
constexpr bool kWide = true, kPairs = true;
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  Ints product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(w), "v"(x));
  return sum;
}
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) {
  Ints product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(w), "v"(x));
  return sum;
}
#if MR_LANES == 8
#define MR_SIGN
MR_INLINE Ints magnitudes(Ints x) { return (Ints)_mm256_abs_epi8((__m256i)x); }
MR_INLINE Ints dot_signed(Ints sum, Bits w, Ints x, Ints magnitude) {
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)magnitude, _mm256_sign_epi8((__m256i)w, (__m256i)x));
  return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif
#elif MR_LANES == 16
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
}
#else
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
}
#endif

#elif defined(__aarch64__)
constexpr int kOffset = 0;
MR_INLINE Bits lookup(Bits table, Bits w) { return (Bits)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)w); }
MR_INLINE Reg widen_f16(Halves h) { return (Reg)vcvt_f32_f16((float16x4_t)h); }
MR_INLINE Ints dot(Ints sum, Bits w, Ints x) {
  return (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
}
#endif

#ifndef MR_WIDE  // dot is of bytes
constexpr bool kWide = false, kPairs = false;
MR_INLINE Ints dot_small(Ints sum, Bits w, Ints x) { return dot(sum, w, x); }
#endif

}  // namespace MR_ISA
}  // namespace millrace
