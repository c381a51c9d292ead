// The memory of the device, and the checks of accesses to it.
#ifndef MILLRACE_SHIM_MEMORY_H
#define MILLRACE_SHIM_MEMORY_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace shim {

constexpr size_t kMostDynamic = 99 << 10;  // bytes of shared memory, as the smallest GPUs have

// allocate returns memory that kernels may use, filled with 0xff, or null; pinned memory
// is the host's. deallocate reports whether there was such memory.
void* allocate(size_t bytes, bool pinned, int device);
bool deallocate(void* memory, bool pinned);
size_t allocated(int device);  // bytes

// known reports whether bytes from `at` on lie in one allocation.
bool known(const void* at, size_t bytes, bool* pinned);

// The order of things, for races: launches, blocks and barriers begin a new epoch. Kernels
// may read their arguments.
void next_launch(const void* arguments, size_t bytes);
void next_block();
void next_epoch();

// arrived orders blocks that arrive at the same place before the last that does.
void arrived(const void* at, bool last);
// Span is the epochs of a block until it arrived somewhere.
struct Span {
  uint32_t begin, end;
};

// Epochs are what the running kernel has come to, while another one runs in between.
struct Epochs {
  uint32_t launch, block;
  const void* arguments;
  size_t bytes;
  std::map<const void*, std::vector<Span>> arrived;  // by place
  std::vector<Span> before;                          // of blocks that come before the running one
};
Epochs epochs();
void restore(const Epochs& epochs);

// check faults if the running thread may not access so many bytes, or races.
void check(const void* at, size_t bytes, bool write);

}  // namespace shim
#endif
