// Model's matrix products: linear layers with what follows them, adapters.
#include <algorithm>
#include <cstring>

#include "error.h"
#include "model.h"

namespace millrace {
namespace {

constexpr int kPartRows = 128;  // rows of x that stay in the second-level cache

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

void Model::run_part(const Product& p, int rows, int at_once, int64_t part, float* scratch) {
  // Row blocks of the same panels follow each other: the weights are still near.
  const int blocks = row_blocks(rows), block = int(part % blocks), panel = int(part / blocks) * at_once;
  const int row = int64_t(rows) * block / blocks, next = int64_t(rows) * (block + 1) / blocks;
  run_product(p, panel, std::min(at_once, p.w[0]->panels() - panel), row, next - row, scratch);
}

void Model::run_product(const Product& p, int panel, int panels, int row, int rows, float* scratch) {
  const int column = panel * kPanel, columns = std::min(panels * kPanel, p.w[0]->rows() - column);
  const bool plain = p.act.kind == MR_ACT_NONE && p.w[1] == nullptr && p.residual.data == nullptr;
  // A result that nothing follows goes where it belongs at once, if its panels end there.
  const bool direct = plain && columns == panels * kPanel;
  const size_t stride = direct ? p.out.stride : size_t(panels) * kPanel;
  float* part[2] = {direct ? p.out.row(row) + column : scratch, scratch + kPartFloats};
  for (int i = 0; i < 2 && p.w[i] != nullptr; i++) {
    const Tensor& w = *p.w[i];
    kernels_.matmul[w.element()]({p.x.row(row), p.x.stride, w.panel(panel, p.matrix), w.panel_size(), part[i], stride,
                                  rows, w.cols(), panels});
    if (adapted_ && p.op >= 0)
      add_adapters(p, i, column, columns, row, rows, part[i], stride, scratch + 2 * kPartFloats);
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

Model::Product Model::linear_product(const Op& op, bool logit_rows) const {
  Product p;
  p.x = values_[op.in[0]];
  p.out = values_[op.out[0]];
  if (op.in[1] >= 0) p.residual = values_[op.in[1]];
  for (int i = 0; i < 2; i++) {
    p.w[i] = op.tensor[2 * i];
    p.bias[i] = op.vector(2 * i + 1);
  }
  p.act = {op.i[MR_LINEAR_ACT], op.f[MR_ACT_LIMIT], op.f[MR_ACT_ALPHA]};
  p.scale = op.f[MR_LINEAR_SCALE];
  p.op = op.number;
  p.logit_rows = logit_rows;
  return p;
}

void Model::run_linear(const Stage& s, Pool& pool, int worker, Shares* shares) {
  const int rows = rows_of(s);
  if (rows == 0) return;
  if (adapted_) {
    reduce_adapters(s, shares[1]);
    pool.barrier();
  }
  int64_t first = 0;  // share number of the product's first part
  int64_t share = shares[0].take();
  for (const Op& op : s.ops) {
    const Product p = linear_product(op, s.logit_rows);
    const int at_once = panels_at_once(p.w[0]->panels());
    const int64_t count = parts(p, rows, at_once);
    for (; share < first + count; share = shares[0].take()) run_part(p, rows, at_once, share - first, scratch(worker));
    first += count;
  }
}

void Model::run_heads(const Stage& s, int worker, Shares& shares) {
  const Op& op = s.ops[0];
  const int rows = rows_of(s), heads = op.i[MR_HEADS_COUNT];
  if (rows == 0) return;
  Product p;
  p.w[0] = op.tensor[0];
  const int at_once = panels_at_once(int64_t(heads) * p.w[0]->panels());
  const int64_t each = parts(p, rows, at_once);
  for (int64_t share = shares.take(); share < heads * each; share = shares.take()) {
    p.matrix = int(share / each);
    p.x = values_[op.in[0]];
    p.x.data += p.matrix * p.w[0]->cols();
    p.out = values_[op.out[0]];
    p.out.data += p.matrix * p.w[0]->rows();
    run_part(p, rows, at_once, share % each, scratch(worker));
  }
}

// Finds out where a new adapter comes in. In the row that a stage keeps of each
// token, targets of all its layers follow each other.
void Model::load_adapter(int id, Adapter adapter) {
  for (const Stage& s : program_.stages) {
    size_t low = 0;
    for (const Op& op : s.ops)
      for (int i = 0; i < 2; i++) {
        adapter.uses.resize(std::max(adapter.uses.size(), size_t(2) * op.number + 2));
        if (s.kind != Stage::linear || op.weight[2 * i] < 0) continue;
        for (const AdapterTarget& t : adapter.targets) {
          if (t.tensor != op.weight[2 * i]) continue;
          adapter.uses[2 * op.number + i].push_back({&t, low});
          low += size_t(t.a->panels()) * kPanel;
        }
      }
    adapter.low_width = std::max(adapter.low_width, low);
  }
  if (adapter.low_width > low_stride_) {
    low_ = Mapping(adapter.low_width * row_capacity() * sizeof(float));
    low_stride_ = adapter.low_width;
  }
  adapters_[id] = std::move(adapter);
}

int64_t Model::adapter_bytes() const {
  size_t bytes = 0;
  for (const auto& a : adapters_)
    for (const AdapterTarget& t : a.second.targets) bytes += t.a->bytes() + t.b->bytes();
  return int64_t(bytes);
}

// Calls fn(adapter, row, rows) for each run of rows that have one adapter.
template <class Fn>
void Model::each_adapter(bool logit_rows, int row, int rows, Fn fn) const {
  const std::vector<const Adapter*>& of = logit_rows ? row_adapters_ : token_adapters_;
  for (int r = row, next; r < row + rows; r = next) {
    for (next = r + 1; next < row + rows && of[next] == of[r];) next++;
    if (of[r] != nullptr) fn(*of[r], r, next - r);
  }
}

// The first half of what adapters add, x aᵀ, for all linear layers of a stage.
void Model::reduce_adapters(const Stage& s, Shares& shares) {
  const int rows = rows_of(s), blocks = row_blocks(rows);
  const int64_t count = int64_t(s.ops.size()) * 2 * blocks;
  for (int64_t share = shares.take(); share < count; share = shares.take()) {
    const Op& op = s.ops[share / (2 * blocks)];
    const int matrix = int(share / blocks % 2), block = int(share % blocks);
    const int row = int64_t(rows) * block / blocks, next = int64_t(rows) * (block + 1) / blocks;
    const Value& x = values_[op.in[0]];
    each_adapter(s.logit_rows, row, next - row, [&](const Adapter& adapter, int r, int n) {
      for (const Adapter::Use& use : adapter.of(op.number, matrix)) {
        const Tensor& a = *use.target->a;
        kernels_.matmul[kF32]({x.row(r), x.stride, a.panel(0), a.panel_size(),
                               low_.as<float>() + r * low_stride_ + use.low, low_stride_, n, a.cols(), a.panels()});
      }
    });
  }
}

// The second half, for columns of one matrix: out += (x aᵀ) bᵀ.
void Model::add_adapters(const Product& p, int matrix, int column, int columns, int row, int rows, float* out,
                         size_t stride, float* scratch) const {
  each_adapter(p.logit_rows, row, rows, [&](const Adapter& adapter, int r, int n) {
    for (const Adapter::Use& use : adapter.of(p.op, matrix)) {
      const Tensor& b = *use.target->b;
      const int first = use.target->first;  // column of the matrix that b begins at
      const int from = std::max(column, first), to = std::min(column + columns, first + b.rows());
      if (from >= to) continue;
      const int panel = (from - first) / kPanel, panels = (to - first + kPanel - 1) / kPanel - panel;
      const size_t wide = size_t(panels) * kPanel;
      kernels_.matmul[kF32]({low_.as<float>() + r * low_stride_ + use.low, low_stride_, b.panel(panel), b.panel_size(),
                             scratch, wide, n, b.cols(), panels});
      for (int i = 0; i < n; i++) {
        float* at = out + (r - row + i) * stride + (from - column);
        kernels_.add(at, scratch + i * wide + (from - first - panel * kPanel), 1, at, to - from);
      }
    }
  });
}

}  // namespace millrace
