#include "pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <fstream>
#include <sstream>
#include <string>

namespace millrace {
namespace {

// Long enough to cover the skew between workers inside a step, short enough
// to be lost in the noise when the other worker's CPU was given away.
constexpr auto kSpin = std::chrono::microseconds(40);

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void futex(std::atomic<uint32_t>* word, int op, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), op | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

// quota returns the CPUs that one control group file grants, or a large number.
double quota(const std::string& dir) {
  constexpr double kNone = 1e9;
  std::string limit;
  double period = 0;
  if (std::ifstream v2(dir + "/cpu.max"); v2 >> limit >> period) {
    return limit == "max" || period <= 0 ? kNone : std::stod(limit) / period;
  }
  double micros = 0;
  std::ifstream v1(dir + "/cpu.cfs_quota_us"), v1_period(dir + "/cpu.cfs_period_us");
  if (v1 >> micros && v1_period >> period && micros > 0 && period > 0) return micros / period;
  return kNone;
}

// cgroup_quota is the tightest quota on the path from this process's control
// group to the root, in either version's hierarchy.
double cgroup_quota() {
  double cpus = std::min(quota("/sys/fs/cgroup"), quota("/sys/fs/cgroup/cpu"));
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t controllers = line.find(':'), path = line.find(':', controllers + 1);
    if (controllers == std::string::npos || path == std::string::npos) continue;
    const std::string names = line.substr(controllers + 1, path - controllers - 1);
    if (!names.empty() && (',' + names + ',').find(",cpu,") == std::string::npos) continue;
    const std::string root = names.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    for (std::string dir = line.substr(path + 1); dir.size() > 1; dir.resize(dir.rfind('/')))
      cpus = std::min(cpus, quota(root + dir));
  }
  return cpus;
}

}  // namespace

int usable_cpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpus = CPU_COUNT(&mask);
  try {
    cpus = static_cast<int>(std::min<double>(cpus, cgroup_quota()));
  } catch (const std::exception&) {
    // A control file that holds no number sets no limit.
  }
  return std::max(cpus, 1);
}

void Event::advance() {
  value_.fetch_add(1);
  // Sequentially consistent on both sides: either a sleeper is seen here, or
  // the sleeper sees the new value in its futex call.
  if (sleepers_.load() > 0) futex(&value_, FUTEX_WAKE, INT_MAX);
}

void Event::wait_past(uint32_t seen) {
  const auto give_up = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; i++) {
      if (value() != seen) return;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  sleep_past(seen);
}

void Event::sleep_past(uint32_t seen) {
  sleepers_.fetch_add(1);
  while (value_.load() == seen) futex(&value_, FUTEX_WAIT, seen);
  sleepers_.fetch_sub(1);
}

Pool::Pool(int threads) : threads_(threads) {
  for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
}

Pool::~Pool() {
  stop_ = true;
  start_.advance();
  for (auto& w : workers_) w.join();
}

// Lets the workers enter a job.
void Pool::start(Fn fn, const void* job, bool helps) {
  fn_ = fn;
  job_ = job;
  helps_ = helps;
  door_.store(uint64_t(start_.value() + 1) << 32, std::memory_order_release);
  start_.advance();
}

void Pool::run_on_all(Fn fn, const void* job) {
  start(fn, job, false);
  fn(job, 0);
  barrier();
}

void Pool::help_caller(Fn fn, const void* job) {
  start(fn, job, true);
  fn(job, 0);
  const uint32_t seen = left_.value();
  if ((door_.fetch_or(kOver, std::memory_order_acq_rel) & kInside) != 0) left_.wait_past(seen);
}

// Enters the job with this number, and reports whether it is still the one to enter.
bool Pool::enter(uint32_t number) {
  uint64_t door = door_.load(std::memory_order_relaxed);
  do {
    if (door >> 32 != number || (door & kOver) != 0) return false;
  } while (!door_.compare_exchange_weak(door, door + 1, std::memory_order_acq_rel, std::memory_order_relaxed));
  return true;
}

void Pool::work(int worker) {
  bool helped = false;  // the next job of that kind is longer away than a worker spins
  for (uint32_t seen = 0;;) {
    if (helped)
      start_.sleep_past(seen);
    else
      start_.wait_past(seen);
    if (stop_) return;
    seen = start_.value();
    if (!enter(seen)) continue;
    helped = helps_;
    fn_(job_, worker);
    if (!helped)
      barrier();
    else if ((door_.fetch_sub(1, std::memory_order_acq_rel) & (kOver | kInside)) == (kOver | 1))
      left_.advance();
  }
}

void touch(Pool& pool, const Mapping& memory) {
  constexpr size_t kPage = 4096;
  Shares shares;
  const auto job = [&](int) {
    for (size_t at = shares.take() * kPage; at < memory.bytes(); at = shares.take() * kPage) {
      volatile char* c = memory.data() + at;
      *c = *c;
    }
  };
  pool.run(job);
}

}  // namespace millrace
