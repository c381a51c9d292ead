// Attention over latents on tensor cores: all heads share one row of a position, of up to 576
// columns, of which the first 512 are its value as well (DeepSeek-V2, arXiv 2405.04434). A block
// makes 32 rows of one sequence, a row being a token with a head.
//
// A row's bits depend on neither the other rows of its block nor on how the prompt was cut: keys are
// taken in blocks of kKeys at fixed positions, each added to a softmax that begins anew every kSplit
// positions, and these parts are merged in their order, as attention.cu does.
//
// There is one shape of blocks, which fits the 99 KiB of the smallest GPUs: two tiles of 32 keys,
// one of which is multiplied while the other arrives; of codes one tile of numbers, and the codes of
// the next keys. Queries stay in registers: of eight warps four share 16 rows, and each multiplies a
// quarter of the columns. What they leave in shared memory is added in order, and made weights, by
// eight threads for each row. Then each warp sums 64 columns of the values of all rows.
//
// For 32 keys a warp has 72 mma for scores and 32 for values, of 4096 operations each, a third of
// which are for the second plane of queries. A block reads 36 KiB, of codes 19: 92 operations a byte
// of the L2 cache, and of memory as many times more as a token has blocks of heads.
#include "attention.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kRows = 32, kKeys = 32;
constexpr int kPieces = kMostLatentWidth / 8;  // of 16 bytes of a row
constexpr int kSlices = 4;                     // of the columns of keys
constexpr int kSteps = kMostLatentWidth / 16 / kSlices;  // of mma, of a slice
constexpr int kUnits = kMostValueWidth / 8 / kWarps;     // of 8 columns of values, of a warp
constexpr int kScores = kKeys / 8;                       // units of 8 keys
constexpr int kLanes = kThreads / kRows;                 // threads of a row, where rows are made weights
static_assert(kWarps == 2 * kSlices && kRows == kKeys && kLanes * 4 == kKeys);

using KeyTile = char[kKeys][kPieces][16];
template <bool coded>
struct Codes {
  alignas(128) char codes[kKeys * coded_row(kMostLatentWidth)];
};
template <>
struct Codes<false> {};
template <bool coded>
struct Memory : Codes<coded> {
  alignas(128) KeyTile tiles[coded ? 1 : 2];
  alignas(16) float scores[kSlices][kRows][kKeys + 8];
  alignas(16) char weights[kRows][2 * kKeys + 16];  // f16
  // What a row's sums are multiplied with: before a block is added, and where a part ends.
  float before[kRows], merged[kRows], added[kRows];
  float factor[kRows];
  int token[kRows], first[kRows], last[kRows], seq;
};

// One plane of a row's queries, whose columns are those of x and then of y, and the factor of its
// scores.
template <bool coded>
__device__ __forceinline__ void load_query(Memory<coded>& s, KeyTile& to, const float* x, int x_width, const float* y, int width, int r,
                                           int plane, float scale) {
  constexpr int kEach = kMostLatentWidth / 32;
  const int lane = threadIdx.x % 32;
  float v[kEach], most = 0;
  MR_UNROLL
  for (int i = 0; i < kEach; i++) {
    const int column = i * 32 + lane;
    v[i] = x == nullptr || column >= width ? 0.f : column < x_width ? x[column] : y[column - x_width];
    most = Most()(fabsf(v[i]), most);
  }
  most = warp_reduce(most, Most());
  const int shift = f16_shift(most);
  MR_UNROLL
  for (int i = 0; i < kEach; i++) {
    const int column = i * 32 + lane;
    const float up = v[i] * power_of_two(shift);
    const uint16_t high = to_f16(up);
    reinterpret_cast<uint16_t*>(to[r][swizzle(r, column / 8)])[column % 8] = plane == 0 ? high : to_f16(up - from_f16(high));
  }
  if (lane == 0) s.factor[r] = power_of_two(-shift) * scale;
}

// Of a block of keys eight threads have a row: of each eight pieces one.
struct Piece {
  __device__ static int row() { return threadIdx.x / kLanes; }
  __device__ static int first() { return threadIdx.x % kLanes; }
};

// What a block reads of f16: one row of a thread.
template <bool coded>
struct Source {
  const int32_t* table;
  int first, last;  // positions to read
  int32_t page;

  __device__ __forceinline__ Source(const int32_t* table, int first, int last, int) : table(table), first(first), last(last) {}
  __device__ __forceinline__ void look_up(int block) {
    page = table[min(max((block * kKeys + Piece::row()) / kPageTokens, first / kPageTokens), last / kPageTokens)];
  }
  // Copies a block. What is not read becomes zeros.
  __device__ __forceinline__ void copy(Memory<coded>& s, const Cache& c, int block) const {
    const int row = Piece::row(), pos = block * kKeys + row;
    const char* from = c.memory + uint64_t(uint32_t(page)) * c.stride + c.offset + pos % kPageTokens * c.key_bytes + Piece::first() * 16;
    char* to = s.tiles[block % 2][row][swizzle(row, Piece::first())];
    const bool valid = pos >= first && pos <= last;
    MR_UNROLL
    for (int i = 0; i < kPieces / kLanes; i++)
      copy16(to + i * kLanes * 16, from + i * kLanes * 16, valid && (Piece::first() + i * kLanes) * 8 < c.key_width);
  }
  __device__ __forceinline__ const KeyTile& tile(Memory<coded>& s, const Cache&, int block) const { return s.tiles[block % 2]; }
};

// What a block reads of codes.
template <>
struct Source<true> : CodedPages<kKeys, kThreads> {
  int shift;

  __device__ __forceinline__ Source(const int32_t* table, int first, int last, int shift)
      : CodedPages<kKeys, kThreads>{table, first, last, 0}, shift(shift) {}
  __device__ __forceinline__ void copy(Memory<true>& s, const Cache& c, int block) const {
    CodedPages<kKeys, kThreads>::copy(s.codes, c, block, c.offset, c.key_bytes);
  }
  // Makes numbers of a block's codes. What is not read becomes zeros.
  __device__ __forceinline__ const KeyTile& tile(Memory<true>& s, const Cache& c, int block) const {
    const int row = Piece::row(), pos = block * kKeys + row;
    const bool valid = pos >= first && pos <= last;
    MR_UNROLL
    for (int i = 0; i < kPieces / kLanes; i++) {
      const int piece = Piece::first() + i * kLanes;
      decode_piece(s.tiles[0][row][swizzle(row, piece)], s.codes + row * c.key_bytes, piece, c.key_width, shift,
                   valid && piece * 8 < c.key_width);
    }
    __syncthreads();
    return s.tiles[0];
  }
};

// Scores of a block's keys and 16 rows by one slice of the columns, to shared memory.
template <bool coded>
__device__ __forceinline__ void score(Memory<coded>& s, const KeyTile& keys, const uint32_t (&q)[2][kSteps][4], int first_row, int slice, int width) {
  const int lane = threadIdx.x % 32, row = lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
  float out[kScores][4] = {};
  MR_UNROLL
  for (int ks = 0; ks < kSteps; ks++) {
    if ((slice * kSteps + ks) * 16 >= width) break;
    uint32_t k[kScores / 2][4];
    MR_UNROLL
    for (int j = 0; j < kScores / 2; j++) load_matrices4(k[j], keys[row + j * 16][swizzle(row, (slice * kSteps + ks) * 2 + half)]);
    MR_UNROLL
    for (int plane = 1; plane >= 0; plane--)
      MR_UNROLL
      for (int j = 0; j < kScores; j++) mma_f16(out[j], q[plane][ks], &k[j / 2][j % 2 * 2]);
  }
  MR_UNROLL
  for (int j = 0; j < kScores; j++)
    MR_UNROLL
    for (int h = 0; h < 2; h++)
      *reinterpret_cast<float2*>(&s.scores[slice][first_row + lane / 4 + h * 8][j * 8 + lane % 4 * 2]) =
          make_float2(out[j][h * 2], out[j][h * 2 + 1]);
}

// What one of a row's eight threads knows of it, and the softmax of the part and of those before.
struct Row {
  int first, last, pos;
  float factor, slope;
  State state, total;
};

template <class Fn>
__device__ __forceinline__ float of_row(float v, Fn fn) {
  MR_UNROLL
  for (int by = kLanes / 2; by > 0; by /= 2) v = fn(v, __shfl_xor_sync(kFullWarp, v, by));
  return v;
}

// Makes weights of four scores of a row.
template <bool coded>
__device__ __forceinline__ void weigh(Memory<coded>& s, Row& row, const Attention& a, int first_key) {
  const int r = threadIdx.x / kLanes, key = threadIdx.x % kLanes * 4;
  float v[4] = {};
  MR_UNROLL
  for (int slice = 0; slice < kSlices; slice++) {
    const float4 part = load<float4>(&s.scores[slice][r][key]);
    v[0] += part.x;
    v[1] += part.y;
    v[2] += part.z;
    v[3] += part.w;
  }
  float most = -INFINITY;
  MR_UNROLL
  for (int i = 0; i < 4; i++) {
    const int at = first_key + key + i;
    v[i] = softcap(v[i] * row.factor, a.cap);
    if (a.slopes != nullptr) v[i] += row.slope * float(at - row.pos);
    if (at < row.first || at > row.last) v[i] = -INFINITY;
    most = fmaxf(most, v[i]);
  }
  most = fmaxf(row.state.most, of_row(most, [](float a, float b) { return fmaxf(a, b); }));
  constexpr float kLog2E = 1.44269504f;
  const float base = most == -INFINITY ? 0.f : most * kLog2E;  // of a row that has seen nothing
  const float before = exp2_fast(row.state.most * kLog2E - base);  // exactly 1 if most has not changed
  MR_UNROLL
  for (int i = 0; i < 4; i++) v[i] = exp2_fast(fmaf(v[i], kLog2E, -base));
  const float sum = of_row((v[0] + v[1]) + (v[2] + v[3]), Sum());
  row.state = {most, fmaf(row.state.sum, before, sum)};
  *reinterpret_cast<uint2*>(&s.weights[r][key * 2]) = {two_f16(v[0], v[1]), two_f16(v[2], v[3])};
  if (key == 0) s.before[r] = before;
}

// Merges a part that ends into what those before it came to, of a row that sees some of it. The
// last one divides by the sum of all.
template <bool coded>
__device__ __forceinline__ void merge_row(Memory<coded>& s, Row& row, int split, bool last) {
  float before = 1, after = 0;
  if (row.first < split + kSplit && row.last >= split) merge(row.total, row.state, &before, &after);
  row.state = {-INFINITY, 0};
  if (threadIdx.x % kLanes != 0) return;
  const int r = threadIdx.x / kLanes;
  s.merged[r] = before;
  s.added[r] = after;
  if (last) s.before[r] = row.total.sum;
}

template <bool coded>
__global__ void __launch_bounds__(kThreads, 1) attend_latent_kernel(Step step, Slots slots, Cache c, Values out, Values x, Values y,
                                                                    Attention a) {
  MR_SHARED_DYNAMIC(Memory<coded>, s);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int tile = 0;
  const int found = find_rows<kRows, kThreads>(&s.seq, step, a.heads, &tile);
  if (found < 0) return;
  const mr_seq seq = step.seqs[found];

  // The rows, and what they see.
  const auto head_of = [&](int r) { return (tile * kRows + r) % a.heads; };
  if (threadIdx.x < kRows) {
    const int r = threadIdx.x, at = tile * kRows + r, t = at < seq.count * a.heads ? seq.start + at / a.heads : -1;
    const Seen range = t < 0 ? Seen{1 << 30, -1} : seen(step, a, t);
    s.token[r] = t;
    s.first[r] = range.first;
    s.last[r] = range.last;
  }
  __syncthreads();
  const auto greater = [](int a, int b) { return max(a, b); };
  const int block_first = warp_reduce(s.first[lane], Least()), block_last = warp_reduce(s.last[lane], greater);
  const bool shared_out = a.splits > 1;
  const int read_first = shared_out ? max(block_first, int(blockIdx.z) * kSplit) : block_first;
  const int read_last = shared_out ? min(block_last, int(blockIdx.z) * kSplit + kSplit - 1) : block_last;
  if (read_first > read_last) return;
  Source<coded> from(slots.page_table(seq.slot, c.group), read_first, read_last, coded ? __ffs(c.scale_group) - 1 : 0);
  const int block_end = read_last / kKeys;
  int block = read_first / kKeys;
  from.look_up(block);
  from.copy(s, c, block);
  commit_copies();

  // Queries go through the tile that no keys are on their way to.
  const int first_row = warp / kSlices * 16, slice = warp % kSlices, x_width = x.width / a.heads, y_width = c.key_width - x_width;
  KeyTile& staged = s.tiles[coded ? 0 : (block + 1) % 2];
  uint32_t q[2][kSteps][4];
  MR_UNROLL
  for (int plane = 0; plane < 2; plane++) {
    MR_LOOP
    for (int r = warp; r < kRows; r += kWarps) {
      const int t = s.token[r], head = head_of(r);
      load_query(s, staged, t < 0 ? nullptr : x.row(t) + head * x_width, x_width, t < 0 || y_width == 0 ? nullptr : y.row(t) + head * y_width,
                 c.key_width, r, plane, a.scale);
    }
    __syncthreads();
    const int row = first_row + lane % 16;
    MR_UNROLL
    for (int ks = 0; ks < kSteps; ks++) load_matrices4(q[plane][ks], staged[row][swizzle(row, (slice * kSteps + ks) * 2 + lane / 16)]);
    __syncthreads();
  }
  const int mine = threadIdx.x / kLanes;
  Row row = {s.first[mine], s.last[mine], 0, s.factor[mine], 0, {-INFINITY, 0}, begin(a, head_of(mine))};
  if (a.slopes != nullptr && s.token[mine] >= 0) {
    row.pos = step.pos[s.token[mine]];
    row.slope = a.slopes[head_of(mine)];
  }
  // Numbers of a thread are of four rows: lane / 4, and 8, 16 and 24 more.
  const auto own = [&](int h) { return lane / 4 + h * 8; };
  float sums[2][kUnits][4] = {};
  // Where a row's values go, and those of its part.
  const auto result_of = [&](int r) { return out.row(s.token[r]) + head_of(r) * c.value_width; };
  const auto part_of = [&](int r) {
    return a.partial + (size_t(s.token[r]) * a.splits + blockIdx.z) * attention_floats(a.heads, c.value_width) +
           size_t(head_of(r)) * (c.value_width + 2);
  };
  // Calls fn with each number of this thread and where it goes.
  const auto each = [&](int h, float* to, const auto& fn) {
    MR_UNROLL
    for (int u = 0; u < kUnits; u++)
      MR_UNROLL
      for (int i = 0; i < 2; i++)
        if (const int column = (warp * kUnits + u) * 8 + lane % 4 * 2 + i; column < c.value_width)
          fn(to[column], sums[h / 2][u][h % 2 * 2 + i]);
  };

  bool fresh = true;  // there is nothing to merge with yet
  MR_LOOP
  for (; block <= block_end; block++) {
    const int first_key = block * kKeys;
    wait_copies<0>();
    __syncthreads();
    const KeyTile& keys = from.tile(s, c, block);
    if (block < block_end) {
      from.look_up(block + 1);
      from.copy(s, c, block + 1);
    }
    commit_copies();
    score(s, keys, q, first_row, slice, c.key_width);
    __syncthreads();
    weigh(s, row, a, first_key);
    __syncthreads();
    float before[4];
    bool same = true;
    MR_UNROLL
    for (int h = 0; h < 4; h++) {
      before[h] = s.before[own(h)];
      same = same && before[h] == 1.f;
    }
    if (!__all_sync(kFullWarp, same))
      MR_UNROLL
      for (int h = 0; h < 4; h++)
        MR_UNROLL
        for (int u = 0; u < kUnits; u++) {
          sums[h / 2][u][h % 2 * 2] *= before[h];
          sums[h / 2][u][h % 2 * 2 + 1] *= before[h];
        }
    MR_UNROLL
    for (int ks = 0; ks < kKeys / 16; ks++) {
      uint32_t w[2][4];
      MR_UNROLL
      for (int t = 0; t < 2; t++) load_matrices4(w[t], &s.weights[t * 16 + lane % 16][ks * 32 + lane / 16 * 16]);
      const int key = ks * 16 + lane % 16;
      MR_UNROLL
      for (int u = 0; u < kUnits; u += 2) {
        uint32_t v[4];
        load_matrices4_transposed(v, keys[key][swizzle(key, warp * kUnits + u + lane / 16)]);
        MR_UNROLL
        for (int t = 0; t < 2; t++) {
          mma_f16(sums[t][u], w[t], v);
          mma_f16(sums[t][u + 1], w[t], v + 2);
        }
      }
    }
    if (shared_out || (block < block_end && (first_key + kKeys) % kSplit != 0)) continue;
    const bool last = block == block_end;
    __syncthreads();  // what weigh left may still be read
    merge_row(s, row, first_key / kSplit * kSplit, last);
    __syncthreads();
    MR_UNROLL
    for (int h = 0; h < 4; h++) {
      const int r = own(h);
      if (s.token[r] < 0) continue;
      const float before_part = s.merged[r], of_part = s.added[r], all = s.before[r];
      // What parts before came to waits where the result will be.
      each(h, result_of(r), [&](float& to, float& sum) {
        const float merged = merge_value(fresh ? 0.f : to, sum, before_part, of_part);
        to = last ? merged / all : merged;
        sum = 0;
      });
    }
    fresh = false;
  }
  if (!shared_out) return;
  MR_UNROLL
  for (int h = 0; h < 4; h++)
    if (s.token[own(h)] >= 0) each(h, part_of(own(h)), [](float& to, float& sum) { to = sum; });
  if (threadIdx.x % kLanes != 0 || s.token[mine] < 0) return;
  float* to = part_of(mine);
  to[c.value_width] = row.state.most;
  to[c.value_width + 1] = row.state.sum;
}

// What report.py cannot see: threads, and bytes of shared memory.
template <bool coded>
constexpr bool takes(int threads, size_t bytes) {
  return kThreads == threads && sizeof(Memory<coded>) == bytes;
}
static_assert(takes<false>(256, 97792));
static_assert(takes<true>(256, 81920));

template <bool coded>
void launch(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values& x, const Values& y,
            const Attention& a, int n, int seqs) {
  const dim3 grid(unsigned(n * a.heads / kRows + seqs), 1, unsigned(a.splits));
  MR_LAUNCH_EARLY((attend_latent_kernel<coded>), grid, kThreads, sizeof(Memory<coded>), stream, false, step, slots, c, out, x, y, a);
}

}  // namespace

void attend_latent(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values& x,
                   const Values& y, const Attention& a, int n, int seqs) {
  if (c.format == MR_F16)
    launch<false>(stream, step, slots, c, out, x, y, a, n, seqs);
  else
    launch<true>(stream, step, slots, c, out, x, y, a, n, seqs);
}

}  // namespace millrace
