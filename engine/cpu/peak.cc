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

// Reads with plain loads in several streams, as weights are.
uint64_t read_all(const uint64_t* p, size_t words) {
  typedef uint64_t Words __attribute__((vector_size(64)));
  Words sum[4] = {};
  for (size_t i = 0; i + 32 <= words; i += 32)
    for (int s = 0; s < 4; s++) {
      Words w;
      std::memcpy(&w, p + i + s * 8, sizeof w);
      sum[s] |= w;
    }
  sum[0] |= sum[1] | sum[2] | sum[3];
  return sum[0][0] | sum[0][7];
}

double read_peak(int threads) {
  constexpr size_t kBytes = size_t(512) << 20;
  const Mapping memory(kBytes);
  std::memset(memory.data(), 1, kBytes);
  Pool pool(threads);
  return best_rate([&] {
    const size_t part = kBytes / threads / 64 * 64;
    pool.run([&](int worker) {
      volatile uint64_t sink = read_all(memory.as<uint64_t>() + worker * part / 8, part / 8);
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
