// A plan with the memory it runs in, as a list of launches.
#ifndef MILLRACE_CUDA_MODEL_H
#define MILLRACE_CUDA_MODEL_H

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "graph.h"
#include "group.h"
#include "kernels.h"
#include "memory.h"
#include "tensor.h"

namespace millrace {

// Throws Error if this backend cannot run the plan.
void check_plan(const mr_plan& plan);

// Now is what launches depend on: the sizes of grids, each at least as much as there is.
struct Now {
  cudaStream_t stream;
  int tokens, rows, seqs;
  int splits;  // of the longest sequence by attention
};
struct Launch {
  bool by_row;  // of the batch, rather than by token: where there are none, nothing is launched
  std::function<void(const Now&)> run;
};

class Model {
 public:
  // Lays out and reserves all that steps compute in. The plan, the tensors and the group, null
  // for a model of one device, outlive it.
  Model(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors, const mr_limits& limits, cudaStream_t stream,
        Member* group);

  // reserve makes room for pages and states.
  void reserve(int pages, int states, cudaStream_t stream);

  // load_adapter and drop_adapter change what no step in flight uses.
  void load_adapter(int32_t id, int32_t rank, int32_t n, const mr_adapter_target* targets);
  void drop_adapter(int32_t id);
  int adapter(int32_t id) const;  // its number, 0 of none
  int64_t adapter_bytes() const;

  // forward enqueues a step, sample what answers its rows. adapters are those of the
  // batch's sequences, as numbered by adapter(); longest is the length of the longest.
  void forward(cudaStream_t stream, const mr_batch* batch, const int32_t* adapters, int longest);
  void sample(cudaStream_t stream, const mr_batch* batch);

  // draft enqueues what drafts the first token after those that sample chose of the same batch, and
  // draft_further all others.
  bool drafts() const { return plan_.n_draft > 0; }
  void draft(cudaStream_t stream, const mr_batch* batch);
  void draft_further(cudaStream_t stream, const mr_batch* batch);

  // record makes the graphs of steps up to a length that one split of attention covers.
  void record(cudaStream_t stream);

  char* page(int number) const { return pages_.data() + size_t(number) * page_bytes_; }
  char* state(int number) const { return states_.data() + size_t(number) * state_bytes_; }
  int64_t page_bytes() const { return int64_t(page_bytes_); }
  int64_t state_bytes() const { return int64_t(state_bytes_); }
  int64_t workspace_bytes() const { return int64_t(workspace_.bytes()); }
  int64_t cache_bytes() const { return int64_t(pages_.bytes() + states_.bytes()); }
  int vocab() const { return plan_.vocab; }
  int embeds_width() const { return plan_.embeds_width; }
  int groups() const { return std::max(1, plan_.n_groups); }
  bool encodes() const { return head_.op.kind == MR_OP_OUTPUT; }
  int head_width() const { return value(head_.op.in[0]).width; }

 private:
  // What x was packed to last.
  struct LastPacked {
    int value = -1;
    Packed packed{};
  };

  // Product is a matrix product, or two that meet in an activation, as it is lowered.
  struct Product {
    int value = -1;  // that is multiplied, or, of experts, what was made of it
    Values x;
    Rows rows;
    std::function<int(const Now&)> n;
    int tensor[2] = {-1, -1};
    int heads = 1, capacity = 0;
    const Chosen* chosen = nullptr;  // of experts
    bool gather = false;             // rows of x are those of the step, else those of chosen
    Epilogue epilogue{};
    Values out;
  };
  // Open is what the launch that was pushed last does, while operations may still add to it.
  template <class T>
  struct Open {
    std::shared_ptr<T> what;
    size_t launches = 0;  // up to it
  };
  struct Rotated {
    Rotations rotations{};
    const Cache* cache = nullptr;
    Values x{}, y{};
  };
  struct Adapter {
    int number;
    Memory memory;
  };
  // Output is how rows become answers, as the last operation of the plan or of its draft says.
  struct Output {
    mr_op op{};
    Head head{};
    Packed packed{};
    Values part{};  // of one that is divided
  };

  // Sizes of a step, and of the graph that it can share with others.
  Now sizes(cudaStream_t stream, const mr_batch& b, int longest) const;
  bool shared(Now* now) const;
  void layers(const Now& now) const;
  void answers(const Now& now) const;
  void run(const Now& now, size_t from, size_t to) const;
  void logits(const Now& now, const Output& output, int first, int n) const;
  void first_pass(const Now& now) const;
  void further_pass(const Now& now) const;
  void draft_tokens(const Now& now, size_t from) const;
  bool prepare(const Now& now);

  void choose_cache();
  void lay_out_caches();
  size_t lay_out(Arena arena);
  void begin_pass();
  void lay_out_slots(Arena& arena);
  void lower(const mr_op& op, Arena& arena);
  void lower_linear(const mr_op& op, Arena& arena);
  void lower_product(const Product& p, Arena& arena);
  void push_product(const Product& p);
  void lower_norm(const mr_op& op, Arena& arena);
  void lower_attention(const mr_op& op, Arena& arena);
  void lower_experts(const mr_op& op, Arena& arena);
  void lower_recurrence(const mr_op& op, Arena& arena);
  void lower_logits(const mr_op& op, Arena& arena);
  void lay_out_packed(Packed& p);
  Packed layout_of(const Weight& w, int heads, int capacity);
  void write_targets();
  Adapted adapted(int tensor, int matrix, int capacity) const;
  Tiled tiled() const;
  void share_chunks(const Weight& w0, const Weight* w1, int heads, int capacity);
  const float* floats(int tensor, Arena& arena);
  const float* table(int index, Arena& arena);
  const Weight& weight(int tensor) const { return tensors_[size_t(tensor)]->weight(); }
  const Values& value(int v) const {
    static constexpr Values kNone{};
    return v < 0 ? kNone : values_[size_t(v)];
  }
  int base(int v) const { return plan_values_[size_t(v)].of < 0 ? v : plan_values_[size_t(v)].of; }
  Rows rows() const { return by_row_ ? row_rows_ : token_rows_; }
  int capacity() const { return std::max(limits_.max_tokens, limits_.max_rows); }
  // n is the size of the grid of an operation as it is lowered.
  std::function<int(const Now&)> n() const {
    if (by_row_) return [](const Now& now) { return now.rows; };
    return [](const Now& now) { return now.tokens; };
  }

  static constexpr int kLogitRows = 64;                  // share one pass over the output head
  static constexpr size_t kMostPartial = size_t(16) << 20;  // floats of attention's splits, or products' chunks

  mr_plan plan_;
  std::vector<mr_value> plan_values_;
  std::vector<mr_cache> plan_caches_;
  std::vector<mr_op> ops_;
  std::vector<std::vector<float>> tables_;
  const std::vector<std::unique_ptr<Tensor>>& tensors_;
  const mr_limits limits_;
  cudaStream_t stream_;
  Member* group_;
  size_t exchanged_floats_ = 0;  // at once, by the devices of a group

  Output head_, draft_head_;
  int cache_format_ = MR_F32, cache_group_ = 0;
  size_t page_bytes_ = 0, state_bytes_ = 0;
  Memory workspace_, pages_, states_;
  std::vector<Values> values_;
  std::vector<Cache> caches_;
  Step step_{};
  Slots slots_{};
  Rows token_rows_{}, row_rows_{};
  Values logits_{};
  Drafting drafting_{};
  char* packed_memory_ = nullptr;
  size_t packed_bytes_ = 0;
  float* partial_ = nullptr;
  size_t partial_floats_ = 0;  // of attention's splits and of products' chunks, one after the other in time
  int32_t* arrived_ = nullptr;

  std::vector<std::unique_ptr<Chosen>> chosen_;
  std::map<int32_t, Adapter> adapters_;
  std::vector<AdapterTarget> targets_;  // [tensors, kMostAdapters, kMostTargets]
  Memory target_memory_, low_memory_;   // of which low_ are two halves
  int low_width_ = 0;
  size_t most_low_rows_ = 0;  // of a product: heads times rows

  // While operations are lowered.
  bool by_row_ = false, of_draft_ = false;
  LastPacked last_packed_;
  Open<Rotated> rotated_;
  Open<Packed> normed_;  // what a norm packs besides
  int normed_value_ = -1;  // of whole rows, or none
  std::vector<Launch> launches_;
  // The first of launches_ of the draft, and of what runs for each token of it but the first.
  size_t first_draft_ = 0, further_draft_ = 0;
  Graphs graphs_;

  template <class T>
  bool extends(const Open<T>& open) const {
    return open.what != nullptr && open.launches == launches_.size();
  }
  void push_rotated();
  void push(std::function<void(const Now&)> run) { launches_.push_back({by_row_, std::move(run)}); }
};

}  // namespace millrace
#endif
