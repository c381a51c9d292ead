#include "peak.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "kernels.h"
#include "memory.h"
#include "pool.h"
#include "tensor.h"

namespace millrace {
namespace {

constexpr int kRounds = 8;

// Those that the backend runs. It refuses a name that this machine does not have.
const Kernels& chosen_kernels() {
  const Kernels* k = kernels_for(chosen_isa());
  return k != nullptr ? *k : *kernels_for("");
}

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

double arithmetic_peak(int threads, int64_t (*loop)(int64_t rounds)) {
  Pool pool(threads);
  return best_rate([&] {
    double done = 0;
    pool.run([&](int worker) {
      const int64_t operations = loop(1 << 20);
      if (worker == 0) done = double(operations) * threads;
    });
    return done;
  });
}

// Weights of 2 MB: they stay in a cache, so that arithmetic alone is the limit.
double matmul_rate(int rows, mr_format format) {
  constexpr int kDepth = 1024, kPanels = 64, kAtOnce = 4, kStride = kDepth + kPanel;
  const Kernels& kernels = chosen_kernels();
  const Element e = format == MR_F16 && !kernels.f16 ? kF32 : Element(format & MR_KIND_MASK);
  const Codes codes = codes_of(format, kDepth);
  const RoundedTile layout = {codes.groups, kernels.integers->order};
  const size_t size = e >= kW8 ? codes.panel_bytes() : panel_bytes(e, kDepth), out_stride = kAtOnce * kPanel;
  const int each = tile_rows(layout.order), tiles = (rows + each - 1) / each;
  const Mapping x(rows * kStride * sizeof(float)), rounded(tiles * layout.bytes());
  const Mapping out(rows * out_stride * sizeof(float)), w(kPanels * size);
  std::memset(w.data(), 1, w.bytes());
  std::fill_n(x.as<float>(), rows * kStride, 1.0f);
  for (int r = 0; r < rows; r++)
    kernels.integers->round(x.as<float>() + r * kStride, codes.groups, 0, codes.groups.count(),
                            rounded.data() + r / each * layout.bytes(), r % each);
  return best_rate([&] {
    for (int p = 0; p < kPanels; p += kAtOnce)
      if (e == kW8 || e == kW4)
        kernels.integers->matmul({rounded.data(), layout.bytes(), w.data() + p * size, out.as<float>(), out_stride, rows,
                                  kAtOnce, codes, nullptr});
      else
        kernels.matmul[e]({x.as<float>(), kStride, w.data() + p * size, size, out.as<float>(), out_stride, rows, kDepth,
                           kAtOnce, codes.groups.group});
    return 2.0 * rows * kDepth * kPanels * kPanel;
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

double mr_cpu_fma_peak(int threads) {
  return millrace::arithmetic_peak(threads, millrace::chosen_kernels().fma_loop);
}

double mr_cpu_dot_peak(int threads) {
  return millrace::arithmetic_peak(threads, millrace::chosen_kernels().integers->dot_loop);
}

double mr_cpu_matmul_rate(int rows, int32_t format) {
  try {
    return millrace::matmul_rate(rows, mr_format(format));
  } catch (const std::bad_alloc&) {
    return 0;
  }
}
