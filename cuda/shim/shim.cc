#include "shim.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fault.h"
#include "fibre.h"
#include "memory.h"

#ifdef __x86_64__
// Saves what a called function must keep, changes stacks, and goes on there.
asm(R"(
.text
.hidden millrace_shim_switch
.globl millrace_shim_switch
.type millrace_shim_switch, @function
millrace_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size millrace_shim_switch, .-millrace_shim_switch
)");
#endif

namespace shim {

Running running;

namespace {

bool same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

constexpr int kLanes = 32, kMostThreads = 1024;
constexpr size_t kMostShared = 48 << 10;

struct Copy {
  char* to;
  const char* from;
  int bytes, valid;
};

enum State : uint8_t { ready, in_barrier, in_warp, ended };

// Thread is one thread of the block that is running.
struct Thread {
  Fibre fibre;
  Index index{};
  const char* file = nullptr;  // where it waits
  int line = 0;
  void* offer = nullptr;                  // of its part in a collective
  std::vector<std::vector<Copy>> groups;  // copies; the last group is not committed
};

// Warp is the collective that the lanes of a warp are gathering for.
struct Warp {
  unsigned arrived = 0, mask = 0;
  const char* file = nullptr;
  int line = 0;
  unsigned syncs = 0;
};

// Schedule is the order in which what could run does.
class Schedule {
 public:
  Schedule() {
    const char* name = std::getenv("MILLRACE_SHIM_SCHEDULE");
    if (name == nullptr || std::strcmp(name, "forward") == 0) return;
    reverse_ = std::strcmp(name, "reverse") == 0;
    if (std::strncmp(name, "random", 6) != 0) return;
    random_ = true;
    if (name[6] == ':') state_ = std::strtoull(name + 7, nullptr, 10) * 2 + 1;
  }
  bool random() const { return random_; }
  // order fills out with 0 … n-1. Without chance it is the same each time.
  void order(std::vector<int>& out, int n) {
    if (!random_ && out.size() == size_t(n)) return;
    out.resize(size_t(n));
    for (int i = 0; i < n; i++) out[size_t(i)] = reverse_ ? n - 1 - i : i;
    if (random_)
      for (int i = n - 1; i > 0; i--) std::swap(out[size_t(i)], out[next() % unsigned(i + 1)]);
  }

 private:
  unsigned next() {  // xorshift
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return unsigned(state_ >> 32);
  }
  bool reverse_ = false, random_ = false;
  uint64_t state_ = 0x9e3779b97f4a7c15;
};

// Machine is what runs kernels: one block at a time, of the whole process. A kernel that
// waits for another device's stops, and that one runs on a machine of its own.
struct Machine {
  Fibre host;
  std::vector<std::unique_ptr<Thread>> threads;
  State state[kMostThreads];
  bool woken = false;  // a collective has made lanes ready
  std::vector<Warp> warps;
  int size = 0, current = -1;  // threads of a block; which is running
  int first = 0, next = 0;     // of the warp that is running: its first thread; which of its lanes is next
  int live = 0, waiting = 0;   // of these: not ended; in the barrier
  int votes = 0, counted = 0;  // of the barrier; of the last one
  const Call* call = nullptr;
  bool faulted = false, running_block = false;
  std::vector<int> blocks, order, lanes;

  alignas(128) char shared[kMostDynamic];
  size_t shared_used = 0;
  struct Part {
    const char* site;
    size_t bytes, at;
  };
  std::vector<Part> parts;

  Thread& thread(int i) { return *threads[size_t(i)]; }
  Thread& self() { return *threads[size_t(current)]; }
  Warp& warp() { return warps[size_t(current / kLanes)]; }
};
Schedule schedule;
std::vector<std::unique_ptr<Machine>> machines;  // by how many kernels are stopped
size_t stopped = 0;
thread_local Machine* machine = nullptr;  // that this thread runs

// Makes the next lane of the warp that is ready the running thread, if there is one in this
// pass.
bool advance() {
  while (machine->next < kLanes) {
    const int i = machine->first + machine->lanes[size_t(machine->next++)];
    if (machine->state[i] != ready) continue;
    machine->current = i;
    running.thread = machine->thread(i).index;
    return true;
  }
  machine->current = -1;
  return false;
}

// Stops the running thread; the next one goes on.
void stop(State state, const char* file, int line) {
  Thread& t = machine->self();
  machine->state[machine->current] = state;
  t.file = file;
  t.line = line;
  t.fibre.switch_to(advance() ? machine->self().fibre : machine->host);
}

void entry() {
  for (;;) {
    machine->call->run(machine->call->arguments);
    Thread& t = machine->self();
    for (size_t i = 0; i < t.groups.size(); i++)
      if (!t.groups[i].empty()) fault("%zu asynchronous copies that nobody waits for", t.groups[i].size());
    machine->live--;
    stop(ended, "", 0);
  }
}

// Lets the barrier go if all are there.
bool release() {
  if (machine->waiting == 0 || machine->waiting < machine->size) return false;
  const Thread& first = machine->thread(0);
  for (int i = 1; i < machine->size; i++) {
    const Thread& t = machine->thread(i);
    if (t.line != first.line || !same(t.file, first.file)) {
      fault_outside("divergent barriers: thread 0 waits at %s:%d, thread %d at %s:%d", first.file, first.line, i, t.file,
                    t.line);
      return false;
    }
  }
  std::fill_n(machine->state, machine->size, ready);
  machine->waiting = 0;
  machine->counted = machine->votes;
  machine->votes = 0;
  next_epoch();
  return true;
}

void deadlock() {
  for (int i = 0; i < machine->size; i++) {
    const Thread& t = machine->thread(i);
    if (machine->state[i] == in_warp) {
      fault_outside("divergent warp: thread %d waits at %s:%d for lanes %08x, of which only %08x have come", i, t.file, t.line,
                    machine->warps[size_t(i / kLanes)].mask, machine->warps[size_t(i / kLanes)].arrived);
      return;
    }
  }
  for (int i = 0; i < machine->size; i++) {
    const Thread& t = machine->thread(i);
    if (machine->state[i] == in_barrier) {
      fault_outside("divergent barrier: thread %d waits at %s:%d, %d of %d threads have ended", i, t.file, t.line,
                    machine->size - machine->live, machine->size);
      return;
    }
  }
}

// Runs those lanes of a warp that can, until none can.
bool run_warp(int warp) {
  bool any = false;
  do {
    machine->woken = false;
    schedule.order(machine->lanes, kLanes);
    machine->first = warp * kLanes;
    machine->next = 0;
    if (!advance()) break;
    machine->host.switch_to(machine->self().fibre);
    any = true;
  } while (machine->woken && !schedule.random() && !machine->faulted);
  machine->current = -1;
  return any;
}

void run_block(const Call& call) {
  machine->size = int(call.block.x * call.block.y * call.block.z);
  machine->live = machine->size;
  machine->waiting = machine->votes = 0;
  machine->parts.clear();
  machine->shared_used = 0;
  machine->warps.assign(size_t(machine->size / kLanes), Warp());
  while (int(machine->threads.size()) < machine->size) machine->threads.push_back(std::make_unique<Thread>());
  for (int i = 0; i < machine->size; i++) {
    Thread& t = machine->thread(i);
    const unsigned at = unsigned(i), x = call.block.x, y = call.block.y;
    t.index = {at % x, at / x % y, at / (x * y)};
    t.groups.clear();
    t.fibre.start(entry);
  }
  std::fill_n(machine->state, machine->size, ready);
  while (machine->live > 0 && !machine->faulted) {
    bool any = false;
    schedule.order(machine->order, machine->size / kLanes);
    for (const int w : machine->order) any = run_warp(w) || any;
    if (machine->live == 0 || machine->faulted || release() || machine->faulted) continue;
    if (!any) deadlock();
  }
}

}  // namespace

// Whether this is the call that asked, "kernel:n", names, of which n have been before.
static bool is_nth(const char* asked, const char* kernel, int& n) {
  if (asked == nullptr) return false;
  const char* colon = std::strchr(asked, ':');
  const size_t length = colon == nullptr ? std::strlen(asked) : size_t(colon - asked);
  if (std::strncmp(kernel, asked, length) != 0 || kernel[length] != 0) return false;
  return ++n == (colon == nullptr ? 1 : std::atoi(colon + 1));
}
bool asked_to_fail(const char* kernel) {
  static const char* const asked = std::getenv("MILLRACE_SHIM_FAULT");
  static int n = 0;
  return is_nth(asked, kernel, n);
}

static void run_blocks(const Call& call) {
  machine->call = &call;
  machine->faulted = false;
  if (asked_to_fail(call.kernel)) return fault_outside("a fault that was asked for");
  static const char* const skipped = std::getenv("MILLRACE_SHIM_SKIP");
  static int launches = 0;
  if (is_nth(skipped, call.kernel, launches)) return;
  running.block_size = call.block;
  running.grid_size = call.grid;
  const uint64_t threads = uint64_t(call.block.x) * call.block.y * call.block.z;
  const uint64_t blocks = uint64_t(call.grid.x) * call.grid.y * call.grid.z;
  if (threads > kMostThreads || threads % kLanes != 0 || threads == 0 || blocks == 0 || call.grid.y > 65535 ||
      call.grid.z > 65535) {
    fault_outside("a grid of %u, %u, %u blocks of %u, %u, %u threads", call.grid.x, call.grid.y, call.grid.z, call.block.x,
                  call.block.y, call.block.z);
    return;
  }
  next_launch(call.arguments, call.bytes);
  schedule.order(machine->blocks, int(blocks));
  for (const int b : machine->blocks) {
    const unsigned i = unsigned(b);
    running.block = {i % call.grid.x, i / call.grid.x % call.grid.y, i / (call.grid.x * call.grid.y)};
    next_block();
    machine->running_block = true;
    run_block(call);
    if (machine->faulted) break;
  }
  machine->running_block = false;
  machine->call = nullptr;
  next_launch(nullptr, 0);
}

// Runs a kernel to its end, or to its first fault.
void run_kernel(const Call& call) {
  if (machines.size() <= stopped) machines.push_back(std::make_unique<Machine>());
  machine = machines[stopped].get();
  run_blocks(call);
  machine = nullptr;
}

// Other devices go on while the running thread waits; where none of them can, it waits in
// vain.
bool wait_until(const volatile uint32_t* flag, uint32_t least, const volatile int* abandoned) {
  while (int32_t(*flag - least) < 0) {
    if (*abandoned != 0) return false;
    Machine* const mine = machine;
    const Running was = running;
    const Epochs then = epochs();
    stopped++;
    const bool went_on = run_other_device();
    stopped--;
    machine = mine;
    running = was;
    restore(then);
    if (went_on) continue;
    if (another_device_is_lost()) return false;
    fault("waits for a flag that nobody raises");
  }
  return true;
}

bool in_kernel() { return machine != nullptr && machine->current >= 0; }
int current_thread() { return machine->current; }
unsigned current_syncs() { return machine->warp().syncs; }
bool on_stack(const void* at) { return machine->self().fibre.owns(at); }
bool on_any_stack(const void* at) {
  for (int i = 0; i < machine->size; i++)
    if (machine->thread(i).fibre.owns(at)) return true;
  return false;
}
bool in_shared(const void* at, size_t bytes) {
  const char* p = static_cast<const char*>(at);
  return p >= machine->shared && p + bytes <= machine->shared + machine->shared_used;
}
bool in_any_shared(const void* at) { return shared_offset(at) < sizeof machine->shared; }
size_t shared_offset(const void* at) { return size_t(static_cast<const char*>(at) - machine->shared); }

namespace {

// Reports the fault; the kernel does not go on.
void vfault(const char* format, va_list args) {
  machine->faulted = true;
  char what[512], where[256] = "";
  std::vsnprintf(what, sizeof what, format, args);
  if (machine->current >= 0)
    std::snprintf(where, sizeof where, ", block (%u, %u, %u), thread (%u, %u, %u)", running.block.x, running.block.y,
                  running.block.z, running.thread.x, running.thread.y, running.thread.z);
  else if (machine->running_block)
    std::snprintf(where, sizeof where, ", block (%u, %u, %u)", running.block.x, running.block.y, running.block.z);
  report("kernel " + std::string(machine->call == nullptr ? "?" : machine->call->kernel) + where + ": " + what);
}

}  // namespace

void fault(const char* format, ...) {
  va_list args;
  va_start(args, format);
  vfault(format, args);
  va_end(args);
  machine->self().fibre.switch_to(machine->host);  // for good
  std::abort();
}

void fault_outside(const char* format, ...) {
  va_list args;
  va_start(args, format);
  vfault(format, args);
  va_end(args);
}

void check_aligned(const void* at, size_t bytes) {
  if (in_kernel() && uintptr_t(at) % bytes != 0) fault("a misaligned access of %zu bytes", bytes);
}

void* shared(size_t bytes, size_t align, const char* site, bool dynamic) {
  for (const Machine::Part& p : machine->parts)
    if (p.bytes == bytes && same(p.site, site)) return machine->shared + p.at;
  const size_t at = (machine->shared_used + align - 1) / align * align;
  const size_t most = dynamic ? kMostDynamic : kMostShared;
  if (at + bytes > most) fault("%zu bytes of shared memory, there are %zu", at + bytes, most);
  machine->parts.push_back({site, bytes, at});
  machine->shared_used = at + bytes;
  std::memset(machine->shared + at, 0xff, bytes);
  return machine->shared + at;
}

bool last_to_arrive(int32_t* at, int n, const char* file, int line) {
  barrier(kNoVote, file, line);
  bool last = false;
  if (machine->current == 0) {
    last = change(at, [](int32_t old) { return old + 1; }) == n - 1;
    if (last) change(at, [](int32_t) { return 0; });
    arrived(at, last);
  }
  return barrier(last, file, line) != 0;
}

int barrier(int vote, const char* file, int line) {
  machine->waiting++;
  if (vote > 0) machine->votes++;
  stop(in_barrier, file, line);
  return machine->counted;
}

namespace {

// Gathers the lanes of mask, each with its offer; the last one computes for all.
void gather(unsigned mask, void* offer, const char* file, int line, void (*compute)(void* const*, unsigned)) {
  Warp& w = machine->warp();
  const int lane = machine->current % kLanes;
  if ((mask >> lane & 1) == 0) fault("lane %d is not in its own mask %08x at %s:%d", lane, mask, file, line);
  if (w.arrived == 0) {
    w.mask = mask;
    w.file = file;
    w.line = line;
  } else if (w.mask != mask || w.line != line || !same(w.file, file)) {
    fault("divergent warp: lane %d with mask %08x at %s:%d, others with mask %08x at %s:%d", lane, mask, file, line, w.mask,
          w.file, w.line);
  }
  w.arrived |= 1u << lane;
  machine->self().offer = offer;
  if (w.arrived != mask) {
    stop(in_warp, file, line);
    return;
  }
  w.arrived = 0;
  void* offers[kLanes] = {};
  const int first = machine->current - lane;
  for (int i = 0; i < kLanes; i++) {
    if ((mask >> i & 1) == 0) continue;
    offers[i] = machine->thread(first + i).offer;
    machine->state[first + i] = ready;
  }
  machine->woken = true;
  compute(offers, mask);
}

}  // namespace

void sync_warp(unsigned mask, const char* file, int line) {
  gather(mask, nullptr, file, line, [](void* const*, unsigned) {});
  // All lanes see the number that the last one to come leaves.
  if (machine->current % kLanes == __builtin_ctz(mask)) machine->warp().syncs++;
  gather(mask, nullptr, file, line, [](void* const*, unsigned) {});
}

namespace {

struct Exchanged {
  uint64_t v, out;
  Exchange how;
  int by, width;
};

void exchange_all(void* const* lanes, unsigned mask) {
  for (int i = 0; i < kLanes; i++) {
    if (lanes[i] == nullptr) continue;
    Exchanged& e = *static_cast<Exchanged*>(lanes[i]);
    const int base = i / e.width * e.width;
    int from = i;
    switch (e.how) {
      case kShuffle:
        from = base + int(unsigned(e.by) % unsigned(e.width));
        break;
      case kShuffleXor:
        from = i ^ e.by;
        break;
      case kShuffleUp:
        from = i - e.by < base ? i : i - e.by;
        break;
      case kShuffleDown:
        from = i + e.by >= base + e.width ? i : i + e.by;
        break;
    }
    // What a lane outside of the mask has is undefined.
    e.out = (mask >> from & 1) != 0 ? static_cast<Exchanged*>(lanes[from])->v : ~uint64_t(0);
  }
}

struct Combined {
  uint64_t v, out;
  Combine how;
};

void combine_all(void* const* lanes, unsigned) {
  for (int i = 0; i < kLanes; i++) {
    if (lanes[i] == nullptr) continue;
    Combined& mine = *static_cast<Combined*>(lanes[i]);
    bool first = true;
    mine.out = 0;
    for (int j = 0; j < kLanes; j++) {
      if (lanes[j] == nullptr) continue;
      const uint32_t v = uint32_t(static_cast<const Combined*>(lanes[j])->v), so_far = uint32_t(mine.out);
      switch (mine.how) {
        case kBallot:
          mine.out |= uint64_t(v) << j;
          break;
        case kMatch:
          mine.out |= uint64_t(v == uint32_t(mine.v)) << j;
          break;
        case kReduceAdd:
          mine.out = uint32_t(so_far + v);
          break;
        case kReduceMax:
          mine.out = first ? v : std::max(so_far, v);
          break;
        case kReduceMin:
          mine.out = first ? v : std::min(so_far, v);
          break;
      }
      first = false;
    }
  }
}

}  // namespace

uint64_t exchange_bits(unsigned mask, uint64_t v, Exchange how, int by, int width, const char* file, int line) {
  Exchanged e = {v, 0, how, by, width};
  gather(mask, &e, file, line, exchange_all);
  return e.out;
}

uint64_t combine(unsigned mask, uint64_t v, Combine how, const char* file, int line) {
  Combined c = {v, 0, how};
  gather(mask, &c, file, line, combine_all);
  return c.out;
}

namespace {

float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float f;
  std::memcpy(&f, &wide, 4);
  return f;
}

float from_f16(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const float sign = h >> 15 != 0 ? -1.f : 1.f;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(float(mantissa), -24);
  return sign * std::ldexp(float(1024 + mantissa), exponent - 25);
}

// One product of 16 rows and 8 columns over k. The clones are for the machines that have
// the instructions.
template <class T, class Sum>
__attribute__((target_clones("avx2", "default"))) void tile(const T (&a)[16][32], const T (&b)[32][8], Sum (&d)[16][8],
                                                            int k) {
  for (int r = 0; r < 16; r++)
    for (int i = 0; i < k; i++)
      for (int c = 0; c < 8; c++) d[r][c] += Sum(a[r][i]) * Sum(b[i][c]);
}

struct Multiplied {
  void* d;
  const uint32_t *a, *b;
};

// Where the fragments of each lane stand in the matrices; see "Matrix Fragments for
// mma.m16n8k16" and "for mma.m16n8k32" in the PTX manual.
template <class T, class Sum, class Take>
void multiply_all(void* const* lanes, int each, Take take) {
  T a[16][32], b[32][8];
  Sum d[16][8];
  for (int lane = 0; lane < kLanes; lane++) {
    const Multiplied& m = *static_cast<const Multiplied*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; r++)
      for (int i = 0; i < each; i++) a[g + r % 2 * 8][t * each + i + r / 2 * 4 * each] = take(m.a[r], i);
    for (int r = 0; r < 2; r++)
      for (int i = 0; i < each; i++) b[t * each + i + r * 4 * each][g] = take(m.b[r], i);
    for (int i = 0; i < 4; i++) d[g + i / 2 * 8][t * 2 + i % 2] = static_cast<const Sum*>(m.d)[i];
  }
  tile(a, b, d, 8 * each);
  for (int lane = 0; lane < kLanes; lane++) {
    const Multiplied& m = *static_cast<const Multiplied*>(lanes[lane]);
    for (int i = 0; i < 4; i++) static_cast<Sum*>(m.d)[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

}  // namespace

void multiply_bf16(float* d, const uint32_t* a, const uint32_t* b, const char* file, int line) {
  Multiplied m = {d, a, b};
  gather(~0u, &m, file, line, [](void* const* lanes, unsigned) {
    multiply_all<float, float>(lanes, 2, [](uint32_t v, int i) { return from_bf16(uint16_t(v >> 16 * i)); });
  });
}

void multiply_f16(float* d, const uint32_t* a, const uint32_t* b, const char* file, int line) {
  static const std::vector<float> table = [] {
    std::vector<float> all(1 << 16);
    for (size_t i = 0; i < all.size(); i++) all[i] = from_f16(uint16_t(i));
    return all;
  }();
  Multiplied m = {d, a, b};
  gather(~0u, &m, file, line, [](void* const* lanes, unsigned) {
    multiply_all<float, float>(lanes, 2, [](uint32_t v, int i) { return table[uint16_t(v >> 16 * i)]; });
  });
}

void multiply_s8(int32_t* d, const uint32_t* a, const uint32_t* b, const char* file, int line) {
  Multiplied m = {d, a, b};
  gather(~0u, &m, file, line, [](void* const* lanes, unsigned) {
    multiply_all<int32_t, int32_t>(lanes, 4, [](uint32_t v, int i) { return int32_t(int8_t(v >> 8 * i)); });
  });
}

namespace {

struct Loaded {
  uint32_t* out;
  const char* row;
  int n;
  bool transposed;
};

}  // namespace

void load_matrices(uint32_t* out, int n, const void* row, bool transposed, const char* file, int line) {
  Loaded l = {out, static_cast<const char*>(row), n, transposed};
  if (machine->current % kLanes < 8 * n) check(row, 16, false);
  gather(~0u, &l, file, line, [](void* const* lanes, unsigned) {
    for (int lane = 0; lane < kLanes; lane++) {
      const Loaded& mine = *static_cast<const Loaded*>(lanes[lane]);
      const auto row = [&](int m, int i) { return static_cast<const Loaded*>(lanes[m * 8 + i])->row; };
      for (int m = 0; m < mine.n; m++) {
        if (!mine.transposed) {
          std::memcpy(&mine.out[m], row(m, lane / 4) + lane % 4 * 4, 4);
          continue;
        }
        uint16_t two[2];
        for (int i = 0; i < 2; i++) std::memcpy(&two[i], row(m, lane % 4 * 2 + i) + lane / 4 * 2, 2);
        std::memcpy(&mine.out[m], two, 4);
      }
    }
  });
}

void copy_async(void* to, const void* from, int bytes, int valid, const char* file, int line) {
  if (uintptr_t(to) % unsigned(bytes) != 0 || (valid > 0 && uintptr_t(from) % unsigned(bytes) != 0))
    fault("a misaligned asynchronous copy of %d bytes at %s:%d", bytes, file, line);
  if (!in_shared(to, size_t(bytes))) fault("an asynchronous copy to what is not shared memory at %s:%d", file, line);
  std::vector<std::vector<Copy>>& groups = machine->self().groups;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({static_cast<char*>(to), static_cast<const char*>(from), bytes, valid});
}

void commit_copies() {
  std::vector<std::vector<Copy>>& groups = machine->self().groups;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}

void wait_copies(int left) {
  std::vector<std::vector<Copy>>& groups = machine->self().groups;
  while (int(groups.size()) - 1 > left) {
    for (const Copy& c : groups.front()) {
      if (c.valid > 0) check(c.from, size_t(c.valid), false);
      check(c.to, size_t(c.bytes), true);
      std::memcpy(c.to, c.from, size_t(c.valid));
      std::memset(c.to + c.valid, 0, size_t(c.bytes - c.valid));
    }
    groups.erase(groups.begin());
  }
}

}  // namespace shim
