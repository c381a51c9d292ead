// The first kernel of each step reads what the host wrote, where it wrote it: it applies
// the deltas to the slots and fills the arrays that all other kernels read.
#include <algorithm>

#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 512;

// What update() writes of a Step.
struct Filled {
  const mr_batch** batch;
  int *n_tokens, *n_rows, *n_seqs;
  mr_seq* seqs;
  int32_t *token, *pos, *slot, *adapter, *length, *first, *last, *end, *axes, *row_token, *row_slot, *row_adapter;
};

__device__ void apply_deltas(const mr_batch& b, const Slots& s) {
  for (int i = threadIdx.x; i < b.n_pages; i += kThreads) {
    const mr_page_delta d = b.pages[i];
    s.pages[(size_t(d.slot) * s.groups + d.group) * s.pages_per_slot + d.index] = d.page;
  }
  for (int i = threadIdx.x; i < b.n_states; i += kThreads) s.state[b.states[i].slot] = b.states[i].live;
  for (int i = 0; i < b.n_params; i++) {
    const int slot = b.params[i].slot;
    if (threadIdx.x == 0) {
      s.params[slot] = b.params[i].params;
      s.n_biases[slot] = 0;
    }
    for (int v = threadIdx.x; v < s.vocab; v += kThreads) s.counts[size_t(slot) * s.vocab + v] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < b.n_counts; i += kThreads) {
    const mr_count_delta d = b.counts[i];
    uint32_t* at = &s.counts[size_t(d.slot) * s.vocab + d.token];
    atomicOr(at, 1u);
    if (d.generated == 1) atomicAdd(at, 2u);
  }
  // Biases of a slot keep their order, in which they are added.
  if (threadIdx.x >= 32) return;
  const unsigned before = (1u << threadIdx.x) - 1;
  for (int i = threadIdx.x; i - int(threadIdx.x) < b.n_biases; i += 32) {
    const mr_bias_delta d = i < b.n_biases ? b.biases[i] : mr_bias_delta{-1, 0, 0};
    const unsigned same = __match_any_sync(kFullWarp, unsigned(d.slot));
    const int base = d.slot < 0 ? 0 : s.n_biases[d.slot];
    __syncwarp();
    if (d.slot >= 0) {
      s.biases[size_t(d.slot) * MR_MAX_BIASES + base + __popc(same & before)] = d;
      if ((same & before) == 0) s.n_biases[d.slot] = base + __popc(same);
    }
    __syncwarp();
  }
}

__global__ void __launch_bounds__(kThreads) update_kernel(const mr_batch* batch, const int32_t* adapters, Filled out,
                                                          int max_tokens, Slots s) {
  const mr_batch& b = *batch;
  apply_deltas(b, s);
  if (threadIdx.x == 0) {
    *out.batch = batch;
    *out.n_tokens = b.n_tokens;
    *out.n_rows = b.n_rows;
    *out.n_seqs = b.n_seqs;
  }
  for (int i = threadIdx.x / 32; i < b.n_seqs; i += kThreads / 32) {
    mr_seq seq = b.seqs[i];
    seq.adapter = adapters[i];
    if (threadIdx.x % 32 == 0) out.seqs[i] = seq;
    for (int t = seq.start + int(threadIdx.x % 32); t < seq.start + seq.count; t += 32) {
      const int32_t pos = b.pos[t];
      out.token[t] = b.tokens[t] == MR_LAST_TOKEN ? s.last[seq.slot] : b.tokens[t];
      out.pos[t] = out.first[t] = out.last[t] = pos;
      out.end[t] = seq.kv_len;
      out.slot[t] = seq.slot;
      out.adapter[t] = seq.adapter;
      out.length[t] = max(seq.rope_len, pos + 1);
      for (int a = 0; a < 3; a++) out.axes[a * max_tokens + t] = b.n_axes > 0 ? b.axes[a * b.n_tokens + t] : pos;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x / 32; i < b.n_spans; i += kThreads / 32) {
    const mr_span span = b.spans[i];
    const int32_t first = out.pos[span.start], last = out.pos[span.start + span.count - 1];
    for (int t = span.start + int(threadIdx.x % 32); t < span.start + span.count; t += 32) {
      out.first[t] = first;
      out.last[t] = last;
    }
  }
  for (int r = threadIdx.x; r < b.n_rows; r += kThreads) {
    const int32_t t = b.rows[r].token;
    out.row_token[r] = t;
    out.row_slot[r] = b.rows[r].slot;
    out.row_adapter[r] = t < 0 ? 0 : out.adapter[t];
  }
}

__global__ void keep_rows_kernel(Step step, Slots s, Values x) {
  const int r = blockIdx.x;
  if (r >= *step.n_rows) return;
  const int slot = step.row_slot[r];
  float *kept = s.rows + size_t(slot) * s.hidden, *row = x.row(r);
  const bool again = step.row_token[r] < 0;
  // The last row of a slot is kept; the rows of a slot follow each other.
  if (!again && r + 1 < *step.n_rows && step.row_slot[r + 1] == slot) return;
  for (int i = threadIdx.x; i < s.hidden; i += blockDim.x) {
    if (again)
      row[i] = kept[i];
    else
      kept[i] = row[i];
  }
  if (!again && threadIdx.x == 0) s.prev[slot] = step.token[step.row_token[r]];
}

__global__ void move_states_kernel(const mr_batch* batch, char* states, size_t bytes, bool after) {
  if (int(blockIdx.y) >= batch->n_states) return;
  const mr_state_delta d = batch->states[blockIdx.y];
  const int from = after ? d.live : d.from, to = after ? d.save : d.live;
  if (to < 0 || from == MR_NO_STATE || from == to) return;
  float4* out = reinterpret_cast<float4*>(states + size_t(to) * bytes);
  const float4* in = reinterpret_cast<const float4*>(states + size_t(max(from, 0)) * bytes);
  for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < bytes / sizeof(float4); i += gridDim.x * blockDim.x)
    out[i] = from == MR_ZERO_STATE ? make_float4(0, 0, 0, 0) : in[i];
}

}  // namespace

void update(cudaStream_t stream, const mr_batch* batch, const int32_t* adapters, const Step& step, const Slots& slots) {
  const auto out = [](const int32_t* p) { return const_cast<int32_t*>(p); };
  Filled filled;
  filled.batch = const_cast<const mr_batch**>(step.batch);
  filled.n_tokens = out(step.n_tokens);
  filled.n_rows = out(step.n_rows);
  filled.n_seqs = out(step.n_seqs);
  filled.seqs = const_cast<mr_seq*>(step.seqs);
  filled.token = out(step.token);
  filled.pos = out(step.pos);
  filled.slot = out(step.slot);
  filled.adapter = out(step.adapter);
  filled.length = out(step.length);
  filled.first = out(step.first);
  filled.last = out(step.last);
  filled.end = out(step.end);
  filled.axes = out(step.axes);
  filled.row_token = out(step.row_token);
  filled.row_slot = out(step.row_slot);
  filled.row_adapter = out(step.row_adapter);
  MR_LAUNCH(update_kernel, 1, kThreads, stream, batch, adapters, filled, step.max_tokens, slots);
}

void keep_rows(cudaStream_t stream, const Step& step, const Slots& slots, const Values& x, int n) {
  MR_LAUNCH(keep_rows_kernel, n, 128, stream, step, slots, x);
}

void move_states(cudaStream_t stream, const mr_batch* batch, char* states, size_t bytes, bool after, int n) {
  const unsigned blocks = unsigned(std::min<size_t>(64, bytes / sizeof(float4) / 256 + 1));
  MR_LAUNCH(move_states_kernel, dim3(blocks, unsigned(n)), 256, stream, batch, states, bytes, after);
}

}  // namespace millrace
