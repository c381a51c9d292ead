// The shim runs CUDA kernels on the CPU, and looks for faults that a GPU hides.
//
// A .cu file is compiled by g++ against cuda_runtime.h of this folder. Each thread of a
// block is a fibre with a stack of its own; the blocks of a grid run one after the other.
// A fibre runs until it waits for others: at a barrier, or at a collective of its warp,
// which the last lane to arrive computes for all. Work on streams is put off until
// somebody waits for it, so that a host that reads too early reads what was there before.
//
// A fault ends the kernel and is sticky, as on a GPU: every later call fails, and
// cudaGetErrorString says which thread of which kernel did what. Faults are:
//
//   - threads of a block that wait at different barriers, or at one that others never reach
//   - lanes of a warp that wait in different collectives, or for lanes that have left
//   - an asynchronous copy that nobody waits for
//   - more shared memory than 48 KiB, or 99 where it is dynamic, a block of more than 1024
//     threads or of partial warps
//
// and in the checked build, in which the compiler calls the shim at every load and store
// (-fsanitize=thread, with the shim in the place of that library):
//
//   - an access outside of the memory that a kernel may use, or misaligned
//   - two threads that access a byte, one of them writing, with nothing that orders them:
//     a barrier of the block, __syncwarp within a warp; between blocks last_to_arrive
//
// Memory of the device and shared memory begin as bytes of 0xff, which are NaNs. An
// asynchronous copy happens when its thread waits for it, no earlier.
//
// MILLRACE_SHIM_SCHEDULE=forward|reverse|random[:seed] is the order of blocks, of warps
// and of the threads in them; random changes it at every stop. MILLRACE_SHIM_FAULT=kernel:n
// fails the n-th launch of a kernel, or the n-th cudaGraphInstantiate or cudaGraphLaunch;
// MILLRACE_SHIM_SKIP=kernel:n leaves that launch out, as if the kernel did nothing.
// MILLRACE_SHIM_MEMORY is each device's, in MiB, MILLRACE_SHIM_DEVICES and MILLRACE_SHIM_DRIVER
// what the runtime says of the machine; MILLRACE_SHIM_PEERS=0 keeps its devices from each
// other's memory. A fault is one of its device, and others go on. A thread that waits for a
// flag of another device lets that one run.
//
// MILLRACE_SHIM_SCHEDULE=null makes it a device that does nothing, with as much memory as it
// is said to have: what a step then takes is the host's time. MILLRACE_SHIM_CALL is how many
// nanoseconds each call takes that would be one to the driver.
#ifndef MILLRACE_SHIM_H
#define MILLRACE_SHIM_H

#include <cstddef>
#include <cstdint>
#include <new>
#include <tuple>
#include <utility>

namespace shim {

struct Size {
  unsigned x = 1, y = 1, z = 1;
  Size(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct Index {
  unsigned x, y, z;
};

// What the fibre that is running sees of itself.
struct Running {
  Index thread{}, block{};
  Size block_size, grid_size;
};
extern Running running;

struct Stream;
struct Event;
struct Graph;

// shared returns shared memory of the running block: the same for all threads that name
// the same site.
void* shared(size_t bytes, size_t align, const char* site, bool dynamic = false);

enum Exchange { kShuffle, kShuffleXor, kShuffleUp, kShuffleDown };
enum Combine { kBallot, kMatch, kReduceAdd, kReduceMax, kReduceMin };
constexpr int kNoVote = -1;

// barrier waits for all threads of the block and returns how many voted.
int barrier(int vote, const char* file, int line);
void sync_warp(unsigned mask, const char* file, int line);
// last_to_arrive waits for all threads of the block, and is true in the last of n blocks.
bool last_to_arrive(int32_t* arrived, int n, const char* file, int line);
uint64_t exchange_bits(unsigned mask, uint64_t v, Exchange how, int by, int width, const char* file, int line);
uint64_t combine(unsigned mask, uint64_t v, Combine how, const char* file, int line);

template <class T>
T exchange(unsigned mask, T v, Exchange how, int by, int width, const char* file, int line) {
  static_assert(sizeof(T) <= 8, "a lane gives at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &v, sizeof v);
  bits = exchange_bits(mask, bits, how, by, width, file, line);
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}

// Products of tensor cores: d[4] += a[4] b[2], as mma.sync.m16n8k16 lays them out, and
// m16n8k32 of integers.
void multiply_bf16(float* d, const uint32_t* a, const uint32_t* b, const char* file, int line);
void multiply_f16(float* d, const uint32_t* a, const uint32_t* b, const char* file, int line);
void multiply_s8(int32_t* d, const uint32_t* a, const uint32_t* b, const char* file, int line);

// load_matrices is ldmatrix of n matrices of 8 rows of 16 bytes: lane i gives the address
// of row i%8 of matrix i/8. Transposed, a lane gets what the transpose of a matrix has there.
void load_matrices(uint32_t* out, int n, const void* row, bool transposed, const char* file, int line);

// Asynchronous copies: bytes are 4, 8 or 16, of which the first valid come from `from`
// and the rest are zeros.
void copy_async(void* to, const void* from, int bytes, int valid, const char* file, int line);
void commit_copies();
void wait_copies(int left);

// wait_until waits until another device has raised *flag to at least so much, and returns
// false if *abandoned is not 0 or that device is lost. It faults if nothing raises it.
bool wait_until(const volatile uint32_t* flag, uint32_t least, const volatile int* abandoned);

void check_atomic(const void* at, int bytes);
void check_aligned(const void* at, size_t bytes);

template <class T, class Fn>
__attribute__((no_sanitize("thread"))) T change(T* at, Fn fn) {
  check_atomic(at, sizeof(T));
  T old;
  __builtin_memcpy(&old, at, sizeof old);
  const T now = fn(old);
  __builtin_memcpy(at, &now, sizeof now);
  return old;
}

// A kernel with its arguments, in memory that the kernel may read.
struct Call {
  const char* kernel;
  Size grid, block;
  void* arguments;
  size_t bytes;
  void (*run)(void* arguments);
  void (*destroy)(void* arguments);
};
void enqueue(Stream* stream, const Call& call);

template <class Fn, class... Args>
void launch(const char* kernel, Size grid, Size block, Stream* stream, Fn fn, Args... args) {
  struct All {  // plain data
    Fn fn;
    std::tuple<Args...> args;
  };
  void* memory = operator new(sizeof(All), std::align_val_t(64));
  new (memory) All{fn, {args...}};
  enqueue(stream, {kernel, grid, block, memory, sizeof(All),
                   [](void* all) { std::apply(static_cast<All*>(all)->fn, static_cast<All*>(all)->args); },
                   [](void* all) { operator delete(all, std::align_val_t(64)); }});
}

}  // namespace shim
#endif
