// A backend between open and close: its stream, its tensors, its ring.
#ifndef MILLRACE_CUDA_CONTEXT_H
#define MILLRACE_CUDA_CONTEXT_H

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "model.h"
#include "tensor.h"
#include "upload.h"

namespace millrace {

// Device is a GPU that there is, or why there is none.
struct Device {
  std::string missing;  // empty: there is one
  std::string detail;
  int64_t memory = 0;
};
Device find_device(int number = 0);
void fill_caps(mr_caps* caps, const Device& device);

// RingEntry is one batch's arrays, which the host writes and the device reads, and how
// far it has come.
struct RingEntry {
  enum State { idle, forwarded, sampled };
  State state = idle;
  Memory arrays;
  mr_batch* batch = nullptr;     // in arrays, and
  int32_t* adapters = nullptr;  // numbers of what its sequences have
  cudaEvent_t done = nullptr;
  cudaEvent_t draft[3] = {};  // of a model that drafts: begun, the first token of each, all
  std::chrono::steady_clock::time_point start;

  ~RingEntry() {
    for (cudaEvent_t e : {done, draft[0], draft[1], draft[2]})
      if (e != nullptr) cudaEventDestroy(e);
  }
  void allocate(const mr_limits& limits, const Model& model);
};

// Context enqueues on one stream what the ABI asks for. Methods throw Error; one thread at
// a time calls them.
class Context {
 public:
  // number is the device's; group is null for a model of one device.
  explicit Context(const mr_limits& limits, int number = 0, std::unique_ptr<Member> group = nullptr);
  ~Context();

  void caps(mr_caps* caps) const { fill_caps(caps, device_); }
  int32_t tensor_new(const char* name, mr_format format, int rank, const int64_t* shape);
  void tensor_write(int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes);
  void tensor_convert(int32_t handle, int32_t from, int64_t first, int64_t rows, const void* src, int64_t bytes);
  void tensor_adopt(int32_t, const void*, int64_t) { fail(MR_UNSUPPORTED, "tensors in a layout of their own"); }
  void set_model(const mr_plan& plan, mr_model_info* info);
  void cache_init(int pages, int states);
  void warm_up();
  void* host_alloc(int64_t bytes);
  void host_free(void* memory);
  void adapter_load(int32_t id, int32_t rank, int32_t n, const mr_adapter_target* targets);
  void adapter_drop(int32_t id);
  void page_read(int page, void* dst, int64_t bytes);
  void page_write(int page, const void* src, int64_t bytes);
  void state_read(int state, void* dst, int64_t bytes);
  void state_write(int state, const void* src, int64_t bytes);
  mr_batch* batch(int i);
  void forward(int i);
  void sample(int i);
  void wait(int i);
  void stats(mr_stats* stats) const { *stats = {steps_, step_tokens_, busy_ns_, bytes_}; }

  std::string error;  // the last call's

 private:
  Tensor& tensor(int32_t handle);
  RingEntry& entry(const char* call, int i, RingEntry::State want);
  void draft(RingEntry& e);
  void synchronize(const char* doing) { check(cudaStreamSynchronize(stream_), doing); }
  void copy(void* to, const void* from, int64_t bytes, int64_t want, cudaMemcpyKind kind);
  Model& model(const char* call);

  // use makes the device the one that CUDA's calls are about: threads come from anywhere.
  void use() { check(cudaSetDevice(number_), "choosing the GPU"); }

  const std::unique_ptr<Member> group_;
  const int number_;
  Device device_;
  const mr_limits limits_;
  cudaStream_t stream_ = nullptr;
  std::vector<std::unique_ptr<Tensor>> tensors_;
  std::unique_ptr<Uploader> uploader_;  // until the model is set
  std::unique_ptr<Model> model_;
  bool ready_ = false;  // pages are reserved
  int pages_ = 0, states_ = 0;
  RingEntry ring_[MR_RING_DEPTH];
  int last_forward_ = -1;
  std::map<void*, Memory> host_memory_;
  std::chrono::steady_clock::time_point idle_since_;
  std::atomic<int64_t> steps_{0}, step_tokens_{0}, busy_ns_{0}, bytes_{0};
};

}  // namespace millrace
#endif
