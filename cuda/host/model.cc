#include "model.h"

#include <algorithm>
#include <cstring>

#include "error.h"

namespace millrace {
namespace {

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Refuses what kernels have no room for.
void check_op(const mr_plan& plan, const mr_op& op, int i) {
  const auto refuse = [&](const char* what, int is, int most) {
    if (is > most) fail(MR_UNSUPPORTED, "operation %d has %s of %d, this backend has room for %d", i, what, is, most);
  };
  switch (op.kind) {
    case MR_OP_ATTENTION:
      return refuse("values", plan.caches[op.i[MR_ATTN_CACHE]].value_width, kMostValueWidth);
    case MR_OP_ROUTE:
      return refuse("a choice", plan.values[op.in[0]].width, kMostExperts);
    case MR_OP_CONV:
      return refuse("a state", plan.caches[op.i[MR_CONV_CACHE]].key_width, kMostTaps);
    case MR_OP_GATED_DELTA:
    case MR_OP_SSM:
    case MR_OP_SELECTIVE_SCAN:  // all name their cache first
      return refuse("keys", plan.caches[op.i[0]].key_width, kMostKeyWidth);
  }
}

}  // namespace

void check_plan(const mr_plan& plan) {
  if (plan.version != MR_PLAN_VERSION)
    fail(MR_UNSUPPORTED, "plan version %d, this backend runs %d", plan.version, MR_PLAN_VERSION);
  constexpr int kKinds = MR_OP_ALL_REDUCE + 1;
  for (int i = 0; i < plan.n_ops + plan.n_draft; i++) {
    const mr_op& op = plan.ops[i];
    if (op.kind < 0 || op.kind >= kKinds) fail(MR_UNSUPPORTED, "operation %d is of unknown kind %d", i, op.kind);
    check_op(plan, op, i);
  }
}

Model::Model(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors, const mr_limits& limits,
             cudaStream_t stream, Member* group)
    : plan_(plan),
      plan_values_(plan.values, plan.values + plan.n_values),
      plan_caches_(plan.caches, plan.caches + plan.n_caches),
      ops_(plan.ops, plan.ops + plan.n_ops + plan.n_draft),
      tensors_(tensors),
      limits_(limits),
      stream_(stream),
      group_(group) {
  const float* at = plan.tables;
  for (int i = 0; i < plan.n_tables; i++) {
    tables_.emplace_back(at, at + plan.table_len[i]);
    at += plan.table_len[i];
  }
  plan_.values = nullptr;
  plan_.table_len = nullptr;
  plan_.tables = nullptr;
  plan_.caches = nullptr;
  plan_.ops = nullptr;
  head_.op = ops_[size_t(plan.n_ops) - 1];
  if (drafts()) draft_head_.op = ops_.back();
  choose_cache();
  lay_out_caches();
  lay_out(Arena(nullptr));  // finds out how much of what several operations share is needed
  workspace_ = Memory(Memory::device, lay_out(Arena(nullptr)), "activations");
  lay_out(Arena(workspace_.data()));
  if (exchanged_floats_ > 0) group_->allocate(exchanged_floats_, stream);
  check(cudaStreamSynchronize(stream), "preparing the model");
}

// The format of pages: that of the plan or, if it leaves it to the backend, float32 for
// weights in float32 and for the smallest models, which rounding moves most, else f16. A
// draft does not count: with it the text is the same.
void Model::choose_cache() {
  constexpr size_t kExactBytes = 8192;  // of a token
  int format = MR_F32;
  size_t token_bytes = 0;
  std::vector<bool> drafts(plan_caches_.size());
  for (size_t i = size_t(plan_.n_ops); i < ops_.size(); i++)
    if (ops_[i].kind == MR_OP_CACHE_WRITE) drafts[size_t(ops_[i].i[MR_WRITE_CACHE])] = true;
  for (const mr_cache& c : plan_caches_) {
    if (c.kind == MR_CACHE_STATE) continue;
    format = c.format;
    if (drafts[size_t(&c - plan_caches_.data())]) continue;
    token_bytes += size_t(c.heads) * (c.key_width + (c.kind == MR_CACHE_KV ? c.value_width : 0)) * sizeof(float);
  }
  cache_format_ = format & MR_KIND_MASK;
  cache_group_ = (format & MR_GROUP_MASK) >> MR_GROUP_SHIFT;
  if (cache_group_ == 0) cache_group_ = 1 << 30;  // all columns
  if (format != MR_F32) return;
  const bool half = std::any_of(ops_.begin(), ops_.begin() + plan_.n_ops, [&](const mr_op& op) {
    return (op.kind == MR_OP_LINEAR || op.kind == MR_OP_LINEAR_HEADS || op.kind == MR_OP_EXPERTS) &&
           weight(op.weight[0]).kind != MR_F32;
  });
  if (half && token_bytes > kExactBytes) cache_format_ = MR_F16;
}

void Model::lay_out_caches() {
  const auto row_bytes = [&](int width) {
    const size_t w = size_t(width);
    if (cache_format_ != MR_W8) return round_up(w * (cache_format_ == MR_F16 ? 2 : 4), 16);
    return round_up(round_up(w, 2) + 2 * ((w + size_t(cache_group_) - 1) / size_t(cache_group_)), 16);
  };
  std::vector<size_t> group(size_t(plan_.n_groups) + 1);  // bytes of a page so far
  for (const mr_cache& from : plan_caches_) {
    Cache c{};
    c.kind = from.kind;
    c.group = from.group;
    c.heads = from.heads;
    c.key_width = from.key_width;
    c.value_width = from.value_width;
    c.format = cache_format_;
    c.scale_group = cache_group_;
    if (c.kind == MR_CACHE_STATE) {
      c.offset = state_bytes_;
      state_bytes_ += round_up(size_t(c.heads) * size_t(c.key_width) * size_t(c.value_width) * sizeof(float), 256);
    } else {
      c.key_bytes = int32_t(row_bytes(c.key_width));
      c.value_bytes = c.kind == MR_CACHE_KV ? int32_t(row_bytes(c.value_width)) : 0;
      size_t& used = group[size_t(c.group)];
      c.offset = used;
      used += round_up(size_t(c.heads) * kPageTokens * size_t(c.key_bytes + c.value_bytes), 256);
      page_bytes_ = std::max(page_bytes_, used);
    }
    caches_.push_back(c);
  }
}

// Lays out all memory of steps, and makes launches of operations.
size_t Model::lay_out(Arena arena) {
  launches_.clear();
  chosen_.clear();
  begin_pass();
  of_draft_ = false;
  packed_memory_ = arena.take<char>(packed_bytes_);
  partial_ = arena.take<float>(partial_floats_);
  arrived_ = arena.take<int32_t>(kMostArrivals);
  if (!arena.measures()) check(cudaMemsetAsync(arrived_, 0, kMostArrivals * sizeof(int32_t), stream_), "preparing the model");
  lay_out_slots(arena);

  values_.clear();
  for (const mr_value& v : plan_values_) {
    const int width = v.of < 0 ? v.width : plan_values_[size_t(v.of)].width;
    const int stride = int(round_up(size_t(width), 4));
    values_.push_back({v.of < 0 ? arena.take<float>(size_t(capacity()) * size_t(stride)) : nullptr, v.width, stride});
  }
  for (size_t v = 0; v < values_.size(); v++)
    if (plan_values_[v].of >= 0) values_[v].data = values_[size_t(plan_values_[v].of)].data + plan_values_[v].column;
  const size_t draft = size_t(plan_.n_ops);
  for (size_t i = 0; i < ops_.size(); i++) {
    const mr_op& op = ops_[i];
    // The first operation of a draft makes the state that the others, which run once more for each
    // further token, are given.
    if (i == draft || i == draft + 1) {
      begin_pass();
      of_draft_ = true;
      (i == draft ? first_draft_ : further_draft_) = launches_.size();
    }
    lower(op, arena);
    for (const int32_t out : op.out)
      if (out >= 0 && last_packed_.value >= 0 && base(out) == base(last_packed_.value)) last_packed_ = {};
  }
  if (!drafts()) first_draft_ = further_draft_ = launches_.size();
  return arena.used();
}

// What is lowered next runs without what was before it.
void Model::begin_pass() {
  by_row_ = false;
  last_packed_ = {};
  rotated_ = {};
  normed_ = {};
}

void Model::lay_out_slots(Arena& arena) {
  const size_t tokens = size_t(limits_.max_tokens), rows = size_t(limits_.max_rows), n = size_t(limits_.max_slots);
  const size_t vocab = encodes() ? 0 : size_t(plan_.vocab), width = size_t(plan_values_[size_t(head_.op.in[0])].width);
  step_.max_tokens = limits_.max_tokens;
  step_.batch = arena.take<const mr_batch*>(1);
  for (const int** p : {&step_.n_tokens, &step_.n_rows, &step_.n_seqs}) *p = arena.take<int>(1);
  step_.seqs = arena.take<mr_seq>(n);
  for (const int32_t** p : {&step_.token, &step_.pos, &step_.slot, &step_.adapter, &step_.length, &step_.first, &step_.last,
                            &step_.end})
    *p = arena.take<int32_t>(tokens);
  step_.axes = arena.take<int32_t>(3 * tokens);
  for (const int32_t** p : {&step_.row_token, &step_.row_slot, &step_.row_adapter}) *p = arena.take<int32_t>(rows);
  token_rows_ = {step_.n_tokens, step_.adapter};
  row_rows_ = {step_.n_rows, step_.row_adapter};

  slots_.count = limits_.max_slots;
  slots_.groups = groups();
  slots_.pages_per_slot = limits_.max_pages_per_slot;
  slots_.vocab = int(vocab);
  slots_.hidden = int(width);
  slots_.pages = arena.take<int32_t>(n * size_t(groups()) * size_t(limits_.max_pages_per_slot));
  for (int32_t** p : {&slots_.state, &slots_.last, &slots_.prev, &slots_.is_void, &slots_.n_biases}) *p = arena.take<int32_t>(n);
  slots_.params = arena.take<mr_params>(n);
  slots_.counts = arena.take<uint32_t>(n * vocab);
  slots_.biases = arena.take<mr_bias_delta>(encodes() ? 0 : n * MR_MAX_BIASES);
  slots_.rows = arena.take<float>(n * width);
  if (!drafts()) return;
  drafting_.picks = arena.take<Pick>(n);
  drafting_.seq = arena.take<int32_t>(n);
  drafting_.last = arena.take<int32_t>(rows);
  drafting_.drafted = arena.take<int>(1);
}

void Model::reserve(int pages, int states, cudaStream_t stream) {
  pages_ = Memory(Memory::device, size_t(pages) * page_bytes_, "pages");
  states_ = Memory(Memory::device, size_t(states) * state_bytes_, "states");
  for (Cache& c : caches_) {
    c.memory = c.kind == MR_CACHE_STATE ? states_.data() : pages_.data();
    c.stride = c.kind == MR_CACHE_STATE ? state_bytes_ : page_bytes_;
  }
  const size_t slots = size_t(slots_.count);
  // A draft may read what no step has written, after one without it: that is to be a number.
  for (const auto& [at, bytes] : {std::pair<void*, size_t>{pages_.data(), drafts() ? pages_.bytes() : 0},
                                  {slots_.counts, slots * size_t(slots_.vocab) * sizeof(uint32_t)},
                                  {slots_.n_biases, slots * sizeof(int32_t)},
                                  {slots_.is_void, slots * sizeof(int32_t)},
                                  {slots_.last, slots * sizeof(int32_t)}})
    if (bytes > 0) check(cudaMemsetAsync(at, 0, bytes, stream), "preparing the slots");
}

Now Model::sizes(cudaStream_t stream, const mr_batch& b, int longest) const {
  return {stream, b.n_tokens, b.n_rows, b.n_seqs, (longest + kSplit - 1) / kSplit};
}

// shared reports whether the step can be a graph, that of all steps as large as *now
// then says. They are those that go on with sequences, with a row for each token.
bool Model::shared(Now* now) const {
  const int bucket = graphs_.bucket(now->tokens);
  if (bucket == 0 || bucket != graphs_.bucket(now->rows)) return false;
  const int most_splits = (limits_.max_pages_per_slot * kPageTokens + kSplit - 1) / kSplit;
  now->tokens = std::min(bucket, limits_.max_tokens);
  now->rows = std::min(bucket, limits_.max_rows);
  now->seqs = std::min(bucket, limits_.max_slots);
  int splits = 1;
  while (splits < now->splits) splits *= 2;
  now->splits = std::min(splits, most_splits);
  return true;
}

void Model::forward(cudaStream_t stream, const mr_batch* batch, const int32_t* adapters, int longest) {
  update(stream, batch, adapters, step_, slots_);
  if (batch->n_states > 0) move_states(stream, batch, states_.data(), state_bytes_, false, batch->n_states);
  Now now = sizes(stream, *batch, longest);
  if (shared(&now))
    graphs_.run(stream, {Graphs::forward, now.tokens, now.splits}, [&] { layers(now); });
  else
    layers(now);
  if (batch->n_states > 0) move_states(stream, batch, states_.data(), state_bytes_, true, batch->n_states);
}

void Model::layers(const Now& now) const {
  run(now, 0, first_draft_);
  if (!encodes() && now.rows > 0) keep_rows(now.stream, step_, slots_, value(head_.op.in[0]), now.rows);
  check(cudaPeekAtLastError(), "starting a forward pass");
}

// Runs launches [from, to).
void Model::run(const Now& now, size_t from, size_t to) const {
  for (size_t i = from; i < to; i++)
    if ((launches_[i].by_row ? now.rows : now.tokens) > 0) launches_[i].run(now);
}

void Model::sample(cudaStream_t stream, const mr_batch* batch) {
  Now now = sizes(stream, *batch, 0);
  if (now.rows == 0) return;
  if (shared(&now))
    graphs_.run(stream, {Graphs::sample, now.rows, 0}, [&] { answers(now); });
  else
    answers(now);
}

void Model::answers(const Now& now) const {
  if (encodes()) return output_rows(now.stream, step_, value(head_.op.in[0]), now.rows);
  begin_sample(now.stream, step_, slots_, now.rows);
  for (int first = 0; first < now.rows; first += kLogitRows) {
    const int n = std::min(kLogitRows, now.rows - first);
    logits(now, head_, first, n);
    sample_rows(now.stream, step_, slots_, logits_, head_.head, first, n);
  }
  check(cudaPeekAtLastError(), "starting to sample");
}

// Makes logits_ of n rows from first on.
void Model::logits(const Now& now, const Output& output, int first, int n) const {
  Values x = value(output.op.in[0]);
  x.data = x.row(first);
  pack(now.stream, step_.n_rows, output.packed, x, nullptr, nullptr, n);
  Epilogue none{};
  const Rows rows = {step_.n_rows, nullptr};
  const bool divided = output.part.data != nullptr;
  linear(now.stream, rows, divided ? output.part : logits_, output.packed, weight(output.op.weight[0]), nullptr, none, nullptr,
         tiled(), n);
  if (divided) all_gather(now.stream, rows, logits_, output.part, group_->peers(), n);
}

void Model::draft(cudaStream_t stream, const mr_batch* batch) {
  int longest = 0;
  for (int s = 0; s < batch->n_seqs; s++) longest = std::max(longest, batch->seqs[s].kv_len);
  Now now = sizes(stream, *batch, longest);
  if (shared(&now))
    graphs_.run(stream, {Graphs::draft, now.tokens, now.splits}, [&] { first_pass(now); });
  else
    first_pass(now);
}

void Model::first_pass(const Now& now) const {
  begin_draft(now.stream, step_, drafting_);
  draft_tokens(now, first_draft_);
}

// How many tokens are drafted of each sequence the device knows: what is left without one costs
// empty blocks.
void Model::draft_further(cudaStream_t stream, const mr_batch* batch) {
  int most = 0, longest = 0;
  for (int s = 0; s < batch->n_seqs; s++) {
    most = std::max(most, batch->seqs[s].drafts);
    longest = std::max(longest, batch->seqs[s].kv_len + batch->seqs[s].drafts);
  }
  Now now = sizes(stream, *batch, longest);
  now.tokens = now.rows = now.seqs = std::min(now.rows, now.seqs);
  if (now.rows == 0) return;
  const bool graph = shared(&now);
  for (int i = 1; i < most; i++) {
    if (graph)
      graphs_.run(stream, {Graphs::draft_further, now.tokens, now.splits}, [&] { further_pass(now); });
    else
      further_pass(now);
  }
}

void Model::further_pass(const Now& now) const {
  const mr_op& first = ops_[size_t(plan_.n_ops)];
  follow_draft(now.stream, step_, drafting_, value(first.out[0]), value(draft_head_.op.in[0]), now.rows);
  draft_tokens(now, further_draft_);
}

// Runs the draft from a launch on, and drafts a token of each pick.
void Model::draft_tokens(const Now& now, size_t from) const {
  run(now, from, launches_.size());
  for (int first = 0; first < now.rows; first += kLogitRows) {
    const int n = std::min(kLogitRows, now.rows - first);
    logits(now, draft_head_, first, n);
    draft_rows(now.stream, step_, drafting_, logits_, draft_head_.head, first, n);
  }
  check(cudaPeekAtLastError(), "starting to draft");
}

void Model::record(cudaStream_t stream) {
  const int most = std::min({limits_.max_tokens, limits_.max_rows, limits_.max_slots});
  for (int n = 1; n <= most;) {
    Now now = {stream, n, n, n, 1};
    if (!shared(&now) || !prepare(now)) return;
    n = graphs_.bucket(n) + 1;
  }
}

// prepare records the graphs of steps of these sizes, and reports whether there can be graphs.
bool Model::prepare(const Now& now) {
  const auto graph = [&](Graphs::Part part, int splits, const std::function<void()>& enqueue) {
    return graphs_.prepare(now.stream, {part, now.rows, splits}, enqueue) != nullptr;
  };
  if (!graph(Graphs::forward, now.splits, [&] { layers(now); }) || !graph(Graphs::sample, 0, [&] { answers(now); })) return false;
  return !drafts() || (graph(Graphs::draft, now.splits, [&] { first_pass(now); }) &&
                       graph(Graphs::draft_further, now.splits, [&] { further_pass(now); }));
}

}  // namespace millrace
