#include "memory.h"

#include <link.h>
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "fault.h"

namespace shim {
namespace {

constexpr size_t kGuard = 4096;  // between allocations

// Mark is who accessed a byte last. Threads count from 1; kMany are readers of several
// warps, and of one warp there may be several, of which reader is one.
struct Mark {
  uint32_t write_epoch, read_epoch;
  uint16_t writer, reader;
  uint16_t write_syncs, read_syncs;  // of the warp, so far
  bool atomic, several;
};
constexpr uint16_t kMany = 0xffff;

struct Allocation {
  size_t bytes;
  bool pinned;
  int device;
  Mark* marks;  // one a byte, in the checked build
};

std::mutex mutex;
std::map<uintptr_t, Allocation> allocations;
std::map<int, size_t> total;  // bytes, by device

#ifdef MILLRACE_SHIM_CHECKED
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

size_t whole_pages(size_t n) { return (n + 4095) / 4096 * 4096; }

void* map(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

// The allocation that an address is in.
const Allocation* find(uintptr_t at, uintptr_t* base) {
  auto next = allocations.upper_bound(at);
  if (next == allocations.begin()) return nullptr;
  --next;
  *base = next->first;
  return at - next->first < next->second.bytes ? &next->second : nullptr;
}

}  // namespace

void* allocate(size_t bytes, bool pinned, int device) {
  const size_t length = whole_pages(bytes) + 2 * kGuard;
  char* p = static_cast<char*>(map(length));
  if (p == nullptr) return nullptr;
  if (pinned || !does_nothing()) std::memset(p + kGuard, 0xff, whole_pages(bytes));
  Allocation a = {bytes, pinned, device, nullptr};
  if (kChecked) {
    a.marks = static_cast<Mark*>(map(bytes * sizeof(Mark) + 1));
    if (a.marks == nullptr) {
      munmap(p, length);
      return nullptr;
    }
  }
  const std::lock_guard<std::mutex> lock(mutex);
  allocations[uintptr_t(p + kGuard)] = a;
  if (!pinned) total[device] += bytes;
  return p + kGuard;
}

bool deallocate(void* memory, bool pinned) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto it = allocations.find(uintptr_t(memory));
  if (it == allocations.end() || it->second.pinned != pinned) return false;
  const Allocation& a = it->second;
  munmap(static_cast<char*>(memory) - kGuard, whole_pages(a.bytes) + 2 * kGuard);
  if (a.marks != nullptr) munmap(a.marks, a.bytes * sizeof(Mark) + 1);
  if (!pinned) total[a.device] -= a.bytes;
  allocations.erase(it);
  return true;
}

size_t allocated(int device) {
  const std::lock_guard<std::mutex> lock(mutex);
  return total[device];
}

bool known(const void* at, size_t bytes, bool* pinned) {
  const std::lock_guard<std::mutex> lock(mutex);
  uintptr_t base;
  const Allocation* a = find(uintptr_t(at), &base);
  if (a == nullptr || uintptr_t(at) - base + bytes > a->bytes) return false;
  *pinned = a->pinned;
  return true;
}

#ifdef MILLRACE_SHIM_CHECKED

namespace {

uint32_t epoch = 1, launch_epoch = 1, block_epoch = 1;
uintptr_t arguments_at = 0, arguments_bytes = 0;
Mark shared_marks[kMostDynamic];

// Of all blocks that have arrived, by place, and of those that come before the running one.
std::map<const void*, std::vector<Span>> spans;
std::vector<Span> before;

bool comes_before(uint32_t epoch) {
  for (const Span& s : before)
    if (s.begin <= epoch && epoch < s.end) return true;
  return false;
}

// The library itself: constants, and what the shim keeps of the running thread.
uintptr_t image_begin = 0, image_end = 0;

int find_image(dl_phdr_info* info, size_t, void*) {
  uintptr_t low = UINTPTR_MAX, high = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    const uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    low = at < low ? at : low;
    high = at + info->dlpi_phdr[i].p_memsz > high ? at + info->dlpi_phdr[i].p_memsz : high;
  }
  const uintptr_t mine = reinterpret_cast<uintptr_t>(&epoch);
  if (mine < low || mine >= high) return 0;
  image_begin = low;
  image_end = high;
  return 1;
}

bool in_image(uintptr_t at) {
  if (image_end == 0) dl_iterate_phdr(find_image, nullptr);
  return at >= image_begin && at < image_end;
}

bool same_warp(uint16_t a, uint16_t b) { return a != kMany && (a - 1) / 32 == (b - 1) / 32; }

// Whether what a thread of the block did in this epoch, after so many synchronisations of
// its warp, comes before what the running thread does, which is not the same thread.
bool ordered(uint16_t other, uint16_t syncs, uint16_t mine) {
  return same_warp(other, mine) && syncs != uint16_t(current_syncs());
}

// since is the epoch from which on marks count.
const char* race(Mark& m, uint32_t since, bool write, bool atomic) {
  const uint16_t mine = uint16_t(current_thread() + 1), syncs = uint16_t(current_syncs());
  const char* found = nullptr;
  if (m.write_epoch >= since && !(atomic && m.atomic)) {
    if (m.write_epoch < block_epoch && !comes_before(m.write_epoch))
      found = "that another block writes";
    else if (m.write_epoch == epoch && m.writer != mine && !ordered(m.writer, m.write_syncs, mine))
      found = "that another thread writes";
  }
  if (write && found == nullptr && m.read_epoch >= since) {
    if (m.read_epoch < block_epoch && !comes_before(m.read_epoch))
      found = "that another block reads";
    else if (m.read_epoch == epoch && (m.reader != mine || m.several) && !ordered(m.reader, m.read_syncs, mine))
      found = "that another thread reads";
  }
  if (write) {
    m.write_epoch = epoch;
    m.writer = mine;
    m.write_syncs = syncs;
    m.atomic = atomic;
    return found;
  }
  if (m.read_epoch == epoch && !same_warp(m.reader, mine)) {
    m.reader = kMany;
    return found;
  }
  m.several = m.read_epoch == epoch && m.read_syncs == syncs && (m.several || m.reader != mine);
  m.read_epoch = epoch;
  m.reader = mine;
  m.read_syncs = syncs;
  return found;
}

void check_access(const void* at, size_t bytes, bool write, bool atomic) {
  if (!in_kernel() || on_stack(at)) return;
  const uintptr_t address = uintptr_t(at);
  Mark* marks = nullptr;
  uint32_t since = launch_epoch;
  const char* what = write ? "writes" : "reads";
  if (in_shared(at, bytes)) {
    marks = shared_marks + shared_offset(at);
    since = block_epoch;
  } else if (in_any_shared(at)) {
    fault("%s %zu bytes beyond the shared memory of the block", what, bytes);
  } else if (address - arguments_at < arguments_bytes || in_image(address)) {
    return;
  } else {
    uintptr_t base = 0;
    const Allocation* a = find(address, &base);
    if (a == nullptr || address - base + bytes > a->bytes) {
      if (on_any_stack(at)) fault("%s %zu bytes on the stack of another thread", what, bytes);
      auto next = allocations.upper_bound(address);
      if (next == allocations.begin()) fault("%s %zu bytes outside of the device's memory", what, bytes);
      --next;
      fault("%s %zu bytes out of bounds: %zu bytes into an allocation of %zu", what, bytes, size_t(address - next->first),
            next->second.bytes);
    }
    marks = a->marks + (address - base);
  }
  for (size_t i = 0; i < bytes; i++)
    if (const char* found = race(marks[i], since, write, atomic)) fault("a race: %s a byte %s", what, found);
}

}  // namespace

void next_launch(const void* arguments, size_t bytes) {
  arguments_at = uintptr_t(arguments);
  arguments_bytes = bytes;
  launch_epoch = block_epoch = ++epoch;
  spans.clear();
  before.clear();
}
void next_block() {
  block_epoch = ++epoch;
  before.clear();
}
void arrived(const void* at, bool last) {
  spans[at].push_back({block_epoch, epoch});
  if (last) before = std::move(spans[at]);
}
Epochs epochs() { return {launch_epoch, block_epoch, reinterpret_cast<const void*>(arguments_at), arguments_bytes, spans, before}; }
void restore(const Epochs& e) {
  launch_epoch = e.launch;
  block_epoch = e.block;
  arguments_at = uintptr_t(e.arguments);
  arguments_bytes = e.bytes;
  spans = e.arrived;
  before = e.before;
}
void next_epoch() { epoch++; }
void check(const void* at, size_t bytes, bool write) { check_access(at, bytes, write, false); }
void check_atomic(const void* at, int bytes) { check_access(at, size_t(bytes), true, true); }

#else

void next_launch(const void*, size_t) {}
void next_block() {}
Epochs epochs() { return {}; }
void restore(const Epochs&) {}
void next_epoch() {}
void arrived(const void*, bool) {}
void check(const void*, size_t, bool) {}
void check_atomic(const void*, int) {}

#endif

}  // namespace shim

#ifdef MILLRACE_SHIM_CHECKED

// What the compiler calls at every access (-fsanitize=thread).
namespace {

void access(const void* at, size_t bytes, bool write) {
  if (!shim::in_kernel()) return;
  if (bytes > 1 && uintptr_t(at) % bytes != 0) shim::fault("a misaligned access of %zu bytes", bytes);
  shim::check(at, bytes, write);
}

}  // namespace

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read1(void* at) { access(at, 1, false); }
void __tsan_read2(void* at) { access(at, 2, false); }
void __tsan_read4(void* at) { access(at, 4, false); }
void __tsan_read8(void* at) { access(at, 8, false); }
void __tsan_read16(void* at) { access(at, 16, false); }
void __tsan_write1(void* at) { access(at, 1, true); }
void __tsan_write2(void* at) { access(at, 2, true); }
void __tsan_write4(void* at) { access(at, 4, true); }
void __tsan_write8(void* at) { access(at, 8, true); }
void __tsan_write16(void* at) { access(at, 16, true); }
void __tsan_read_range(void* at, size_t bytes) { shim::check(at, bytes, false); }
void __tsan_write_range(void* at, size_t bytes) { shim::check(at, bytes, true); }
}

#endif
