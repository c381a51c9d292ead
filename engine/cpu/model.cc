#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace millrace {
namespace {

constexpr int kBlockRows = 48;     // query rows that share a pass over the cache
constexpr int kProductRows = 128;  // rows of x that stay in the second-level cache
constexpr int kProductPanels = 4;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Rows whose distance is a multiple of 4 KB would fall into the same few sets
// of the cache.
size_t row_stride(int width) {
  const size_t stride = round_up(width, kPanel);
  return stride % 1024 == 0 ? stride + kPanel : stride;
}

// Panels of a product that are one share of work: a tile's fill, or less where
// that would leave workers idle.
int panels_at_once(const Tensor& w, int threads) {
  int n = kProductPanels;
  while (n > 1 && w.panels() < 2 * n * threads) n /= 2;
  return n;
}

int row_blocks(int rows) { return (rows + kProductRows - 1) / kProductRows; }

}  // namespace

Model::Model(Program program, const mr_limits& limits, const Kernels& kernels, int threads)
    : program_(std::move(program)), kernels_(kernels), threads_(threads), max_tokens_(limits.max_tokens) {
  size_t floats = 0;
  std::vector<size_t> at;
  for (size_t v = 0; v < program_.widths.size(); v++) {
    const int rows = std::max(program_.by_token[v] ? limits.max_tokens : 0,
                              program_.by_logit_row[v] ? limits.max_rows : 0);
    at.push_back(floats);
    values_.push_back({nullptr, row_stride(program_.widths[v])});
    floats += rows * values_[v].stride;
  }
  activations_ = Mapping(floats * sizeof(float));
  for (size_t v = 0; v < values_.size(); v++) values_[v].data = activations_.as<float>() + at[v];

  floats = 0;
  for (const Angles& a : program_.angles) {
    angles_at_.push_back(floats);
    floats += round_up(2 * a.frequencies.size() * limits.max_tokens, kPanel);
  }
  angles_ = Mapping(floats * sizeof(float));

  logits_stride_ = row_stride(program_.vocab);
  logits_ = Mapping(std::min(limits.max_rows, kLogitRows) * logits_stride_ * sizeof(float));

  block_rows_ = std::max(kBlockRows, program_.group);
  product_floats_ = size_t(2) * kProductRows * kProductPanels * kPanel;
  scratch_stride_ = round_up(std::max(product_floats_, attend_scratch(block_rows_, padded_dim()) +
                                                           2 * state_floats(block_rows_, padded_dim())),
                             1024);
  scratch_ = Mapping(threads * scratch_stride_ * sizeof(float));
  const int max_splits = (limits.max_pages_per_slot * kPageTokens + kSplit - 1) / kSplit;
  states_ = Mapping(threads * max_splits * state_floats(block_rows_, padded_dim()) * sizeof(float));

  seq_of_.reserve(limits.max_tokens);
  blocks_.reserve(limits.max_tokens);
  shares_.reset(new Shares[2 * program_.stages.size() + 1]);
}

void Model::reserve(int pages) {
  cache_ = Mapping(size_t(pages) * page_bytes());
  pages_ = pages;
}

int64_t Model::workspace_bytes() const {
  return activations_.bytes() + angles_.bytes() + logits_.bytes() + scratch_.bytes() + states_.bytes();
}

void Model::forward(Pool& pool, const Step& step) {
  step_ = step;
  cut_blocks();
  for (size_t i = 0; i < 2 * program_.stages.size() + 1; i++) shares_[i].reset();
  pool.run([&](int worker) {
    compute_angles(shares_[2 * program_.stages.size()]);
    pool.barrier();
    for (size_t i = 0; i < program_.stages.size(); i++) {
      const Stage& s = program_.stages[i];
      switch (s.kind) {
        case Stage::rows:
          run_rows(s, shares_[2 * i]);
          break;
        case Stage::products:
          run_products(s, worker, shares_[2 * i]);
          break;
        case Stage::attention:
          run_attention(s.ops[0], pool, worker, shares_[2 * i], shares_[2 * i + 1]);
          break;
        case Stage::pick:
          run_pick(s.ops[0], shares_[2 * i]);
          break;
      }
      pool.barrier();
    }
  });
}

// Cuts each sequence's tokens into blocks that attend together.
void Model::cut_blocks() {
  const int most = block_rows_ / program_.group;
  seq_of_.resize(step_.n_tokens);
  blocks_.clear();
  int longest = 0;
  for (int s = 0; s < step_.n_seqs; s++) {
    const mr_seq& seq = step_.seqs[s];
    for (int t = 0; t < seq.count; t++) seq_of_[seq.start + t] = s;
    for (int t = 0; t < seq.count; t += most)
      blocks_.push_back({s, seq.start + t, std::min(most, seq.count - t)});
    if (seq.count > 0) longest = std::max(longest, seq.kv_len);
  }
  // Too few sequences for all workers: they share the positions as well.
  const bool few = static_cast<int>(blocks_.size()) * program_.kv_heads < threads_;
  splits_ = few && longest > kSplit ? (longest + kSplit - 1) / kSplit : 0;
}

void Model::compute_angles(Shares& shares) {
  if (program_.angles.empty()) return;
  for (int64_t t = shares.take(); t < step_.n_tokens; t = shares.take())
    for (size_t set = 0; set < program_.angles.size(); set++) {
      const Angles& a = program_.angles[set];
      const size_t half = a.frequencies.size();
      float* out = angles_of(int(set), int(t));
      for (size_t i = 0; i < half; i++) {
        // Models were trained with the angle rounded to float.
        const double angle = float(step_.pos[t]) * a.frequencies[i];
        out[i] = float(std::cos(angle) * a.factor);
        out[half + i] = float(std::sin(angle) * a.factor);
      }
    }
}

void Model::run_rows(const Stage& s, Shares& shares) {
  const int rows = rows_of(s);
  const int chunk = std::clamp(rows / (4 * threads_), 1, 16);
  for (int64_t row = shares.take() * chunk; row < rows; row = shares.take() * chunk)
    for (int r = int(row); r < std::min<int64_t>(rows, row + chunk); r++)
      for (size_t i = 0; i < s.ops.size(); i++) run_row(s.ops[i], s.weights[i], r);
}

void Model::run_row(const mr_op& op, const Tensor* weight, int row) {
  const auto at = [&](int v) { return values_[v].row(row); };
  const int width = op.in < 0 ? program_.widths[op.out] : program_.widths[op.in];
  switch (op.kind) {
    case kEmbed:
      weight->row(step_.tokens[row], at(op.out));
      if (op.f0 != 1) kernels_.scale(at(op.out), op.f0, at(op.out), width);
      break;
    case kRMSNorm:
      for (int g = 0; g < width; g += op.group)
        kernels_.rmsnorm(at(op.in) + g, weight->vector(), at(op.out) + g, op.group, op.f0, op.f1);
      break;
    case kRope:
      for (int h = 0; h < op.heads; h++)
        kernels_.rope(at(op.in) + h * op.head_dim, angles_of(op.table, row), op.rotary);
      break;
    case kKVWrite:
      write_cache(op, row);
      break;
    case kSiluMul:
      kernels_.silu_mul(at(op.in), at(op.in2), at(op.out), width);
      break;
    case kGeluMul:
      kernels_.gelu_mul(at(op.in), at(op.in2), at(op.out), width);
      break;
    default:
      kernels_.add(at(op.in), at(op.in2), at(op.out), width);
  }
}

void Model::run_pick(const mr_op& op, Shares& shares) {
  for (int64_t r = shares.take(); r < step_.n_rows; r = shares.take())
    std::memcpy(values_[op.out].row(int(r)), values_[op.in].row(step_.rows[r].token),
                program_.widths[op.in] * sizeof(float));
}

void Model::run_products(const Stage& s, int worker, Shares& shares) {
  const int rows = rows_of(s), blocks = row_blocks(rows);
  if (rows == 0) return;
  float* scratch = scratch_.as<float>() + worker * scratch_stride_;
  int64_t first = 0;  // share number of the product's first share
  int64_t share = shares.take();
  for (const Product& p : s.linear) {
    const int panels = p.weight[0]->panels(), at_once = panels_at_once(*p.weight[0], threads_);
    const int64_t count = int64_t((panels + at_once - 1) / at_once) * blocks;
    for (; share < first + count; share = shares.take()) {
      // Row blocks of the same panels follow each other: the weights are still near.
      const int panel = int((share - first) / blocks) * at_once, block = int((share - first) % blocks);
      const int row = int64_t(rows) * block / blocks, next = int64_t(rows) * (block + 1) / blocks;
      run_product(p, panel, std::min(at_once, panels - panel), row, next - row, scratch);
    }
    first += count;
  }
}

void Model::run_product(const Product& p, int panel, int panels, int row, int rows, float* scratch) {
  const Value& x = values_[p.in];
  const int stride = panels * kPanel, column = panel * kPanel;
  const int columns = std::min(stride, p.weight[0]->rows() - column);
  float* part[2] = {scratch, scratch + product_floats_ / 2};
  for (int i = 0; i < p.matrices(); i++) {
    const Tensor& w = *p.weight[i];
    kernels_.matmul[w.element()](
        {x.row(row), x.stride, w.panel(panel), w.panel_size(), part[i], size_t(stride), rows, w.cols(), panels});
    if (p.bias[i] == nullptr) continue;
    for (int r = 0; r < rows; r++)
      kernels_.add(part[i] + r * stride, p.bias[i] + column, part[i] + r * stride, columns);
  }
  for (int r = 0; r < rows; r++) {
    float* out = values_[p.target].row(row + r) + column;
    const float *a = part[0] + r * stride, *b = part[1] + r * stride;
    switch (p.epilogue) {
      case Epilogue::none:
        std::memcpy(out, a, columns * sizeof(float));
        break;
      case Epilogue::add:
        kernels_.add(values_[p.residual].row(row + r) + column, a, out, columns);
        break;
      case Epilogue::silu_mul:
        kernels_.silu_mul(a, b, out, columns);
        break;
      case Epilogue::gelu_mul:
        kernels_.gelu_mul(a, b, out, columns);
        break;
    }
  }
}

void Model::logits(Pool& pool, int first, int n) {
  const Tensor& w = *program_.head;
  const Value& x = values_[program_.logits.in];
  const int at_once = panels_at_once(w, threads_);
  Shares& shares = shares_[0];
  shares.reset();
  pool.run([&](int) {
    for (int64_t p = shares.take() * at_once; p < w.panels(); p = shares.take() * at_once)
      kernels_.matmul[w.element()]({x.row(first), x.stride, w.panel(int(p)), w.panel_size(), logits_row(0) + p * kPanel,
                                    logits_stride_, n, w.cols(), std::min(at_once, w.panels() - int(p))});
  });
}

}  // namespace millrace
