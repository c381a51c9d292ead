// The C ABI: millrace.h's table.
#include <entries.h>

#include <algorithm>
#include <cstdlib>

#include "context.h"
#include "error.h"
#include "memory.h"

namespace millrace {
namespace {

// Kernels are loaded when the driver starts, not each at its first launch: that may be one
// which is recorded, where loading can fail, and takes memory which is then a cache's. Before
// anything else is called of CUDA, as the library is opened.
__attribute__((constructor)) void load_kernels_at_once() { setenv("CUDA_MODULE_LOADING", "EAGER", 0); }

mr_status probe(mr_caps* caps) {
  return Entries<Context>::guard(Entries<Context>::open_error, [&] { fill_caps(caps, find_device()); });
}

mr_status open(const mr_limits* limits, mr_context** ctx) {
  return Entries<Context>::open(limits, ctx, [&] { return new Context(*limits); });
}

// The devices of the model that is being opened: one at a time. There is no group of one.
int group_first = 0, group_devices = 0;
std::shared_ptr<Group> group;

// open_member opens one device of a model's, the first of which makes the group.
template <int device>
mr_status open_member(const mr_limits* limits, mr_context** ctx) {
  return Entries<Context>::open(limits, ctx, [&] {
    if (device == 0) {
      group = nullptr;
      if (const Device d = find_device(); !d.missing.empty()) fail(MR_UNSUPPORTED, "%s", d.missing.c_str());
      check_count(group_first + group_devices);
      if (group_devices > 1) group = std::make_shared<Group>(group_first, group_devices);
    }
    if (group_devices == 1) return new Context(*limits, group_first);
    if (group == nullptr || device >= group->devices()) fail(MR_INVALID, "device %d of no group", device);
    return new Context(*limits, group_first + device, std::make_unique<Member>(group, device));
  });
}

template <int... device>
const mr_backend* member(int number, std::integer_sequence<int, device...>) {
  static constexpr mr_backend kTables[] = {Entries<Context>::table(probe, open_member<device>)...};
  return &kTables[number];
}

// What the GPU can do: bytes a second of a copy, operations a second of products.
void peaks(double* bytes, double* operations) {
  check(cudaSetDevice(0), "opening the GPU");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "asking for the GPU");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for the GPU");
  // More than a GPU caches, where there is room for it.
  const size_t each = std::min(size_t(256) << 20, free / 64);
  const Memory from(Memory::device, each, "a copy"), to(Memory::device, each, "a copy");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "opening the GPU");
  *bytes = copy_peak(stream, to.data(), from.data(), each);
  *operations = product_peak(stream, reinterpret_cast<float*>(to.data()), properties.multiProcessorCount);
  cudaStreamDestroy(stream);
  check(cudaPeekAtLastError(), "measuring the GPU");
}

}  // namespace
}  // namespace millrace

// Bytes of a GPU that are free for weights and caches, and that it has; 0 if it does not
// say. The rest is for what the driver takes later, as for graphs.
extern "C" __attribute__((visibility("default"))) void mr_cuda_device_memory(int32_t device, int64_t* free, int64_t* total) {
  size_t left = 0, all = 0;
  if (cudaSetDevice(device) != cudaSuccess || cudaMemGetInfo(&left, &all) != cudaSuccess) cudaGetLastError();
  constexpr size_t kDriver = size_t(128) << 20;
  *free = int64_t(left - std::min(left / 16, kDriver));
  *total = int64_t(all);
}

// The table of one of so many devices of a model, from the one called first on, which are
// opened in order, one model at a time; null if there can be no such model. Other calls may
// come from a thread for each.
extern "C" __attribute__((visibility("default"))) const mr_backend* mr_cuda_device(int32_t first, int32_t devices, int32_t device) {
  if (first < 0 || devices < 1 || devices > millrace::kMostDevices || device < 0 || device >= devices) return nullptr;
  millrace::group_first = first;
  millrace::group_devices = devices;
  return millrace::member(device, std::make_integer_sequence<int, millrace::kMostDevices>());
}

// tensor_write of rows in another format, which the device converts: see converts() in kernels.h.
extern "C" __attribute__((visibility("default"))) mr_status mr_cuda_tensor_convert(mr_context* ctx, int32_t handle, int32_t from,
                                                                                   int64_t first, int64_t rows, const void* src,
                                                                                   int64_t bytes) {
  millrace::Context& c = millrace::Entries<millrace::Context>::of(ctx);
  return millrace::Entries<millrace::Context>::guard(c.error, [&] { c.tensor_convert(handle, from, first, rows, src, bytes); });
}

// What makes the devices of the group that was opened last give up waiting for each other.
// It must not be called any more once they are closed.
extern "C" __attribute__((visibility("default"))) void* mr_cuda_group(void) {
  void* made = millrace::group.get();
  millrace::group = nullptr;  // its devices keep it
  return made;
}
extern "C" __attribute__((visibility("default"))) void mr_cuda_abandon(void* group) {
  static_cast<millrace::Group*>(group)->abandon();
}

// Peaks of the GPU for benchmarks; 0 if it cannot be measured.
extern "C" __attribute__((visibility("default"))) void mr_cuda_peaks(double* bytes, double* operations) {
  *bytes = *operations = 0;
  std::string error;
  millrace::Entries<millrace::Context>::guard(error, [&] { millrace::peaks(bytes, operations); });
}

extern "C" __attribute__((visibility("default"))) const mr_backend mr_backend_v8 =
    millrace::Entries<millrace::Context>::table(millrace::probe, millrace::open);
