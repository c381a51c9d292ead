// A program with the memory it runs in: activations, the paged KV cache and
// each worker's scratch.
#ifndef MILLRACE_CPU_MODEL_H
#define MILLRACE_CPU_MODEL_H

#include <memory>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "pool.h"
#include "program.h"

namespace millrace {

// Step is one batch, checked, with LastToken resolved.
struct Step {
  const int32_t *tokens, *pos;  // [n_tokens]
  const mr_seq* seqs;
  const mr_row* rows;
  int n_tokens, n_seqs, n_rows;
  const int32_t* pages;  // page tables, [slots, pages_per_slot]
  int pages_per_slot;
};

class Model {
 public:
  Model(Program program, const mr_limits& limits, const Kernels& kernels, int threads);

  // reserve makes room for pages of the cache, zeroed.
  void reserve(int pages);

  // forward runs all stages on pool's workers: writes keys and values, leaves
  // the rows that logits need.
  void forward(Pool& pool, const Step& step);

  // logits computes those of rows [first, first+n) of the last forward pass,
  // n ≤ kLogitRows, uncapped.
  void logits(Pool& pool, int first, int n);
  float* logits_row(int i) const { return logits_.as<float>() + i * logits_stride_; }

  int vocab() const { return program_.vocab; }
  float logits_cap() const { return program_.logits.f0; }
  int64_t page_bytes() const { return int64_t(program_.layers) * page_stride(); }
  int64_t workspace_bytes() const;

  static constexpr int kLogitRows = 32;  // share one pass over the output head

 private:
  // A run of tokens of one sequence that attend together.
  struct Block {
    int seq, first, count;  // first token in the batch
  };
  struct Value {
    float* data;
    size_t stride;
    float* row(int r) const { return data + r * stride; }
  };

  void run_rows(const Stage& s, Shares& shares);
  void run_row(const mr_op& op, const Tensor* weight, int row);
  void run_pick(const mr_op& op, Shares& shares);
  void run_products(const Stage& s, int worker, Shares& shares);
  void run_product(const Product& p, int panel, int panels, int row, int rows, float* scratch);
  void run_attention(const mr_op& op, Pool& pool, int worker, Shares& shares, Shares& merge_shares);
  void compute_angles(Shares& shares);
  void cut_blocks();
  void write_cache(const mr_op& op, int token);
  AttendArgs attend_args(const mr_op& op, const Block& b, int kv_head, float* scratch) const;
  int rows_of(const Stage& s) const { return s.logit_rows ? step_.n_rows : step_.n_tokens; }

  int padded_dim() const { return (program_.head_dim + kPanel - 1) / kPanel * kPanel; }
  size_t head_bytes() const { return padded_dim() * kPanel * element_bytes(program_.cache); }
  size_t page_stride() const { return program_.kv_heads * 2 * head_bytes(); }
  // The keys of a KV head in a page; its values follow.
  char* cache(int layer, int page, int kv_head) const {
    return cache_.data() + (size_t(layer) * pages_ + page) * page_stride() + kv_head * 2 * head_bytes();
  }
  const int32_t* page_table(int seq) const {
    return step_.pages + size_t(step_.seqs[seq].slot) * step_.pages_per_slot;
  }
  float* angles_of(int set, int token) const {
    return angles_.as<float>() + angles_at_[set] + 2 * program_.angles[set].frequencies.size() * token;
  }

  const Program program_;
  const Kernels& kernels_;
  const int threads_, max_tokens_;
  int block_rows_;  // most rows of an attention block

  Mapping activations_, angles_, logits_, cache_, scratch_, states_;
  std::vector<Value> values_;
  std::vector<size_t> angles_at_;
  size_t logits_stride_, scratch_stride_, product_floats_;
  int pages_ = 0;

  Step step_{};
  std::vector<int> seq_of_;    // by token of the step
  std::vector<Block> blocks_;  // of the step
  int splits_ = 0;             // of the longest sequence, if attention is cut into splits
  std::unique_ptr<Shares[]> shares_;  // two for each stage, one more
};

}  // namespace millrace
#endif
