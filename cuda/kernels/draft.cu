// Tokens drafted by a head of the model's own (plan.Plan.Draft): what its passes over the batch work
// on, and the tokens that it expects. The host is not asked in between.
//
// A pass has the same Step as the batch, which these kernels change: each token is the one after it,
// then the rows are those that a draft follows, and then sequences of the last drafted token alone.
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 512, kMostThreads = 256;

// What a Step points to is const for all kernels but those that fill it.
template <class T>
__device__ __forceinline__ T* filled(const T* p) {
  return const_cast<T*>(p);
}

__global__ void __launch_bounds__(kThreads) begin_draft_kernel(Step step, Drafting d) {
  const mr_batch& b = **step.batch;
  const int lane = threadIdx.x % 32, seqs = *step.n_seqs, rows = *step.n_rows;
  for (int i = threadIdx.x / 32; i < seqs; i += kThreads / 32) {
    const mr_seq seq = step.seqs[i];
    const int end = seq.start + seq.count;
    if (lane == 0) d.seq[seq.slot] = i;
    for (int first = seq.start; first < end; first += 32) {
      const int t = first + lane;
      const int32_t next = t + 1 < end ? step.token[t + 1] : seq.next;
      __syncwarp();
      if (t < end) {
        filled(step.token)[t] = next;
        filled(step.adapter)[t] = 0;  // adapters change the model, not what drafts its tokens
      }
      __syncwarp();
    }
  }
  __syncthreads();
  for (int r = threadIdx.x; r < rows; r += kThreads) {
    const mr_row row = b.rows[r];
    const mr_row_result& result = b.results[r];
    bool last = (row.kind == MR_ROW_SAMPLE || row.kind == MR_ROW_VERIFY) && result.invalid == 0 && result.is_void == 0;
    if (last) {
      filled(step.token)[row.token] = result.token;
      // After a guess that was right the next row is its slot's, too.
      last = !(row.kind == MR_ROW_VERIFY && result.token == row.target) && step.seqs[d.seq[row.slot]].drafts > 0;
    }
    d.last[r] = last;
    filled(step.row_adapter)[r] = 0;
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  const unsigned before = (1u << lane) - 1;
  int picked = 0;
  for (int first = 0; first < rows; first += 32) {
    const int r = first + lane;
    const bool keep = r < rows && d.last[r] != 0;
    const int at = picked + __popc(__ballot_sync(kFullWarp, keep) & before), t = keep ? step.row_token[r] : 0;
    __syncwarp();
    if (keep) {
      const mr_seq seq = step.seqs[d.seq[step.slot[t]]];
      Pick p = {r, seq.slot, step.pos[t], seq.rope_len, seq.drafts, MR_NONE, at, {}};
      for (int a = 0; a < 3; a++) p.axes[a] = step.axes[a * step.max_tokens + t];
      d.picks[at] = p;
      filled(step.row_token)[at] = t;
    }
    picked += __popc(__ballot_sync(kFullWarp, keep));
    __syncwarp();
  }
  if (lane != 0) return;
  *filled(step.n_rows) = picked;
  *d.drafted = 0;
}

__global__ void follow_draft_kernel(Step step, Drafting d) {
  const int lane = threadIdx.x, picked = *step.n_rows, drafted = *d.drafted + 1;
  const unsigned before = (1u << lane) - 1;
  int left = 0;
  for (int first = 0; first < picked; first += 32) {
    const int r = first + lane;
    Pick p{};
    if (r < picked) p = d.picks[r];
    const bool keep = r < picked && p.most > drafted && p.token != MR_NONE;
    const unsigned kept = __ballot_sync(kFullWarp, keep);
    __syncwarp();  // a pick moves to where one may have been that another thread has read
    if (keep) {
      const int at = left + __popc(kept & before);
      p.from = r;
      p.pos++;
      for (int a = 0; a < 3; a++) filled(step.axes)[a * step.max_tokens + at] = ++p.axes[a];
      d.picks[at] = p;
      filled(step.seqs)[at] = {p.slot, at, 1, p.pos + 1, 0, p.rope_len, 0, 0};
      filled(step.token)[at] = p.token;
      filled(step.pos)[at] = filled(step.first)[at] = filled(step.last)[at] = p.pos;
      filled(step.slot)[at] = p.slot;
      filled(step.adapter)[at] = 0;
      filled(step.length)[at] = max(p.rope_len, p.pos + 1);
      filled(step.end)[at] = p.pos + 1;
      filled(step.row_token)[at] = at;
    }
    left += __popc(kept);
    __syncwarp();
  }
  if (lane != 0) return;
  *filled(step.n_tokens) = *filled(step.n_rows) = *filled(step.n_seqs) = left;
  *d.drafted = drafted;
}

__global__ void carry_kernel(Step step, Drafting d, Values state, Values own) {
  const int r = blockIdx.x;
  if (r >= *step.n_rows) return;
  for (int i = threadIdx.x; i < own.width; i += blockDim.x) state.row(r)[i] = own.row(d.picks[r].from)[i];
}

// NaN and what is -inf are not drafted.
__global__ void __launch_bounds__(kMostThreads) draft_rows_kernel(Step step, Drafting d, Values logits, Head head, int first) {
  const int r = first + int(blockIdx.x);
  if (r >= *step.n_rows) return;
  using Place = unsigned long long;
  Place best = ~Place(0);
  const float* l = logits.row(int(blockIdx.x));
  for (int i = threadIdx.x; i < logits.width; i += int(blockDim.x)) {
    const float v = softcap(head.scale * (head.bias == nullptr ? l[i] : l[i] + head.bias[i]), head.cap);
    if (v > -INFINITY) best = Least()(best, Place(descending(v)) << 32 | unsigned(i));
  }
  best = block_reduce(best, Least());
  if (threadIdx.x != 0) return;
  const int32_t token = best == ~Place(0) ? MR_NONE : int32_t(uint32_t(best));
  d.picks[r].token = token;
  (*step.batch)->results[d.picks[r].row].drafts[*d.drafted] = token;
}

}  // namespace

void begin_draft(cudaStream_t stream, const Step& step, const Drafting& d) {
  MR_LAUNCH(begin_draft_kernel, 1, kThreads, stream, step, d);
}

void follow_draft(cudaStream_t stream, const Step& step, const Drafting& d, const Values& state, const Values& own, int n) {
  MR_LAUNCH(follow_draft_kernel, 1, 32, stream, step, d);
  MR_LAUNCH(carry_kernel, n, 128, stream, step, d, state, own);
}

void draft_rows(cudaStream_t stream, const Step& step, const Drafting& d, const Values& logits, const Head& head, int first, int n) {
  MR_LAUNCH(draft_rows_kernel, n, kMostThreads, stream, step, d, logits, head, first);
}

}  // namespace millrace
