#include "context.h"

#include <batch.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "error.h"
#include "selftest.h"

namespace millrace {
namespace {

// From this many on, a pass over the weights is bound by arithmetic.
constexpr int kStepTokens = 512;
// The least driver: one for the runtime that is linked in, or, from CUDA 12 on, for an older
// one of the same major version.
constexpr int kDriver = CUDART_VERSION / 1000 * 1000;
constexpr int kRelease = CUDART_VERSION >= 13000 ? 580 : 525;  // that first had it

bool within(int32_t v, int32_t n) { return v >= 0 && v < n; }

}  // namespace

Device find_device(int number) {
  Device d;
  char text[320];
  int count = 0, driver = 0;
  cudaDriverGetVersion(&driver);
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (driver == 0) {
    d.missing = "no NVIDIA driver";
  } else if (driver < kDriver) {
    std::snprintf(text, sizeof text, "the NVIDIA driver is for CUDA %d.%d, needed is one for %d.%d (%d or newer)", driver / 1000,
                  driver % 1000 / 10, kDriver / 1000, kDriver % 1000 / 10, kRelease);
    d.missing = text;
  } else if (error != cudaSuccess || count == 0) {
    d.missing = std::string("no GPU: ") + cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error);
  }
  if (error != cudaSuccess) cudaGetLastError();
  if (!d.missing.empty()) return d;
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, number), "asking for the GPU");
  if (properties.major < 8) {
    std::snprintf(text, sizeof text, "%s has compute capability %d.%d, needed is 8.0", properties.name, properties.major,
                  properties.minor);
    d.missing = text;
    return d;
  }
  std::snprintf(text, sizeof text, "%s sm_%d%d%s", properties.name, properties.major, properties.minor, CUDART_VERSION < 13000 ? " (CUDA 12)" : "");
  d.detail = text;
  d.memory = int64_t(properties.totalGlobalMem);
  return d;
}

void fill_caps(mr_caps* caps, const Device& device) {
  *caps = {};
  std::snprintf(caps->detail, sizeof caps->detail, "%s", device.missing.empty() ? device.detail.c_str() : device.missing.c_str());
  if (!device.missing.empty()) return;
  std::snprintf(caps->name, sizeof caps->name, "cuda");
  caps->ops = (uint64_t(1) << MR_NUM_OPS) - 1;  // of a whole model
  caps->memory = device.memory;
  caps->formats = 1u << MR_F32 | 1u << MR_F16 | 1u << MR_BF16 | 1u << MR_W8 | 1u << MR_W4 | 1u << MR_F8;
  caps->features = MR_FEATURE_ADAPTERS | MR_FEATURE_EMBEDS | MR_FEATURE_AXES | MR_FEATURE_SPANS | MR_FEATURE_VERIFY | MR_FEATURE_CACHE8 |
                   MR_FEATURE_DRAFT;
  caps->devices = 1;
  caps->lowered = 1;
  caps->launch_depth = 1;
  caps->step_tokens = kStepTokens;
}

Context::Context(const mr_limits& limits, int number, std::unique_ptr<Member> group)
    : group_(std::move(group)), number_(number), device_(find_device(number_)), limits_(limits) {
  if (!device_.missing.empty()) fail(MR_UNSUPPORTED, "%s", device_.missing.c_str());
  use();
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "opening the GPU");
  if (const std::string& off = test_tiled(stream_).off; !off.empty()) device_.detail += "; " + off;
  uploader_ = std::make_unique<Uploader>();
}

Context::~Context() {
  if (stream_ == nullptr) return;
  cudaSetDevice(number_);  // also for the members, which give back memory after this
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

int32_t Context::tensor_new(const char* name, mr_format format, int rank, const int64_t* shape) {
  use();
  if (model_) fail(MR_INVALID, "tensor %s announced after the model was set", name);
  tensors_.push_back(std::make_unique<Tensor>(name, format, rank, shape, uploader_->stream()));
  bytes_ += int64_t(tensors_.back()->bytes());
  return int32_t(tensors_.size()) - 1;
}

Tensor& Context::tensor(int32_t handle) {
  if (!within(handle, int32_t(tensors_.size()))) fail(MR_INVALID, "tensor handle %d, there are %zu", handle, tensors_.size());
  return *tensors_[size_t(handle)];
}

void Context::tensor_write(int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes) {
  tensor_convert(handle, tensor(handle).format(), first, rows, src, bytes);
}

void Context::tensor_convert(int32_t handle, int32_t from, int64_t first, int64_t rows, const void* src, int64_t bytes) {
  use();
  Tensor& t = tensor(handle);
  if (model_) fail(MR_INVALID, "tensor %s is written after the model was set", t.name().c_str());
  t.check_write(from, first, rows, bytes);
  uploader_->write(t, from, first, rows, src);
  t.wrote(rows);
}

void Context::set_model(const mr_plan& plan, mr_model_info* info) {
  use();
  if (model_) fail(MR_INVALID, "the model was already set");
  check_plan(plan);
  const bool shard = std::any_of(plan.ops, plan.ops + plan.n_ops, [](const mr_op& op) { return op.kind == MR_OP_ALL_REDUCE; });
  if (shard != (group_ != nullptr)) fail(MR_UNSUPPORTED, shard ? "a shard of a model, on a GPU without others" : "a whole model, on a group of GPUs");
  if (plan.n_tensors != int(tensors_.size()))
    fail(MR_INVALID, "plan of %d tensors, %zu were announced", plan.n_tensors, tensors_.size());
  for (const auto& t : tensors_)
    if (!t->complete()) fail(MR_INVALID, "tensor %s was not written in full", t->name().c_str());
  uploader_->finish();
  auto model = std::make_unique<Model>(plan, tensors_, limits_, stream_, group_.get());
  *info = {};
  info->page_bytes = model->page_bytes();
  info->state_bytes = model->state_bytes();
  for (const auto& t : tensors_) info->weight_bytes += int64_t(t->bytes());
  info->workspace_bytes = model->workspace_bytes();
  bytes_ += info->workspace_bytes;
  model_ = std::move(model);
  uploader_ = nullptr;
}

void Context::cache_init(int pages, int states) {
  use();
  Model& m = model("pages reserved");
  if (ready_) fail(MR_INVALID, "pages reserved twice");
  if (pages < 0 || states < 0) fail(MR_INVALID, "%d pages and %d states", pages, states);
  m.reserve(pages, states, stream_);
  for (RingEntry& e : ring_) e.allocate(limits_, m);
  synchronize("reserving pages");
  pages_ = pages;
  states_ = states;
  bytes_ += m.cache_bytes();
  ready_ = true;
}

void Context::warm_up() {
  use();
  if (!ready_) fail(MR_INVALID, "warm-up before pages were reserved");
  model_->record(stream_);
  synchronize("warming up");
}

void* Context::host_alloc(int64_t bytes) {
  use();
  if (bytes <= 0) fail(MR_INVALID, "%lld bytes of host memory", (long long)bytes);
  Memory memory(Memory::host, size_t(bytes), "host memory");
  void* at = memory.data();
  host_memory_[at] = std::move(memory);
  return at;
}

void Context::host_free(void* memory) {
  use();
  if (host_memory_.erase(memory) == 0) fail(MR_INVALID, "host memory that was not allocated here, or given back before");
}

void Context::adapter_load(int32_t id, int32_t rank, int32_t n, const mr_adapter_target* targets) {
  use();
  Model& m = model("an adapter");
  synchronize("loading an adapter");
  const int64_t before = m.adapter_bytes();
  m.load_adapter(id, rank, n, targets);
  bytes_ += m.adapter_bytes() - before;
}

void Context::adapter_drop(int32_t id) {
  use();
  Model& m = model("an adapter");
  const int64_t before = m.adapter_bytes();
  m.drop_adapter(id);
  bytes_ += m.adapter_bytes() - before;
}

void Context::page_read(int page, void* dst, int64_t bytes) {
  if (!ready_ || !within(page, pages_)) fail(MR_INVALID, "page %d, there are %d", page, pages_);
  copy(dst, model_->page(page), bytes, model_->page_bytes(), cudaMemcpyDeviceToHost);
}
void Context::page_write(int page, const void* src, int64_t bytes) {
  if (!ready_ || !within(page, pages_)) fail(MR_INVALID, "page %d, there are %d", page, pages_);
  copy(model_->page(page), src, bytes, model_->page_bytes(), cudaMemcpyHostToDevice);
}
void Context::state_read(int state, void* dst, int64_t bytes) {
  if (!ready_ || !within(state, states_)) fail(MR_INVALID, "state %d, there are %d", state, states_);
  copy(dst, model_->state(state), bytes, model_->state_bytes(), cudaMemcpyDeviceToHost);
}
void Context::state_write(int state, const void* src, int64_t bytes) {
  if (!ready_ || !within(state, states_)) fail(MR_INVALID, "state %d, there are %d", state, states_);
  copy(model_->state(state), src, bytes, model_->state_bytes(), cudaMemcpyHostToDevice);
}

void Context::copy(void* to, const void* from, int64_t bytes, int64_t want, cudaMemcpyKind kind) {
  use();
  if (bytes != want) fail(MR_INVALID, "a copy of %lld bytes, expected %lld", (long long)bytes, (long long)want);
  check(cudaMemcpyAsync(to, from, size_t(bytes), kind, stream_), "copying a page or state");
  synchronize("copying a page or state");
}

Model& Context::model(const char* call) {
  if (!model_) fail(MR_INVALID, "%s before the model was set", call);
  return *model_;
}

void RingEntry::allocate(const mr_limits& l, const Model& model) {
  mr_batch b = batch_of(l, model.groups(), model.vocab(), model.encodes() ? model.head_width() : 0);
  const auto lay_out = [&](Arena arena) {
    batch = arena.take<mr_batch>(1);
    adapters = arena.take<int32_t>(size_t(b.cap_seqs));
    take_arrays(b, model.embeds_width(),
                [&](auto*& array, size_t n) { array = arena.take<std::remove_reference_t<decltype(*array)>>(n); });
    return arena.used();
  };
  arrays = Memory(Memory::host, lay_out(Arena(nullptr)), "batches");
  lay_out(Arena(arrays.data()));
  *batch = b;
  check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "preparing batches");
  for (cudaEvent_t& e : draft)
    if (model.drafts()) check(cudaEventCreateWithFlags(&e, cudaEventDefault), "preparing batches");
}

mr_batch* Context::batch(int i) { return ready_ && within(i, MR_RING_DEPTH) ? ring_[i].batch : nullptr; }

RingEntry& Context::entry(const char* call, int i, RingEntry::State want) {
  if (!ready_) fail(MR_INVALID, "%s before pages were reserved", call);
  if (!within(i, MR_RING_DEPTH)) fail(MR_INVALID, "%s of ring entry %d, there are %d", call, i, MR_RING_DEPTH);
  if (ring_[i].state != want) fail(MR_INVALID, "%s of ring entry %d out of order", call, i);
  return ring_[i];
}

void Context::forward(int i) {
  use();
  RingEntry& e = entry("forward", i, RingEntry::idle);
  const mr_batch& b = *e.batch;
  e.start = std::chrono::steady_clock::now();
  int longest = 0;
  for (int s = 0; s < b.n_seqs; s++) {
    longest = std::max(longest, b.seqs[s].kv_len);
    e.adapters[s] = b.seqs[s].adapter == 0 ? 0 : model_->adapter(b.seqs[s].adapter);
  }
  model_->forward(stream_, e.batch, e.adapters, longest);
  check(cudaPeekAtLastError(), "starting a forward pass");
  check(cudaEventRecord(e.done, stream_), "starting a forward pass");
  e.state = RingEntry::forwarded;
  last_forward_ = i;
  steps_++;
  step_tokens_ += b.n_tokens;
}

void Context::sample(int i) {
  use();
  RingEntry& e = entry("sample", i, RingEntry::forwarded);
  if (i != last_forward_) fail(MR_INVALID, "sample of ring entry %d, the last forward was of %d", i, last_forward_);
  model_->sample(stream_, e.batch);
  if (e.batch->draft == 1) draft(e);
  check(cudaEventRecord(e.done, stream_), "starting to sample");
  e.state = RingEntry::sampled;
}

void Context::draft(RingEntry& e) {
  const auto record = [&](cudaEvent_t event) { check(cudaEventRecord(event, stream_), "starting to draft"); };
  record(e.draft[0]);
  model_->draft(stream_, e.batch);
  record(e.draft[1]);
  model_->draft_further(stream_, e.batch);
  record(e.draft[2]);
}

void Context::wait(int i) {
  use();
  const bool given_up = within(i, MR_RING_DEPTH) && ring_[i].state == RingEntry::forwarded;
  RingEntry& e = entry("wait", i, given_up ? RingEntry::forwarded : RingEntry::sampled);
  e.state = RingEntry::idle;
  check(cudaEventSynchronize(e.done), "a step");
  mr_batch& b = *e.batch;
  b.draft_ns = b.further_draft_ns = 0;
  if (b.draft == 1 && !given_up) {
    const auto took = [&](int from) {
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, e.draft[from], e.draft[2]), "a draft");
      return int64_t(double(milliseconds) * 1e6);
    };
    b.draft_ns = took(0);
    b.further_draft_ns = took(1);
  }
  const auto now = std::chrono::steady_clock::now();
  busy_ns_ += std::chrono::duration_cast<std::chrono::nanoseconds>(now - std::max(e.start, idle_since_)).count();
  idle_since_ = now;
}

}  // namespace millrace
