// Which table of kernels this machine runs.
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"

namespace millrace {
namespace {

bool runs_any() { return true; }

#if defined(__x86_64__)
bool runs_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool runs_avxvnni() { return runs_avx2() && __builtin_cpu_supports("avxvnni"); }

bool runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool runs_avx512vnni() { return runs_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool runs_avx512bf16() { return runs_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }

// Linux saves the registers of tiles only for a process that has asked: the first use would end any
// other. Threads that there are later may use them as well. A system that does not know the
// question, as sandboxes that emulate Linux, refuses, and the processor's other instructions are left.
bool allowed_tiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// The compiler's answer includes that the system has the registers enabled.
bool runs_amx() {
  return runs_avx512bf16() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
         allowed_tiles();
}
#elif defined(__aarch64__)
bool runs_dotprod() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;  // Apple's processors
#endif
}

bool runs_i8mm() {
#if defined(__linux__)
  return runs_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#else
  return false;  // Apple's first processors lack it
#endif
}
#endif

struct Set {
  const char* name;
  bool (*runs)();
  const Kernels* (*floats)();
  const Integers* (*integers)();
  const Dots* (*dots)() = [] { return static_cast<const Dots*>(nullptr); };
};

// The best first; what follows portable is chosen by name only.
const Set kSets[] = {
#if defined(__x86_64__)
    {"amx", runs_amx, avx512_kernels, amx_integers, avx512bf16_dots},
    {"avx512bf16", runs_avx512bf16, avx512_kernels, avx512vnni_integers, avx512bf16_dots},
    {"avx512vnni", runs_avx512vnni, avx512_kernels, avx512vnni_integers},
    {"avx512", runs_avx512, avx512_kernels, avx512_integers},
    {"avxvnni", runs_avxvnni, avx2_kernels, avxvnni_integers},
    {"avx2", runs_avx2, avx2_kernels, avx2_integers},
#elif defined(__aarch64__)
    {"i8mm", runs_i8mm, portable_kernels, i8mm_integers},
    {"dotprod", runs_dotprod, portable_kernels, dotprod_integers},
#endif
    {"portable", runs_any, portable_kernels, portable_integers},
#if defined(__x86_64__)
    {"wide", runs_avx2, wide_kernels, avx2_integers},
    {"amx-emulated", runs_avx512vnni, avx512_kernels, amx_emulated_integers, emulated_dots},
    {"bf16-emulated", runs_avx2, wide_kernels, avx2_integers, emulated_dots},
#endif
};

}  // namespace

const Kernels* kernels_for(const char* name) {
  static const std::vector<Kernels> tables = [] {
    std::vector<Kernels> all;
    for (const Set& set : kSets) {
      if (!set.runs()) continue;
      all.push_back(*set.floats());
      all.back().name = set.name;
      all.back().integers = set.integers();
      all.back().dots = set.dots();
    }
    return all;
  }();
  for (const Kernels& k : tables)
    if (*name == 0 || std::strcmp(name, k.name) == 0) return &k;
  return nullptr;
}

const char* chosen_isa() {
  const char* name = std::getenv("MILLRACE_CPU_ISA");
  return name == nullptr ? "" : name;
}

}  // namespace millrace
