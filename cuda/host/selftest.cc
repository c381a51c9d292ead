#include "selftest.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <vector>

#include "error.h"
#include "memory.h"

namespace millrace {
namespace {

// Matrices of two chunks of columns, and for each tiling rows that it takes: blocks that are not
// full in any direction.
constexpr int kColumns = 288, kOutputs = 120, kGroup = 32, kRowsOf[kTilings] = {13, 50, 70};

const char* name_of(int kind) {
  switch (kind) {
    case MR_F16:
      return "f16";
    case MR_BF16:
      return "bf16";
    case MR_W8:
      return "w8";
    case MR_W4:
      return "w4";
    default:
      return "f8";
  }
}
constexpr const char* kNames[kTilings] = {"16", "64", "more"};  // rows

// Bench is what a kernel is tried on: random rows and matrices, in device memory.
class Bench {
 public:
  explicit Bench(cudaStream_t stream) : stream_(stream) {
    lay_out(Arena(nullptr));
    memory_ = Memory(Memory::device, bytes_, "the self-test");
    lay_out(Arena(memory_.data()));
    std::vector<float> x(size_t(kMost) * kColumns);
    for (float& v : x) v = float(int(random_() % 2001) - 1000) / 300;
    copy(x_, x.data(), x.size() * sizeof(float));
    check(cudaMemsetAsync(arrived_, 0, kMostArrivals * sizeof(int32_t), stream_), "the self-test");
  }

  // Fills matrices of a kind, gated with minimums where there can be any.
  void fill(int kind, bool gated) {
    for (Weight& w : weights_) {
      w.kind = kind;
      w.rows = kOutputs;
      w.cols = kColumns;
      w.padded_rows = (kOutputs + kTileN - 1) / kTileN * kTileN;
      w.row_bytes = kind == MR_W4 ? kColumns / 2 : kColumns * (kind < MR_W8 ? 2 : 1);
      w.group = kind < MR_W8 ? kColumns : kGroup;
      w.groups = kColumns / w.group;
      w.table = kind != MR_W4 ? 0 : gated ? 4 : 2;
      const size_t rows = size_t(w.padded_rows);
      std::vector<uint16_t> codes(rows * size_t(w.row_bytes) / 2);
      for (uint16_t& c : codes) c = number(kind == MR_BF16 ? 127 << 7 : kind == MR_F16 ? 15 << 10 : 0, kind);
      copy(const_cast<char*>(w.codes), codes.data(), codes.size() * 2);
      w.minimums = nullptr;
      if (kind < MR_W8) continue;
      std::vector<uint16_t> f16(rows * size_t(w.groups));
      std::vector<float> f32(f16.size());
      for (size_t i = 0; i < f16.size(); i++) {
        f16[i] = number(15 << 10, MR_F16);
        f32[i] = float(random_() % 1000) / 1000;
      }
      kind == MR_F8 ? copy(scales(w), f32.data(), f32.size() * 4) : copy(scales(w), f16.data(), f16.size() * 2);
      for (uint16_t& m : f16) m = number(15 << 10, MR_F16);
      if (kind != MR_W4 || !gated) continue;
      w.minimums = minimums_[&w - weights_];
      copy(minimums_[&w - weights_], f16.data(), f16.size() * 2);
    }
  }

  // The result of one product, of linear.cu if tiled is null; empty if it cannot be started. A gated
  // one is of experts: its rows are in two tiles.
  std::vector<char> multiply(bool gated, int n, const Tiled* tiled) {
    std::vector<char> out(size_t(n) * kOutputs * sizeof(float));
    Packed p{};
    const Weight& w = weights_[0];
    p.kind = w.kind == MR_W4 ? MR_W8 : w.kind == MR_F8 ? MR_BF16 : w.kind;
    p.cols = p.padded_cols = kColumns;
    p.group = p.kind == MR_W8 ? w.group : kColumns;
    p.groups = p.kind == MR_W8 ? w.groups : 1;
    p.heads = 1;
    p.capacity = kCapacity;
    p.codes = packed_;
    p.scales = packed_scales_;
    p.sums = packed_sums_;
    Epilogue e{};
    e.scale = 1;
    e.act = MR_ACT_SILU;
    const Values result{out_, kOutputs, kOutputs};
    check(cudaMemsetAsync(memory_.data() + results_at_, 0xff, bytes_ - results_at_, stream_), "the self-test");
    copy(count_, &n, sizeof n);
    constexpr int kLast = 3;
    const Tile tiles[] = {{0, 0, n - kLast}, {0, n - kLast, kLast}};
    const int n_tiles = 2;
    copy(tiles_, tiles, sizeof tiles);
    copy(n_tiles_, &n_tiles, sizeof n_tiles);
    const Routing routing{tiles_, n_tiles_, n_tiles, kTilingRows[tiling_of(n)]}, *routed = gated ? &routing : nullptr;
    pack(stream_, count_, p, {x_, kColumns, kColumns}, nullptr, nullptr, n);
    const Weight* w1 = gated ? &weights_[1] : nullptr;
    if (tiled == nullptr) {
      linear(stream_, {count_, nullptr}, result, p, w, w1, e, routed, Tiled{}, n);
    } else {
      Tiled here = *tiled;
      here.partial = partial_;
      here.floats = kFloats;
      here.arrived = arrived_;
      if (!linear_tiled(stream_, {count_, nullptr}, result, p, w, w1, e, routed, here, n)) return {};
    }
    if (cudaGetLastError() != cudaSuccess) return {};
    check(cudaMemcpyAsync(out.data(), out_, out.size(), cudaMemcpyDeviceToHost, stream_), "the self-test");
    check(cudaStreamSynchronize(stream_), "the self-test");
    return out;
  }

 private:
  static constexpr int kMost = kRowsOf[kMany], kCapacity = 128;
  static constexpr size_t kFloats = size_t(2) * 4 * 128 * 128;  // chunks, blocks

  void lay_out(Arena arena) {
    const size_t rows = (kOutputs + kTileN - 1) / kTileN * kTileN, groups = kColumns / kGroup;
    count_ = arena.take<int>(1);
    n_tiles_ = arena.take<int>(1);
    tiles_ = arena.take<Tile>(2);
    x_ = arena.take<float>(size_t(kMost) * kColumns);
    arrived_ = arena.take<int32_t>(kMostArrivals);
    for (int m = 0; m < 2; m++) {
      weights_[m].codes = arena.take<char>(rows * kColumns * 2);
      weights_[m].scales = arena.take<float>(rows * groups);
      minimums_[m] = arena.take<uint16_t>(rows * groups);
    }
    results_at_ = arena.used();
    packed_ = arena.take<char>(size_t(2) * 2 * kCapacity * kColumns);
    packed_scales_ = arena.take<float>(kCapacity * groups);
    packed_sums_ = arena.take<int32_t>(kCapacity * groups);
    partial_ = arena.take<float>(kFloats);
    out_ = arena.take<float>(size_t(kMost) * kOutputs);
    bytes_ = arena.used();
  }
  void* scales(const Weight& w) const { return const_cast<void*>(w.scales); }

  // Random bits that are a number not far from 1, whose exponent those of one are; of codes
  // any, but for a NaN of e4m3.
  uint16_t number(int one, int kind) {
    const uint16_t bits = uint16_t(random_());
    if (kind == MR_BF16) return uint16_t((bits & 0x807f) | (one - (bits >> 8 & 3) * 128));
    if (kind == MR_F16) return uint16_t((bits & 0x83ff) | (one - (bits >> 10 & 3) * 1024));
    if (kind == MR_F8) return uint16_t(bits & 0xbfbf);
    return bits;
  }
  void copy(void* to, const void* from, size_t bytes) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "the self-test");
    check(cudaStreamSynchronize(stream_), "the self-test");
  }

  cudaStream_t stream_;
  std::minstd_rand random_;
  Memory memory_;
  size_t bytes_ = 0, results_at_ = 0;
  int *count_, *n_tiles_;
  Tile* tiles_;
  Weight weights_[2]{};
  uint16_t* minimums_[2];
  float *x_, *packed_scales_, *partial_, *out_;
  int32_t *packed_sums_, *arrived_;
  char* packed_;
};

// Which kernels of a kind are right, early or not.
uint32_t right(Bench& bench, int kind, bool early) {
  uint32_t on = 0;
  for (int t = 0; t < kTilings; t++) on |= tiled_bit(kind, t);
  for (const bool gated : {false, true}) {
    bench.fill(kind, gated);
    for (int t = 0; t < kTilings; t++) {
      const std::vector<char> want = bench.multiply(gated, kRowsOf[t], nullptr);
      if (want.empty()) fail(MR_LOST, "the self-test: a kernel that cannot be started");
      Tiled tiled{};
      tiled.on = tiled_bit(kind, t);
      tiled.early = early;
      tiled.multiprocessors = gated ? 1 << 20 : 0;  // blocks share sums, or each is alone
      if (bench.multiply(gated, kRowsOf[t], &tiled) != want) on &= ~tiled_bit(kind, t);
    }
  }
  return on;
}

constexpr int kLatentShapes = 2 * kAttentionWidths;  // from this attention_shape() on
constexpr const char* kAttentionNames[kAttentionShapes] = {
    "attention:64",      "attention:128",      "attention:256",    "int8-attention:64",
    "int8-attention:128", "int8-attention:256", "latent-attention", "int8-latent-attention"};

// AttentionBench is one sequence whose last tokens attend to all of it, by heads that share keys:
// two parts of positions, neither full, and rows that fill no block. The first token sees a block of
// keys less than those after it.
class AttentionBench {
 public:
  explicit AttentionBench(cudaStream_t stream) : stream_(stream) {
    lay_out(Arena(nullptr));
    memory_ = Memory(Memory::device, bytes_, "the self-test");
    lay_out(Arena(memory_.data()));
    std::vector<float> x(kQueries);
    for (float& v : x) v = float(int(random_() % 2001) - 1000) / 300;
    copy(x_, x.data(), x.size() * sizeof(float));
    std::vector<int32_t> pages(kPages);
    for (int i = 0; i < kPages; i++) pages[size_t(i)] = i;
    std::shuffle(pages.begin(), pages.end(), random_);
    copy(pages_, pages.data(), pages.size() * 4);
    check(cudaMemsetAsync(slot_, 0, kTokens * sizeof(int32_t), stream_), "the self-test");
  }

  // Fills a cache of a shape with random numbers, of up to 1.
  void fill(int shape) {
    const bool latent = shape >= kLatentShapes, coded = latent ? shape > kLatentShapes : shape >= kAttentionWidths;
    const int width = latent ? kMostLatentWidth : 64 << shape % kAttentionWidths;
    cache_ = {};
    cache_.memory = pages_of_cache_;
    cache_.kind = latent ? MR_CACHE_LATENT : MR_CACHE_KV;
    cache_.format = coded ? MR_W8 : MR_F16;
    cache_.scale_group = kGroup;
    cache_.heads = 1;
    cache_.key_width = width;
    cache_.value_width = latent ? kMostValueWidth : width;
    cache_.key_bytes = coded ? (width + 2 * (width / kGroup) + 15) / 16 * 16 : 2 * width;
    cache_.value_bytes = latent ? 0 : cache_.key_bytes;
    cache_.stride = size_t(kPageTokens) * size_t(cache_.key_bytes + cache_.value_bytes);
    tokens_ = latent || coded ? kFewTokens : kTokens;
    std::vector<uint16_t> cached(kPages * cache_.stride / 2);
    for (uint16_t& v : cached) v = coded ? uint16_t(random_()) : uint16_t((random_() & 0x83ff) | ((14 - (random_() & 3)) << 10));
    if (coded)
      for (size_t row = 0; row < cached.size(); row += size_t(cache_.key_bytes) / 2)
        for (size_t scale = row + size_t(width) / 2; scale < row + size_t(cache_.key_bytes) / 2; scale++)
          cached[scale] = uint16_t((random_() & 0x3ff) | ((7 - (random_() & 3)) << 10));
    copy(pages_of_cache_, cached.data(), cached.size() * 2);
    std::vector<int32_t> pos(kTokens);
    for (int t = 0; t < tokens_; t++) pos[size_t(t)] = kFirst + t;
    copy(pos_, pos.data(), pos.size() * 4);
    keep(tokens_);
  }

  // Of the tokens that there are, those that attend from now on.
  void keep(int tokens) {
    tokens_ = tokens;
    mr_seq seq{};
    seq.count = tokens;
    seq.kv_len = kLength;
    copy(seq_, &seq, sizeof seq);
    const int counts[] = {tokens, 1};
    copy(counts_, counts, sizeof counts);
  }

  // Attention over the cache, on tensor cores or not, with parts that blocks of their own make, or
  // without; as many sequences as are said to be choose the shape of blocks. It returns nothing if a
  // kernel cannot be started.
  std::vector<float> attend(bool tiled, bool parts, int seqs) {
    Step step{};
    step.n_tokens = counts_;
    step.n_seqs = counts_ + 1;
    step.seqs = seq_;
    step.pos = pos_;
    step.slot = slot_;
    Slots slots{};
    slots.count = slots.groups = 1;
    slots.pages_per_slot = kPages;
    slots.pages = pages_;
    Attention a{};
    a.heads = kHeads;
    a.sight = MR_SIGHT_CAUSAL;
    a.scale = 3 / std::sqrt(float(cache_.key_width));
    a.partial = partial_;
    a.splits = parts ? (kLength + kSplit - 1) / kSplit : 1;
    a.tiled = tiled ? ~0u : 0;
    const int columns = kHeads * cache_.value_width;
    const bool latent = cache_.kind == MR_CACHE_LATENT;
    const int first = latent ? columns : kHeads * cache_.key_width, rest = kHeads * cache_.key_width - first;
    const Values x{x_, first, first}, y{latent ? x_ + size_t(kFewTokens) * size_t(first) : nullptr, rest, rest};
    check(cudaMemsetAsync(out_, 0xff, size_t(tokens_) * size_t(columns) * sizeof(float), stream_), "the self-test");
    millrace::attend(stream_, step, slots, cache_, {out_, columns, columns}, x, y, a, tokens_, seqs);
    if (cudaGetLastError() != cudaSuccess) return {};
    std::vector<float> out(size_t(tokens_) * size_t(columns));
    check(cudaMemcpyAsync(out.data(), out_, out.size() * sizeof(float), cudaMemcpyDeviceToHost, stream_), "the self-test");
    check(cudaStreamSynchronize(stream_), "the self-test");
    return out;
  }

  static constexpr int kTokens = 19;

 private:
  static constexpr int kHeads = 7, kFewTokens = 5, kFirst = kSplit + 63, kLength = kFirst + kTokens, kPages = (kLength + kPageTokens - 1) / kPageTokens;
  static constexpr int kMostWidth = 64 << (kAttentionWidths - 1);
  static constexpr size_t kQueries = size_t(kTokens) * kHeads * kMostWidth;
  static_assert(size_t(kFewTokens) * kHeads * kMostLatentWidth <= kQueries);

  void lay_out(Arena arena) {
    counts_ = arena.take<int>(2);
    seq_ = arena.take<mr_seq>(1);
    pos_ = arena.take<int32_t>(kTokens);
    slot_ = arena.take<int32_t>(kTokens);
    pages_ = arena.take<int32_t>(kPages);
    x_ = arena.take<float>(kQueries);
    out_ = arena.take<float>(kQueries);
    partial_ = arena.take<float>(2 * kTokens * attention_floats(kHeads, kMostWidth));
    pages_of_cache_ = arena.take<char>(size_t(kPages) * kPageTokens * std::max(4 * kMostWidth, 2 * kMostLatentWidth));
    bytes_ = arena.used();
  }
  void copy(void* to, const void* from, size_t bytes) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "the self-test");
    check(cudaStreamSynchronize(stream_), "the self-test");
  }

  cudaStream_t stream_;
  std::minstd_rand random_;
  Memory memory_;
  size_t bytes_ = 0;
  int* counts_;
  mr_seq* seq_;
  int32_t *pos_, *slot_, *pages_;
  float *x_, *out_, *partial_;
  char* pages_of_cache_;
  Cache cache_{};
  int tokens_ = 0;
};

// Whether all shapes of blocks give a row the same bits, also one whose last block of keys is not
// that of the rows beside it, and what the plain kernel gives but for the
// rounding of weights, and of numbers that codes stand for.
bool attends(AttentionBench& bench, int shape) {
  bench.fill(shape);
  const std::vector<float> want = bench.attend(false, false, 1), got = bench.attend(true, false, 1);
  if (want.empty()) fail(MR_LOST, "the self-test: a kernel that cannot be started");
  if (got.empty() || bench.attend(true, true, AttentionBench::kTokens) != got) return false;
  constexpr float kRounding = 2e-3f;  // of values up to 1
  for (size_t i = 0; i < got.size(); i++)
    if (!(std::fabs(got[i] - want[i]) <= kRounding)) return false;
  bench.keep(1);
  const std::vector<float> alone = bench.attend(true, false, 1);
  return !alone.empty() && std::equal(alone.begin(), alone.end(), got.begin());
}

Tested test(cudaStream_t stream, int device) {
  Tested tested;
  const char* wanted = std::getenv("MILLRACE_CUDA_TILED");
  if (wanted != nullptr && std::strcmp(wanted, "off") == 0) {
    tested.off = "tiled kernels off";
    return tested;
  }
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "the self-test");
  Tiled& tiled = tested.tiled;
  tiled.multiprocessors = properties.multiProcessorCount;
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "the self-test");
  tiled.early = properties.major >= 9 && driver >= 12030;  // older ones cannot have it in graphs
  Bench bench(stream);
  constexpr int kKinds[] = {MR_F16, MR_BF16, MR_W8, MR_W4, MR_F8};
  const auto all = [&] {
    tiled.on = 0;
    for (const int kind : kKinds) tiled.on |= right(bench, kind, tiled.early);
    return std::all_of(std::begin(kKinds), std::end(kKinds),
                       [&](int kind) { return (~tiled.on >> kind * kTilings & ((1u << kTilings) - 1)) == 0; });
  };
  if (!all() && tiled.early) {
    tiled.early = false;
    tested.off = " early start";
    all();
  }
  for (const int kind : kKinds) {
    std::string failed;
    for (int t = 0; t < kTilings; t++)
      if ((tiled.on & tiled_bit(kind, t)) == 0) failed += std::string(failed.empty() ? "" : ",") + kNames[t];
    if (!failed.empty()) tested.off += std::string(" ") + name_of(kind) + ":" + failed;
  }
  AttentionBench attention(stream);
  for (int shape = 0; shape < kAttentionShapes; shape++)
    if (attends(attention, shape))
      tested.attention |= 1u << shape;
    else
      tested.off += std::string(" ") + kAttentionNames[shape];
  if (!tested.off.empty()) tested.off = "self-test failed:" + tested.off;
  return tested;
}

}  // namespace

const Tested& test_tiled(cudaStream_t stream) {
  static std::mutex mutex;
  static std::map<int, Tested> by_device;
  const std::lock_guard<std::mutex> lock(mutex);
  int device = 0;
  check(cudaGetDevice(&device), "the self-test");
  const auto it = by_device.find(device);
  return it != by_device.end() ? it->second : by_device.emplace(device, test(stream, device)).first->second;
}

}  // namespace millrace
