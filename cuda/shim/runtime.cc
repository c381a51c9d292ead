// The CUDA runtime of the shim: devices, memory, streams and events.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "fault.h"
#include "memory.h"

namespace shim {

using Work = std::vector<std::function<void()>>;

// A Stream is work put off until somebody waits for it, or recorded while it is captured.
struct Stream {
  int device = 0;
  bool busy = false;  // with work that is under way
  std::deque<std::function<void()>> work;
  uint64_t queued = 0, done = 0;
  std::shared_ptr<Work> captured;
  bool invalid = false;  // what it captured
};

// A Graph is work that was recorded. It stays until the last launch of it is done.
struct Graph {
  std::shared_ptr<const Work> work;
};

// An Event is a place in a stream.
struct Event {
  bool timed = true;
  Stream* stream = nullptr;
  uint64_t at = 0;
  std::shared_ptr<std::chrono::steady_clock::time_point> reached;  // if it is timed
};

namespace {

// One thread at a time is in the runtime, and so in a kernel.
std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

// Device is what went wrong with one.
struct Device {
  cudaError_t sticky = cudaSuccess, last = cudaSuccess;
  std::string sentence;
};
constexpr int kMostDevices = 16;
Device devices[kMostDevices];
thread_local int current = 0;  // device of the calling thread
int working = 0;               // device whose work runs
std::vector<Stream*> streams;

cudaError_t put(cudaError_t error) {
  Device& d = devices[current];
  if (d.sticky != cudaSuccess) error = d.sticky;
  if (error != cudaSuccess && error != cudaErrorNotReady) d.last = error;
  return error;
}

int device_count() {
  const char* n = std::getenv("MILLRACE_SHIM_DEVICES");
  return n == nullptr ? 1 : std::min(std::atoi(n), kMostDevices);
}

// What waits for a stream, or looks at it, cannot be recorded.
bool refuses(Stream* stream) {
  if (stream->captured == nullptr) return false;
  stream->invalid = true;
  return true;
}

void run_next(Stream* stream) {
  const std::function<void()> work = std::move(stream->work.front());
  stream->work.pop_front();
  const int was = working;
  working = stream->device;
  stream->busy = true;
  work();
  stream->busy = false;
  working = was;
  stream->done++;
}

void drain(Stream* stream, uint64_t until) {
  while (stream->done < until && !stream->busy) run_next(stream);
}

void add(Stream* stream, std::function<void()> work) {
  if (stream->captured != nullptr) return stream->captured->push_back(std::move(work));
  if (does_nothing()) return;
  stream->work.push_back(std::move(work));
  stream->queued++;
}

size_t memory() {
  const char* mib = std::getenv("MILLRACE_SHIM_MEMORY");
  return mib == nullptr ? size_t(2) << 30 : size_t(std::strtoull(mib, nullptr, 10)) << 20;
}

// Takes the time of a call to the driver.
void call() {
  using Clock = std::chrono::steady_clock;
  static const char* const asked = std::getenv("MILLRACE_SHIM_CALL");
  static const auto time = std::chrono::nanoseconds(asked == nullptr ? 0 : std::atoi(asked));
  if (time.count() == 0) return;
  const auto end = Clock::now() + time;
  while (Clock::now() < end) {
  }
}

}  // namespace

bool does_nothing() {
  static const char* const schedule = std::getenv("MILLRACE_SHIM_SCHEDULE");
  static const bool null = schedule != nullptr && std::strcmp(schedule, "null") == 0;
  return null;
}

void report(const std::string& what) {
  Device& d = devices[working];
  if (d.sticky == cudaSuccess) {
    d.sticky = d.last = cudaErrorLaunchFailure;
    d.sentence = what;
  }
}

bool run_other_device() {
  for (Stream* s : streams) {
    const bool busy = std::any_of(streams.begin(), streams.end(), [&](const Stream* o) { return o->device == s->device && o->busy; });
    if (busy || s->work.empty()) continue;
    run_next(s);
    return true;
  }
  return false;
}

bool another_device_is_lost() {
  for (int d = 0; d < kMostDevices; d++)
    if (d != working && devices[d].sticky != cudaSuccess) return true;
  return false;
}

void enqueue(Stream* stream, const Call& call) {
  const Lock lock(mutex);
  shim::call();
  // A graph runs it more than once.
  const std::shared_ptr<void> arguments(call.arguments, call.destroy);
  add(stream, [call, arguments] {
    if (devices[working].sticky == cudaSuccess) run_kernel(call);
  });
}

}  // namespace shim

using shim::Lock;
using shim::mutex;
using shim::put;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = shim::device_count();
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= shim::device_count()) return put(cudaErrorInvalidDevice);
  shim::current = device;
  return put(cudaSuccess);
}
cudaError_t cudaGetDevice(int* device) {
  *device = shim::current;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  const char* peers = std::getenv("MILLRACE_SHIM_PEERS");
  *can = device != peer && (peers == nullptr || std::strcmp(peers, "0") != 0);
  return put(cudaSuccess);
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  int can = 0;
  cudaDeviceCanAccessPeer(&can, shim::current, peer);
  return put(can != 0 ? cudaSuccess : cudaErrorPeerAccessUnsupported);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= shim::device_count()) return put(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "CPU shim");
  properties->totalGlobalMem = shim::memory();
  properties->major = 8;
  properties->minor = 0;
  properties->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  const char* v = std::getenv("MILLRACE_SHIM_DRIVER");
  *version = v == nullptr ? 13000 : std::atoi(v);
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = shim::memory();
  *free = *total - std::min(*total, shim::allocated(shim::current));
  return put(cudaSuccess);
}
cudaError_t cudaDeviceSynchronize() { return put(cudaSuccess); }
cudaError_t cudaDeviceReset() {
  const Lock lock(mutex);
  shim::devices[shim::current] = {};
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const Lock lock(mutex);
  shim::Device& d = shim::devices[shim::current];
  const cudaError_t error = d.last;
  d.last = d.sticky;
  return error;
}
cudaError_t cudaPeekAtLastError() { return shim::devices[shim::current].last; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorPeerAccessUnsupported:
      return "peer access is not supported between these two devices";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorLaunchFailure:
      return shim::devices[shim::current].sentence.c_str();
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    default:
      return "unknown error";
  }
}

cudaError_t cudaMalloc(void** at, size_t bytes) {
  const Lock lock(mutex);
  *at = nullptr;
  if (bytes == 0) return put(cudaSuccess);
  if (bytes > shim::memory() - std::min(shim::memory(), shim::allocated(shim::current))) return put(cudaErrorMemoryAllocation);
  *at = shim::allocate(bytes, false, shim::current);
  return put(*at == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFree(void* at) {
  const Lock lock(mutex);
  return put(at == nullptr || shim::deallocate(at, false) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void** at, size_t bytes, unsigned) {
  const Lock lock(mutex);
  *at = bytes == 0 ? nullptr : shim::allocate(bytes, true, shim::current);
  return put(bytes != 0 && *at == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFreeHost(void* at) {
  const Lock lock(mutex);
  return put(at == nullptr || shim::deallocate(at, true) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(mutex);
  bool to_pinned = false, from_pinned = false;
  const bool to_known = shim::known(to, bytes, &to_pinned), from_known = shim::known(from, bytes, &from_pinned);
  const bool to_device = to_known && !to_pinned, from_device = from_known && !from_pinned;
  if (bytes == 0) return put(cudaSuccess);
  const bool right = kind == cudaMemcpyHostToDevice   ? to_device && !from_device
                     : kind == cudaMemcpyDeviceToHost ? !to_device && from_device
                     : kind == cudaMemcpyDeviceToDevice ? to_device && from_device
                                                        : false;
  if (!right) return put(cudaErrorInvalidValue);
  if (!(to_known && from_known) && shim::refuses(stream)) return put(cudaErrorStreamCaptureUnsupported);
  shim::call();
  if (shim::does_nothing()) return put(cudaSuccess);
  // Memory of the host that is not pinned is read before the call returns.
  std::string staged;
  if (!from_known) staged.assign(static_cast<const char*>(from), bytes);
  shim::add(stream, [=, staged = std::move(staged)] {
    if (shim::devices[shim::working].sticky == cudaSuccess) std::memcpy(to, staged.empty() ? from : staged.data(), bytes);
  });
  if (!to_known) shim::drain(stream, stream->queued);
  return put(cudaSuccess);
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(mutex);
  bool pinned = false;
  if (bytes == 0) return put(cudaSuccess);
  if (!shim::known(to, bytes, &pinned)) return put(cudaErrorInvalidValue);
  shim::call();
  shim::add(stream, [=] { std::memset(to, value, bytes); });
  return put(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(mutex);
  *stream = new shim::Stream;
  (*stream)->device = shim::current;
  shim::streams.push_back(*stream);
  return put(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(mutex);
  shim::drain(stream, stream->queued);
  shim::streams.erase(std::find(shim::streams.begin(), shim::streams.end(), stream));
  delete stream;
  return put(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(mutex);
  if (shim::refuses(stream)) return put(cudaErrorStreamCaptureUnsupported);
  shim::call();
  shim::drain(stream, stream->queued);
  return put(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(mutex);
  const shim::Event at = *event;
  shim::call();
  if (at.stream != nullptr) shim::add(stream, [at] { shim::drain(at.stream, at.at); });
  return put(cudaSuccess);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new shim::Event;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  return put(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return put(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(mutex);
  if (shim::refuses(stream)) return put(cudaErrorStreamCaptureUnsupported);
  shim::call();
  if (event->timed) {
    event->reached = std::make_shared<std::chrono::steady_clock::time_point>();
    shim::add(stream, [reached = event->reached] { *reached = std::chrono::steady_clock::now(); });
  }
  event->stream = stream;
  event->at = stream->queued;
  return put(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(mutex);
  if (event->stream != nullptr && shim::refuses(event->stream)) return put(cudaErrorStreamCaptureUnsupported);
  shim::call();
  if (event->stream != nullptr) shim::drain(event->stream, event->at);
  return put(cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock(mutex);
  for (const shim::Event* e : {from, to}) {
    if (e->reached == nullptr) return put(cudaErrorInvalidResourceHandle);
    if (e->stream->done < e->at) return put(cudaErrorNotReady);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*to->reached - *from->reached).count();
  return put(cudaSuccess);
}
// Work that nobody waits for is never done by itself.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(mutex);
  return put(event->stream == nullptr || event->stream->done >= event->at ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(mutex);
  if (shim::refuses(stream)) return put(cudaErrorStreamCaptureUnsupported);
  stream->captured = std::make_shared<shim::Work>();
  stream->invalid = false;
  return put(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(mutex);
  *graph = nullptr;
  const std::shared_ptr<shim::Work> captured = std::move(stream->captured);
  if (captured == nullptr) return put(cudaErrorInvalidValue);
  if (stream->invalid) return put(cudaErrorStreamCaptureInvalidated);
  *graph = new shim::Graph{captured};
  return put(cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  const Lock lock(mutex);
  *exec = nullptr;
  if (shim::asked_to_fail("cudaGraphInstantiate")) return put(cudaErrorMemoryAllocation);
  *exec = new shim::Graph(*graph);
  return put(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(mutex);
  if (shim::refuses(stream)) return put(cudaErrorStreamCaptureUnsupported);
  if (shim::asked_to_fail("cudaGraphLaunch")) shim::report("a launch of a graph that was asked to fail");
  shim::call();
  for (const std::function<void()>& run : *exec->work) shim::add(stream, run);
  return put(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return put(cudaSuccess);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return put(cudaSuccess);
}
