// Model's attention: what is written to the cache, and how its work is shared.
#include <algorithm>

#include "model.h"

namespace millrace {

// Stores one token's keys and values where its position belongs. Rounding here
// and reading everything back, the current chunk too, is what makes a result
// independent of how a prompt was cut.
void Model::write_cache(const mr_op& op, int token) {
  const int pos = step_.pos[token], lane = pos % kPageTokens, dim = op.head_dim;
  const int page = page_table(seq_of_[token])[pos / kPageTokens];
  const float *keys = values_[op.in].row(token), *values = values_[op.in2].row(token);
  for (int h = 0; h < op.kv_heads; h++, keys += dim, values += dim) {
    char* at = cache(op.layer, page, h);
    char* values_at = at + head_bytes();
    const size_t panel = size_t(kPanel) * kPageTokens;  // elements of a panel of values
    if (program_.cache == kF32) {
      for (int d = 0; d < dim; d++) {
        reinterpret_cast<float*>(at)[panel_offset(kF32, lane, d)] = keys[d];
        reinterpret_cast<float*>(values_at)[d / kPanel * panel + panel_offset(kF32, d % kPanel, lane)] = values[d];
      }
    } else {
      for (int d = 0; d < dim; d++) {
        reinterpret_cast<uint16_t*>(at)[panel_offset(kF16, lane, d)] = f16_from_float(keys[d]);
        reinterpret_cast<uint16_t*>(values_at)[d / kPanel * panel + panel_offset(kF16, d % kPanel, lane)] =
            f16_from_float(values[d]);
      }
    }
  }
}

AttendArgs Model::attend_args(const mr_op& op, const Block& b, int kv_head, float* scratch) const {
  const int group = op.heads / op.kv_heads, offset = kv_head * group * op.head_dim;
  AttendArgs a;
  a.q = values_[op.in].row(b.first) + offset;
  a.q_stride = values_[op.in].stride;
  a.out = values_[op.out].row(b.first) + offset;
  a.out_stride = values_[op.out].stride;
  a.pages = page_table(b.seq);
  a.keys = cache(op.layer, 0, kv_head);
  a.values = a.keys + head_bytes();
  a.page_stride = page_stride();
  a.scratch = scratch;
  a.tokens = b.count;
  a.first_pos = step_.pos[b.first];
  a.group = group;
  a.head_dim = op.head_dim;
  a.window = op.window;
  a.scale = op.f0;
  a.cap = op.f1;
  return a;
}

void Model::run_attention(const mr_op& op, Pool& pool, int worker, Shares& shares, Shares& merge_shares) {
  float* scratch = scratch_.as<float>() + worker * scratch_stride_;
  float* state = scratch + attend_scratch(block_rows_, padded_dim());
  const size_t state_size = state_floats(block_rows_, padded_dim());
  const auto attend_split = kernels_.attend_split[program_.cache];
  const int64_t items = int64_t(blocks_.size()) * op.kv_heads;
  const auto args = [&](int64_t item) {
    return attend_args(op, blocks_[item / op.kv_heads], int(item % op.kv_heads), scratch);
  };

  if (splits_ == 0) {
    // The last blocks of a prompt see the most: they go first.
    for (int64_t i = shares.take(); i < items; i = shares.take()) {
      const AttendArgs a = args(items - 1 - i);
      const int first = a.begin() / kSplit, last = (a.end() - 1) / kSplit;
      attend_split(a, first, state);
      for (int s = first + 1; s <= last; s++) {
        attend_split(a, s, state + state_size);
        kernels_.attend_merge(a, state, state + state_size);
      }
      kernels_.attend_finish(a, state);
    }
    return;
  }

  const auto split_state = [&](int64_t item, int split) {
    return states_.as<float>() + (item * splits_ + split) * state_size;
  };
  for (int64_t i = shares.take(); i < items * splits_; i = shares.take()) {
    const AttendArgs a = args(i / splits_);
    const int split = int(i % splits_);
    if (split >= a.begin() / kSplit && split <= (a.end() - 1) / kSplit)
      attend_split(a, split, split_state(i / splits_, split));
  }
  pool.barrier();
  for (int64_t i = merge_shares.take(); i < items; i = merge_shares.take()) {
    const AttendArgs a = args(i);
    const int first = a.begin() / kSplit, last = (a.end() - 1) / kSplit;
    for (int s = first + 1; s <= last; s++) kernels_.attend_merge(a, split_state(i, first), split_state(i, s));
    kernels_.attend_finish(a, split_state(i, first));
  }
}

}  // namespace millrace
