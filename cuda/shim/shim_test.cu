// Tests of the shim: kernels without faults compute what they should in every schedule,
// and each kernel with a known fault is caught, with the sentence that says which.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../host/graph.h"
#include "../kernels/cuda.h"

using namespace millrace;

namespace {

struct Shared {
  alignas(16) float v[64];
};
struct Fragments {
  alignas(16) uint16_t v[24][16];
};
struct Large {
  float v[13000];
};
struct Larger {
  float v[26000];
};

// Kernels without faults.

// Sums each block's 64 numbers by shuffles and shared memory.
__global__ void sums(const float* in, float* out) {
  MR_SHARED(Shared, s);
  float v = in[blockIdx.x * 64 + threadIdx.x];
  for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(kFullWarp, v, by);
  if (threadIdx.x % 32 == 0) s.v[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = s.v[0] + s.v[1];
}

// Reverses each warp's 32 numbers through shared memory, which __syncwarp orders.
__global__ void reverse_warps(const float* in, float* out) {
  MR_SHARED(Shared, s);
  s.v[threadIdx.x] = in[threadIdx.x];
  __syncwarp();
  out[threadIdx.x] = s.v[threadIdx.x ^ 31];
}

// All lanes read what one writes afterwards.
__global__ void handed_on(const float* in, float* out) {
  MR_SHARED(Shared, s);
  if (threadIdx.x == 0) s.v[0] = in[0];
  for (int i = 0; i < 32; i++) {
    __syncwarp();
    const float v = s.v[0];
    __syncwarp();
    if (int(threadIdx.x) == i) s.v[0] = v + in[i];
  }
  __syncwarp();
  out[threadIdx.x] = s.v[0];
}

// Raises a flag of another device, and waits for one.
__global__ void raises(uint32_t* flag) {
  if (threadIdx.x == 0) raise(flag, 1);
}
__global__ void waits(const uint32_t* flag, const int* abandoned, float* out) {
  if (threadIdx.x == 0) out[0] = wait_until(flag, 1, abandoned) ? 1.f : 2.f;
}

// Copies 64 numbers asynchronously, in two groups.
__global__ void copied(const float* in, float* out) {
  MR_SHARED(Shared, s);
  if (threadIdx.x < 8) copy16(&s.v[4 * threadIdx.x], in + 4 * threadIdx.x);
  commit_copies();
  if (threadIdx.x < 8) copy16(&s.v[32 + 4 * threadIdx.x], in + 32 + 4 * threadIdx.x, threadIdx.x < 4);
  commit_copies();
  wait_copies<1>();
  __syncthreads();
  if (threadIdx.x < 32) out[threadIdx.x] = s.v[threadIdx.x];
  wait_copies<0>();
  __syncthreads();
  if (threadIdx.x >= 32) out[threadIdx.x] = s.v[threadIdx.x];
}

__global__ void counted(int* counts) {
  atomicAdd(&counts[threadIdx.x % 2], 1);
  const unsigned even = __ballot_sync(kFullWarp, threadIdx.x % 2 == 0);
  if (threadIdx.x == 0) counts[2] = int(even);
  const unsigned same = __match_any_sync(kFullWarp, threadIdx.x / 8);
  if (threadIdx.x == 9) counts[3] = int(same);
  const int voters = __syncthreads_count(threadIdx.x < 5);
  if (threadIdx.x == 0) counts[4] = voters;
}

// d = a b of 16-bit matrices a [16, 16] and b [8, 16], by ldmatrix.
template <bool bf16>
__global__ void multiplied(const uint16_t* a, const uint16_t* b, float* d) {
  MR_SHARED(Fragments, s);
  const int lane = threadIdx.x;
  for (int i = lane; i < 24 * 16; i += 32) s.v[i / 16][i % 16] = i < 256 ? a[i] : b[i - 256];
  __syncthreads();
  uint32_t fa[4], fb[4];
  load_matrices4(fa, &s.v[lane % 16][lane / 16 * 8]);
  load_matrices4(fb, &s.v[16 + lane % 8][lane / 8 % 2 * 8]);
  float acc[4] = {};
  bf16 ? mma_bf16(acc, fa, fb) : mma_f16(acc, fa, fb);
  for (int i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = acc[i];
}

// Of integers, a [16, 32] and b [8, 32].
__global__ void multiplied_s8(const int8_t* a, const int8_t* b, int* d) {
  MR_SHARED(Fragments, s);
  const int lane = threadIdx.x;
  for (int i = lane; i < 24 * 32; i += 32) reinterpret_cast<int8_t*>(s.v[i / 32])[i % 32] = i < 512 ? a[i] : b[i - 512];
  __syncthreads();
  uint32_t fa[4], fb[4];
  load_matrices4(fa, &s.v[lane % 16][lane / 16 * 8]);
  load_matrices4(fb, &s.v[16 + lane % 8][lane / 8 % 2 * 8]);
  int32_t acc[4] = {};
  mma_s8(acc, fa, fb);
  for (int i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = acc[i];
}

// Each block leaves a number, and the last to arrive adds them.
__global__ void added_by_last(int32_t* arrived, float* parts, float* out) {
  if (threadIdx.x == 0) parts[blockIdx.x] = float(blockIdx.x + 1);
  if (!last_to_arrive(arrived, int(gridDim.x)) || threadIdx.x != 0) return;
  out[0] = 0;
  for (unsigned i = 0; i < gridDim.x; i++) out[0] += load_shared(parts + i);
}

// Kernels with one fault each.

__global__ void barrier_in_branch() {
  if (threadIdx.x < 32) __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void shuffle_in_branch(float* out) {
  if (threadIdx.x < 7) out[threadIdx.x] = __shfl_xor_sync(kFullWarp, 1.f, 1);
}
__global__ void two_shuffles(float* out) {
  out[threadIdx.x] = threadIdx.x % 2 == 0 ? __shfl_xor_sync(kFullWarp, 1.f, 1)
                                          : __shfl_xor_sync(kFullWarp, 2.f, 1);
}
__global__ void outside_its_mask(float* out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffff, 1.f, 1);
}
__global__ void no_barrier(float* out) {
  MR_SHARED(Shared, s);
  s.v[threadIdx.x] = float(threadIdx.x);
  out[threadIdx.x] = s.v[63 - threadIdx.x];
}
__global__ void no_second_barrier(float* out) {
  MR_SHARED(Shared, s);
  for (int i = 0; i < 2; i++) {
    s.v[threadIdx.x] = float(threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = s.v[63 - threadIdx.x];
  }
}
__global__ void no_sync_of_warp(float* out) {
  MR_SHARED(Shared, s);
  s.v[threadIdx.x] = float(threadIdx.x);
  __shfl_sync(kFullWarp, 1.f, 0);
  out[threadIdx.x] = s.v[threadIdx.x ^ 1];
}
__global__ void no_sync_before_write(float* out) {
  MR_SHARED(Shared, s);
  if (threadIdx.x == 0) s.v[0] = 1;
  __syncwarp();
  out[threadIdx.x] = s.v[0];
  if (threadIdx.x == 3) s.v[0] = 2;
}
__global__ void blocks_share(float* out) { out[threadIdx.x] = float(blockIdx.x); }
__global__ void blocks_hand_on(float* out) { out[blockIdx.x + 1] = out[blockIdx.x]; }
__global__ void not_the_last(int32_t* arrived, float* parts, float* out) {
  if (threadIdx.x == 0) parts[blockIdx.x] = 1;
  last_to_arrive(arrived, int(gridDim.x));
  if (threadIdx.x == 0)
    out[blockIdx.x] = load_shared(parts + (blockIdx.x + 1) % gridDim.x) + load_shared(parts + (blockIdx.x + 2) % gridDim.x);
}
__global__ void atomic_and_not(int* out) {
  if (threadIdx.x == 3)
    *out = 5;
  else
    atomicAdd(out, 1);
}
__global__ void beyond(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }
__global__ void before(float* out) { out[int(threadIdx.x) - 1] = 0; }
__global__ void beyond_shared(float* out) {
  MR_SHARED(Shared, s);
  s.v[threadIdx.x] = 0;
  __syncthreads();
  out[threadIdx.x] = s.v[threadIdx.x + 1];
}
__global__ void misaligned(const float* in, float* out) {
  out[threadIdx.x] = load<float4>(in + 1).x;
}
__global__ void never_waits(const float* in, float* out) {
  MR_SHARED(Shared, s);
  if (threadIdx.x < 16) copy16(&s.v[4 * threadIdx.x], in + 4 * threadIdx.x);
  commit_copies();
  __syncthreads();
  out[threadIdx.x] = s.v[threadIdx.x];
}
__global__ void waits_without_barrier(const float* in, float* out) {
  MR_SHARED(Shared, s);
  if (threadIdx.x < 16) copy16(&s.v[4 * threadIdx.x], in + 4 * threadIdx.x);
  commit_copies();
  wait_copies<0>();
  out[threadIdx.x] = s.v[threadIdx.x];
}
__global__ void copies_misaligned(const float* in) {
  MR_SHARED(Shared, s);
  copy16(&s.v[4], in + 1);
  wait_copies<0>();
}
__global__ void copies_beyond(const float* in) {
  MR_SHARED(Shared, s);
  if (threadIdx.x == 0) copy16(&s.v[4], in + 64);
  commit_copies();
  wait_copies<0>();
}
__global__ void too_much_shared(float* out) {
  MR_SHARED(Large, s);
  out[threadIdx.x] = s.v[threadIdx.x];
}
__global__ void too_much_dynamic(float* out) {
  MR_SHARED_DYNAMIC(Larger, s);
  out[threadIdx.x] = s.v[threadIdx.x];
}
__global__ void reads(const float* in, float* out) { out[threadIdx.x] = in[0]; }
__global__ void nothing() {}

int failures = 0;
#define EXPECT(condition, ...)                               \
  do {                                                       \
    if (!(condition)) {                                      \
      failures++;                                            \
      std::printf("%s:%d: ", __FILE__, __LINE__);            \
      std::printf(__VA_ARGS__);                              \
      std::printf("\n");                                     \
    }                                                        \
  } while (false)

cudaStream_t stream;

template <class T>
T* device(const std::vector<T>& v) {
  void* p = nullptr;
  cudaMalloc(&p, v.size() * sizeof(T));
  cudaMemcpyAsync(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice, stream);
  return static_cast<T*>(p);
}
template <class T>
std::vector<T> host(const T* p, size_t n) {
  std::vector<T> v(n);
  cudaMemcpyAsync(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, stream);
  cudaStreamSynchronize(stream);
  return v;
}
std::vector<float> upward(size_t n) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; i++) v[i] = float(i);
  return v;
}

void good_kernels() {
  float *in = device(upward(128)), *out = device(std::vector<float>(128, -1));
  MR_LAUNCH(sums, 2, 64, stream, in, out);
  const std::vector<float> sum = host(out, 2);
  EXPECT(sum[0] == 2016 && sum[1] == 6112, "sums are %g and %g", double(sum[0]), double(sum[1]));

  MR_LAUNCH(reverse_warps, 1, 64, stream, in, out);
  const std::vector<float> turned = host(out, 64);
  EXPECT(turned[0] == 31 && turned[40] == 55, "reversed are %g and %g", double(turned[0]), double(turned[40]));

  MR_LAUNCH(handed_on, 1, 32, stream, in, out);
  EXPECT(host(out, 32)[7] == 496, "handed on is %g", double(host(out, 32)[7]));

  MR_LAUNCH(copied, 1, 64, stream, in, out);
  const std::vector<float> copy = host(out, 64);
  EXPECT(copy[31] == 31 && copy[47] == 47 && copy[48] == 0, "copied are %g, %g and %g", double(copy[31]), double(copy[47]),
         double(copy[48]));

  int32_t* arrived = device(std::vector<int32_t>(1, 0));
  for (int i = 0; i < 2; i++) {
    MR_LAUNCH(added_by_last, 5, 64, stream, arrived, in, out);
    EXPECT(host(out, 1)[0] == 15, "the last block added %g", double(host(out, 1)[0]));
    EXPECT(host(arrived, 1)[0] == 0, "the last block left %d", host(arrived, 1)[0]);
  }

  int* counts = device(std::vector<int>(5, 0));
  MR_LAUNCH(counted, 1, 64, stream, counts);
  const std::vector<int> n = host(counts, 5);
  EXPECT(n[0] == 32 && n[1] == 32 && n[2] == 0x55555555 && n[3] == 0xff00 && n[4] == 5, "counted %d, %d, %x, %x, %d", n[0],
         n[1], n[2], n[3], n[4]);
}

void products() {
  std::vector<uint16_t> a[2], b[2];
  std::vector<float> want(128);
  for (int i = 0; i < 384; i++) {
    const float v = float(i * 7 % 23 - 11) / 8;  // exact in both formats
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    const int e = int(bits >> 23 & 255) - 127 + 15;
    const uint16_t half = v == 0 ? 0 : uint16_t(bits >> 16 & 0x8000) | uint16_t(e << 10) | uint16_t(bits >> 13 & 1023);
    (i < 256 ? a : b)[0].push_back(uint16_t(bits >> 16));
    (i < 256 ? a : b)[1].push_back(half);
  }
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 8; c++)
      for (int k = 0; k < 16; k++)
        want[size_t(r * 8 + c)] += float((r * 16 + k) * 7 % 23 - 11) / 8 * float((256 + c * 16 + k) * 7 % 23 - 11) / 8;
  float* d = device(std::vector<float>(128, -1));
  MR_LAUNCH(multiplied<true>, 1, 32, stream, device(a[0]), device(b[0]), d);
  EXPECT(host(d, 128) == want, "products of bf16 are not as expected");
  MR_LAUNCH(multiplied<false>, 1, 32, stream, device(a[1]), device(b[1]), d);
  EXPECT(host(d, 128) == want, "products of f16 are not as expected");

  std::vector<int8_t> ia(512), ib(256);
  for (size_t i = 0; i < 512; i++) ia[i] = int8_t(i * 31 % 255 - 127);
  for (size_t i = 0; i < 256; i++) ib[i] = int8_t(i * 17 % 253 - 126);
  std::vector<int> iwant(128);
  for (size_t r = 0; r < 16; r++)
    for (size_t c = 0; c < 8; c++)
      for (size_t k = 0; k < 32; k++) iwant[r * 8 + c] += ia[r * 32 + k] * ib[c * 32 + k];
  int* id = device(std::vector<int>(128, -1));
  MR_LAUNCH(multiplied_s8, 1, 32, stream, device(ia), device(ib), id);
  EXPECT(host(id, 128) == iwant, "products of integers are not as expected");
}

// Work on a stream is not done before somebody waits for it, and in order.
void streams() {
  cudaStream_t other;
  cudaEvent_t event;
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  void* pinned = nullptr;
  cudaHostAlloc(&pinned, 8, cudaHostAllocMapped);
  float* at = static_cast<float*>(pinned);
  float *in = device(std::vector<float>{1, 2}), *out = device(std::vector<float>{3, 4});
  EXPECT(at[0] != at[0], "pinned memory begins as %g, not as NaN", double(at[0]));

  cudaMemcpyAsync(out, in, 4, cudaMemcpyDeviceToDevice, stream);
  cudaEventRecord(event, stream);
  cudaStreamWaitEvent(other, event, 0);
  cudaMemcpyAsync(at, out, 4, cudaMemcpyDeviceToHost, other);
  EXPECT(at[0] != at[0], "%g was copied before anybody waited", double(at[0]));
  EXPECT(cudaEventQuery(event) == cudaErrorNotReady, "the event is over before anybody waited");
  cudaStreamSynchronize(other);
  EXPECT(at[0] == 1, "%g was copied, not what the other stream left", double(at[0]));
  EXPECT(cudaEventQuery(event) == cudaSuccess, "the event is not over");
  EXPECT(cudaMemcpyAsync(out, in, 16, cudaMemcpyDeviceToDevice, stream) == cudaErrorInvalidValue, "a copy beyond memory");
  EXPECT(cudaMemcpyAsync(out, at, 8, cudaMemcpyDeviceToHost, stream) == cudaErrorInvalidValue, "a copy of the wrong kind");
  cudaStreamDestroy(other);
}

// Adds one to a number.
__global__ void increments(float* at) {
  if (threadIdx.x == 0) at[0] += 1;
}

void graphs() {
  float* at = device(std::vector<float>{1});
  void* pinned = nullptr;
  cudaHostAlloc(&pinned, 4, cudaHostAllocMapped);
  float* seen = static_cast<float*>(pinned);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  MR_LAUNCH(increments, 1, 32, stream, at);
  MR_LAUNCH(increments, 1, 32, stream, at);
  cudaMemcpyAsync(seen, at, 4, cudaMemcpyDeviceToHost, stream);
  EXPECT(cudaStreamEndCapture(stream, &graph) == cudaSuccess, "what can be recorded was not");
  cudaStreamSynchronize(stream);
  EXPECT(seen[0] != seen[0], "what was recorded ran: %g", double(seen[0]));
  cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  cudaGraphLaunch(exec, stream);
  MR_LAUNCH(increments, 1, 32, stream, at);
  cudaGraphLaunch(exec, stream);
  cudaGraphExecDestroy(exec);
  EXPECT(seen[0] != seen[0], "a graph ran before anybody waited: %g", double(seen[0]));
  cudaStreamSynchronize(stream);
  EXPECT(seen[0] == 6, "two launches of a graph and one beside them: %g, expected 6", double(seen[0]));

  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  EXPECT(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported, "a stream that is recorded was waited for");
  EXPECT(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated && graph == nullptr,
         "a recording went on after an error");
  EXPECT(cudaGetLastError() == cudaErrorStreamCaptureInvalidated, "the error was forgotten");
}

// The backend's graphs: one is recorded once, until more sizes than are kept have been used
// since, and runs as often as it is asked to.
void kept_graphs() {
  float* at = device(std::vector<float>{0});
  millrace::Graphs kept;
  const int most = millrace::Graphs::kMost;
  int recorded = 0, runs = 0;
  const auto run = [&](int size) {
    kept.run(stream, {millrace::Graphs::forward, size, 1}, [&] {
      recorded++;
      MR_LAUNCH(increments, 1, 32, stream, at);
    });
    runs++;
  };
  for (int size = 0; size < most; size++) run(size);
  for (int size = 0; size < most; size++) run(size);
  EXPECT(recorded == most, "%d sizes were recorded %d times", most, recorded);
  run(0);
  run(most);
  run(0);
  EXPECT(recorded == most + 1, "the size that was used last was forgotten");
  run(1);
  EXPECT(recorded == most + 2, "the size that was used first was kept beyond %d", most);
  kept.clear();
  run(0);
  EXPECT(recorded == most + 3, "a size was kept that was to be forgotten");
  void* pinned = nullptr;
  cudaHostAlloc(&pinned, 4, cudaHostAllocMapped);
  cudaMemcpyAsync(pinned, at, 4, cudaMemcpyDeviceToHost, stream);
  cudaStreamSynchronize(stream);
  EXPECT(*static_cast<float*>(pinned) == float(runs), "%d runs of graphs were %g", runs, double(*static_cast<float*>(pinned)));
  EXPECT(kept.bucket(0) == 0 && kept.bucket(5) == 8 && kept.bucket(256) == 256 && kept.bucket(257) == 0, "sizes of graphs");
}

// Expects a fault that says so. The checked build alone sees accesses.
template <class Launch>
void faulty(const char* name, const char* want, Launch launch) {
  launch();
  cudaStreamSynchronize(stream);
  const cudaError_t error = cudaGetLastError();
  const std::string sentence = cudaGetErrorString(error);
  EXPECT(error == cudaErrorLaunchFailure && sentence.find(want) != std::string::npos && sentence.find(name) != std::string::npos,
         "%s: \"%s\", expected \"%s\"", name, sentence.c_str(), want);
  EXPECT(cudaStreamSynchronize(stream) == error, "%s: the fault is not sticky", name);
  cudaDeviceReset();
}

void faulty_kernels() {
#define FAULTY(kernel, grid, block, want, ...) \
  faulty(#kernel, want, [&] { MR_LAUNCH(kernel, grid, block, stream, ##__VA_ARGS__); })
  float *in = device(upward(64)), *out = device(std::vector<float>(64));
  FAULTY(barrier_in_branch, 1, 64, "divergent barrier");
  FAULTY(two_barriers, 1, 64, "divergent barriers");
  FAULTY(shuffle_in_branch, 1, 32, "divergent warp", out);
  FAULTY(two_shuffles, 1, 32, "divergent warp", out);
  FAULTY(outside_its_mask, 1, 32, "not in its own mask", out);
  FAULTY(never_waits, 1, 64, "asynchronous copies that nobody waits for", in, out);
  FAULTY(copies_misaligned, 1, 32, "misaligned asynchronous copy", in);
  FAULTY(too_much_shared, 1, 32, "bytes of shared memory", out);
  FAULTY(too_much_dynamic, 1, 32, "bytes of shared memory", out);
  FAULTY(nothing, 1, 48, "a grid of");
  FAULTY(nothing, 1, 2048, "a grid of");
  FAULTY(nothing, shim::Size(1, 70000), 32, "a grid of");
#ifdef MILLRACE_SHIM_CHECKED
  FAULTY(no_barrier, 1, 64, "a race", out);
  FAULTY(no_second_barrier, 1, 64, "a race", out);
  FAULTY(no_sync_of_warp, 1, 32, "a race", out);
  FAULTY(no_sync_before_write, 1, 32, "a race", out);
  FAULTY(waits_without_barrier, 1, 64, "a race", in, out);
  FAULTY(blocks_share, 2, 64, "another block writes", out);
  FAULTY(blocks_hand_on, 3, 32, "a race", out);
  FAULTY(not_the_last, 3, 32, "a race", reinterpret_cast<int32_t*>(in), in + 1, out);  // in[0] is a zero
  FAULTY(atomic_and_not, 1, 32, "a race", reinterpret_cast<int*>(out));
  FAULTY(beyond, 1, 64, "256 bytes into an allocation of 256", in, out);
  FAULTY(before, 1, 32, "outside of the device's memory", out);
  FAULTY(beyond_shared, 1, 64, "beyond the shared memory", out);
  FAULTY(misaligned, 1, 32, "misaligned access of 16 bytes", in, out);
  FAULTY(copies_beyond, 1, 32, "out of bounds", in);
  const std::vector<float> ours(64);
  FAULTY(reads, 1, 32, "reads 4 bytes out", ours.data(), out);
  // What somebody has freed.
  cudaFree(in);
  FAULTY(reads, 1, 32, "reads 4 bytes out", in, out);
#endif
}

// Two devices, one of which waits for the other.
void several_devices() {
  setenv("MILLRACE_SHIM_DEVICES", "2", 1);
  const auto flag = [] { return reinterpret_cast<uint32_t*>(device(std::vector<float>(1))); };
  float* out = device(std::vector<float>(1));
  const auto result = [&] {
    float v = 0;
    cudaMemcpyAsync(&v, out, sizeof v, cudaMemcpyDeviceToHost, stream);
    return v;
  };
  int* abandoned = reinterpret_cast<int*>(flag());
  cudaStream_t other = nullptr;
  cudaSetDevice(1);
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  cudaSetDevice(0);
  // The second of two waits is for work that comes after what the first one waited for.
  uint32_t *first = flag(), *second = flag();
  MR_LAUNCH(waits, 1, 32, stream, first, abandoned, out);
  MR_LAUNCH(waits, 1, 32, stream, second, abandoned, out);
  MR_LAUNCH(raises, 1, 32, other, first);
  MR_LAUNCH(raises, 1, 32, other, second);
  EXPECT(result() == 1.f, "two waits for another device: %g", result());
  faulty("waits", "waits for a flag that nobody raises", [&] { MR_LAUNCH(waits, 1, 32, stream, flag(), abandoned, out); });
  // Where the other device has failed nobody raises anything, and nothing is wrong here.
  MR_LAUNCH(shuffle_in_branch, 1, 32, other, out);
  MR_LAUNCH(waits, 1, 32, stream, flag(), abandoned, out);
  EXPECT(result() == 2.f, "a wait for a device that has failed: %g", result());
  cudaSetDevice(1);
  EXPECT(cudaStreamSynchronize(other) == cudaErrorLaunchFailure, "the other device has not failed");
  cudaDeviceReset();
  cudaStreamDestroy(other);
  cudaSetDevice(0);
  EXPECT(cudaStreamSynchronize(stream) == cudaSuccess, "a device failed with another");
}

}  // namespace

int main() {
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  good_kernels();
  products();
  streams();
  EXPECT(cudaGetLastError() == cudaErrorInvalidValue, "two invalid copies were no errors");
  graphs();
  kept_graphs();
  faulty_kernels();
  several_devices();
  const char* schedule = std::getenv("MILLRACE_SHIM_SCHEDULE");
  std::printf("shim, schedule %s: %s\n", schedule == nullptr ? "forward" : schedule, failures == 0 ? "ok" : "failed");
  return failures == 0 ? 0 : 1;
}
