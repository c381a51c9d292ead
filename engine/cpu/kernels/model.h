// A program with the memory it runs in: activations, pages, states and each
// worker's scratch.
#ifndef MILLRACE_CPU_MODEL_H
#define MILLRACE_CPU_MODEL_H

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "adapter.h"
#include "kernels.h"
#include "memory.h"
#include "pool.h"
#include "program.h"

namespace millrace {

// log(1 + e^x)
inline double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

// Step is one batch with LastToken resolved.
struct Step {
  const int32_t* tokens;  // [n_tokens]
  const int32_t* rows;    // [n_rows], of which tokens logits are wanted; negative: of none
  int n_rows;
  const mr_batch* batch;
  const int32_t* pages;  // page tables, [slots, groups, pages_per_slot]
  int pages_per_slot;
  const int32_t* states;  // by slot
};

class Model {
 public:
  // Forward passes of a plan that encodes end early while abandoned is true.
  Model(Program program, const mr_limits& limits, const Kernels& kernels, int threads,
        const std::atomic<bool>* abandoned);

  // reserve makes room for pages and states, zeroed.
  void reserve(int pages, int states);

  // warm_up touches what steps compute in; weights are there, pages and states
  // are left to their users.
  void warm_up(Pool& pool);

  // forward runs all stages on pool's workers: moves states where the batch
  // wants them, writes caches, leaves the rows that logits need.
  void forward(Pool& pool, const Step& step);

  // draft runs the stages of the draft on what the last forward pass, of the same batch,
  // has left; each token of the step is the one after that of the batch.
  void draft(Pool& pool, const Step& step);
  // draft_further does so once more, for one token of each sequence that follows what was
  // drafted last and whose state carry has brought: row `from` of that draft becomes row
  // `to`, in order.
  void draft_further(Pool& pool, const Step& step);
  void carry(int to, int from);

  // logits computes those of rows [first, first+n) of the last forward pass or draft,
  // n ≤ kLogitRows, as finish_logits expects them.
  void logits(Pool& pool, const Head& head, int first, int n);
  float* logits_row(int i) const { return logits_.as<float>() + i * logits_stride_; }
  // finish_logits adds bias, scale and cap to one row.
  void finish_logits(const Head& head, float* logits) const;
  const Head& head() const { return program_.head; }
  const Head& draft_head() const { return program_.draft_head; }
  // hidden_row is what the logits of row i of the last forward pass are made of,
  // or row i of an encoder's output.
  float* hidden_row(int i) const { return values_[program_.head.in[0]].row(i); }
  int hidden_width() const { return program_.width(program_.head.in[0]); }

  void load_adapter(int id, Adapter adapter);
  void drop_adapter(int id) { adapters_.erase(id); }

  char* page(int number) const { return pages_.data() + size_t(number) * program_.page_bytes; }
  float* state(int number) const { return states_.as<float>() + number * state_stride(); }

  bool encodes() const { return program_.encodes(); }
  int vocab() const { return program_.vocab; }
  int embeds_width() const { return program_.embeds_width; }
  int groups() const { return program_.groups; }
  int64_t page_bytes() const { return int64_t(program_.page_bytes); }
  int64_t state_bytes() const { return int64_t(state_stride() * sizeof(float)); }
  int64_t workspace_bytes() const;
  int64_t cache_bytes() const { return int64_t(pages_.bytes() + states_.bytes()); }
  int64_t adapter_bytes() const;

  static constexpr int kLogitRows = 32;  // share one pass over the output head

 private:
  // A run of tokens of one sequence that attend together.
  struct Block {
    int seq, first, count;  // first token in the batch
    int split, splits;      // the first split its positions are in, and how many
    int64_t work;           // queries times positions
    size_t state = 0;       // where in partial_ the states of its splits are, if they are shared
  };
  // How one attention's work is cut and shared in this step.
  struct Cut {
    std::vector<Block> blocks;  // those with most work first
    std::vector<int> first;     // by shared block, the first ones: its first split among all; one more for the end
    int parts = 1;              // that the query heads of a KV head are cut into
  };
  struct Value {
    float* data;
    size_t stride;
    float* row(int r) const { return data + r * stride; }
  };
  // Rows of tokens, sorted by expert. Each worker makes one of its own.
  struct Routing {
    std::vector<int> first;  // by expert: its first row; one more for the end
    std::vector<int> next;   // by expert, while sorting
    std::vector<int> tile;  // by expert: the first tile of what its rows are rounded to
    std::vector<int> token, choice;  // by row: of which token, and which of its choices
    std::vector<int> place;          // by row: which row of the tiles it is rounded to
    std::vector<int> row;    // by token and choice
    std::vector<AdapterRun> runs;
    // order is that of an expert's tokens; null: as they are.
    void sort(const Value& chosen, const int* order, int tokens, int k, int experts, int tile_rows);
    void find_runs(const std::vector<const Adapter*>& of);
  };
  // Where an OpExperts keeps what its parts leave for each other.
  struct ExpertMemory {
    Value x, inner, out;  // a row for each choice of each token
    float* end;
  };
  // Product is a matrix product, or two of one shape whose results meet in an
  // activation, with what follows while they are in the cache:
  //
  //   out = residual + scale * act(x w[0]ᵀ + bias[0], x w[1]ᵀ + bias[1])
  struct Product {
    Value x, out, residual{nullptr, 0};
    const Tensor* w[2] = {};
    int matrix = 0;             // which one, of a tensor that has several
    bool heads = false;         // each of which multiplies columns of its own
    const float* bias[2] = {};  // null: none
    Activation act{};
    float scale = 1;
    const char* rounded[2] = {};  // the tile of the first of x's rows, if they are rounded for the matrix
    int op = -1, first = 0;  // where adapters come in: w[0] is this matrix of that operation
    AdaptedRows adapted;
  };
  // Rows of the step, those of one adapter together, and its runs.
  struct Adapted {
    std::vector<int> rows;
    std::vector<AdapterRun> runs;
    void reserve(int n) {
      rows.reserve(n);
      runs.reserve(n);
    }
    void sort(const std::vector<const Adapter*>& of);
  };

  static constexpr int kShares = 7;  // counters of each stage, for as many parts as it has
  static constexpr int kRoundShares = 2;  // which of them a linear stage rounds by
  static constexpr size_t kAloneFloats = 8192;  // that one worker does with sooner than all meet
  static constexpr int kPartPanels = 4;
  static constexpr size_t kPartFloats = size_t(128) * kPartPanels * kPanel;  // of a part's result
  static constexpr size_t kProductFloats = 3 * kPartFloats;  // two results and what adapters add
  static constexpr int kRunRows = 24;                        // of an AdapterRun at most

  static size_t row_stride(int width);
  void reserve_scratch();
  void prepare();
  void run(Pool& pool, size_t from, size_t to, bool whole);
  void run_stage(const Stage& s, Pool& pool, int worker, Shares* shares);
  bool alone(const Stage& s) const;
  bool rounds_before(const Stage& s) const;
  void run_pick(const Op& op, Shares& shares);
  void move_states(Shares& shares, bool after);

  // rows.cc
  void run_rows(const Stage& s, int worker, Shares& shares);
  void run_row(const Op& op, int row, float* scratch);
  void run_embed(const Op& op, int row);
  void run_norm(const Op& op, int row);
  void run_activation(const Op& op, int row);
  void run_scale(const Op& op, int row);
  void run_join(const Op& op, int row);
  void run_embedding_bag(const Op& op, int row, float* scratch);
  void run_route(const Op& op, int row, float* scratch);
  size_t route_floats(const Op& op) const;
  void compute_angles(Shares& shares);
  void token_angles(const Angles& a, int token, float* out) const;

  // linear.cc
  void run_linear(const Stage& s, Pool& pool, int worker, Shares* shares);
  void run_heads(const Stage& s, Pool& pool, int worker, Shares* shares);
  Product linear_product(const Stage& s, const Op& op) const;
  void prepare_linear(const Stage& s, Pool& pool, int worker, Shares* shares);
  void round_stage(const Stage& s, Shares& shares);
  void round_rows(const Rounding& r, const Value& x, int n, int place, int from, int to);
  // What row 0 of a head of a rounding is rounded to, or row 8n in tile n.
  char* rounded(const Rounding& r, int head = 0, int tile = 0) const {
    return rounded_.data() + tile * program_.rounded_bytes + r.at + head * r.tile_bytes;
  }
  void multiply(const Tensor& w, int matrix, int panel, int panels, const Value& x, const char* rounded, int row, int rows,
                float* out, size_t stride, const char* then) const;
  int panels_at_once(int64_t panels) const;
  int64_t parts(const Product& p, int rows, int at_once) const;
  bool takes_ahead(int rows, int64_t parts) const;
  int64_t run_parts(const Product& p, int rows, int at_once, int64_t first, int64_t share, Shares& shares, float* scratch);
  void run_part(const Product& p, int rows, int at_once, int64_t part, int64_t then, float* scratch);
  void run_product(const Product& p, int panel, int panels, int row, int rows, int then, float* scratch);
  void adapt(Product& p, const Op& op, bool logit_rows) const;
  void reduce_adapters(const Stage& s, int worker, Shares& shares);
  void reduce_run(const Op& op, const AdapterRun& run, int from, int to, const Value& x);
  void add_adapters(const Product& p, int matrix, int panel, int panels, int row, int rows, float* out, size_t stride,
                    float* scratch) const;

  // experts.cc
  void run_experts(const Stage& s, Pool& pool, int worker, Shares* shares);
  void multiply_experts(const Op& op, Product p, int w, const Value& x, const Value& out, int worker, Shares& shares);
  void adapt_expert(Product& p, const Op& op, int matrix, const Routing& routing) const;
  void reduce_experts(const Op& op, int from, int to, const Value& x, int worker, Shares& shares);
  ExpertMemory expert_memory(const Op& op) const;

  // recurrent.cc
  void run_conv(const Op& op, Shares& shares);
  void run_scan(const Op& op, Pool& pool, Shares* shares);
  void prepare_delta(const Op& op, int token);
  void prepare_ssm(const Op& op, int token);
  size_t gate_floats(const Op& op) const;
  int decays_of(const Op& op) const;

  // attend.cc
  void run_attention(const Op& op, Pool& pool, int worker, Shares* shares);
  AttendArgs attend_args(const Op& op, const Block& b, int unit, float* scratch) const;
  void cut_attention();
  void cut_blocks(const Attention& a, Cut& cut);
  void write_cache(const Op& op, int token, float* scratch);
  size_t write_floats(const Op& op) const;
  void store_keys(const float* key, int n, int column, int lane, char* page) const;
  void store_codes(const float* row, int n, bool values, int lane, char* page, float* scratch) const;
  int block_rows(const Attention& a) const;
  size_t attention_floats(const Op& op) const;
  size_t partial_floats(const Op& op) const;

  int rows_of(const Stage& s) const { return s.logit_rows ? step_.n_rows : step_.batch->n_tokens; }
  const mr_seq& seq_of(int token) const { return step_.batch->seqs[seq_of_[token]]; }
  float* scratch(int worker) const { return scratch_.as<float>() + worker * scratch_stride_; }
  // The keys of a head of a cache in a page; its values follow.
  char* cached(const Cache& c, int page, int head) const {
    return this->page(page) + c.offset + head * c.head_bytes();
  }
  const int32_t* page_table(const mr_seq& seq, int group) const {
    return step_.pages + (size_t(seq.slot) * program_.groups + group) * step_.pages_per_slot;
  }
  // What adapters make of position i of the rows that have one.
  float* low_row(int i) const { return low_.as<float>() + i * low_stride_; }
  float* state(const Cache& c, const mr_seq& seq) const { return state(step_.states[seq.slot]) + c.offset; }
  int row_capacity() const { return std::max(limits_.max_tokens, limits_.max_rows); }
  size_t state_stride() const { return (program_.state_floats + kPanel - 1) / kPanel * kPanel; }
  float* angles_of(int set, int token) const {
    return angles_.as<float>() + angles_at_[set] + program_.angles[set].floats() * token;
  }

  const Program program_;
  const Kernels& kernels_;
  const int threads_;
  const std::atomic<bool>* const abandoned_;
  const mr_limits limits_;

  Mapping activations_, angles_, logits_, scratch_;
  Mapping rounded_;   // what a stage has rounded, in tiles program_.rounded_bytes apart
  Mapping partial_;   // attention states of splits that workers share
  Mapping gathered_;  // what experts take in and give out
  Mapping gates_;     // what recurrences need of each token
  Mapping low_;       // what adapters make of each row, low_stride_ floats
  Mapping picked_;    // by worker: the rows of a run, picked_stride_ floats
  Mapping pages_, states_;
  std::vector<Value> values_;
  std::vector<size_t> angles_at_;
  size_t logits_stride_, scratch_stride_, gate_stride_ = 0, low_stride_ = 0, picked_stride_ = 0;
  int most_choices_ = 1;  // of experts, that a token has
  std::vector<Routing> routing_;  // by worker
  std::map<int, Adapter> adapters_;

  Step step_{};
  std::vector<int> seq_of_;   // by token of the step
  std::vector<Seen> spans_;   // likewise, empty if the step has none
  bool adapted_ = false;      // a sequence of the step has an adapter
  std::vector<const Adapter*> token_adapters_, row_adapters_;  // by token and logit row
  Adapted adapted_tokens_, adapted_rows_;
  std::vector<Cut> cuts_;     // by attention
  std::unique_ptr<Shares[]> shares_;
};

}  // namespace millrace
#endif
