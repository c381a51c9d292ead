// The C ABI: millrace.h's table.
#include <entries.h>

#include "context.h"
#include "error.h"

namespace millrace {
namespace {

mr_status probe(mr_caps* caps) {
  return Entries<Context>::guard(Entries<Context>::open_error, [&] { fill_caps(caps, find_device()); });
}

mr_status open(const mr_limits* limits, mr_context** ctx) {
  return Entries<Context>::open(limits, ctx, [&] { return new Context(*limits); });
}

}  // namespace
}  // namespace millrace

// Bytes of the GPU that are free, and that it has; 0 if it does not say.
extern "C" __attribute__((visibility("default"))) void mr_cuda_memory(int64_t* free, int64_t* total) {
  size_t left = 0, all = 0;
  if (cudaMemGetInfo(&left, &all) != cudaSuccess) cudaGetLastError();
  *free = int64_t(left);
  *total = int64_t(all);
}

extern "C" __attribute__((visibility("default"))) const mr_backend mr_backend_v6 =
    millrace::Entries<millrace::Context>::table(millrace::probe, millrace::open);
