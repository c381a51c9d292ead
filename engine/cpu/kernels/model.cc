#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace millrace {
namespace {

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

// Rows whose distance is a multiple of 4 KB would fall into the same few sets
// of the cache.
size_t Model::row_stride(int width) {
  const size_t stride = round_up(width, kPanel);
  return stride % 1024 == 0 ? stride + kPanel : stride;
}

Model::Model(Program program, const mr_limits& limits, const Kernels& kernels, int threads,
             const std::atomic<bool>* abandoned)
    : program_(std::move(program)), kernels_(kernels), threads_(threads), abandoned_(abandoned), limits_(limits) {
  // Row r of all values that have as many rows lies in one piece: a small batch
  // then touches little memory, however many tokens a batch may have.
  struct Rows {
    size_t width = 0, stride = 0, first = 0;
  };
  std::map<int, Rows> by_count;
  std::vector<int> count(program_.values.size());
  std::vector<size_t> at(program_.values.size());
  for (size_t v = 0; v < program_.values.size(); v++) {
    count[v] = std::max(program_.by_token[v] ? limits.max_tokens : 0, program_.by_logit_row[v] ? limits.max_rows : 0);
    Rows& rows = by_count[count[v]];
    at[v] = rows.width;
    if (count[v] > 0) rows.width += round_up(program_.width(int(v)), kPanel);
  }
  size_t floats = 0;
  for (auto& [n, rows] : by_count) {
    // An odd number of panels, so that rows spread over all sets of the cache.
    rows.stride = rows.width / kPanel % 2 == 0 ? rows.width + kPanel : rows.width;
    rows.first = floats;
    floats += size_t(n) * rows.stride;
  }
  activations_ = Mapping(floats * sizeof(float));
  for (size_t v = 0; v < program_.values.size(); v++) {
    const mr_value& value = program_.values[v];
    const size_t base = program_.base(int(v)), column = value.of < 0 ? 0 : value.column;
    const Rows& rows = by_count[count[base]];
    values_.push_back({activations_.as<float>() + rows.first + at[base] + column, rows.stride});
  }

  floats = 0;
  for (const Angles& a : program_.angles) {
    angles_at_.push_back(floats);
    floats += round_up(a.floats() * limits.max_tokens, kPanel);
  }
  angles_ = Mapping(floats * sizeof(float));

  logits_stride_ = program_.encodes() ? 0 : row_stride(program_.vocab);
  logits_ = Mapping(std::min(limits.max_rows, kLogitRows) * logits_stride_ * sizeof(float));

  reserve_scratch();
  seq_of_.reserve(limits.max_tokens);
  spans_.reserve(limits.max_tokens);
  token_adapters_.reserve(limits.max_tokens);
  row_adapters_.reserve(limits.max_rows);
  adapted_tokens_.reserve(limits.max_tokens);
  adapted_rows_.reserve(limits.max_rows);
  cuts_.resize(program_.attentions.size());
  for (Cut& c : cuts_) {
    c.blocks.reserve(limits.max_tokens);
    c.first.reserve(limits.max_tokens + 1);
  }
  shares_.reset(new Shares[kShares * (program_.stages.size() + 1)]);
}

// Reserves what stages need for themselves: scratch of each worker, and what
// one part of a stage leaves for the next.
void Model::reserve_scratch() {
  size_t scratch = kProductFloats, partial = 0, gathered = 0;
  int experts = 0;
  size_t tiles = row_capacity() / program_.tile_rows + 1;
  for (const Stage& s : program_.stages)
    for (const Op& op : s.ops) switch (op.kind) {
        case MR_OP_ROUTE:
          scratch = std::max(scratch, route_floats(op));
          break;
        case MR_OP_EMBEDDING_BAG:
          scratch = std::max(scratch, size_t(program_.width(op.out[0])) + kPanel);
          break;
        case MR_OP_CACHE_WRITE:
          scratch = std::max(scratch, write_floats(op));
          break;
        case MR_OP_ATTENTION:
          scratch = std::max(scratch, attention_floats(op));
          partial = std::max(partial, partial_floats(op));
          break;
        case MR_OP_EXPERTS: {
          const ExpertMemory m = expert_memory(op);
          gathered = std::max(gathered, size_t(m.end - gathered_.as<float>()));
          most_choices_ = std::max(most_choices_, program_.width(op.in[1]));
          experts = std::max(experts, op.tensor[0]->matrices());
          // Each expert's rows begin a tile.
          const size_t choices = size_t(row_capacity()) * program_.width(op.in[1]);
          tiles = std::max(tiles, choices / program_.tile_rows + std::min(choices, size_t(op.tensor[0]->matrices())));
          break;
        }
        case MR_OP_GATED_DELTA:
        case MR_OP_SSM:
          gate_stride_ = std::max(gate_stride_, round_up(gate_floats(op), kPanel));
          break;
      }
  scratch_stride_ = round_up(scratch, 1024);
  scratch_ = Mapping(threads_ * scratch_stride_ * sizeof(float));
  rounded_ = Mapping(tiles * program_.rounded_bytes);
  partial_ = Mapping(partial * sizeof(float));
  gathered_ = Mapping(gathered * sizeof(float));
  gates_ = Mapping(gate_stride_ * limits_.max_tokens * sizeof(float));
  routing_.resize(threads_);
  for (Routing& r : routing_) {
    r.first.reserve(experts + 1);
    r.tile.reserve(experts);
    r.place.reserve(size_t(row_capacity()) * most_choices_);
    r.next.reserve(experts);
    r.token.reserve(size_t(row_capacity()) * most_choices_);
    r.choice.reserve(size_t(row_capacity()) * most_choices_);
    r.row.reserve(size_t(row_capacity()) * most_choices_);
    r.runs.reserve(size_t(row_capacity()) * most_choices_);
  }
}

void Model::reserve(int pages, int states) {
  Mapping page_memory(size_t(pages) * program_.page_bytes), state_memory(size_t(states) * state_bytes());
  pages_ = std::move(page_memory);
  states_ = std::move(state_memory);
}

int64_t Model::workspace_bytes() const {
  size_t bytes = 0;
  for (const Mapping* m : {&activations_, &angles_, &logits_, &scratch_, &rounded_, &partial_, &gathered_, &gates_,
                           &low_, &picked_})
    bytes += m->bytes();
  return int64_t(bytes);
}

void Model::warm_up(Pool& pool) {
  for (const Mapping* m : {&activations_, &angles_, &logits_, &scratch_, &rounded_, &partial_, &gathered_, &gates_})
    touch(pool, *m);
}

void Model::forward(Pool& pool, const Step& step) {
  step_ = step;
  if (step.batch->n_tokens == 0) return;
  prepare();
  cut_attention();
  run(pool, 0, program_.first_draft, true);
}

void Model::draft(Pool& pool, const Step& step) {
  step_ = step;
  if (step.batch->n_tokens == 0) return;
  adapted_ = false;  // adapters change the model, not what drafts its tokens
  run(pool, program_.first_draft, program_.stages.size(), false);
}

void Model::draft_further(Pool& pool, const Step& step) {
  step_ = step;
  prepare();
  cut_attention();
  run(pool, program_.further_draft, program_.stages.size(), true);
}

void Model::carry(int to, int from) {
  const int own = program_.draft_head.in[0];
  std::memcpy(values_[program_.draft_state].row(to), values_[own].row(from), size_t(program_.width(own)) * sizeof(float));
}

// Runs stages [from, to); whole: with what comes before and after those of a step.
void Model::run(Pool& pool, size_t from, size_t to, bool whole) {
  const size_t stages = program_.stages.size();
  for (size_t i = 0; i < kShares * (stages + 1); i++) shares_[i].reset(encodes() ? abandoned_ : nullptr);
  Shares* own = &shares_[kShares * stages];
  bool ends = false;  // since it is abandoned: what stages would read may not be there
  pool.run([&](int worker) {
    const auto run = [&](size_t i) { run_stage(program_.stages[i], pool, worker, &shares_[kShares * i]); };
    if (whole) {
      compute_angles(own[0]);
      move_states(own[1], false);
    }
    for (size_t next = from;; run(next++)) {
      const size_t first = next;
      while (next < to && alone(program_.stages[next])) next++;
      pool.barrier([&] {
        if ((ends = encodes() && *abandoned_)) return;
        for (size_t i = first; i < next; i++) run(i);
        if (next < to && rounds_before(program_.stages[next]))
          round_stage(program_.stages[next], shares_[kShares * next + kRoundShares]);
      });
      if (next == to || ends) break;
    }
    if (whole) move_states(own[2], true);
  });
}

// Reports whether a stage does so little that one worker does it, between the stage before and
// the one after, while the others wait: meeting once more would take longer.
bool Model::alone(const Stage& s) const {
  return (s.kind == Stage::rows || s.kind == Stage::pick) && rows_of(s) * s.row_floats <= kAloneFloats;
}

// The same of what a stage rounds before it multiplies.
bool Model::rounds_before(const Stage& s) const {
  return (s.kind == Stage::linear || s.kind == Stage::heads) && rows_of(s) * s.rounded_floats <= kAloneFloats;
}

// Finds out what is asked for of each token: its sequence, its span, its
// adapter.
void Model::prepare() {
  const mr_batch& b = *step_.batch;
  seq_of_.resize(b.n_tokens);
  adapted_ = false;
  for (int s = 0; s < b.n_seqs; s++) {
    std::fill_n(seq_of_.begin() + b.seqs[s].start, b.seqs[s].count, s);
    adapted_ = adapted_ || b.seqs[s].adapter != 0;
  }
  spans_.clear();
  if (b.n_spans > 0) {
    for (int t = 0; t < b.n_tokens; t++) spans_.push_back({b.pos[t], b.pos[t] + 1});
    for (int i = 0; i < b.n_spans; i++) {
      const int first = b.spans[i].start, last = first + b.spans[i].count - 1;
      std::fill(&spans_[first], &spans_[last] + 1, Seen{b.pos[first], b.pos[last] + 1});
    }
  }
  if (!adapted_) return;
  token_adapters_.clear();
  row_adapters_.clear();
  for (int t = 0; t < b.n_tokens; t++) {
    const int id = seq_of(t).adapter;
    token_adapters_.push_back(id == 0 ? nullptr : &adapters_.at(id));
  }
  for (int r = 0; r < step_.n_rows; r++)
    row_adapters_.push_back(step_.rows[r] < 0 ? nullptr : token_adapters_[step_.rows[r]]);
  adapted_tokens_.sort(token_adapters_);
  adapted_rows_.sort(row_adapters_);
}

void Model::run_stage(const Stage& s, Pool& pool, int worker, Shares* shares) {
  switch (s.kind) {
    case Stage::rows:
      return run_rows(s, worker, shares[0]);
    case Stage::linear:
      return run_linear(s, pool, worker, shares);
    case Stage::heads:
      return run_heads(s, pool, worker, shares);
    case Stage::attention:
      return run_attention(s.ops[0], pool, worker, shares);
    case Stage::experts:
      return run_experts(s, pool, worker, shares);
    case Stage::conv:
      return run_conv(s.ops[0], shares[0]);
    case Stage::scan:
      return run_scan(s.ops[0], pool, shares);
    case Stage::pick:
      return run_pick(s.ops[0], shares[0]);
  }
}

void Model::run_pick(const Op& op, Shares& shares) {
  const int width = program_.width(op.in[0]), count = std::max(1, op.i[MR_ROWS_COUNT]);
  const size_t bytes = width * sizeof(float);
  for (int64_t r = shares.take(); r < step_.n_rows; r = shares.take()) {
    const int token = step_.rows[r];
    float* out = values_[op.out[0]].row(int(r));
    if (token < 0)
      std::memset(out, 0, bytes);  // a RowAgain: Context puts its row where logits read it
    else if (op.i[MR_ROWS_MEAN] == 0)
      for (int k = 0; k < count; k++)
        std::memcpy(out + size_t(k) * width, values_[op.in[0]].row(token - count + 1 + k), bytes);
    else {
      std::memcpy(out, values_[op.in[0]].row(token - count + 1), bytes);
      for (int k = 1; k < count; k++) kernels_.add(out, values_[op.in[0]].row(token - count + 1 + k), 1, out, width);
      kernels_.scale(out, 1.0f / float(count), out, width);
    }
  }
}

// Sets states to what the batch's sequences start from or, after the step,
// saves them. Each worker takes a piece of all of them, so that a copy of a copy
// is in order.
void Model::move_states(Shares& shares, bool after) {
  constexpr size_t kPiece = 16384;  // floats
  const size_t floats = state_stride();
  for (size_t at = shares.take() * kPiece; at < floats; at = shares.take() * kPiece) {
    const size_t bytes = std::min(kPiece, floats - at) * sizeof(float);
    for (int i = 0; i < step_.batch->n_states; i++) {
      const mr_state_delta& d = step_.batch->states[i];
      if (after) {
        if (d.save != MR_NO_STATE) std::memcpy(state(d.save) + at, state(d.live) + at, bytes);
      } else if (d.from == MR_ZERO_STATE) {
        std::memset(state(d.live) + at, 0, bytes);
      } else if (d.from != MR_NO_STATE && d.from != d.live) {
        std::memcpy(state(d.live) + at, state(d.from) + at, bytes);
      }
    }
  }
}

void Model::logits(Pool& pool, const Head& head, int first, int n) {
  const Tensor& w = *head.tensor[0];
  const Value& x = values_[head.in[0]];
  const int at_once = panels_at_once(w.panels());
  Shares& shares = shares_[0];
  shares.reset();
  const char* as_integers = nullptr;
  for (const Rounding& r : head.roundings) {
    round_rows(r, {x.row(first), x.stride}, n, 0, 0, r.groups.count());
    as_integers = rounded(r);
  }
  pool.run([&](int) {
    const bool ahead = takes_ahead(n, w.panels() / at_once);
    for (int64_t p = shares.take() * at_once; p < w.panels();) {
      const int64_t next = ahead ? shares.take() * at_once : w.panels();
      multiply(w, 0, int(p), std::min(at_once, w.panels() - int(p)), {x.row(first), x.stride}, as_integers, 0, n,
               logits_row(0) + p * kPanel, logits_stride_, next < w.panels() ? w.panel(int(next)) : nullptr);
      p = ahead ? next : shares.take() * at_once;
    }
  });
}

void Model::finish_logits(const Head& head, float* logits) const {
  if (const float* bias = head.vector(1)) kernels_.add(logits, bias, 1, logits, program_.vocab);
  if (head.f[MR_LOGITS_SCALE] != 1) kernels_.scale(logits, head.f[MR_LOGITS_SCALE], logits, program_.vocab);
  if (head.f[MR_LOGITS_CAP] > 0) kernels_.softcap(logits, head.f[MR_LOGITS_CAP], program_.vocab);
}

}  // namespace millrace
