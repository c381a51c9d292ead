// A backend between open and close: its queue, its slots, its ring.
#ifndef MILLRACE_CPU_CONTEXT_H
#define MILLRACE_CPU_CONTEXT_H

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../../device/abi/millrace.h"
#include "kernels.h"
#include "model.h"
#include "pool.h"
#include "sampler.h"
#include "tensor.h"

namespace millrace {

// RingEntry is one batch's arrays and how far it has come.
struct RingEntry {
  enum State { idle, forwarded, sampled };
  mr_batch batch{};
  State state = idle;    // as the caller sees it
  uint32_t done_at = 0;  // finished jobs once all that was enqueued for it is done
  std::string error;     // what went wrong on the queue; empty: nothing
  Mapping arrays;

  void allocate(const mr_limits& limits, const Model& model);
};

// fill_caps says what a backend on these kernels can do.
void fill_caps(mr_caps* caps, const Kernels& kernels, int threads);

// Context does on a queue of its own thread, worker 0 of the pool, what the
// ABI enqueues. Methods throw Error; one thread at a time calls them.
//
// The caller's thread owns the tensors until the model is set and how far ring
// entries have come; the queue's thread owns the slots and the model.
class Context {
 public:
  Context(const mr_limits& limits, const Kernels& kernels, int threads);
  ~Context();

  void caps(mr_caps* caps) const;
  int32_t tensor_new(const char* name, mr_format format, int rank, const int64_t* shape);
  void tensor_write(int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes);
  void tensor_adopt(int32_t handle, const void* packed, int64_t bytes);
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
  void stats(mr_stats* stats) const;  // from any thread, as is
  void abandon(bool yes) { abandoned_ = yes; }

  std::string error;  // the last call's

 private:
  struct Slot {
    mr_params params;
    int32_t last = 0;  // token sampled most recently
    Counts counts;
    std::vector<mr_bias_delta> biases;
    int32_t row_token = 0;  // that the last logit row belongs to
    bool is_void = false;   // the rest of its RowVerify rows in the batch being sampled
    explicit Slot(int most);
  };
  struct Job {
    enum { forward, sample, call } kind = call;
    RingEntry* entry = nullptr;
    const std::function<void()>* fn = nullptr;  // of a call; its caller waits
  };

  void serve();
  uint32_t enqueue(Job job);
  void finish(uint32_t job);
  void call(const std::function<void()>& fn);
  Tensor& tensor(int32_t handle);
  char* page_memory(int page) const;
  char* state_memory(int state) const;
  void copy(void* to, const void* from, int64_t bytes, int64_t want);
  RingEntry& entry(const char* call, int i, RingEntry::State want);
  void run_forward(RingEntry& e);
  void run_sample(RingEntry& e);
  void apply_deltas(const mr_batch& b);
  void keep_hidden(const mr_batch& b);
  Step step(const mr_batch& b) const;
  void run_draft(mr_batch& b);
  void draft_tokens(mr_batch& b, int i);
  bool follow_draft(const mr_batch& b, int i);
  void answer(const mr_batch& b, int row, float* logits, Sampler& sampler);
  float* hidden_of(int slot) const { return hidden_.as<float>() + size_t(slot) * model_->hidden_width(); }

  const mr_limits limits_;
  const Kernels& kernels_;

  std::vector<std::unique_ptr<Tensor>> tensors_;
  std::unique_ptr<Model> model_;
  std::vector<Sampler> samplers_;  // one a worker

  RingEntry ring_[MR_RING_DEPTH];
  int last_forward_ = -1;  // ring entry; Sample must name it
  std::map<void*, Mapping> host_memory_;

  std::vector<Slot> slots_;
  std::vector<int32_t> page_tables_;  // [slots, groups, pages a slot]
  std::vector<int32_t> states_;       // by slot: which is its own
  Mapping hidden_;                    // by slot: what the last logit row is made of
  std::vector<int32_t> tokens_;       // of the batch, LastToken resolved
  std::vector<int32_t> next_;         // by token of the batch: the one after it
  std::vector<int32_t> picked_;       // tokens of the batch that have logit rows
  std::vector<int> drafted_;          // rows that have a draft
  std::vector<int> seq_of_slot_;      // in the batch that drafts
  // What follows the tokens drafted last, and its arrays.
  mr_batch following_{};
  std::vector<mr_seq> following_seqs_;
  std::vector<int32_t> following_pos_, following_axes_;
  std::vector<int> runs_;             // first rows of runs that one worker answers, and their end
  Shares row_shares_;
  std::atomic<bool> abandoned_{false};

  std::atomic<int64_t> steps_{0}, step_tokens_{0}, busy_ns_{0}, bytes_{0};

  // One producer, one consumer: job n stands at n modulo the length, and the
  // events count what was queued and what is done.
  static constexpr uint32_t kQueue = 8;
  static_assert(kQueue >= 2 * MR_RING_DEPTH + 1, "a forward and a sample for each entry, and a call");
  Job queue_[kQueue];
  Event queued_, finished_;
  std::atomic<bool> closing_{false};

  std::unique_ptr<Pool> pool_;
  std::thread server_;
};

}  // namespace millrace
#endif
