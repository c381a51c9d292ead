// The interface between the host and the kernels: what a step knows, how tensors, values
// and caches lie in the device's memory, and the functions that launch each operation.
//
// Launch functions enqueue on a stream and return; n is how many rows the grid is made
// for, at least as many as there are. How many there are the kernels read from the device,
// so that the launches of a step depend on nothing but n.
#ifndef MILLRACE_CUDA_KERNELS_H
#define MILLRACE_CUDA_KERNELS_H

#include <cuda_runtime.h>
#include <millrace.h>

#include <cstddef>
#include <cstdint>

namespace millrace {

constexpr int kPageTokens = MR_PAGE_TOKENS;
constexpr int kTileK = 32;   // columns that products take at once; rows of weights are padded to it
constexpr int kTileN = 64;   // rows of weights that a block multiplies; matrices are padded to it
constexpr int kSplit = 256;  // positions of which an attention makes one sum

// Values are rows of floats, stride apart.
struct Values {
  float* data;
  int width, stride;
  __host__ __device__ float* row(int r) const { return data + size_t(r) * stride; }
};

// Weight is a tensor of the plan: matrices [rows, cols] one after the other, each of
// padded_rows rows of row_bytes bytes of codes or elements; scales and minimums
// [matrices, groups, padded_rows], apart. A vector is one row of F32.
struct Weight {
  const char* codes;
  const void* scales;        // f16, of F8 f32
  const uint16_t* minimums;  // f16; null: none
  int32_t kind, rows, cols, padded_rows, row_bytes;
  int32_t group, groups;  // columns that share a scale, how often in a row
  int32_t table;          // of W4: which of kCodes its codes stand for
  __host__ __device__ const char* row(int matrix, int r) const {
    return codes + (size_t(matrix) * padded_rows + r) * row_bytes;
  }
  __host__ __device__ size_t scale_at(int matrix, int group, int r) const {
    return (size_t(matrix) * groups + group) * padded_rows + r;
  }
};

// Step is what kernels know of the batch. What it points to is filled by update(), and changed for
// drafts, but for the batch itself, which the host wrote where *batch says.
struct Step {
  const mr_batch* const* batch;
  const int *n_tokens, *n_rows, *n_seqs;
  const mr_seq* seqs;
  // By token.
  const int32_t *token, *pos, *slot, *adapter, *length, *first, *last, *end, *axes;
  int max_tokens;  // axis a of token t is axes[a * max_tokens + t]
  // By row: its token's place in the batch, or -1 for one that is sampled again.
  const int32_t *row_token, *row_slot, *row_adapter;
};

// Rows are which rows of values an operation has: one a token, or one a row of the batch.
struct Rows {
  const int* count;
  const int32_t* adapter;
};

// Slots are what stays on the device of each sequence.
struct Slots {
  int count, groups, pages_per_slot, vocab, hidden;
  int32_t* pages;    // [slots, groups, pages_per_slot]
  int32_t* state;    // which is its own
  int32_t* last;     // token sampled most recently
  int32_t* prev;     // token that the last row belongs to
  int32_t* is_void;  // the rest of its rows to verify
  mr_params* params;
  uint32_t* counts;  // [slots, vocab]: bit 0: seen; above: times generated
  mr_bias_delta* biases;  // [slots, MR_MAX_BIASES]
  int32_t* n_biases;
  float* rows;  // [slots, hidden]: what the last row is made of
  __host__ __device__ const int32_t* page_table(int slot, int group) const {
    return pages + (size_t(slot) * groups + group) * pages_per_slot;
  }
};

// Cache is where a cache of the plan is in every page or state, and in which format:
// [heads, positions] keys, then values, each row as package plan lays out rows.
struct Cache {
  char* memory;       // of all pages or states
  size_t stride;      // bytes of a page or state
  size_t offset;      // of this cache in it
  int32_t kind, group, heads, key_width, value_width;
  int32_t format, scale_group;  // MR_F32, MR_F16 or MR_W8
  int32_t key_bytes, value_bytes;  // of a row
  __host__ __device__ char* head(int page, int h) const {
    return memory + size_t(page) * stride + offset + size_t(h) * kPageTokens * (key_bytes + value_bytes);
  }
  __host__ __device__ float* state(int number) const {
    return reinterpret_cast<float*>(memory + size_t(number) * stride + offset);
  }
};

// Packed is x as products take it: padded rows of floats; of 16-bit weights and F8 two planes
// of 16 bits, whose sum is x; of integers codes, with scales and sums of codes by group.
struct Packed {
  char* codes;    // [planes, heads, capacity, padded_cols]
  float* scales;  // of F16: [heads, capacity]; of integers [heads, capacity, groups]
  int32_t* sums;  // of integers, likewise
  int32_t kind, cols, padded_cols, group, groups, heads, capacity;
};
// Bytes of an element of codes, and how many planes there are.
__host__ __device__ constexpr int packed_element(int kind) {
  return kind == MR_F32 ? 4 : kind == MR_W8 || kind == MR_W4 ? 1 : 2;
}
__host__ __device__ constexpr int packed_planes(int kind) { return packed_element(kind) == 2 ? 2 : 1; }

// AdapterTarget changes rows [first, first + rows) of each matrix of a tensor; a null:
// there is nothing to change.
constexpr int kMostAdapters = 64, kMostTargets = 8;  // loaded at once, of which 0 is none; of a tensor and adapter
struct AdapterTarget {
  const float *a, *b;  // [matrices, rank, cols], [matrices, rows, rank]
  int32_t first, rows, rank, low;  // where x aᵀ begins in a row of Adapted.low
};
// Adapted is what adapters change of one matrix of an operation. low is x aᵀ of each row of
// each head, for all targets one after the other.
struct Adapted {
  const AdapterTarget* targets;  // [kMostAdapters, kMostTargets]; null: no adapter is loaded
  float* low;                    // [heads, rows, width]
  int32_t width, capacity;       // capacity of rows
};

// Epilogue is what follows a product while it is in registers.
struct Epilogue {
  const float* bias[2];  // by matrix, [matrices, rows]; null: none
  Adapted adapted[2];
  Values residual;  // data null: none
  float scale, limit, alpha;
  int32_t act;
};

// Routing says of each tile of packed rows, of up to so many, to which matrix it belongs.
constexpr int kTileRows = 16;  // that a tile has room for at least
struct Tile {
  int32_t matrix, first, count;
};
struct Routing {
  const Tile* tiles;
  const int* n_tiles;
  int most;  // tiles that there can be
  int rows;
};

// Chosen are the rows of a step once for each expert that they go to, those of an expert
// together. What is not const group_rows() fills.
struct Chosen {
  Values experts, weights;  // as OpRoute makes them
  int32_t top_k, n_experts;
  bool scale_input;
  int* count;
  int* n_tiles;
  Tile* tiles;
  int32_t *row, *expert, *adapter;  // by sorted row: which row of the step it is, whose it is
  float* factor;                    // what x is multiplied with, if scale_input
  int32_t* place;                   // by row and choice: which sorted row it is
};

// update.cu. adapters says which of those that are loaded each sequence has.
void update(cudaStream_t, const mr_batch*, const int32_t* adapters, const Step&, const Slots&);
void keep_rows(cudaStream_t, const Step&, const Slots&, const Values& x, int n);
void move_states(cudaStream_t, const mr_batch*, char* states, size_t bytes, bool after, int n);

// tensor.cu: rows in the format in which they come, to where the weight keeps them.
void store_rows(cudaStream_t, const Weight&, const void* src, int64_t first, int64_t rows, size_t src_row_bytes);
// convert.cu: rows in format from, of floats or FP8, to where the weight keeps them, converted as
// package quant does on the host, bit for bit. converts says whether there is a kernel for it.
bool converts(int32_t from, const Weight&);
void convert_rows(cudaStream_t, const Weight&, int32_t from, const void* src, int64_t first, int64_t rows, size_t src_row_bytes);
// decode_rows makes floats of all elements, without padding.
void decode_rows(cudaStream_t, const Weight&, int matrices, float* out);

// all_reduce.cu: between the devices that share a model, which do the same exchanges in the
// same order. What a device has is in a buffer of its own, which the others read once it has
// raised its flag with each of them.
constexpr int kMostDevices = 8;
struct Peers {
  int32_t devices, device;       // how many; which one this is
  float* buffers[kMostDevices];  // two each, of so many floats
  size_t floats;
  uint32_t* flags[kMostDevices];  // of each device: the last exchange that each one has come to
  uint32_t* exchanges;            // of this device, so far
  int* ended;                     // blocks, of the exchange that has begun
  const int* abandoned;           // not 0: a device has failed, and nobody waits for it
};
// shard_first is the first of n rows of a vocabulary that a device has (plan.VocabRange).
__host__ __device__ constexpr int shard_first(int n, int device, int devices) {
  return int(int64_t(n) * device / devices);
}
// all_reduce sums x over the devices, and adds it to y; all_gather joins its columns.
void all_reduce(cudaStream_t, const Rows&, const Values& out, const Values& x, const Values& y, float scale, const Peers&, int n);
void all_gather(cudaStream_t, const Rows&, const Values& out, const Values& x, const Peers&, int n);

// embed.cu. Of a table that is divided, at is the first token that it has a row for; else it
// is -1. Others are zeros then, and rows of the batch but where at is 0.
void embed(cudaStream_t, const Step&, const Values& out, const Weight*, float scale,
           bool beside, int first, int embeds_width, int at, int n);
void embedding_bag(cudaStream_t, const Rows&, const Values& out, const Values& numbers, const Values& weights, const Weight&, int n);
void embed_position(cudaStream_t, const Step&, const Values& out, const Weight&, int offset, int n);

// norm.cu
struct Norm {
  const float *weight, *bias;  // null: none
  int32_t weights, biases;     // how many there are
  int32_t group, gate;
  float eps, shift;
};
// Of whole rows they pack what they make, if packed has memory.
void rms_norm(cudaStream_t, const Rows&, const Values& out, const Values& x, const Values& gate, const Norm&, const Packed& packed,
              int n);
void layer_norm(cudaStream_t, const Rows&, const Values& out, const Values& x, const Norm&, const Packed& packed, int n);

// elementwise.cu
void activate(cudaStream_t, const Rows&, const Values& out, const Values& x, const Values& y, int act, float limit, float alpha,
              const float* w0, const float* w1, int n);
void add(cudaStream_t, const Rows&, const Values& out, const Values& x, const Values& y, float scale, int n);
void scale(cudaStream_t, const Rows&, const Step&, const Values& out, const Values& x, const float* w, int weights, float factor,
           float log_factor, int offset, int length, int n);
void sparsify(cudaStream_t, const Rows&, const Values& out, const Values& x, float deviations, int n);
void copy_columns(cudaStream_t, const Rows&, const Values& out, const Values& x, int n);

// rows.cu
void pick_rows(cudaStream_t, const Step&, const Values& out, const Values& x, int count, bool mean, int n);
void output_rows(cudaStream_t, const Step&, const Values& x, int n);

// cache.cu: rotates heads of values, one after the other, and then writes x and y to a cache, if
// it is not null.
struct Rope {
  int32_t heads, head_dim, first, rotary, interleaved, original;
  const float *table, *longer, *axes;  // longer and axes may be null
  float scale, factor, theta;
};
struct Rotations {
  static constexpr int kMost = 2;
  int count;
  Values x[kMost];
  Rope rope[kMost];
};
void rotate_and_write(cudaStream_t, const Step&, const Slots&, const Rotations&, const Cache*, const Values& x, const Values& y, int n);

// route.cu
constexpr int kMostExperts = 1024;
struct Route {
  int32_t experts, top_k, score, groups, top_groups, normalize, group_best;
  float scale, eps, jitter;
  const float *bias, *factors;  // null: none
};
void route(cudaStream_t, const Rows&, const Values& experts, const Values& weights, const Values& x, const Route&, int n);

// experts.cu. group_rows makes tiles of up to tile_rows.
void group_rows(cudaStream_t, const Rows&, const Chosen&, int tile_rows);
void combine(cudaStream_t, const Rows&, const Values& out, const Values& y, const Chosen&, int n);

// recurrent.cu
constexpr int kMostTaps = 16, kMostKeyWidth = 512;
void conv(cudaStream_t, const Step&, const Slots&, const Cache&, const Values& out, const Values& x, const float* w,
          const float* bias, int act, int n_seqs);
struct Delta {
  int32_t key_heads, channels, negative;
  float eps, scale;
  const float *log_a, *bias;
};
void gated_delta(cudaStream_t, const Step&, const Slots&, const Cache&, const Values& out, const Values* in, const Delta&,
                 int n_seqs);
struct StateSpace {
  int32_t groups;
  float least, most;
  const float *log_a, *bias, *skip;
};
void state_space(cudaStream_t, const Step&, const Slots&, const Cache&, const Values& out, const Values* in, const StateSpace&,
                 int n_seqs);
void selective_scan(cudaStream_t, const Step&, const Slots&, const Cache&, const Values& out, const Values* in,
                    const float* log_a, const float* skip, int n_seqs);

// adapter.cu: low of those rows that have an adapter. chosen says to which matrix a row goes,
// if expert is not null, and which row of x it is, if row is not; else a row goes to the
// matrix of its head.
void reduce_adapters(cudaStream_t, const Rows&, const Adapted&, const Values& x, const Chosen& chosen, int heads, int cols, int n);

// attention.cu, attention_tiled.cu and attention_latent.cu. With splits > 1 a block for each split of kSplit positions leaves its part in
// partial, attention_floats of floats for each split of each token; else a block goes through
// all of them. The results are the same.
constexpr int kMostValueWidth = 512;
struct Attention {
  int32_t heads, window, chunk, sight;
  const float *slopes, *sinks;  // null: none
  float scale, cap;
  float* partial;
  int32_t splits;
  uint32_t tiled;  // a bit for each attention_shape() that may be on tensor cores
};
__host__ __device__ constexpr size_t attention_floats(int heads, int value_width) { return size_t(heads) * (value_width + 2); }
// The batch has at most n tokens of seqs sequences.
void attend(cudaStream_t, const Step&, const Slots&, const Cache&, const Values& out, const Values& x, const Values& y,
            const Attention&, int n, int seqs);
// attention_shape is which kernels on tensor cores a cache has, or -1: none. Those of keys and values
// of up to 64, 128 and 256 columns, in f16; the same in codes of eight bits; those of latents, in f16
// and in codes.
constexpr int kAttentionWidths = 3, kAttentionShapes = 2 * kAttentionWidths + 2;
constexpr int kMostLatentWidth = kMostValueWidth + 64;
int attention_shape(const Cache&);
void attend_tiled(cudaStream_t, const Step&, const Slots&, const Cache&, const Values& out, const Values& x, const Attention&, int n,
                  int seqs);
void attend_latent(cudaStream_t, const Step&, const Slots&, const Cache&, const Values& out, const Values& x, const Values& y,
                   const Attention&, int n, int seqs);

// sample.cu: answers the rows of a batch from first on, whose logits are rows of logits,
// which it overwrites. begin comes before the first of them.
struct Head {
  const float* bias;  // null: none
  float scale, cap;
};
void begin_sample(cudaStream_t, const Step&, const Slots&, int n);
void sample_rows(cudaStream_t, const Step&, const Slots&, const Values& logits, const Head&, int first, int n);

// draft.cu. A pick is a row of the batch that tokens are drafted after, with the token of the
// sequence that was drafted last.
struct Pick {
  int32_t row, slot;
  int32_t pos;             // of the token that a draft follows
  int32_t rope_len, most;  // tokens to draft
  int32_t token;           // or MR_NONE
  int32_t from;            // its row in the pass before
  int32_t axes[3];
};
// Drafting is what passes of a draft leave for the next one.
struct Drafting {
  Pick* picks;    // [slots], one for each row of the pass
  int32_t* seq;   // by slot: which sequence of the batch it has
  int32_t* last;  // by row of the batch: 1 if it chose the last token of a slot that wants drafts
  int* drafted;   // tokens of each pick before those of this pass
};
// begin_draft makes the step of a batch that has been sampled the first pass of its draft:
// each token is the one after it, and the rows are picks. draft_rows drafts a token in those
// from first on. follow_draft makes the step one of the tokens that were drafted last, in
// sequences that want more, and carries over the state of each, a row of own.
void begin_draft(cudaStream_t, const Step&, const Drafting&);
void draft_rows(cudaStream_t, const Step&, const Drafting&, const Values& logits, const Head&, int first, int n);
void follow_draft(cudaStream_t, const Step&, const Drafting&, const Values& state, const Values& own, int n);

// pack.cu. gather says of each packed row which row of x it is, null: the same; factors,
// what it is multiplied with.
void pack(cudaStream_t, const int* count, const Packed&, const Values& x, const int32_t* gather, const float* factors, int n);

// A product's number is the sum of chunks of columns, each summed in order and then added in
// order, so that it has the same bits from whichever kernel, and from one block or from one
// for each chunk. This is how many columns a chunk has: whole groups, and at most kMostChunks.
constexpr int kMostChunks = 8;
inline __host__ __device__ int chunk_columns(const Weight& w) {
  int unit = 128;
  if (w.groups > 1)
    while (unit % w.group != 0) unit += 128;
  const int least = (w.cols + kMostChunks - 1) / kMostChunks, wanted = least > 256 ? least : 256;
  return (wanted + unit - 1) / unit * unit;
}

// Tiled is which kernels of tiled.cu products may use, and what they work in. Each format has
// three shapes of blocks: for up to 16 rows, for up to 64, and for more.
enum Tiling { kDecode, kFew, kMany, kTilings };
constexpr int kTilingRows[kTilings] = {kTileRows, 64, 128};  // of a block
constexpr Tiling tiling_of(int rows) {
  return rows <= kTilingRows[kDecode] ? kDecode : rows <= kTilingRows[kFew] ? kFew : kMany;
}
struct Tiled {
  uint32_t on;             // a bit for each of tiled_bit()
  bool early;              // kernels may start, and fetch weights, while that before them ends
  int32_t multiprocessors;
  float* partial;          // sums of chunks that blocks of their own made
  size_t floats;           // in it; 0: no block shares a sum
  int32_t* arrived;        // [kMostArrivals] blocks of each sum, zeros between launches
};
constexpr int kMostArrivals = 4096;
constexpr uint32_t tiled_bit(int kind, int tiling) { return 1u << (kind * kTilings + tiling); }

// tiled.cu: launches a kernel that is on, or returns false. tiled_floats is how much of
// partial a product of up to n rows can use.
size_t tiled_floats(const Weight&, bool gate, int heads, int n, const Tiled&);
bool linear_tiled(cudaStream_t, const Rows&, const Values& out, const Packed& x, const Weight& w0, const Weight* w1,
                  const Epilogue&, const Routing*, const Tiled&, int n);

// linear.cu: one matrix or, gated, two of one format. Each head of x has a matrix of its
// own, and so has each tile of a routing.
void linear(cudaStream_t, const Rows&, const Values& out, const Packed& x, const Weight& w0, const Weight* w1, const Epilogue&,
            const Routing*, const Tiled&, int n);

// peak.cu: bytes a second, read and written, of a copy in the device's memory; and
// operations a second of mma in bfloat16 from registers. 0: the device failed.
double copy_peak(cudaStream_t, void* to, const void* from, size_t bytes);
double product_peak(cudaStream_t, float* scratch, int multiprocessors);

}  // namespace millrace
#endif
