// Model's mixture of experts: tokens are sorted by expert, so that one expert's
// weights are read once a step, and those of an idle one not at all.
#include <algorithm>
#include <cstring>

#include "model.h"

namespace millrace {

// A row for each choice of each token, the rows of an expert in order of their
// tokens.
void Model::Routing::sort(const Value& chosen, int tokens, int k, int experts) {
  const auto expert = [&](int t, int i) { return std::clamp(int(chosen.row(t)[i]), 0, experts - 1); };
  first.assign(experts + 1, 0);
  for (int t = 0; t < tokens; t++)
    for (int i = 0; i < k; i++) first[expert(t, i) + 1]++;
  for (int e = 0; e < experts; e++) first[e + 1] += first[e];
  next.assign(first.begin(), first.end() - 1);
  token.resize(tokens * k);
  row.resize(tokens * k);
  for (int t = 0; t < tokens; t++)
    for (int i = 0; i < k; i++) {
      const int r = next[expert(t, i)]++;
      token[r] = t;
      row[t * k + i] = r;
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
  routing.sort(values_[op.in[1]], tokens, k, op.tensor[0]->matrices());
  for (int64_t r = shares[0].take(); r < tokens * k; r = shares[0].take())
    std::memcpy(m.x.row(int(r)), x.row(routing.token[r]), op.tensor[0]->cols() * sizeof(float));
  pool.barrier();

  Product up;
  up.w[0] = op.tensor[0];
  up.w[1] = op.tensor[2];
  up.act = {op.i[MR_ACT_KIND], op.f[MR_ACT_LIMIT], op.f[MR_ACT_ALPHA]};
  multiply_experts(op, up, 0, m.x, m.inner, worker, shares[1]);
  pool.barrier();

  Product down;
  down.w[0] = op.tensor[4];
  multiply_experts(op, down, 4, m.inner, m.out, worker, shares[2]);
  pool.barrier();

  for (int64_t t = shares[3].take(); t < tokens; t = shares[3].take()) {
    const auto choice = [&](int i) { return m.out.row(routing.row[t * k + i]); };
    const float* weight = weights.row(int(t));
    kernels_.scale(choice(0), weight[0], out.row(int(t)), width);
    for (int i = 1; i < k; i++) kernels_.add(out.row(int(t)), choice(i), weight[i], out.row(int(t)), width);
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
  int64_t begin = 0;  // share number of the expert's first part
  int64_t share = shares.take();
  for (int e = 0; e < experts; e++) {
    const int rows = first[e + 1] - first[e];
    const int64_t count = parts(p, rows, at_once);
    if (share < begin + count) {
      p.matrix = e;
      p.x = {x.row(first[e]), x.stride};
      p.out = {out.row(first[e]), out.stride};
      p.bias[0] = op.dense_row(w + 1, e, width);
      p.bias[1] = op.dense_row(w + 3, e, width);
      for (; share < begin + count; share = shares.take()) run_part(p, rows, at_once, share - begin, scratch(worker));
    }
    begin += count;
  }
}

}  // namespace millrace
