// What the kernels of attention share: which positions a token sees, how parts of a softmax are
// merged, and how tensor cores get a sequence's rows and a cache's codes.
#ifndef MILLRACE_CUDA_ATTENTION_CUH
#define MILLRACE_CUDA_ATTENTION_CUH

#include "common.cuh"

namespace millrace {

// Softmax over part of the positions: the sum of e^(score - most), and that times values.
struct State {
  float most, sum;
};
// merge adds what a further part of the positions came to, and returns the factors of
// both parts' values.
__device__ __forceinline__ void merge(State& to, const State& part, float* before, float* after) {
  const float most = fmaxf(to.most, part.most);
  *before = expf(to.most - most);
  *after = expf(part.most - most);
  to.sum = fmaf(to.sum, *before, part.sum * *after);
  to.most = most;
}
__device__ __forceinline__ float merge_value(float to, float part, float before, float after) {
  return fmaf(to, before, part * after);
}
__device__ __forceinline__ State begin(const Attention& a, int head) {
  if (a.sinks == nullptr) return {-INFINITY, 0};
  return {a.sinks[head], 1};
}

// The positions that a token sees.
struct Seen {
  int first, last;
};
__device__ __forceinline__ Seen seen(const Step& step, const Attention& a, int t) {
  if (a.sight == MR_SIGHT_ALL) return {0, step.end[t] - 1};
  if (a.sight == MR_SIGHT_SPAN) return {step.first[t], step.last[t]};
  const int pos = step.pos[t];
  if (a.sight == MR_SIGHT_CAUSAL) return {0, pos};
  Seen s = {0, step.last[t]};
  if (a.window > 0) s.first = min(max(0, pos - a.window + 1), step.first[t]);
  if (a.chunk > 0) s.first = max(s.first, min(pos - pos % a.chunk, step.first[t]));
  return s;
}

// The sequence that a block of so many rows has rows of, -1 for none, and how many blocks of it
// come before. A row is a token with one of group heads. A sequence has a block more than its rows
// need if those before it fill no whole number of blocks. shared is for all threads to write.
template <int rows, int threads>
__device__ __forceinline__ int find_rows(int* shared, const Step& step, int group, int* before) {
  bool mine = false;
  for (int i = threadIdx.x; i < *step.n_seqs; i += threads) {
    const mr_seq seq = step.seqs[i];
    const int at = int(blockIdx.x) - seq.start * group / rows - i;
    if (at < 0 || at * rows >= seq.count * group) continue;
    mine = true;
    *shared = i;
  }
  if (__syncthreads_count(mine) == 0) return -1;
  *before = int(blockIdx.x) - step.seqs[*shared].start * group / rows - *shared;
  return *shared;
}

// Where a piece of 16 bytes of a row is in shared memory: those of eight rows are in different
// banks.
__device__ __forceinline__ int swizzle(int row, int piece) { return piece ^ (row % 8); }

constexpr int kLeastScaleGroup = 16;
// coded_row is the most bytes that a row of codes has with its scales, as the host lays it out.
constexpr int coded_row(int width) { return (width + 2 * (width / kLeastScaleGroup) + 15) / 16 * 16; }

// CodedPages copies rows of codes, with their scales, from a sequence's pages: those of a page are
// side by side there, and stay so. Each thread copies from one page of a block of so many keys.
template <int keys, int threads>
struct CodedPages {
  static constexpr int kBlockPages = keys / kPageTokens, kEach = threads / kBlockPages;
  const int32_t* table;
  int first, last;  // positions to read
  int32_t page;

  __device__ static int of() { return threadIdx.x / kEach; }
  // Reads which page this thread copies from next.
  __device__ __forceinline__ void look_up(int block) {
    page = table[min(max(block * kBlockPages + of(), first / kPageTokens), last / kPageTokens)];
  }
  // Copies a block's rows, which begin at `from` in each page. Pages without any to read are not.
  __device__ __forceinline__ void copy(char* to, const Cache& c, int block, size_t from, int row_bytes) const {
    const int at = block * kBlockPages + of();
    if (at < first / kPageTokens || at > last / kPageTokens) return;
    const char* source = c.memory + uint64_t(uint32_t(page)) * c.stride + from;
    to += of() * kPageTokens * row_bytes;
    // A page of 16 rows has as many pieces of 16 bytes as a row has bytes.
    for (int i = threadIdx.x % kEach; i < row_bytes; i += kEach) copy16(to + i * 16, source + i * 16);
  }
};
static_assert(kPageTokens == 16);

// decode_piece makes a piece of eight f16 of a row of codes, at `to`: zeros of one that is not
// valid. shift is that of the columns that share a scale, which are a power of two.
__device__ __forceinline__ void decode_piece(char* to, const char* row, int piece, int width, int shift, bool valid) {
  uint2 codes = load<uint2>(row + piece * 8);
  const uint16_t scale = valid ? load<uint16_t>(row + width + 2 * (piece * 8 >> shift)) : uint16_t(0);
  if (!valid) codes.x = codes.y = 0;
  uint4 v;
  scaled_f16(codes.x, scale, &v.x, &v.y);
  scaled_f16(codes.y, scale, &v.z, &v.w);
  *reinterpret_cast<uint4*>(to) = v;
}

}  // namespace millrace
#endif
