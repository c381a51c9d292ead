#include "program.h"

#include <algorithm>
#include <cmath>

#include "../../device/abi/error.h"

namespace millrace {
namespace {

Stage::Kind stage_of(int kind) {
  switch (kind) {
    case MR_OP_LINEAR:
      return Stage::linear;
    case MR_OP_LINEAR_HEADS:
      return Stage::heads;
    case MR_OP_ATTENTION:
      return Stage::attention;
    case MR_OP_EXPERTS:
      return Stage::experts;
    case MR_OP_CONV:
      return Stage::conv;
    case MR_OP_GATED_DELTA:
    case MR_OP_SSM:
    case MR_OP_SELECTIVE_SCAN:
      return Stage::scan;
    case MR_OP_ROWS:
      return Stage::pick;
    default:
      return Stage::rows;
  }
}

std::vector<float> table(const mr_plan& plan, int index) {
  if (index < 0) return {};
  const float* at = plan.tables;
  for (int t = 0; t < index; t++) at += plan.table_len[t];
  return std::vector<float>(at, at + plan.table_len[index]);
}

// A matrix decoded, row after row or column after column.
std::vector<float> decode(const Tensor& t, bool by_column) {
  std::vector<float> out(size_t(t.rows()) * t.cols()), row(t.cols());
  for (int r = 0; r < t.rows(); r++) {
    t.row(r, row.data());
    for (int c = 0; c < t.cols(); c++) out[by_column ? size_t(c) * t.rows() + r : size_t(r) * t.cols() + c] = row[c];
  }
  return out;
}

// -e^w of a matrix [columns, key width], in blocks of 16 columns like the state.
std::vector<float> rates(const Tensor& t, const Cache& c) {
  std::vector<float> out(c.blocks() * c.block_floats()), row(t.cols());
  for (int r = 0; r < t.rows(); r++) {
    t.row(r, row.data());
    float* to = out.data() + r / kPanel * c.block_floats() + r % kPanel;
    for (int k = 0; k < t.cols(); k++) to[k * kPanel] = float(-std::exp(double(row[k])));
  }
  return out;
}

// Reports whether an operation is a linear layer that adds to the residual stream, or makes what
// the next one then adds: in a tower three quarters of the arithmetic, and what bears it that x is
// rounded to bf16. The softmax multiplies the error of queries and keys, and that of the rows
// which the tower makes in the end goes to the language model as it is.
bool branches(const mr_plan& plan, int i) {
  const mr_op& op = plan.ops[i];
  if (op.kind != MR_OP_LINEAR) return false;
  if (op.in[1] >= 0) return true;
  const auto linear = [](const mr_op& o) { return o.kind == MR_OP_LINEAR; };
  const mr_op *end = plan.ops + plan.n_ops, *next = std::find_if(plan.ops + i + 1, end, linear);
  return next != end && next->in[0] == op.out[0] && next->in[1] >= 0;
}

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

void check_plan(const mr_plan& plan) {
  if (plan.version != MR_PLAN_VERSION)
    fail(MR_UNSUPPORTED, "plan version %d, this backend runs %d", plan.version, MR_PLAN_VERSION);
  for (int i = 0; i < plan.n_ops + plan.n_draft; i++) {
    const mr_op& op = plan.ops[i];
    if (op.kind < 0 || op.kind >= MR_NUM_OPS) fail(MR_UNSUPPORTED, "operation %d is of unknown kind %d", i, op.kind);
    if (op.kind == MR_OP_CONV && plan.caches[op.i[MR_CONV_CACHE]].key_width >= kMostTaps)
      fail(MR_UNSUPPORTED, "operation %d is a convolution over more than %d positions", i, kMostTaps);
  }
}

bool Angles::operator==(const Angles& o) const {
  return rotary == o.rotary && pairs == o.pairs && frequencies == o.frequencies && longer == o.longer &&
         axes == o.axes && scale == o.scale && factor == o.factor && theta == o.theta && original == o.original;
}

Program::Program(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors, const Kernels& kernels)
    : vocab(plan.vocab),
      embeds_width(plan.embeds_width),
      groups(std::max(1, plan.n_groups)),
      values(plan.values, plan.values + plan.n_values),
      tile_order(kernels.integers->order),
      tile_rows(millrace::tile_rows(tile_order)),
      dots_(false) {
  for (int c = 0; c < plan.n_caches; c++) {
    caches.emplace_back();
    static_cast<mr_cache&>(caches.back()) = plan.caches[c];
  }
  const bool may_dot = kernels.dots != nullptr && plan.vocab == 0;  // a tower: it takes no tokens
  bool half = false;  // weights of 16 bits multiply
  draft_caches_.resize(plan.n_caches);
  for (int i = 0; i < plan.n_ops + plan.n_draft; i++) {
    if (i == plan.n_ops) {
      first_draft = further_draft = stages.size();
      drafting_ = true;
      draft_state = plan.ops[i].out[0];
      picked_ = false;
    }
    Op op;
    static_cast<mr_op&>(op) = plan.ops[i];
    op.number = i;
    for (int w = 0; w < MR_MAX_WEIGHTS; w++)
      if (op.weight[w] >= 0) op.tensor[w] = tensors[op.weight[w]].get();
    if (op.kind == MR_OP_LINEAR || op.kind == MR_OP_LINEAR_HEADS || op.kind == MR_OP_EXPERTS)
      half = half || op.tensor[0]->element() != kF32;
    if (op.kind == MR_OP_CONV) op.dense[0] = decode(*op.tensor[0], true);
    if (op.kind == MR_OP_EXPERTS)
      for (const int w : {1, 3, 5})
        if (op.tensor[w] != nullptr) op.dense[w] = decode(*op.tensor[w], false);
    if (op.kind == MR_OP_SELECTIVE_SCAN) op.dense[0] = rates(*op.tensor[0], caches[op.i[MR_SCAN_CACHE]]);
    if (op.kind == MR_OP_ROPE) take_angles(op, plan);
    if (op.kind == MR_OP_ATTENTION) take_attention(op, plan);
    if (drafting_ && op.kind == MR_OP_CACHE_WRITE) draft_caches_[op.i[MR_WRITE_CACHE]] = true;
    dots_ = may_dot && branches(plan, i);
    add(std::move(op));
    if (i == plan.n_ops) further_draft = stages.size();
  }
  if (!drafting_) first_draft = further_draft = stages.size();
  mark_stored();
  choose_cache(half, kernels.f16);
  lay_out_caches();
}

void Program::take_angles(Op& op, const mr_plan& plan) {
  Angles a;
  a.rotary = op.i[MR_ROPE_ROTARY];
  a.pairs = op.i[MR_ROPE_INTERLEAVED] == 1;
  a.frequencies = table(plan, op.i[MR_ROPE_TABLE]);
  a.original = op.i[MR_ROPE_ORIGINAL];
  if (a.original > 0) a.longer = table(plan, op.i[MR_ROPE_LONG]);
  a.axes = table(plan, op.i[MR_ROPE_AXES]);
  a.scale = op.f[MR_ROPE_SCALE];
  a.factor = op.f[MR_ROPE_FACTOR];
  a.theta = op.f[MR_ROPE_THETA];
  const auto same = std::find(angles.begin(), angles.end(), a);
  op.angles = static_cast<int>(same - angles.begin());
  if (same == angles.end()) angles.push_back(std::move(a));
}

void Program::take_attention(Op& op, const mr_plan& plan) {
  op.slopes = table(plan, op.i[MR_ATTN_SLOPES]);
  const Cache& c = caches[op.i[MR_ATTN_CACHE]];
  const Attention a = {op.i[MR_ATTN_HEADS] / c.heads, c.heads, op.i[MR_ATTN_WINDOW],
                       op.i[MR_ATTN_CHUNK], op.i[MR_ATTN_SIGHT], c.blocks() * kPanel};
  const auto same = std::find(attentions.begin(), attentions.end(), a);
  op.attention = static_cast<int>(same - attentions.begin());
  if (same == attentions.end()) attentions.push_back(a);
}

// The format of pages: that of the plan or, if it leaves it to the backend, what suits
// the weights.
void Program::choose_cache(bool half, bool f16) {
  constexpr size_t kExactBytes = 8192;  // of a token
  int format = MR_F32;
  for (const Cache& c : caches)
    if (c.kind != MR_CACHE_STATE) format = c.format;
  if ((format & MR_KIND_MASK) == MR_W8) {
    cache = kPageW8;
    scale_group = (format & MR_GROUP_MASK) >> MR_GROUP_SHIFT;
    if (scale_group == 0) scale_group = 1 << 30;  // all columns
    return;
  }
  // A checkpoint in float32 is served in float32. For a 16-bit one f16 is near
  // enough; bf16, three bits less, is not: log-probabilities of small models
  // move by several hundredths. The smallest, which rounding moves most, can
  // afford float32. A draft does not count: with it the text is the same.
  size_t token_bytes = 0;
  for (const Cache& c : caches)
    if (c.kind != MR_CACHE_STATE && !draft_caches_[&c - caches.data()])
      token_bytes += size_t(c.heads) * (c.key_width + (c.kind == MR_CACHE_KV ? c.value_width : 0)) * sizeof(float);
  if (f16 && (format == MR_F16 || (half && token_bytes > kExactBytes))) cache = kPageF16;
}

// Bytes of a page that a head's keys take, or its values, whose panels are whole.
size_t Program::page_part(int width) const {
  if (cache != kPageW8) return panel_bytes(cache == kPageF16 ? kF16 : kF32, width);
  return size_t(kPanel) * (width + 2 * ((width + scale_group - 1) / scale_group));
}

void Program::lay_out_caches() {
  std::vector<size_t> group(groups);  // bytes of a page so far
  for (Cache& c : caches) {
    if (c.kind == MR_CACHE_STATE) {
      c.offset = state_floats;
      state_floats += c.heads * c.blocks() * c.block_floats();
      continue;
    }
    c.key_bytes = page_part(c.key_width);
    if (c.kind == MR_CACHE_KV) c.value_bytes = page_part(c.blocks() * kPanel);
    c.offset = group[c.group];
    group[c.group] += round_up(c.heads * c.head_bytes(), 64);
    page_bytes = std::max(page_bytes, group[c.group]);
  }
  // Pages a large power of 2 apart would fall into the same few sets of the
  // second-level cache.
  if (page_bytes > 0 && page_bytes % (1 << 16) == 0) page_bytes += 4096;
}

Stage& Program::stage(Stage::Kind kind) {
  stages.push_back({});
  stages.back().kind = kind;
  stages.back().logit_rows = picked_;
  return stages.back();
}

void Program::add(Op op) {
  if (op.kind == MR_OP_LOGITS || op.kind == MR_OP_OUTPUT) {
    Head& to = drafting_ ? draft_head : head;
    add_roundings(op, to.roundings);
    static_cast<Op&>(to) = std::move(op);
    return;
  }
  const Stage::Kind kind = stage_of(op.kind);
  if (kind == Stage::pick) picked_ = true;
  const bool first = stages.size() == (drafting_ ? further_draft : 0);
  Stage* last = first || stages.back().kind != kind ? nullptr : &stages.back();
  const bool joins = last != nullptr && (kind == Stage::rows || (kind == Stage::linear && std::all_of(
                                             last->ops.begin(), last->ops.end(),
                                             [&](const Op& o) { return independent(o, op); })));
  Stage& to = joins ? *last : stage(kind);
  add_roundings(op, to.roundings);
  to.rounded_floats = 0;
  for (const Rounding& r : to.roundings) to.rounded_floats += size_t(r.heads) * r.groups.k;
  for (const int v : op.in) to.row_floats += v < 0 ? 0 : width(v);
  for (const int v : op.out) to.row_floats += v < 0 ? 0 : width(v);
  to.ops.push_back(std::move(op));
}

// Finds out what x of an operation is to be rounded to, once for all matrices of a
// stage whose groups are alike.
void Program::add_roundings(Op& op, std::vector<Rounding>& roundings) {
  std::fill_n(op.rounding, kMatrices, -1);
  const bool multiplies = op.kind == MR_OP_LINEAR || op.kind == MR_OP_LINEAR_HEADS || op.kind == MR_OP_EXPERTS ||
                          op.kind == MR_OP_LOGITS;
  for (int i = 0; multiplies && i < kMatrices; i++) {
    const Tensor* w = op.tensor[2 * i];
    const bool to_bf16 = w != nullptr && dots_ && w->element() == kBF16;
    if (w == nullptr || !(w->integers() || to_bf16)) continue;
    // Of experts what the last matrix multiplies is a value of no name.
    const int value = op.kind == MR_OP_EXPERTS && i == 2 ? -1 : op.in[0];
    const Groups groups = to_bf16 ? Groups{w->cols(), 0} : w->codes().groups;
    const auto same = std::find_if(roundings.begin(), roundings.end(), [&](const Rounding& r) {
      return r.value == value && r.to_bf16 == to_bf16 && r.groups.each() == groups.each() && r.groups.k == groups.k;
    });
    op.rounding[i] = int(same - roundings.begin());
    if (same != roundings.end()) continue;
    Rounding r = {value, op.kind == MR_OP_LINEAR_HEADS ? op.i[MR_HEADS_COUNT] : 1, groups, to_bf16, 0, 0};
    r.tile_bytes = to_bf16 ? round_up(size_t(tile_rows) * (groups.k + 1) / 2 * 4, 64) : RoundedTile{groups, tile_order}.bytes();
    if (!roundings.empty()) r.at = roundings.back().at + roundings.back().heads * roundings.back().tile_bytes;
    rounded_bytes = std::max(rounded_bytes, r.at + r.heads * r.tile_bytes);
    roundings.push_back(r);
  }
}

// overlap reports whether two values share memory.
bool Program::overlap(int a, int b) const {
  if (a < 0 || b < 0 || base(a) != base(b)) return false;
  const int at = values[a].of < 0 ? 0 : values[a].column, bt = values[b].of < 0 ? 0 : values[b].column;
  return at < bt + values[b].width && bt < at + values[a].width;
}

// Linear layers of a stage run at the same time in any order, so none may
// write what another touches.
bool Program::independent(const Op& a, const Op& b) const {
  for (const int in : {0, 1})
    if (overlap(a.out[0], b.in[in]) || overlap(b.out[0], a.in[in])) return false;
  return !overlap(a.out[0], b.out[0]);
}

void Program::mark_stored() {
  by_token.resize(values.size());
  by_logit_row.resize(values.size());
  const auto mark = [&](int v, bool logit_rows) {
    if (v >= 0) (logit_rows ? by_logit_row : by_token)[base(v)] = true;
  };
  for (const Stage& s : stages)
    for (const Op& op : s.ops) {
      for (const int v : op.in) mark(v, s.logit_rows && s.kind != Stage::pick);
      for (const int v : op.out) mark(v, s.logit_rows);
    }
  mark(head.in[0], true);
  if (drafting_) mark(draft_head.in[0], true);
}

}  // namespace millrace
