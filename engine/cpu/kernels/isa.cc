// Which table of kernels this machine runs.
#include <cstring>

#include "kernels.h"

namespace millrace {
namespace {

bool runs_avx2() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

bool runs_avx512() {
#if defined(__x86_64__)
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

}  // namespace

const Kernels* kernels_for(const char* name) {
  const auto named = [name](const char* want) { return std::strcmp(name, want) == 0; };
  if (named("portable")) return portable_kernels();
  if (named("wide")) return runs_avx2() ? wide_kernels() : nullptr;
  const bool any = named("");
  if ((any || named("avx512")) && runs_avx512()) return avx512_kernels();
  if ((any || named("avx2")) && runs_avx2()) return avx2_kernels();
  return any ? portable_kernels() : nullptr;
}

}  // namespace millrace
