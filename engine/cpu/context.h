// A backend between open and close: its queue, its slots, its ring.
#ifndef MILLRACE_CPU_CONTEXT_H
#define MILLRACE_CPU_CONTEXT_H

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../device/millrace.h"
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

  void allocate(const mr_limits& limits, int vocab);
};

// Context does on a queue of its own thread, worker 0 of the pool, what the
// ABI enqueues. Methods throw Error; one thread at a time calls them.
//
// The caller's thread owns the tensors until the model is set, the ring's
// states and known_pages_; the queue's thread owns the slots and the model.
class Context {
 public:
  Context(const mr_limits& limits, const Kernels& kernels, int threads);
  ~Context();

  void caps(mr_caps* caps) const;
  int32_t tensor_new(const char* name, mr_dtype dtype, int rank, const int64_t* shape);
  void tensor_write(int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes);
  void set_model(const mr_plan& plan, mr_model_info* info);
  void kv_init(int pages);
  mr_batch* batch(int i);
  void forward(int i);
  void sample(int i);
  void wait(int i);

  std::string error;  // the last call's

 private:
  struct Slot {
    mr_params params;
    int32_t last = 0;
    Counts counts;
    std::vector<mr_bias_delta> biases;
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
  RingEntry& entry(const char* call, int i, RingEntry::State want);
  void check_batch(const mr_batch& b);
  void check_seqs(const mr_batch& b);
  void check_deltas(const mr_batch& b);
  void check_rows(const mr_batch& b);
  void check_answer(const mr_row& r, int i);
  void check_choices(const mr_batch& b);
  void run_forward(RingEntry& e);
  void run_sample(RingEntry& e);
  void apply_deltas(const mr_batch& b);
  void answer(const mr_batch& b, int row, float* logits, Sampler& sampler);

  const mr_limits limits_;
  const Kernels& kernels_;

  std::vector<std::unique_ptr<Tensor>> tensors_;
  std::unique_ptr<Model> model_;
  std::vector<Sampler> samplers_;  // one a worker
  int pages_ = 0;

  RingEntry ring_[MR_RING_DEPTH];
  int last_forward_ = -1;           // ring entry; Sample must name it
  std::vector<bool> known_pages_;   // [slots, pages a slot]: set by some accepted batch
  std::vector<int32_t> owner_;      // slot of each token of the batch being checked
  std::vector<int32_t> in_batch_;   // by slot: number of the batch that had it last
  std::vector<int32_t> sampled_in_;
  std::vector<int32_t> renewed_in_;  // by slot: the batch that last had parameters for it
  std::vector<int32_t> biases_;      // by slot: how many that batch had
  int32_t batch_number_ = 0;

  std::vector<Slot> slots_;
  std::vector<int32_t> page_tables_, tokens_;
  Shares row_shares_;

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
