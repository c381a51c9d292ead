#include "peak.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace millrace {
namespace {

constexpr int kRounds = 8;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// best returns the highest rate of several rounds; round returns what it did.
template <class Round>
double best_rate(Round round) {
  double best = 0;
  for (int i = 0; i < kRounds; i++) {
    const double start = seconds(), done = round();
    best = std::max(best, done / (seconds() - start));
  }
  return best;
}

// Reads in several streams, fetching a little ahead in each, as the kernels
// read panels: one stream alone does not keep the memory busy.
uint64_t read_all(const char* p, size_t bytes) {
  typedef uint64_t Line __attribute__((vector_size(64)));
  constexpr int kStreams = 4, kAhead = 1024;
  const size_t part = bytes / kStreams / sizeof(Line) * sizeof(Line);
  Line sum[kStreams] = {};
  for (size_t i = 0; i < part; i += sizeof(Line))
    for (int s = 0; s < kStreams; s++) {
      __builtin_prefetch(p + s * part + i + kAhead, 0, 2);
      Line line;
      std::memcpy(&line, p + s * part + i, sizeof line);
      sum[s] |= line;
    }
  Line all = sum[0];
  for (int s = 1; s < kStreams; s++) all |= sum[s];
  return all[0] | all[7];
}

double read_peak(int threads) {
  constexpr size_t kBytes = size_t(512) << 20;
  const Mapping memory(kBytes);
  std::memset(memory.data(), 1, kBytes);
  Pool pool(threads);
  return best_rate([&] {
    const size_t part = kBytes / threads / 64 * 64;
    pool.run([&](int worker) {
      volatile uint64_t sink = read_all(memory.data() + worker * part, part);
      (void)sink;
    });
    return double(part) * threads;
  });
}

double fma_peak(int threads) {
  const Kernels& kernels = *kernels_for("");
  Pool pool(threads);
  return best_rate([&] {
    double done = 0;
    pool.run([&](int worker) {
      const int64_t operations = kernels.fma_loop(1 << 20);
      if (worker == 0) done = double(operations) * threads;
    });
    return done;
  });
}

}  // namespace
}  // namespace millrace

double mr_cpu_read_peak(int threads) {
  try {
    return millrace::read_peak(threads);
  } catch (const std::bad_alloc&) {
    return 0;
  }
}

double mr_cpu_fma_peak(int threads) { return millrace::fma_peak(threads); }
