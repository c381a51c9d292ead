// Model's mixture of experts: tokens are sorted by expert, so that one expert's
// weights are read once a step, and those of an idle one not at all.
#include <algorithm>
#include <cstring>

#include "model.h"

namespace millrace {

// A row for each choice of each token, the rows of an expert in order of their
// tokens.
void Model::Routing::sort(const Value& chosen, const int* order, int tokens, int k, int experts, int tile_rows) {
  const auto expert = [&](int t, int i) { return std::clamp(int(chosen.row(t)[i]), 0, experts - 1); };
  first.assign(experts + 1, 0);
  for (int t = 0; t < tokens; t++)
    for (int i = 0; i < k; i++) first[expert(t, i) + 1]++;
  for (int e = 0; e < experts; e++) first[e + 1] += first[e];
  next.assign(first.begin(), first.end() - 1);
  tile.assign(experts, 0);
  for (int e = 1; e < experts; e++) tile[e] = tile[e - 1] + (first[e] - first[e - 1] + tile_rows - 1) / tile_rows;
  token.resize(tokens * k);
  choice.resize(tokens * k);
  place.resize(tokens * k);
  row.resize(tokens * k);
  for (int n = 0; n < tokens; n++)
    for (int i = 0, t = order == nullptr ? n : order[n]; i < k; i++) {
      const int e = expert(t, i), r = next[e]++;
      place[r] = tile[e] * tile_rows + r - first[e];
      token[r] = t;
      choice[r] = i;
      row[t * k + i] = r;
    }
}

// Finds the runs of rows that have one expert and one adapter.
void Model::Routing::find_runs(const std::vector<const Adapter*>& of) {
  runs.clear();
  for (int e = 0; e + 1 < int(first.size()); e++)
    for (int r = first[e]; r < first[e + 1]; r++) {
      const Adapter* adapter = of[token[r]];
      if (adapter == nullptr) continue;
      if (r > first[e] && !runs.empty() && runs.back().end == r && runs.back().adapter == adapter)
        runs.back().end = r + 1;
      else
        runs.push_back({adapter, r, r + 1, e});
    }
}

Model::ExpertMemory Model::expert_memory(const Op& op) const {
  const size_t rows = size_t(row_capacity()) * program_.width(op.in[1]);
  ExpertMemory m;
  m.end = gathered_.as<float>();
  for (const auto& [value, width] : {std::make_pair(&m.x, op.tensor[0]->cols()),
                                     std::make_pair(&m.inner, op.tensor[0]->rows()),
                                     std::make_pair(&m.out, op.tensor[4]->rows())}) {
    *value = {m.end, row_stride(width)};
    m.end += rows * value->stride;
  }
  return m;
}

void Model::run_experts(const Stage& s, Pool& pool, int worker, Shares* shares) {
  const Op& op = s.ops[0];
  const int tokens = rows_of(s), k = program_.width(op.in[1]), width = program_.width(op.out[0]);
  const ExpertMemory m = expert_memory(op);
  const Value &x = values_[op.in[0]], &weights = values_[op.in[2]], &out = values_[op.out[0]];
  Routing& routing = routing_[worker];
  const Adapted& adapted = s.logit_rows ? adapted_rows_ : adapted_tokens_;
  routing.sort(values_[op.in[1]], adapted_ ? adapted.rows.data() : nullptr, tokens, k, op.tensor[0]->matrices(),
               program_.tile_rows);
  if (adapted_) routing.find_runs(s.logit_rows ? row_adapters_ : token_adapters_);
  const bool scale_input = op.i[MR_EXPERTS_SCALE_INPUT] == 1;
  for (int64_t r = shares[0].take(); r < tokens * k; r = shares[0].take()) {
    const int token = routing.token[r], cols = op.tensor[0]->cols();
    if (scale_input)
      kernels_.scale(x.row(token), weights.row(token)[routing.choice[r]], m.x.row(int(r)), cols);
    else
      std::memcpy(m.x.row(int(r)), x.row(token), cols * sizeof(float));
    for (const Rounding& rounding : s.roundings)
      if (rounding.value >= 0)
        round_rows(rounding, {m.x.row(int(r)), m.x.stride}, 1, routing.place[r], 0, rounding.groups.count());
  }
  pool.barrier();
  if (adapted_) {
    reduce_experts(op, 0, 2, m.x, worker, shares[4]);
    pool.barrier();
  }

  Product up;
  up.w[0] = op.tensor[0];
  up.w[1] = op.tensor[2];
  up.act = {op.i[MR_ACT_KIND], op.f[MR_ACT_LIMIT], op.f[MR_ACT_ALPHA]};
  for (const int i : {0, 1})
    if (op.rounding[i] >= 0) up.rounded[i] = rounded(s.roundings[op.rounding[i]]);
  multiply_experts(op, up, 0, m.x, m.inner, worker, shares[1]);
  pool.barrier();
  if (adapted_) reduce_experts(op, 2, 3, m.inner, worker, shares[5]);
  if (op.rounding[2] >= 0) {
    const Rounding& rounding = s.roundings[op.rounding[2]];
    for (int64_t r = shares[6].take(); r < tokens * k; r = shares[6].take())
      round_rows(rounding, {m.inner.row(int(r)), m.inner.stride}, 1, routing.place[r], 0, rounding.groups.count());
  }
  if (adapted_ || op.rounding[2] >= 0) pool.barrier();

  Product down;
  down.w[0] = op.tensor[4];
  if (op.rounding[2] >= 0) down.rounded[0] = rounded(s.roundings[op.rounding[2]]);
  multiply_experts(op, down, 4, m.inner, m.out, worker, shares[2]);
  pool.barrier();

  for (int64_t t = shares[3].take(); t < tokens; t = shares[3].take()) {
    const auto choice = [&](int i) { return m.out.row(routing.row[t * k + i]); };
    const auto weight = [&](int i) { return scale_input ? 1 : weights.row(int(t))[i]; };
    kernels_.scale(choice(0), weight(0), out.row(int(t)), width);
    for (int i = 1; i < k; i++) kernels_.add(out.row(int(t)), choice(i), weight(i), out.row(int(t)), width);
  }
}

// Multiplies each expert's rows of x with its matrices; biases are the dense
// weights after w.
void Model::multiply_experts(const Op& op, Product p, int w, const Value& x, const Value& out, int worker,
                             Shares& shares) {
  const std::vector<int>& first = routing_[worker].first;
  const int experts = p.w[0]->matrices(), width = p.w[0]->rows();
  int active = 0;
  for (int e = 0; e < experts; e++) active += first[e + 1] > first[e];
  const int at_once = panels_at_once(int64_t(active) * p.w[0]->panels());
  const char* const tiles[2] = {p.rounded[0], p.rounded[1]};  // of the first expert
  int64_t begin = 0;  // share number of the expert's first part
  int64_t share = shares.take();
  for (int e = 0; e < experts; e++) {
    const int rows = first[e + 1] - first[e];
    const int64_t count = parts(p, rows, at_once);
    if (share < begin + count) {
      p.matrix = e;
      p.x = {x.row(first[e]), x.stride};
      p.out = {out.row(first[e]), out.stride};
      for (const int i : {0, 1})
        if (tiles[i] != nullptr) p.rounded[i] = tiles[i] + routing_[worker].tile[e] * program_.rounded_bytes;
      p.bias[0] = op.dense_row(w + 1, e, width);
      p.bias[1] = op.dense_row(w + 3, e, width);
      if (adapted_) adapt_expert(p, op, w / 2, routing_[worker]);
      share = run_parts(p, rows, at_once, begin, share, shares, scratch(worker));
    }
    begin += count;
  }
}

// Lets the step's adapters change a product with expert p.matrix.
void Model::adapt_expert(Product& p, const Op& op, int matrix, const Routing& routing) const {
  const auto before = [](const AdapterRun& run, int expert) { return run.matrix < expert; };
  const auto begin = std::lower_bound(routing.runs.begin(), routing.runs.end(), p.matrix, before);
  const auto end = std::lower_bound(begin, routing.runs.end(), p.matrix + 1, before);
  p.op = op.number;
  p.first = matrix;
  p.adapted = {routing.runs.data() + (begin - routing.runs.begin()), int(end - begin), nullptr, routing.first[p.matrix]};
}

// The first half of what adapters add to matrices [from, to) of all experts.
void Model::reduce_experts(const Op& op, int from, int to, const Value& x, int worker, Shares& shares) {
  const std::vector<AdapterRun>& runs = routing_[worker].runs;
  for (int64_t i = shares.take(); i < int64_t(runs.size()); i = shares.take())
    reduce_run(op, runs[i], from, to, {x.row(runs[i].begin), x.stride});
}

}  // namespace millrace
