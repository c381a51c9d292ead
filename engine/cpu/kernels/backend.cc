// The C ABI: millrace.h's table.
#include <algorithm>

#include "../../device/abi/entries.h"
#include "backend.h"
#include "context.h"

namespace millrace {
namespace {

constexpr int kMostThreads = 512;

const Kernels& chosen_kernels() {
  const Kernels* k = kernels_for(chosen_isa());
  if (k == nullptr)
    fail(MR_INVALID,
         "MILLRACE_CPU_ISA=%s: this machine runs %s, or portable, wide, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx, dotprod "
         "or i8mm if it has them",
         chosen_isa(), kernels_for("")->name);
  return *k;
}

mr_status probe(mr_caps* caps) {
  fill_caps(caps, *kernels_for(""), usable_cpus());
  return MR_OK;
}

mr_status open(const mr_limits* limits, mr_context** ctx) {
  return Entries<Context>::open(limits, ctx, [&] {
    if (limits->threads < 0 || limits->threads > kMostThreads)
      fail(MR_INVALID, "limit threads is %d, want 0 to %d", limits->threads, kMostThreads);
    const int threads = limits->threads > 0 ? limits->threads : std::min(usable_cpus(), kMostThreads);
    return new Context(*limits, chosen_kernels(), threads);
  });
}

const mr_backend table = Entries<Context>::table(probe, open, Entries<Context>::abandon);

}  // namespace
}  // namespace millrace

const mr_backend* mr_cpu_backend(void) { return &millrace::table; }
