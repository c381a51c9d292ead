// Attention on tensor cores, over caches of f16 and of codes of eight bits: a block makes rows of
// one sequence and of heads that share keys and values. A row is a token with a head.
//
// A row's bits depend on neither the other rows of its block nor on how the prompt was cut: keys
// are taken in blocks of kKeys at fixed positions, each added to a softmax that begins anew every
// kSplit positions, and these parts are merged in their order, as attention.cu does. Keys that a
// row does not see have the weight 0, and adding nothing changes nothing. Both shapes of blocks
// compute a row in the same way:
//
//   many   128 rows, 16 of each of 8 warps
//   few     16 rows, which 4 warps share: each makes the scores of 16 of 64 keys, all weigh all of
//          them, and each sums a quarter of the columns of the values
//
// Queries are in two planes of f16, whose sum has the precision of float32; weights, of which the
// greatest of a part is about 1, are rounded to f16, as values were.
//
// For 64 keys of width 128 a warp of many has 128 mma for scores and 64 for values, of 4096
// operations each, and its block reads 32 KiB: 192 operations a byte of the L2 cache, a third of
// them for the second plane. A warp takes about 790 instructions for them, and 320 more where 256
// keys end, so that mma bounds it where one takes eight cycles of a scheduler or more, as on sm_80:
// 1536 of 64 keys. While a block multiplies keys, the values of the same positions are on their
// way, and then the next keys. few reads the same for 16 rows: it is bound by memory, as decoding is.
//
// Codes come to shared memory as they are, and each becomes a number rounded to f16 before a block
// multiplies with it: about 24 instructions of a thread for eight, of which many has eight times
// eight for 64 keys and values of width 128, and few sixteen times. A block then reads 18 KiB, and
// few has as much on its way as it multiplies.
#include "attention.cuh"

namespace millrace {
namespace {

template <int width, bool many, bool coded>
struct Shape {
  static constexpr int kWidth = width, kKeys = 64;
  static constexpr bool kCoded = coded;
  // Of codes keys and values are numbers one after the other, and codes are in buffers: of many one
  // block of either, of few one of each.
  static constexpr int kTiles = coded ? 1 : 2, kBuffers = many ? 1 : 2;
  static constexpr int kShare = many ? 1 : 4, kWarps = many ? 8 : 4, kThreads = 32 * kWarps;
  static constexpr int kRows = 16 * kWarps / kShare;
  static constexpr int kPieces = width / 8;                      // of 16 bytes of a row
  static constexpr int kScores = kKeys / 8;                      // units of 8 keys
  static constexpr int kOwnScores = kScores / kShare;            // that a warp makes
  static constexpr int kUnits = width / 8 / kShare;              // of 8 columns of values, of a warp
  static constexpr int kBlocks = many ? 1 : width <= 128 ? 3 : 2;  // that registers must leave room for
  static constexpr bool kHeld = many;                            // queries are in registers
};

template <class S>
struct Queries {
  alignas(128) char plane[2][S::kRows][S::kPieces][16];
};
struct Four {
  alignas(16) float v[4];
};
template <class S, bool coded>
struct Codes {
  alignas(128) char codes[S::kBuffers][S::kKeys * coded_row(S::kWidth)];
};
template <class S>
struct Codes<S, false> {};
template <class S>
using KeyTile = char[S::kKeys][S::kPieces][16];
template <class S>
struct Memory : Codes<S, S::kCoded> {
  alignas(128) KeyTile<S> tiles[S::kTiles];
  union {
    Queries<S> q;
    Four sums[S::kShare == 1 ? S::kUnits : 1][S::kThreads];  // once queries are in registers
  };
  float scores[S::kShare == 1 ? 1 : S::kRows][S::kKeys + 8];
  float factor[S::kRows];
  int token[S::kRows], first[S::kRows], last[S::kRows], seq;
};

// Of a block of kKeys keys or values a thread has a piece of some rows.
template <class S>
struct Pieces {
  static constexpr int kEach = S::kThreads / S::kPieces;  // rows that are copied at once
  static constexpr int kCopies = S::kKeys / kEach;        // of a thread
  __device__ static int row() { return threadIdx.x / S::kPieces; }
  __device__ static int piece() { return threadIdx.x % S::kPieces; }
};

// What a block reads: keys or values of a head, from a block of kKeys positions.
template <class S, bool coded>
struct Source : Pieces<S> {
  using Pieces<S>::kEach, Pieces<S>::kCopies, Pieces<S>::row, Pieces<S>::piece;
  static constexpr int kBlockPages = S::kKeys / kPageTokens;
  static constexpr int kPages = kCopies < kBlockPages ? kCopies : kBlockPages;  // that a thread copies from
  const int32_t* table;
  int first, last;  // positions to read
  int32_t page[kPages], next[kPages];

  __device__ __forceinline__ Source(const int32_t* table, int first, int last) : table(table), first(first), last(last) {}
  // Reads which pages a block is in, to `next`.
  __device__ __forceinline__ void look_up(int block) {
    MR_UNROLL
    for (int i = 0; i < kPages; i++) {
      const int at = block * kBlockPages + (kEach > kPageTokens ? row() / kPageTokens + i * kEach / kPageTokens : i);
      next[i] = table[min(max(at, first / kPageTokens), last / kPageTokens)];
    }
  }
  __device__ __forceinline__ void advance() {
    MR_UNROLL
    for (int i = 0; i < kPages; i++) page[i] = next[i];
  }

  // Copies a block's rows, which begin at `from` in each page. What is not read becomes zeros.
  __device__ __forceinline__ void copy(KeyTile<S>& to, const Cache& c, const int32_t (&pages)[kPages], int block, size_t from, int row_bytes,
                                       int width) const {
    const char* base = c.memory + from + row() % kPageTokens * row_bytes + piece() * 16;
    const int pos = block * S::kKeys + row();
    MR_UNROLL
    for (int i = 0; i < kCopies; i++) {
      const bool valid = pos + i * kEach >= first && pos + i * kEach <= last && piece() * 8 < width;
      const char* row_at = base + uint64_t(uint32_t(pages[i * kPages / kCopies])) * uint32_t(c.stride) + i * kEach % kPageTokens * row_bytes;
      copy16(to[row() + i * kEach][swizzle(row() + i * kEach, piece())], row_at, valid);
    }
  }
};

// The same of codes.
template <class S>
struct Source<S, true> : Pieces<S>, CodedPages<S::kKeys, S::kThreads> {
  using Pieces<S>::kEach, Pieces<S>::kCopies, Pieces<S>::row, Pieces<S>::piece;
  int shift;

  __device__ __forceinline__ Source(const int32_t* table, int first, int last) : CodedPages<S::kKeys, S::kThreads>{table, first, last, 0} {}
  // Makes numbers of a block's codes. What is not read becomes zeros.
  __device__ __forceinline__ void decode(KeyTile<S>& to, const char* codes, int block, int row_bytes, int width) const {
    const int pos = block * S::kKeys + row();
    MR_UNROLL
    for (int i = 0; i < kCopies; i++) {
      const int r = row() + i * kEach;
      const bool valid = pos + i * kEach >= this->first && pos + i * kEach <= this->last && piece() * 8 < width;
      decode_piece(to[r][swizzle(r, piece())], codes + r * row_bytes, piece(), width, shift, valid);
    }
  }
};

// Two planes of a row's queries, and the factor of its scores.
template <class S>
__device__ __forceinline__ void load_query(Memory<S>& s, const float* x, int r, int width, float scale) {
  const int lane = threadIdx.x % 32;
  float v[S::kWidth / 32], most = 0;
  MR_UNROLL
  for (int i = 0; i < S::kWidth / 32; i++) {
    const int column = i * 32 + lane;
    v[i] = x != nullptr && column < width ? x[column] : 0.f;
    most = Most()(fabsf(v[i]), most);
  }
  most = warp_reduce(most, Most());
  const int shift = f16_shift(most);
  MR_UNROLL
  for (int i = 0; i < S::kWidth / 32; i++) {
    const int column = i * 32 + lane;
    const float up = v[i] * power_of_two(shift);
    const uint16_t high = to_f16(up), low = to_f16(up - from_f16(high));
    for (int plane = 0; plane < 2; plane++)
      reinterpret_cast<uint16_t*>(s.q.plane[plane][r][swizzle(r, column / 8)])[column % 8] = plane == 0 ? high : low;
  }
  if (lane == 0) s.factor[r] = power_of_two(-shift) * scale;
}

template <class S>
__device__ __forceinline__ void load_fragment(uint32_t* out, const Memory<S>& s, int plane, int first_row, int ks) {
  const int lane = threadIdx.x % 32, row = first_row + lane % 16;
  load_matrices4(out, s.q.plane[plane][row][swizzle(row, ks * 2 + lane / 16)]);
}

// Scores of those of a block's keys that this warp makes, in the layout of mma.
template <class S, bool held>
__device__ __forceinline__ void score(float (&out)[S::kOwnScores][4], const Memory<S>& s, const uint32_t (&q)[2][held ? S::kWidth / 16 : 1][4],
                                      int first_row, int first_key, int width) {
  const int lane = threadIdx.x % 32, row = first_key + lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
  MR_UNROLL
  for (int j = 0; j < S::kOwnScores; j++)
    MR_UNROLL
    for (int i = 0; i < 4; i++) out[j][i] = 0;
  MR_UNROLL
  for (int ks = 0; ks < S::kWidth / 16; ks++) {
    if (ks * 16 >= width) break;
    uint32_t k[S::kOwnScores / 2][4], fq[2][4];
    MR_UNROLL
    for (int j = 0; j < S::kOwnScores / 2; j++) load_matrices4(k[j], s.tiles[0][row + j * 16][swizzle(row, ks * 2 + half)]);
    MR_UNROLL
    for (int plane = 1; plane >= 0; plane--) {
      if constexpr (!held) load_fragment(fq[plane], s, plane, first_row, ks);
      MR_UNROLL
      for (int j = 0; j < S::kOwnScores; j++) mma_f16(out[j], held ? q[plane][held ? ks : 0] : fq[plane], &k[j / 2][j % 2 * 2]);
    }
  }
}

// A thread has numbers of two rows: that of lane / 4, and of eight more.
struct Row {
  int first, last, pos;
  float factor, slope;
};

// What follows the product of keys from first_key on: -infinity for those that a row does not see.
template <class S>
__device__ __forceinline__ void finish(float (&v)[S::kOwnScores][4], const Attention& a, const Row (&row)[2], int first_key, int all_first,
                                       int all_last) {
  const int key = first_key + threadIdx.x % 4 * 2;
  MR_UNROLL
  for (int j = 0; j < S::kOwnScores; j++)
    MR_UNROLL
    for (int i = 0; i < 4; i++) v[j][i] *= row[i / 2].factor;
  if (a.cap > 0.f)
    MR_UNROLL
    for (int j = 0; j < S::kOwnScores; j++)
      MR_UNROLL
      for (int i = 0; i < 4; i++) v[j][i] = softcap(v[j][i], a.cap);
  if (a.slopes != nullptr)
    MR_UNROLL
    for (int j = 0; j < S::kOwnScores; j++)
      MR_UNROLL
      for (int i = 0; i < 4; i++) v[j][i] += row[i / 2].slope * float(key + j * 8 + i % 2 - row[i / 2].pos);
  if (all_first > first_key || all_last < first_key + S::kOwnScores * 8 - 1)
    MR_UNROLL
    for (int j = 0; j < S::kOwnScores; j++)
      MR_UNROLL
      for (int i = 0; i < 4; i++)
        if (const int at = key + j * 8 + i % 2; at < row[i / 2].first || at > row[i / 2].last) v[j][i] = -INFINITY;
}

template <int width, bool many, bool coded>
__global__ void __launch_bounds__((Shape<width, many, coded>::kThreads), (Shape<width, many, coded>::kBlocks))
attend_tiled_kernel(Step step, Slots slots, Cache c, Values out, Values x, Attention a) {
  using S = Shape<width, many, coded>;
  MR_SHARED_DYNAMIC(Memory<S>, s);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = a.heads / c.heads, kv = blockIdx.y;
  int tile = 0;
  const int found = find_rows<S::kRows, S::kThreads>(&s.seq, step, group, &tile);
  if (found < 0) return;
  const mr_seq seq = step.seqs[found];

  // The rows, and what they see.
  const auto head_of = [&](int r) { return kv * group + (tile * S::kRows + r) % group; };
  for (int r = threadIdx.x; r < S::kRows; r += S::kThreads) {
    const int at = tile * S::kRows + r, t = at < seq.count * group ? seq.start + at / group : -1;
    const Seen range = t < 0 ? Seen{1 << 30, -1} : seen(step, a, t);
    s.token[r] = t;
    s.first[r] = range.first;
    s.last[r] = range.last;
  }
  __syncthreads();
  int block_first = 1 << 30, block_last = -1;
  for (int r = lane; r < S::kRows; r += 32) {
    block_first = min(block_first, s.first[r]);
    block_last = max(block_last, s.last[r]);
  }
  const auto greater = [](int a, int b) { return max(a, b); };
  block_first = warp_reduce(block_first, Least());
  block_last = warp_reduce(block_last, greater);
  const bool shared_out = a.splits > 1;
  const int read_first = shared_out ? max(block_first, int(blockIdx.z) * kSplit) : block_first;
  const int read_last = shared_out ? min(block_last, int(blockIdx.z) * kSplit + kSplit - 1) : block_last;
  if (read_first > read_last) return;
  Source<S, coded> from(slots.page_table(seq.slot, c.group), read_first, read_last);
  const int block_end = read_last / S::kKeys;
  int block = read_first / S::kKeys;
  const size_t keys_at = c.offset + size_t(kv) * kPageTokens * (c.key_bytes + c.value_bytes);
  const size_t values_at = keys_at + kPageTokens * c.key_bytes;
  from.look_up(block);
  if constexpr (coded) {
    from.shift = __ffs(c.scale_group) - 1;
    from.copy(s.codes[0], c, block, keys_at, c.key_bytes);
    commit_copies();
    if (S::kBuffers == 2) {
      from.copy(s.codes[S::kBuffers - 1], c, block, values_at, c.value_bytes);
      commit_copies();
      from.look_up(block + 1);
    }
  } else {
    from.copy(s.tiles[0], c, from.next, block, keys_at, c.key_bytes, c.key_width);
    commit_copies();
  }

  for (int r = warp; r < S::kRows; r += S::kWarps)
    load_query(s, s.token[r] < 0 ? nullptr : x.row(s.token[r]) + head_of(r) * c.key_width, r, c.key_width, a.scale);
  __syncthreads();
  const int first_row = warp / S::kShare * 16, part = warp % S::kShare;
  uint32_t q[2][S::kHeld ? width / 16 : 1][4];
  if constexpr (S::kHeld)
    MR_UNROLL
    for (int plane = 0; plane < 2; plane++)
      MR_UNROLL
      for (int ks = 0; ks < width / 16; ks++) load_fragment(q[plane][ks], s, plane, first_row, ks);
  const int own[2] = {first_row + lane / 4, first_row + lane / 4 + 8};
  Row row[2];
  State state[2], total[2];
  MR_UNROLL
  for (int h = 0; h < 2; h++) {
    const int t = s.token[own[h]];
    row[h] = {s.first[own[h]], s.last[own[h]], 0, s.factor[own[h]], 0};
    if (a.slopes != nullptr && t >= 0) {
      row[h].pos = step.pos[t];
      row[h].slope = a.slopes[head_of(own[h])];
    }
    state[h] = {-INFINITY, 0};
    total[h] = begin(a, head_of(own[h]));
  }
  // What the warp's rows see: any of them, and all of them.
  const int any_first = warp_reduce(min(row[0].first, row[1].first), Least()), any_last = warp_reduce(max(row[0].last, row[1].last), greater);
  const int all_first = warp_reduce(max(row[0].first, row[1].first), greater), all_last = warp_reduce(min(row[0].last, row[1].last), Least());

  float sums[S::kUnits][4] = {}, totals[S::kShare == 1 ? 1 : S::kUnits][4] = {};
  if constexpr (S::kShare == 1) {
    __syncthreads();  // queries are where totals will be
    MR_UNROLL
    for (int u = 0; u < S::kUnits; u++) s.sums[u][threadIdx.x] = {};
  }
  constexpr float kLog2E = 1.44269504f;
  MR_LOOP
  for (; block <= block_end; block++) {
    const int first_key = block * S::kKeys;
    wait_copies<coded ? S::kBuffers - 1 : 0>();
    __syncthreads();
    if constexpr (coded) {
      from.decode(s.tiles[0], s.codes[0], block, c.key_bytes, c.key_width);
      __syncthreads();
      if (S::kBuffers == 1) {
        from.copy(s.codes[0], c, block, values_at, c.value_bytes);
        from.look_up(block + 1);
      } else if (block < block_end) {
        from.copy(s.codes[0], c, block + 1, keys_at, c.key_bytes);
      }
      commit_copies();
    } else {
      from.advance();
      from.copy(s.tiles[1], c, from.page, block, values_at, c.value_bytes, c.value_width);
      commit_copies();
      if (block < block_end) from.look_up(block + 1);
    }

    const bool busy = any_first < first_key + S::kKeys && any_last >= first_key;
    float n[S::kScores][4];
    if (busy) {
      float mine[S::kOwnScores][4];
      score<S, S::kHeld>(mine, s, q, first_row, part * S::kOwnScores * 8, c.key_width);
      finish<S>(mine, a, row, first_key + part * S::kOwnScores * 8, all_first, all_last);
      MR_UNROLL
      for (int j = 0; j < S::kOwnScores; j++)
        MR_UNROLL
        for (int i = 0; i < 4; i++)
          if constexpr (S::kShare == 1)
            n[j][i] = mine[j][i];
          else
            s.scores[lane / 4 + i / 2 * 8][(part * S::kOwnScores + j) * 8 + lane % 4 * 2 + i % 2] = mine[j][i];
    }
    wait_copies<coded ? S::kBuffers - 1 : 0>();
    __syncthreads();
    if constexpr (coded) {
      from.decode(s.tiles[0], s.codes[S::kBuffers - 1], block, c.value_bytes, c.value_width);
      __syncthreads();
      if (block < block_end) {
        if (S::kBuffers == 1)
          from.copy(s.codes[0], c, block + 1, keys_at, c.key_bytes);
        else
          from.copy(s.codes[S::kBuffers - 1], c, block + 1, values_at, c.value_bytes);
      }
      commit_copies();
      if (S::kBuffers == 2) from.look_up(block + 2);
    } else {
      if (block < block_end) from.copy(s.tiles[0], c, from.next, block + 1, keys_at, c.key_bytes, c.key_width);
      commit_copies();
    }
    if (busy) {
      if constexpr (S::kShare > 1)
        MR_UNROLL
        for (int j = 0; j < S::kScores; j++)
          MR_UNROLL
          for (int h = 0; h < 2; h++) {
            const float2 two = load<float2>(&s.scores[lane / 4 + h * 8][j * 8 + lane % 4 * 2]);
            n[j][h * 2] = two.x;
            n[j][h * 2 + 1] = two.y;
          }
      uint32_t weights[S::kScores][2];
      MR_UNROLL
      for (int h = 0; h < 2; h++) {
        float most = state[h].most;
        MR_UNROLL
        for (int j = 0; j < S::kScores; j++) most = fmaxf(most, fmaxf(n[j][h * 2], n[j][h * 2 + 1]));
        most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 1));
        most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 2));
        const float base = most == -INFINITY ? 0.f : most * kLog2E;  // of a row that has seen nothing
        const float before = exp2_fast(state[h].most * kLog2E - base);  // exactly 1 if most has not changed
        float sum = 0;
        MR_UNROLL
        for (int j = 0; j < S::kScores; j++) {
          const float low = exp2_fast(fmaf(n[j][h * 2], kLog2E, -base)), high = exp2_fast(fmaf(n[j][h * 2 + 1], kLog2E, -base));
          weights[j][h] = two_f16(low, high);
          sum += low + high;
        }
        sum += __shfl_xor_sync(kFullWarp, sum, 1);
        sum += __shfl_xor_sync(kFullWarp, sum, 2);
        state[h] = {most, fmaf(state[h].sum, before, sum)};
        MR_UNROLL
        for (int u = 0; u < S::kUnits; u++) {
          sums[u][h * 2] *= before;
          sums[u][h * 2 + 1] *= before;
        }
      }
      MR_UNROLL
      for (int ks = 0; ks < S::kKeys / 16; ks++) {
        const uint32_t w[4] = {weights[ks * 2][0], weights[ks * 2][1], weights[ks * 2 + 1][0], weights[ks * 2 + 1][1]};
        const int key = ks * 16 + lane % 16;
        MR_UNROLL
        for (int u = 0; u < S::kUnits; u += 2) {
          uint32_t v[4];
          load_matrices4_transposed(v, s.tiles[S::kTiles - 1][key][swizzle(lane, part * S::kUnits + u + lane / 16)]);
          mma_f16(sums[u], w, v);
          mma_f16(sums[u + 1], w, v + 2);
        }
      }
    }
    if (shared_out || (block < block_end && (first_key + S::kKeys) % kSplit != 0)) continue;
    // A part ends: it is merged, where it has something that the row sees.
    const int split = first_key / kSplit * kSplit;
    MR_UNROLL
    for (int h = 0; h < 2; h++) {
      if (row[h].first < split + kSplit && row[h].last >= split) {
        float before, after;
        merge(total[h], state[h], &before, &after);
        MR_UNROLL
        for (int u = 0; u < S::kUnits; u++)
          MR_UNROLL
          for (int i = h * 2; i < h * 2 + 2; i++) {
            float& to = S::kShare == 1 ? s.sums[S::kShare == 1 ? u : 0][threadIdx.x].v[i] : totals[S::kShare == 1 ? 0 : u][i];
            to = merge_value(to, sums[u][i], before, after);
          }
      }
      state[h] = {-INFINITY, 0};
      MR_UNROLL
      for (int u = 0; u < S::kUnits; u++) sums[u][h * 2] = sums[u][h * 2 + 1] = 0;
    }
  }

  MR_UNROLL
  for (int h = 0; h < 2; h++) {
    const int t = s.token[own[h]];
    if (t < 0) continue;
    const int head = head_of(own[h]);
    float* to = shared_out ? a.partial + (size_t(t) * a.splits + blockIdx.z) * attention_floats(a.heads, c.value_width) +
                                 size_t(head) * (c.value_width + 2)
                           : out.row(t) + head * c.value_width;
    MR_UNROLL
    for (int u = 0; u < S::kUnits; u++)
      MR_UNROLL
      for (int i = 0; i < 2; i++) {
        const int column = (part * S::kUnits + u) * 8 + lane % 4 * 2 + i;
        if (column >= c.value_width) continue;
        const float all = S::kShare == 1 ? s.sums[S::kShare == 1 ? u : 0][threadIdx.x].v[h * 2 + i] : totals[S::kShare == 1 ? 0 : u][h * 2 + i];
        to[column] = shared_out ? sums[u][h * 2 + i] : all / total[h].sum;
      }
    if (shared_out && part == 0 && lane % 4 == 0) {
      to[c.value_width] = state[h].most;
      to[c.value_width + 1] = state[h].sum;
    }
  }
}

// What report.py cannot see: threads, and bytes of shared memory.
template <int width, bool many, bool coded>
constexpr bool takes(int threads, size_t bytes) {
  using S = Shape<width, many, coded>;
  return S::kThreads == threads && sizeof(Memory<S>) == bytes;
}
static_assert(takes<64, false, false>(128, 25472));
static_assert(takes<64, true, false>(256, 51584));
static_assert(takes<128, false, false>(128, 45952));
static_assert(takes<128, true, false>(256, 100736));
static_assert(takes<256, false, false>(128, 86912));
static_assert(takes<64, false, true>(128, 27520));
static_assert(takes<64, true, true>(256, 48512));
static_assert(takes<128, false, true>(128, 48000));
static_assert(takes<128, true, true>(256, 93568));
static_assert(takes<256, false, true>(128, 91008));

template <int width, bool many, bool coded>
void launch(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values& x, const Attention& a,
            int n, int seqs) {
  using S = Shape<width, many, coded>;
  const int group = a.heads / c.heads;
  const dim3 grid(unsigned(n * group / S::kRows + seqs), unsigned(c.heads), unsigned(a.splits));
  MR_LAUNCH_EARLY((attend_tiled_kernel<width, many, coded>), grid, S::kThreads, sizeof(Memory<S>), stream, false, step, slots, c, out, x, a);
}

// One of width 256 does not fit for many rows.
template <bool coded>
void launch_width(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values& x,
                  const Attention& a, int n, int seqs) {
  const bool many = n * (a.heads / c.heads) >= 32 * seqs;
  switch (attention_shape(c) % kAttentionWidths) {
    case 0:
      return many ? launch<64, true, coded>(stream, step, slots, c, out, x, a, n, seqs)
                  : launch<64, false, coded>(stream, step, slots, c, out, x, a, n, seqs);
    case 1:
      return many ? launch<128, true, coded>(stream, step, slots, c, out, x, a, n, seqs)
                  : launch<128, false, coded>(stream, step, slots, c, out, x, a, n, seqs);
    case 2:
      return launch<256, false, coded>(stream, step, slots, c, out, x, a, n, seqs);
  }
}

}  // namespace

void attend_tiled(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& out, const Values& x,
                  const Attention& a, int n, int seqs) {
  if (c.format == MR_F16)
    launch_width<false>(stream, step, slots, c, out, x, a, n, seqs);
  else
    launch_width<true>(stream, step, slots, c, out, x, a, n, seqs);
}

}  // namespace millrace
