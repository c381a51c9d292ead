#include "program.h"

#include <algorithm>

#include "checkplan.h"
#include "error.h"

namespace millrace {
namespace {

bool reads(const mr_op& op, int v) {
  return op.in == v || op.in2 == v;
}

bool row_by_row(const mr_op& op) {
  switch (op.kind) {
    case kEmbed:
    case kRMSNorm:
    case kRope:
    case kKVWrite:
    case kSiluMul:
    case kGeluMul:
    case kAdd:
      return true;
    default:
      return false;
  }
}

// unread reports whether value v is never read after operation i, or not
// before it is computed anew: then nobody misses it.
bool unread(const std::vector<mr_op>& ops, size_t i, int v) {
  for (i++; i < ops.size(); i++) {
    if (reads(ops[i], v)) return false;
    if (ops[i].out == v) return true;
  }
  return true;
}

// Products of a stage run at the same time in any order, so none may write
// what another touches. What it writes of its own input's row would also reach
// the panels still to come.
bool conflict(const Product& a, const Product& b) {
  return a.target == b.target || a.target == b.in || b.target == a.in || a.target == b.residual ||
         b.target == a.residual;
}

bool independent(const std::vector<Product>& products) {
  for (size_t i = 0; i < products.size(); i++) {
    if (products[i].target == products[i].in) return false;
    for (size_t j = 0; j < i; j++)
      if (conflict(products[i], products[j])) return false;
  }
  return true;
}

// fuse lets op follow one or two of the products, if it can, and reports
// whether it did. ops[i] is op.
bool fuse(std::vector<Product>& products, const std::vector<mr_op>& ops, size_t i) {
  const mr_op& op = ops[i];
  std::vector<Product> fused = products;
  const auto find = [&](int v) {
    return std::find_if(fused.begin(), fused.end(), [v](const Product& p) {
      return p.epilogue == Epilogue::none && p.target == v;
    });
  };
  const auto lost = [&](int v) { return v == op.out || unread(ops, i, v); };
  if (op.kind == kAdd && op.in != op.in2) {
    auto p = find(op.in);
    int residual = op.in2;
    if (p == fused.end() || find(residual) != fused.end()) {
      p = find(op.in2);
      residual = op.in;
    }
    if (p == fused.end() || find(residual) != fused.end() || !lost(p->target)) return false;
    p->epilogue = Epilogue::add;
    p->residual = residual;
    p->target = op.out;
  } else if (op.kind == kSiluMul || op.kind == kGeluMul) {
    const auto gate = find(op.in), up = find(op.in2);
    if (gate == fused.end() || up == fused.end() || gate == up || gate->in != up->in || !lost(gate->target) ||
        !lost(up->target) || gate->weight[0]->element() != up->weight[0]->element())
      return false;
    gate->weight[1] = up->weight[0];
    gate->bias[1] = up->bias[0];
    gate->epilogue = op.kind == kSiluMul ? Epilogue::silu_mul : Epilogue::gelu_mul;
    gate->target = op.out;
    fused.erase(up);
  } else {
    return false;
  }
  if (!independent(fused)) return false;
  products = std::move(fused);
  return true;
}

}  // namespace

Program::Program(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors, size_t exact_bytes) {
  check_plan(plan, tensors);
  vocab = plan.vocab;
  layers = plan.layers;
  widths.assign(plan.widths, plan.widths + plan.n_values);
  std::vector<mr_op> ops(plan.ops, plan.ops + plan.n_ops);
  for (mr_op& op : ops) {
    if (op.kind == kRope) take_angles(op, plan);
    if (op.kind == kKVWrite || op.kind == kAttention) take_cache(op, kv_heads == 0);
  }
  for (size_t i = 0; i < ops.size(); i++) add(ops, i, tensors);
  mark_stored();

  // A checkpoint in float32 is served in float32. For a 16-bit one f16 is near
  // enough; bf16, three bits less, is not: log-probabilities of small models
  // move by several hundredths. The smallest, which rounding moves most, can
  // afford float32.
  const bool half = std::any_of(ops.begin(), ops.end(), [&](const mr_op& op) {
    return op.kind == kLinear && tensors[op.weight]->element() != kF32;
  });
  const size_t token_bytes = size_t(2) * layers * kv_heads * head_dim * sizeof(float);
  if (half && token_bytes > exact_bytes) cache = kF16;
}

void Program::take_angles(mr_op& op, const mr_plan& plan) {
  const float* table = plan.tables;
  for (int t = 0; t < op.table; t++) table += plan.table_len[t];
  const std::vector<float> frequencies(table, table + op.rotary / 2);
  const auto same = std::find_if(angles.begin(), angles.end(), [&](const Angles& a) {
    return a.frequencies == frequencies && a.factor == op.f0;
  });
  op.table = static_cast<int>(same - angles.begin());
  if (same == angles.end()) angles.push_back({frequencies, op.f0});
}

// All layers share pages, so their heads must have one shape.
void Program::take_cache(const mr_op& op, bool first) {
  if (first) {
    kv_heads = op.kv_heads;
    head_dim = op.head_dim;
  }
  if (op.kv_heads != kv_heads || op.head_dim != head_dim)
    fail(MR_INVALID, "layer %d of the plan caches %d heads of %d, another layer %d of %d", op.layer, op.kv_heads,
         op.head_dim, kv_heads, head_dim);
  if (op.kind == kAttention) group = std::max(group, op.heads / op.kv_heads);
}

Stage& Program::stage(Stage::Kind kind) {
  stages.push_back({});
  stages.back().kind = kind;
  stages.back().logit_rows = picked_;
  return stages.back();
}

void Program::add(const std::vector<mr_op>& ops, size_t i, const std::vector<std::unique_ptr<Tensor>>& tensors) {
  const mr_op& op = ops[i];
  Stage* last = stages.empty() ? nullptr : &stages.back();
  if (op.kind == kLinear) {
    Product p;
    p.weight[0] = tensors[op.weight].get();
    p.bias[0] = op.bias < 0 ? nullptr : tensors[op.bias]->vector();
    p.in = op.in;
    p.target = op.out;
    add_product(p);
  } else if (last != nullptr && last->kind == Stage::products && fuse(last->linear, ops, i)) {
    return;
  } else if (row_by_row(op)) {
    if (last == nullptr || last->kind != Stage::rows) last = &stage(Stage::rows);
    last->ops.push_back(op);
    last->weights.push_back(op.weight < 0 ? nullptr : tensors[op.weight].get());
  } else if (op.kind == kAttention) {
    stage(Stage::attention).ops.push_back(op);
  } else if (op.kind == kRows) {
    picked_ = true;
    stage(Stage::pick).ops.push_back(op);
  } else {
    logits = op;
    head = tensors[op.weight].get();
  }
}

void Program::add_product(const Product& p) {
  if (!stages.empty() && stages.back().kind == Stage::products) {
    auto& linear = stages.back().linear;
    linear.push_back(p);
    if (independent(linear)) return;
    linear.pop_back();
  }
  stage(Stage::products).linear.push_back(p);
}

void Program::mark_stored() {
  by_token.resize(widths.size());
  by_logit_row.resize(widths.size());
  const auto mark = [&](int v, bool logit_rows) {
    if (v >= 0) (logit_rows ? by_logit_row : by_token)[v] = true;
  };
  for (const Stage& s : stages) {
    for (const mr_op& op : s.ops) {
      mark(op.in, s.kind == Stage::pick ? false : s.logit_rows);
      mark(op.in2, s.logit_rows);
      mark(op.out, s.logit_rows);
    }
    for (const Product& p : s.linear)
      for (const int v : {p.in, p.residual, p.target}) mark(v, s.logit_rows);
  }
  mark(logits.in, true);
}

}  // namespace millrace
