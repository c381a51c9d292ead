// How each operation of a plan becomes launches.
#include "model.h"

#include <algorithm>

#include "error.h"
#include "selftest.h"

namespace millrace {
namespace {

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Rows of a tile of one expert's, of n rows that are divided among all: as many as blocks have for
// what an expert gets on average.
int tile_rows(const Chosen& c, int n) { return kTilingRows[tiling_of((n + c.n_experts - 1) / c.n_experts)]; }

}  // namespace

// How rows are packed for a tensor.
Packed Model::layout_of(const Weight& w, int heads, int capacity) {
  Packed p{};
  p.kind = w.kind == MR_W4 ? MR_W8 : w.kind == MR_F8 ? MR_BF16 : w.kind;
  p.cols = w.cols;
  p.padded_cols = int32_t(round_up(size_t(w.cols), kTileK));
  p.group = p.kind == MR_W8 ? w.group : w.cols;
  p.groups = p.kind == MR_W8 ? w.groups : 1;
  p.heads = heads;
  p.capacity = int32_t(round_up(size_t(capacity) + kTileRows, 64));
  lay_out_packed(p);
  return p;
}

void Model::lay_out_packed(Packed& p) {
  Arena inner(packed_memory_);
  const size_t rows = size_t(p.heads) * size_t(p.capacity);
  p.codes = inner.take<char>(size_t(packed_planes(p.kind) * packed_element(p.kind)) * rows * size_t(p.padded_cols));
  p.scales = inner.take<float>(rows * size_t(p.groups));
  p.sums = inner.take<int32_t>(rows * size_t(p.groups));
  packed_bytes_ = std::max(packed_bytes_, inner.used());
}

// A tensor's elements as floats, null for none.
const float* Model::floats(int tensor, Arena& arena) {
  if (tensor < 0) return nullptr;
  const Weight& w = weight(tensor);
  const int matrices = tensors_[size_t(tensor)]->matrices();
  const bool dense = w.padded_rows == w.rows && (w.rows * matrices == 1 || w.row_bytes == 4 * w.cols);
  if (w.kind == MR_F32 && dense) return reinterpret_cast<const float*>(w.codes);
  float* out = arena.take<float>(size_t(matrices) * size_t(w.rows) * size_t(w.cols));
  if (!arena.measures()) decode_rows(stream_, w, matrices, out);
  return out;
}

// A table of the plan, null for none.
const float* Model::table(int index, Arena& arena) {
  if (index < 0) return nullptr;
  const std::vector<float>& from = tables_[size_t(index)];
  float* out = arena.take<float>(from.size());
  if (!arena.measures() && !from.empty())
    check(cudaMemcpyAsync(out, from.data(), from.size() * sizeof(float), cudaMemcpyHostToDevice, stream_), "copying a table");
  return out;
}

void Model::lower(const mr_op& op, Arena& arena) {
  const Values x = value(op.in[0]), y = value(op.in[1]), out = value(op.out[0]);
  const Rows rows = this->rows();
  const Step step = step_;
  const auto n = this->n();
  switch (op.kind) {
    case MR_OP_EMBED: {
      const Weight* w = op.weight[0] < 0 ? nullptr : &weight(op.weight[0]);
      const bool divided = w != nullptr && op.i[MR_EMBED_BESIDE] == 0 && w->rows < plan_.vocab;
      const int at = divided ? group_->first_token(plan_.vocab) : -1;
      return push([=, width = plan_.embeds_width](const Now& now) {
        embed(now.stream, step, out, w, op.f[MR_EMBED_SCALE], op.i[MR_EMBED_BESIDE] == 1, op.i[MR_EMBED_FIRST],
              width, at, now.tokens);
      });
    }
    case MR_OP_EMBED_POSITION:
      return push([=, w = weight(op.weight[0])](const Now& now) {
        embed_position(now.stream, step, out, w, op.i[MR_EMBED_OFFSET], now.tokens);
      });
    case MR_OP_RMSNORM:
    case MR_OP_LAYERNORM:
      return lower_norm(op, arena);
    case MR_OP_LINEAR:
    case MR_OP_LINEAR_HEADS:
      return lower_linear(op, arena);
    case MR_OP_ROPE: {
      const Rope r = {op.i[MR_ROPE_HEADS],
                      op.i[MR_ROPE_HEAD_DIM],
                      op.i[MR_ROPE_FIRST],
                      op.i[MR_ROPE_ROTARY],
                      op.i[MR_ROPE_INTERLEAVED],
                      op.i[MR_ROPE_ORIGINAL],
                      table(op.i[MR_ROPE_TABLE], arena),
                      op.i[MR_ROPE_ORIGINAL] > 0 ? table(op.i[MR_ROPE_LONG], arena) : nullptr,
                      table(op.i[MR_ROPE_AXES], arena),
                      op.f[MR_ROPE_SCALE],
                      op.f[MR_ROPE_FACTOR],
                      op.f[MR_ROPE_THETA]};
      if (!extends(rotated_) || rotated_.what->cache != nullptr || rotated_.what->rotations.count == Rotations::kMost)
        push_rotated();
      Rotations& rotations = rotated_.what->rotations;
      rotations.x[rotations.count] = x;
      rotations.rope[rotations.count++] = r;
      return;
    }
    case MR_OP_CACHE_WRITE:
      if (!extends(rotated_) || rotated_.what->cache != nullptr) push_rotated();
      rotated_.what->cache = &caches_[size_t(op.i[MR_WRITE_CACHE])];
      rotated_.what->x = x;
      rotated_.what->y = y;
      return;
    case MR_OP_ATTENTION:
      return lower_attention(op, arena);
    case MR_OP_ACTIVATE: {
      const float *w0 = floats(op.weight[0], arena), *w1 = floats(op.weight[1], arena);
      return push([=](const Now& now) {
        activate(now.stream, rows, out, x, y, op.i[MR_ACT_KIND], op.f[MR_ACT_LIMIT], op.f[MR_ACT_ALPHA], w0, w1, n(now));
      });
    }
    case MR_OP_ADD:
      return push([=](const Now& now) { add(now.stream, rows, out, x, y, op.f[MR_ADD_SCALE], n(now)); });
    case MR_OP_ALL_REDUCE:
      exchanged_floats_ = std::max(exchanged_floats_, size_t(capacity()) * size_t(x.width));
      return push([=, this](const Now& now) {
        all_reduce(now.stream, rows, out, x, y, op.f[MR_ADD_SCALE], group_->peers(), n(now));
      });
    case MR_OP_SCALE: {
      const float* w = floats(op.weight[0], arena);
      const int weights = op.weight[0] < 0 ? 0 : weight(op.weight[0]).cols;
      return push([=](const Now& now) {
        scale(now.stream, rows, step, out, x, w, weights, op.f[MR_SCALE_FACTOR], op.f[MR_SCALE_LOG], op.i[MR_SCALE_OFFSET],
              op.i[MR_SCALE_LENGTH], n(now));
      });
    }
    case MR_OP_SPARSIFY:
      return push([=](const Now& now) { sparsify(now.stream, rows, out, x, op.f[MR_SPARSIFY_DEVIATIONS], n(now)); });
    case MR_OP_JOIN: {
      Values part = out;
      for (const int32_t in : op.in) {
        if (in < 0) break;
        const Values from = value(in);
        push([=](const Now& now) { copy_columns(now.stream, rows, part, from, n(now)); });
        part.data += from.width;
      }
      return;
    }
    case MR_OP_EMBEDDING_BAG:
      return push([=, w = weight(op.weight[0])](const Now& now) { embedding_bag(now.stream, rows, out, x, y, w, n(now)); });
    case MR_OP_ROWS:
      by_row_ = true;
      last_packed_ = {};
      return push([=](const Now& now) {
        pick_rows(now.stream, step, out, x, std::max(1, op.i[MR_ROWS_COUNT]), op.i[MR_ROWS_MEAN] == 1, now.rows);
      });
    case MR_OP_ROUTE: {
      const Route r = {x.width,
                       op.i[MR_ROUTE_TOP_K],
                       op.i[MR_ROUTE_SCORE],
                       op.i[MR_ROUTE_GROUPS],
                       op.i[MR_ROUTE_TOP_GROUPS],
                       op.i[MR_ROUTE_NORMALIZE],
                       op.i[MR_ROUTE_GROUP_BEST],
                       op.f[MR_ROUTE_SCALE],
                       op.f[MR_ROUTE_EPS],
                       op.f[MR_ROUTE_JITTER],
                       floats(op.weight[0], arena),
                       floats(op.weight[1], arena)};
      return push([=, weights = value(op.out[1])](const Now& now) { route(now.stream, rows, out, weights, x, r, n(now)); });
    }
    case MR_OP_EXPERTS:
      return lower_experts(op, arena);
    case MR_OP_CONV:
    case MR_OP_GATED_DELTA:
    case MR_OP_SSM:
    case MR_OP_SELECTIVE_SCAN:
      return lower_recurrence(op, arena);
    case MR_OP_LOGITS:
      return lower_logits(op, arena);
    case MR_OP_OUTPUT:
      return;
  }
}

// Launches what rotations and a write of a cache, which may follow, put into it.
void Model::push_rotated() {
  const auto what = std::make_shared<Rotated>();
  push([=, this](const Now& now) {
    rotate_and_write(now.stream, step_, slots_, what->rotations, what->cache, what->x, what->y, now.tokens);
  });
  rotated_ = {what, launches_.size()};
}

void Model::lower_norm(const mr_op& op, Arena& arena) {
  Norm norm{};
  const bool layer = op.kind == MR_OP_LAYERNORM;
  norm.weight = floats(op.weight[0], arena);
  norm.weights = op.weight[0] < 0 ? 0 : weight(op.weight[0]).cols;
  if (layer) {
    norm.bias = floats(op.weight[1], arena);
    norm.biases = op.weight[1] < 0 ? 0 : weight(op.weight[1]).cols;
  }
  norm.group = op.i[MR_NORM_GROUP];
  norm.gate = layer ? int32_t(MR_GATE_NONE) : op.i[MR_NORM_GATE];
  norm.eps = op.f[MR_NORM_EPS];
  norm.shift = op.f[MR_NORM_SHIFT];
  const auto packed = std::make_shared<Packed>();
  push([=, rows = rows(), n = n(), x = value(op.in[0]), gate = value(op.in[1]), out = value(op.out[0])](const Now& now) {
    if (layer)
      layer_norm(now.stream, rows, out, x, norm, *packed, n(now));
    else
      rms_norm(now.stream, rows, out, x, gate, norm, *packed, n(now));
  });
  normed_ = {packed, launches_.size()};
  normed_value_ = norm.group == value(op.out[0]).width ? op.out[0] : -1;
}

void Model::lower_linear(const mr_op& op, Arena& arena) {
  Product p;
  p.value = op.in[0];
  p.x = value(op.in[0]);
  p.rows = rows();
  p.n = n();
  p.capacity = capacity();
  p.out = value(op.out[0]);
  p.tensor[0] = op.weight[0];
  Epilogue& e = p.epilogue;
  e.scale = 1;
  if (op.kind == MR_OP_LINEAR_HEADS) {
    p.heads = op.i[MR_HEADS_COUNT];
    return lower_product(p, arena);
  }
  p.tensor[1] = op.weight[2];
  e.bias[0] = floats(op.weight[1], arena);
  e.bias[1] = floats(op.weight[3], arena);
  e.act = op.i[MR_LINEAR_ACT];
  e.limit = op.f[MR_ACT_LIMIT];
  e.alpha = op.f[MR_ACT_ALPHA];
  if (op.in[1] >= 0) {
    e.residual = value(op.in[1]);
    e.scale = op.f[MR_LINEAR_SCALE];
  }
  lower_product(p, arena);
}

// Matrices of two formats take x in two forms: one is multiplied after the other.
void Model::lower_product(const Product& p, Arena& arena) {
  const bool one = p.tensor[1] < 0 || (weight(p.tensor[0]).kind == weight(p.tensor[1]).kind &&
                                       weight(p.tensor[0]).group == weight(p.tensor[1]).group);
  if (one) return push_product(p);
  const int stride = int(round_up(size_t(p.out.width), 4));
  Values parts[2];
  for (int m = 0; m < 2; m++) {
    parts[m] = {arena.take<float>(size_t(p.capacity) * size_t(stride)), p.out.width, stride};
    Product part = p;
    part.tensor[0] = p.tensor[m];
    part.tensor[1] = -1;
    part.out = parts[m];
    part.epilogue = {};
    part.epilogue.scale = 1;
    part.epilogue.bias[0] = p.epilogue.bias[m];
    push_product(part);
  }
  push([=, first = parts[0], second = parts[1]](const Now& now) {
    const Epilogue& e = p.epilogue;
    const bool residual = e.residual.data != nullptr;
    activate(now.stream, p.rows, residual ? first : p.out, first, second, e.act, e.limit, e.alpha, nullptr, nullptr, p.n(now));
    if (residual) add(now.stream, p.rows, p.out, e.residual, first, e.scale, p.n(now));
  });
}

// What products work in.
Tiled Model::tiled() const {
  Tiled t = test_tiled(stream_).tiled;
  t.partial = partial_;
  t.floats = partial_floats_;
  t.arrived = arrived_;
  return t;
}

// Makes room for a product whose blocks share sums, of as many rows as gain by it.
void Model::share_chunks(const Weight& w0, const Weight* w1, int heads, int capacity) {
  constexpr int kMostRows = 256;
  partial_floats_ = std::max(partial_floats_, std::min(kMostPartial, tiled_floats(w0, w1 != nullptr, heads, std::min(capacity, kMostRows), tiled())));
}

// Packs x, unless what is packed is just that, and multiplies.
void Model::push_product(const Product& p) {
  const Weight &w0 = weight(p.tensor[0]), *w1 = p.tensor[1] < 0 ? nullptr : &weight(p.tensor[1]);
  const Packed x = layout_of(w0, p.heads, p.capacity);
  const Packed& last = last_packed_.packed;
  const bool packed = p.chosen == nullptr && last_packed_.value == p.value && last.kind == x.kind && last.group == x.group &&
                      last.heads == x.heads;
  if (!packed) {
    last_packed_ = {p.chosen == nullptr ? p.value : -1, x};
    if (p.chosen == nullptr && p.heads == 1 && extends(normed_) && normed_value_ == p.value)
      *normed_.what = x;
    else
      push([=](const Now& now) {
        pack(now.stream, p.rows.count, x, p.x, p.gather ? p.chosen->row : nullptr, p.gather ? p.chosen->factor : nullptr, p.n(now));
      });
  }
  most_low_rows_ = std::max(most_low_rows_, size_t(p.heads) * size_t(p.capacity));
  share_chunks(w0, w1, p.heads, p.capacity);
  push([=, this, &w0](const Now& now) {
    Epilogue e = p.epilogue;
    for (int m = 0; m < (w1 == nullptr ? 1 : 2) && !adapters_.empty(); m++) {
      e.adapted[m] = adapted(p.tensor[m], m, p.capacity);
      Chosen rows = p.chosen == nullptr ? Chosen{} : *p.chosen;
      if (!p.gather) rows.row = nullptr;
      reduce_adapters(now.stream, p.rows, e.adapted[m], p.x, rows, p.heads, w0.cols, p.n(now));
    }
    Routing routing{};
    if (p.chosen != nullptr) {
      const int n = p.n(now);
      const int most = tile_rows(*p.chosen, n);
      routing = {p.chosen->tiles, p.chosen->n_tiles, n / most + std::min(n, p.chosen->n_experts), most};
    }
    linear(now.stream, p.rows, p.out, x, w0, w1, e, p.chosen == nullptr ? nullptr : &routing, tiled(), p.n(now));
  });
}

void Model::lower_experts(const mr_op& op, Arena& arena) {
  const int k = value(op.in[1]).width, most = capacity() * k;
  const Weight &first = weight(op.weight[0]), &last = weight(op.weight[4]);
  chosen_.push_back(std::make_unique<Chosen>());
  Chosen& c = *chosen_.back();
  c.experts = value(op.in[1]);
  c.weights = value(op.in[2]);
  c.top_k = k;
  c.n_experts = tensors_[size_t(op.weight[0])]->matrices();
  c.scale_input = op.i[MR_EXPERTS_SCALE_INPUT] == 1;
  c.count = arena.take<int>(1);
  c.n_tiles = arena.take<int>(1);
  c.tiles = arena.take<Tile>(size_t(most / kTileRows + std::min(most, c.n_experts) + 1));
  for (int32_t** p : {&c.row, &c.expert, &c.adapter, &c.place}) *p = arena.take<int32_t>(size_t(most));
  c.factor = arena.take<float>(size_t(most));
  const auto values = [&](int width) {
    const int stride = int(round_up(size_t(width), 4));
    return Values{arena.take<float>(size_t(most) * size_t(stride)), width, stride};
  };
  const Values inner = values(first.rows), outer = values(last.rows);
  const Rows rows = this->rows();
  const auto n = this->n();
  push([=, &c](const Now& now) { group_rows(now.stream, rows, c, tile_rows(c, n(now) * k)); });

  Product p;
  p.x = value(op.in[0]);
  p.rows = {c.count, c.adapter};
  p.n = [=](const Now& now) { return n(now) * k; };
  p.capacity = most;
  p.chosen = &c;
  p.gather = true;
  p.tensor[0] = op.weight[0];
  p.tensor[1] = op.weight[2];
  p.epilogue.scale = 1;
  p.epilogue.bias[0] = floats(op.weight[1], arena);
  p.epilogue.bias[1] = floats(op.weight[3], arena);
  p.epilogue.act = op.i[MR_ACT_KIND];
  p.epilogue.limit = op.f[MR_ACT_LIMIT];
  p.epilogue.alpha = op.f[MR_ACT_ALPHA];
  p.out = inner;
  lower_product(p, arena);

  p.x = inner;
  p.gather = false;
  p.tensor[0] = op.weight[4];
  p.tensor[1] = -1;
  p.epilogue = {};
  p.epilogue.scale = 1;
  p.epilogue.bias[0] = floats(op.weight[5], arena);
  p.out = outer;
  lower_product(p, arena);
  push([=, &c, out = value(op.out[0])](const Now& now) { combine(now.stream, rows, out, outer, c, n(now)); });
}

void Model::lower_recurrence(const mr_op& op, Arena& arena) {
  const Cache* c = &caches_[size_t(op.i[0])];  // all name it first
  std::vector<Values> in;
  for (const int32_t v : op.in) in.push_back(value(v));
  const Values out = value(op.out[0]);
  const float *w0 = floats(op.weight[0], arena), *w1 = floats(op.weight[1], arena);
  switch (op.kind) {
    case MR_OP_CONV:
      return push([=, this](const Now& now) {
        conv(now.stream, step_, slots_, *c, out, in[0], w0, w1, op.i[MR_CONV_ACT], now.seqs);
      });
    case MR_OP_GATED_DELTA: {
      const Delta d = {op.i[MR_DELTA_KEY_HEADS], op.i[MR_DELTA_CHANNELS], op.i[MR_DELTA_NEGATIVE],
                       op.f[MR_DELTA_EPS],       op.f[MR_DELTA_SCALE],    w0, w1};
      return push([=, this](const Now& now) { gated_delta(now.stream, step_, slots_, *c, out, in.data(), d, now.seqs); });
    }
    case MR_OP_SSM: {
      const StateSpace p = {op.i[MR_SSM_GROUPS], op.f[MR_SSM_MIN], op.f[MR_SSM_MAX], w0, w1, floats(op.weight[2], arena)};
      return push([=, this](const Now& now) { state_space(now.stream, step_, slots_, *c, out, in.data(), p, now.seqs); });
    }
    default:
      return push([=, this](const Now& now) { selective_scan(now.stream, step_, slots_, *c, out, in.data(), w0, w1, now.seqs); });
  }
}

void Model::lower_attention(const mr_op& op, Arena& arena) {
  const Cache* c = &caches_[size_t(op.i[MR_ATTN_CACHE])];
  Attention a{};
  a.heads = op.i[MR_ATTN_HEADS];
  a.window = op.i[MR_ATTN_WINDOW];
  a.chunk = op.i[MR_ATTN_CHUNK];
  a.sight = op.i[MR_ATTN_SIGHT];
  a.slopes = table(op.i[MR_ATTN_SLOPES], arena);
  a.sinks = floats(op.weight[0], arena);
  a.scale = op.f[MR_ATTN_SCALE];
  a.cap = op.f[MR_ATTN_CAP];
  const size_t floats = attention_floats(a.heads, c->value_width);
  const size_t most = size_t(limits_.max_pages_per_slot * kPageTokens + kSplit - 1) / kSplit * size_t(limits_.max_tokens) * floats;
  partial_floats_ = std::max(partial_floats_, std::min(most, kMostPartial));
  a.partial = partial_;
  a.tiled = test_tiled(stream_).attention;
  push([=, this, x = value(op.in[0]), y = value(op.in[1]), out = value(op.out[0])](const Now& now) {
    Attention now_a = a;
    now_a.splits = now.splits;
    if (size_t(now_a.splits) * size_t(now.tokens) * floats > partial_floats_) now_a.splits = 1;
    attend(now.stream, step_, slots_, *c, out, x, y, now_a, now.tokens, now.seqs);
  });
}

void Model::lower_logits(const mr_op& op, Arena& arena) {
  Output& o = of_draft_ ? draft_head_ : head_;
  const size_t stride = round_up(size_t(plan_.vocab), 4);
  if (!of_draft_) logits_ = {arena.take<float>(kLogitRows * stride), plan_.vocab, int(stride)};
  o.head = {floats(op.weight[1], arena), op.f[MR_LOGITS_SCALE], op.f[MR_LOGITS_CAP]};
  o.packed = layout_of(weight(op.weight[0]), 1, kLogitRows);
  share_chunks(weight(op.weight[0]), nullptr, 1, kLogitRows);
  const int rows = weight(op.weight[0]).rows;
  if (rows == plan_.vocab) return;
  const size_t part = round_up(size_t(rows), 4);
  o.part = {arena.take<float>(kLogitRows * part), rows, int(part)};
  exchanged_floats_ = std::max(exchanged_floats_, kLogitRows * size_t(rows));
}

}  // namespace millrace
