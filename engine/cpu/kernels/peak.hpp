// The arithmetic peak: nothing but independent fused multiply-adds.

namespace millrace {
namespace MR_ISA {

// Runs `rounds` rounds and returns the operations done, two a lane.
static int64_t fma_loop(int64_t rounds) {
  constexpr int kChains = MR_ACCUMULATORS < 12 ? MR_ACCUMULATORS : 12;
  Reg sum[kChains], x = reg_splat(0.5f), y = reg_splat(0.25f);
  for (int c = 0; c < kChains; c++) sum[c] = reg_splat(float(c));
  for (int64_t i = 0; i < rounds; i++) {
    _Pragma("GCC unroll 12") for (int c = 0; c < kChains; c++) sum[c] = reg_fma(sum[c], x, y);
  }
  float total = 0;
  for (int c = 0; c < kChains; c++) total += sum[c][0];
  asm volatile("" : : "m"(total));
  return rounds * kChains * MR_LANES * 2;
}

}  // namespace MR_ISA
}  // namespace millrace
