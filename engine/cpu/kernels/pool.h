// The worker threads. One job at a time runs on all of them at once, the
// caller included; inside a job they meet at barriers.
#ifndef MILLRACE_CPU_POOL_H
#define MILLRACE_CPU_POOL_H

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "memory.h"

namespace millrace {

// usable_cpus is how many CPUs this process may keep busy: its affinity mask,
// cut to its cgroup's quota rounded down, at least 1.
int usable_cpus();

// Event counts upwards; waiting for it to move spins briefly, since the next
// stage of a step is microseconds away, then sleeps in the kernel, since the
// next step may be far and the CPU may be shared.
class Event {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void advance();
  void wait_past(uint32_t seen);
  void sleep_past(uint32_t seen);  // the same without spinning

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<int32_t> sleepers_{0};
};

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();

  int threads() const { return threads_; }

  // run calls job(worker) on every worker, 0 being the caller, and returns
  // when all have returned. Jobs do not throw.
  template <class Job>
  void run(const Job& job) {
    run_on_all(call<Job>, &job);
  }

  // help calls job(0) on the caller while the other workers call it as well, each
  // as soon as it is awake, and returns when all that have begun have returned:
  // one whose CPU is busy with something else is not waited for. The job has no
  // barriers, and is done when one call of it has returned.
  template <class Job>
  void help(const Job& job) {
    help_caller(call<Job>, &job);
  }

  // barrier returns once every worker of the running job has called it.
  void barrier() {
    barrier([] {});
  }

  // The same, and the last one to call it does `alone` before any returns.
  template <class Alone>
  void barrier(const Alone& alone) {
    const uint32_t seen = passed_.value();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      alone();
      arrived_.store(0, std::memory_order_relaxed);
      passed_.advance();
    } else {
      passed_.wait_past(seen);
    }
  }

 private:
  using Fn = void (*)(const void* job, int worker);
  template <class Job>
  static void call(const void* job, int worker) {
    (*static_cast<const Job*>(job))(worker);
  }
  void run_on_all(Fn fn, const void* job);
  void help_caller(Fn fn, const void* job);
  void start(Fn fn, const void* job, bool helps);
  bool enter(uint32_t number);
  void work(int worker);

  const int threads_;
  std::vector<std::thread> workers_;
  Fn fn_ = nullptr;
  const void* job_ = nullptr;
  bool helps_ = false;  // the job is help's
  std::atomic<bool> stop_{false};
  Event start_;

  // Which job workers may enter: its number, as start_ counts it, in the upper half,
  // whether it is over, and how many workers are in it. What describes the job changes
  // only while there are none.
  static constexpr uint64_t kOver = uint64_t(1) << 31, kInside = kOver - 1;
  alignas(64) std::atomic<uint64_t> door_{kOver};
  Event left_;  // by the last worker of a job that is over
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) Event passed_;
};

// Shares hands out the numbers below a count, each once, to whichever worker
// asks first: a worker that lost its CPU for a while takes fewer. Once the work is
// abandoned, none is left.
class Shares {
 public:
  void reset(const std::atomic<bool>* abandoned = nullptr) {
    abandoned_ = abandoned;
    next_.store(0, std::memory_order_relaxed);
  }
  int64_t take() {
    if (abandoned_ != nullptr && abandoned_->load(std::memory_order_relaxed)) return kNone;
    return next_.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t kNone = int64_t(1) << 40;  // beyond any count; what multiplies shares does not overflow it

  alignas(64) std::atomic<int64_t> next_{0};
  const std::atomic<bool>* abandoned_ = nullptr;
};

// touch writes to every page of memory what it holds, on all workers, so that
// the kernel backs it now and not in the middle of a step.
void touch(Pool& pool, const Mapping& memory);

}  // namespace millrace
#endif
