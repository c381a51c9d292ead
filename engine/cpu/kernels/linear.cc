// Model's matrix products: linear layers with what follows them, adapters.
#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "../../device/abi/error.h"
#include "model.h"

namespace millrace {
namespace {

constexpr int kShareColumns = 512;  // that are rounded as one
constexpr int kPartRows = kMostRows;  // rows of x that stay in the second-level cache
static_assert(kPartRows % tile_rows(kByColumns) == 0 && kPartRows % tile_rows(kByRows) == 0,
              "blocks of rows are whole tiles");

int row_blocks(int rows) { return (rows + kPartRows - 1) / kPartRows; }

}  // namespace

// Panels that are one share of work out of so many: a tile's fill, or less
// where that would leave workers idle.
int Model::panels_at_once(int64_t panels) const {
  int n = kPartPanels;
  while (n > 1 && panels < 2 * n * threads_) n /= 2;
  return n;
}

// A product is cut into parts: runs of panels times blocks of rows.
int64_t Model::parts(const Product& p, int rows, int at_once) const {
  return int64_t((p.w[0]->panels() + at_once - 1) / at_once) * row_blocks(rows);
}

// Whether workers take a share of so many before they have done the one before it, to fetch
// its weights meanwhile: where few rows use them, and none of the workers goes without.
bool Model::takes_ahead(int rows, int64_t parts) const { return rows <= 32 && parts >= 4 * threads_; }

// Runs the parts of a product, of which the first has share number `first`, that a worker
// takes from `share` on. Returns the share that it takes next, of what follows the product.
int64_t Model::run_parts(const Product& p, int rows, int at_once, int64_t first, int64_t share, Shares& shares,
                         float* scratch) {
  const int64_t count = parts(p, rows, at_once);
  const bool ahead = takes_ahead(rows, count);
  while (share < first + count) {
    const int64_t next = ahead ? shares.take() : -1;
    run_part(p, rows, at_once, share - first, ahead && next < first + count ? next - first : -1, scratch);
    share = ahead ? next : shares.take();
  }
  return share;
}

// `then` is the part that the worker runs next, -1 if that is not known.
void Model::run_part(const Product& p, int rows, int at_once, int64_t part, int64_t then, float* scratch) {
  // Row blocks of the same panels follow each other: the weights are still near.
  const int blocks = row_blocks(rows), block = int(part % blocks), panel = int(part / blocks) * at_once;
  const int each = program_.tile_rows;
  const int64_t tiles = (rows + each - 1) / each;
  const int row = int(tiles * block / blocks) * each;
  const int next = std::min(rows, int(tiles * (block + 1) / blocks) * each);
  run_product(p, panel, std::min(at_once, p.w[0]->panels() - panel), row, next - row,
              then < 0 ? -1 : int(then / blocks) * at_once, scratch);
}

// Multiplies rows of x, from row `row` on, with panels of w; rounded is the tile of row 0,
// and row of a tile the first, or null if x is not rounded. `then`: panels to be fetched, or null.
void Model::multiply(const Tensor& w, int matrix, int panel, int panels, const Value& x, const char* rounded, int row,
                     int rows, float* out, size_t stride, const char* then) const {
  const char* at = w.panel(panel, matrix);
  const size_t tile = program_.rounded_bytes;
  const char* first = rounded == nullptr ? nullptr : rounded + row / program_.tile_rows * tile;
  if (w.integers()) {
    kernels_.integers->matmul({first, tile, at, out, stride, rows, panels, w.codes(), then});
  } else if (rounded != nullptr) {
    kernels_.dots->matmul({first, tile, program_.tile_rows, at, w.panel_size(), out, stride, rows, w.cols(), panels});
  } else {
    const int group = w.quantized() ? w.codes().groups.group : 0;
    kernels_.matmul[w.element()]({x.row(row), x.stride, at, w.panel_size(), out, stride, rows, w.cols(), panels, group});
  }
}

// Rounds groups [from, to) of n rows x, and so of each head, to row `place` of the tiles
// and those after it.
void Model::round_rows(const Rounding& r, const Value& x, int n, int place, int from, int to) {
  for (int h = 0; h < r.heads; h++)
    for (int i = 0; i < n; i++) {
      const float* from_row = x.row(i) + size_t(h) * r.groups.k;
      char* tile = rounded(r, h, (place + i) / program_.tile_rows);
      const int row = (place + i) % program_.tile_rows;
      if (r.to_bf16)
        kernels_.dots->round(from_row, r.groups.k, tile, program_.tile_rows, row);
      else
        kernels_.integers->round(from_row, r.groups, from, to, tile, row);
    }
}

// Rounds what the operations of a stage take in.
void Model::round_stage(const Stage& s, Shares& shares) {
  const int rows = rows_of(s), each = program_.tile_rows, tiles = (rows + each - 1) / each;
  int64_t first = 0;
  int64_t share = shares.take();
  for (const Rounding& r : s.roundings) {
    // A share is columns of a tile, whose rows share cache lines.
    const int groups = r.groups.count(), cuts = std::clamp(r.groups.k / kShareColumns, 1, groups);
    for (; share < first + tiles * cuts; share = shares.take()) {
      const int row = int(share - first) / cuts * each, cut = int(share - first) % cuts;
      const Value& x = values_[r.value];
      round_rows(r, {x.row(row), x.stride}, std::min(each, rows - row), row, groups * cut / cuts,
                 groups * (cut + 1) / cuts);
    }
    first += tiles * cuts;
  }
}

// Does what the products of a stage wait for.
void Model::prepare_linear(const Stage& s, Pool& pool, int worker, Shares* shares) {
  const bool rounds = !s.roundings.empty() && !rounds_before(s);
  if (adapted_) reduce_adapters(s, worker, shares[1]);
  if (rounds) round_stage(s, shares[kRoundShares]);
  if (rounds || adapted_) pool.barrier();
}

void Model::run_product(const Product& p, int panel, int panels, int row, int rows, int then, float* scratch) {
  const int column = panel * kPanel, columns = std::min(panels * kPanel, p.w[0]->rows() - column);
  const bool plain = p.act.kind == MR_ACT_NONE && p.w[1] == nullptr && p.residual.data == nullptr;
  // A result that nothing follows goes where it belongs at once, if its panels end there.
  const bool direct = plain && columns == panels * kPanel;
  const size_t stride = direct ? p.out.stride : size_t(panels) * kPanel;
  float* part[2] = {direct ? p.out.row(row) + column : scratch, scratch + kPartFloats};
  for (int i = 0; i < 2 && p.w[i] != nullptr; i++) {
    const Tensor& w = *p.w[i];
    const char* next = then < 0 ? nullptr : p.w[0]->panel(then, p.matrix);
    if (i == 0 && p.w[1] != nullptr) next = p.w[1]->panel(panel, p.matrix);
    multiply(w, p.matrix, panel, panels, p.x, p.rounded[i], row, rows, part[i], stride, next);
    if (p.adapted.count > 0)
      add_adapters(p, p.first + i, panel, panels, row, rows, part[i], stride, scratch + 2 * kPartFloats);
    if (p.bias[i] == nullptr) continue;
    for (int r = 0; r < rows; r++)
      kernels_.add(part[i] + r * stride, p.bias[i] + column, 1, part[i] + r * stride, columns);
  }
  if (direct) return;
  for (int r = 0; r < rows; r++) {
    float *out = p.out.row(row + r) + column, *a = part[0] + r * stride;
    const float* b = p.w[1] == nullptr ? nullptr : part[1] + r * stride;
    if (plain) {
      std::memcpy(out, a, columns * sizeof(float));
    } else if (p.residual.data == nullptr) {
      kernels_.activate(p.act, a, b, out, columns);
    } else {
      if (p.act.kind != MR_ACT_NONE || b != nullptr) kernels_.activate(p.act, a, b, a, columns);
      kernels_.add(p.residual.row(row + r) + column, a, p.scale, out, columns);
    }
  }
}

Model::Product Model::linear_product(const Stage& s, const Op& op) const {
  Product p;
  p.x = values_[op.in[0]];
  p.out = values_[op.out[0]];
  if (op.in[1] >= 0) p.residual = values_[op.in[1]];
  for (int i = 0; i < 2; i++) {
    p.w[i] = op.tensor[2 * i];
    p.bias[i] = op.vector(2 * i + 1);
    if (op.rounding[i] >= 0) p.rounded[i] = rounded(s.roundings[op.rounding[i]]);
  }
  p.act = {op.i[MR_LINEAR_ACT], op.f[MR_ACT_LIMIT], op.f[MR_ACT_ALPHA]};
  p.scale = op.f[MR_LINEAR_SCALE];
  adapt(p, op, s.logit_rows);
  return p;
}

// Lets the step's adapters change a product.
void Model::adapt(Product& p, const Op& op, bool logit_rows) const {
  if (!adapted_) return;
  const Adapted& adapted = logit_rows ? adapted_rows_ : adapted_tokens_;
  p.op = op.number;
  p.adapted = {adapted.runs.data(), int(adapted.runs.size()), adapted.rows.data(), 0};
}

void Model::run_linear(const Stage& s, Pool& pool, int worker, Shares* shares) {
  const int rows = rows_of(s);
  if (rows == 0) return;
  prepare_linear(s, pool, worker, shares);
  int64_t first = 0;  // share number of the product's first part
  int64_t share = shares[0].take();
  for (const Op& op : s.ops) {
    const Product p = linear_product(s, op);
    const int at_once = panels_at_once(p.w[0]->panels());
    share = run_parts(p, rows, at_once, first, share, shares[0], scratch(worker));
    first += parts(p, rows, at_once);
  }
}

void Model::run_heads(const Stage& s, Pool& pool, int worker, Shares* shares) {
  const Op& op = s.ops[0];
  const int rows = rows_of(s), heads = op.i[MR_HEADS_COUNT];
  if (rows == 0) return;
  prepare_linear(s, pool, worker, shares);
  Product p;
  p.w[0] = op.tensor[0];
  p.heads = true;
  adapt(p, op, s.logit_rows);
  const int at_once = panels_at_once(int64_t(heads) * p.w[0]->panels());
  const int64_t each = parts(p, rows, at_once);
  for (int64_t share = shares[0].take(); share < heads * each; share = shares[0].take()) {
    p.matrix = int(share / each);
    p.x = values_[op.in[0]];
    p.x.data += p.matrix * p.w[0]->cols();
    if (op.rounding[0] >= 0) p.rounded[0] = rounded(s.roundings[op.rounding[0]], p.matrix);
    p.out = values_[op.out[0]];
    p.out.data += p.matrix * p.w[0]->rows();
    run_part(p, rows, at_once, share % each, -1, scratch(worker));
  }
}

// Finds out where a new adapter comes in. In the row that a stage keeps of each
// row of x, what the targets of all its operations make follows each other.
void Model::load_adapter(int id, Adapter adapter) {
  int widest = 0;  // row of x
  for (const Stage& s : program_.stages) {
    size_t low = 0;
    for (const Op& op : s.ops) {
      adapter.uses.resize(std::max(adapter.uses.size(), size_t(kMatrices) * (op.number + 1)));
      if (s.kind != Stage::linear && s.kind != Stage::heads && s.kind != Stage::experts) continue;
      for (int i = 0; i < kMatrices; i++)
        for (const AdapterTarget& t : adapter.targets) {
          if (t.tensor != op.weight[2 * i]) continue;
          adapter.uses[kMatrices * op.number + i] = {&t, low};
          low += size_t(t.low_width()) * (s.kind == Stage::heads ? t.a->matrices() : 1);
          widest = std::max(widest, t.a->cols());
        }
    }
    adapter.low_width = std::max(adapter.low_width, low);
  }
  if (adapter.low_width > low_stride_) {
    low_ = Mapping(adapter.low_width * row_capacity() * most_choices_ * sizeof(float));
    low_stride_ = adapter.low_width;
  }
  if (row_stride(widest) > picked_stride_) {
    picked_stride_ = row_stride(widest);
    picked_ = Mapping(picked_stride_ * kRunRows * threads_ * sizeof(float));
  }
  adapters_[id] = std::move(adapter);
}

int64_t Model::adapter_bytes() const {
  size_t bytes = 0;
  for (const auto& a : adapters_)
    for (const AdapterTarget& t : a.second.targets) bytes += t.bytes();
  return int64_t(bytes);
}

// Puts the rows of each adapter together: they share a pass over its matrices,
// wherever in the batch they are.
void Model::Adapted::sort(const std::vector<const Adapter*>& of) {
  rows.resize(of.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::sort(rows.begin(), rows.end(),
            [&](int a, int b) { return of[a] != of[b] ? std::less<>()(of[a], of[b]) : a < b; });
  runs.clear();
  for (int i = 0; i < int(rows.size()); i++) {
    const Adapter* adapter = of[rows[i]];
    if (adapter == nullptr) continue;
    if (runs.empty() || runs.back().adapter != adapter || i - runs.back().begin == kRunRows)
      runs.push_back({adapter, i, i + 1, 0});
    else
      runs.back().end = i + 1;
  }
}

// The first half of what adapters add, x aᵀ, for all operations of a stage.
void Model::reduce_adapters(const Stage& s, int worker, Shares& shares) {
  const Adapted& adapted = s.logit_rows ? adapted_rows_ : adapted_tokens_;
  const int64_t runs = int64_t(adapted.runs.size());
  int64_t share = shares.take(), first = 0;  // share number of the operation's first
  for (const Op& op : s.ops) {
    const int heads = s.kind == Stage::heads ? op.i[MR_HEADS_COUNT] : 1;
    for (; share < first + heads * runs; share = shares.take()) {
      AdapterRun run = adapted.runs[(share - first) % runs];
      run.matrix = int((share - first) / runs);
      const int* rows = &adapted.rows[run.begin];
      const int n = run.end - run.begin, cols = op.tensor[0]->cols();
      Value x = values_[op.in[0]];
      x.data += size_t(run.matrix) * cols;
      x.data = x.row(rows[0]);
      if (rows[n - 1] - rows[0] != n - 1) {
        const Value together = {picked_.as<float>() + worker * kRunRows * picked_stride_, picked_stride_};
        for (int i = 0; i < n; i++)
          std::memcpy(together.row(i), values_[op.in[0]].row(rows[i]) + size_t(run.matrix) * cols, cols * sizeof(float));
        x = together;
      }
      reduce_run(op, run, 0, 2, x);
    }
    first += heads * runs;
  }
}

// x aᵀ of one run of rows x, for matrices [from, to) of an operation.
void Model::reduce_run(const Op& op, const AdapterRun& run, int from, int to, const Value& x) {
  for (int i = from; i < to; i++) {
    const Adapter::Use& use = run.adapter->of(op.number, i);
    if (use.target == nullptr) continue;
    const Tensor& a = *use.target->a;
    const size_t head = op.kind == MR_OP_LINEAR_HEADS ? size_t(run.matrix) * use.target->low_width() : 0;
    kernels_.matmul[a.element()]({x.data, x.stride, a.panel(0, run.matrix), a.panel_size(),
                                  low_row(run.begin) + use.low + head, low_stride_, run.end - run.begin, a.cols(), a.panels()});
  }
}

// The second half, for panels of one matrix and rows [row, row+rows): out += (x aᵀ) bᵀ.
void Model::add_adapters(const Product& p, int matrix, int panel, int panels, int row, int rows, float* out,
                         size_t stride, float* scratch) const {
  const AdaptedRows& adapted = p.adapted;
  for (const AdapterRun* run = adapted.runs; run != adapted.runs + adapted.count; run++) {
    const Adapter::Use& use = run->adapter->of(p.op, matrix);
    if (use.target == nullptr) continue;
    int begin = std::max(run->begin, adapted.first + row), end = std::min(run->end, adapted.first + row + rows);
    if (adapted.rows != nullptr) {
      const int *from = adapted.rows + run->begin, *to = adapted.rows + run->end;
      begin = int(std::lower_bound(from, to, row) - adapted.rows);
      end = int(std::lower_bound(from, to, row + rows) - adapted.rows);
    }
    if (begin >= end) continue;
    const float* low = low_row(begin) + use.low + (p.heads ? size_t(p.matrix) * use.target->low_width() : 0);
    for (const AdapterTarget::Part& part : use.target->parts) {
      const int from = std::max(panel, part.panel), to = std::min(panel + panels, part.panel + part.b->panels());
      if (from >= to) continue;
      const int wide = (to - from) * kPanel;
      kernels_.matmul[part.b->element()]({low + part.low, low_stride_, part.b->panel(from - part.panel, p.matrix),
                                          part.b->panel_size(), scratch, size_t(wide), end - begin, part.b->cols(), to - from});
      for (int i = begin; i < end; i++) {
        const int r = (adapted.rows != nullptr ? adapted.rows[i] : i - adapted.first) - row;
        float* at = out + r * stride + size_t(from - panel) * kPanel;
        kernels_.add(at, scratch + size_t(i - begin) * wide, 1, at, wide);
      }
    }
  }
}

}  // namespace millrace
