// Model's recurrent layers: what is prepared for each token, and how their work
// is shared.
#include <algorithm>
#include <cmath>

#include "model.h"

namespace millrace {
namespace {

// What recurrences share is in the same places.
static_assert(int(MR_DELTA_CACHE) == int(MR_SSM_CACHE) && int(MR_DELTA_CACHE) == int(MR_SCAN_CACHE) &&
                  int(MR_DELTA_KEY_HEADS) == int(MR_SSM_GROUPS),
              "");

}  // namespace

void Model::run_conv(const Op& op, Shares& shares) {
  constexpr int kColumns = 256;  // of one share
  const mr_batch& b = *step_.batch;
  const Cache& c = program_.caches[op.i[MR_CONV_CACHE]];
  const int width = program_.width(op.in[0]), past = c.key_width;  // tokens the state holds
  const Value &x = values_[op.in[0]], &out = values_[op.out[0]];
  const int cuts = (width + kColumns - 1) / kColumns;
  const bool silu = op.i[MR_CONV_ACT] == MR_ACT_SILU;
  const float* taps[kMostTaps];
  for (int64_t share = shares.take(); share < int64_t(b.n_seqs) * cuts; share = shares.take()) {
    const mr_seq& seq = b.seqs[share / cuts];
    const int column = int(share % cuts) * kColumns, columns = std::min(kColumns, width - column);
    float* last = state(c, seq) + column;
    // Input i of the step; those before it are in the state.
    const auto input = [&](int i) {
      return i < 0 ? last + size_t(past + i) * width : x.row(seq.start + i) + column;
    };
    const float* bias = op.vector(1);
    for (int t = 0; t < seq.count; t++) {
      for (int j = 0; j <= past; j++) taps[j] = input(t - past + j);
      kernels_.conv(taps, past + 1, op.dense[0].data() + column, width, bias == nullptr ? nullptr : bias + column, silu,
                    out.row(seq.start + t) + column, columns);
    }
    for (int j = 0; j < past; j++) {
      const float* from = input(seq.count - past + j);
      std::copy(from, from + columns, last + size_t(j) * width);
    }
  }
}

// What a token's recurrence needs, in its row of gates_: the factor of each head
// and its decay, or those of its channels; of the delta rule also its unit queries and
// keys.
size_t Model::gate_floats(const Op& op) const {
  const Cache& c = program_.caches[op.i[MR_DELTA_CACHE]];
  if (op.kind != MR_OP_GATED_DELTA) return size_t(2) * c.heads;
  return c.heads + size_t(c.heads) * decays_of(op) + size_t(2) * op.i[MR_DELTA_KEY_HEADS] * c.key_width;
}

// Decays of one head.
int Model::decays_of(const Op& op) const {
  const bool channels = op.kind == MR_OP_GATED_DELTA && op.i[MR_DELTA_CHANNELS] == 1;
  return channels ? program_.caches[op.i[MR_DELTA_CACHE]].key_width : 1;
}

void Model::prepare_delta(const Op& op, int token) {
  const Cache& c = program_.caches[op.i[MR_DELTA_CACHE]];
  const float *a = values_[op.in[3]].row(token), *b = values_[op.in[4]].row(token);
  const bool channels = op.i[MR_DELTA_CHANNELS] == 1;
  const int each = decays_of(op);
  float *factor = gates_.as<float>() + token * gate_stride_, *decay = factor + c.heads;
  for (int h = 0; h < c.heads; h++) {
    const double rate = -std::exp(double(op.vector(0)[h]));
    if (channels)
      kernels_.decays(a + h * each, op.vector(1) + h * each, float(rate), decay + h * each, each);
    else
      decay[h] = float(std::exp(rate * softplus(double(a[h]) + op.vector(1)[h])));
    factor[h] = float((1 + op.i[MR_DELTA_NEGATIVE]) / (1 + std::exp(-double(b[h]))));
  }
  const int heads = op.i[MR_DELTA_KEY_HEADS], width = c.key_width;
  const float eps = op.f[MR_DELTA_EPS];
  float* to = decay + c.heads * each;
  for (const int i : {0, 1})
    for (int h = 0; h < heads; h++, to += width) {
      const float* from = values_[op.in[i]].row(token) + h * width;
      const float scale = i == 0 ? op.f[MR_DELTA_SCALE] : 1;
      if (eps > 0)
        kernels_.unit(from, eps, scale, to, width);
      else
        kernels_.scale(from, scale, to, width);
    }
}

void Model::prepare_ssm(const Op& op, int token) {
  const Cache& c = program_.caches[op.i[MR_SSM_CACHE]];
  const float* dt = values_[op.in[3]].row(token);
  float *factor = gates_.as<float>() + token * gate_stride_, *decay = factor + c.heads;
  for (int h = 0; h < c.heads; h++) {
    const double d = std::min(std::max(softplus(double(dt[h]) + op.vector(1)[h]), double(op.f[MR_SSM_MIN])),
                              double(op.f[MR_SSM_MAX]));
    decay[h] = float(std::exp(-std::exp(double(op.vector(0)[h])) * d));
    factor[h] = float(d);
  }
}

void Model::run_scan(const Op& op, Pool& pool, Shares* shares) {
  const mr_batch& b = *step_.batch;
  const bool delta = op.kind == MR_OP_GATED_DELTA, selective = op.kind == MR_OP_SELECTIVE_SCAN;
  if (!selective) {
    for (int64_t t = shares[0].take(); t < b.n_tokens; t = shares[0].take())
      delta ? prepare_delta(op, int(t)) : prepare_ssm(op, int(t));
    pool.barrier();
  }

  const Cache& c = program_.caches[op.i[MR_DELTA_CACHE]];
  const int key_heads = selective ? 1 : op.i[MR_DELTA_KEY_HEADS], each = decays_of(op);
  const int64_t blocks = c.blocks(), items = int64_t(b.n_seqs) * c.heads * blocks;
  const int64_t chunk = std::clamp<int64_t>(items / (8 * threads_), 1, 8);
  const auto run = [&](int64_t item) {
    const mr_seq& seq = b.seqs[item / (c.heads * blocks)];
    const int head = int(item / blocks % c.heads), block = int(item % blocks), key_head = head * key_heads / c.heads;
    const float* gates = gates_.as<float>() + seq.start * gate_stride_;
    ScanArgs a{};
    a.state = state(c, seq) + (head * blocks + block) * c.block_floats();
    a.key_dim = c.key_width;
    a.columns = std::min(kPanel, c.value_width - block * kPanel);
    a.tokens = seq.count;
    const Value& v = values_[op.in[delta ? 2 : 0]];
    a.v = v.row(seq.start) + head * c.value_width + block * kPanel;
    a.v_stride = v.stride;
    const Value& out = values_[op.out[0]];
    a.out = out.row(seq.start) + head * c.value_width + block * kPanel;
    a.out_stride = out.stride;
    a.factor = gates + head;
    a.decay = gates + c.heads + head * each;
    a.gate_stride = gate_stride_;
    if (delta) {
      a.q = gates + c.heads + c.heads * each + key_head * c.key_width;
      a.k = a.q + key_heads * c.key_width;
      a.q_stride = a.k_stride = gate_stride_;
      (each > 1 ? kernels_.kimi_delta : kernels_.gated_delta)(a);
      return;
    }
    const Value &from = values_[op.in[selective ? 2 : 1]], &read = values_[op.in[selective ? 3 : 2]];
    a.k = from.row(seq.start) + key_head * c.key_width;
    a.k_stride = from.stride;
    a.q = read.row(seq.start) + key_head * c.key_width;
    a.q_stride = read.stride;
    if (selective) {
      const Value& step = values_[op.in[1]];
      a.factor = step.row(seq.start) + block * kPanel;
      a.gate_stride = step.stride;
      a.rates = op.dense[0].data() + block * c.block_floats();
      a.skips = op.vector(1) + block * kPanel;
      kernels_.selective(a);
    } else {
      a.skip = op.vector(2)[head];
      kernels_.ssm(a);
    }
  };
  for (int64_t i = shares[1].take() * chunk; i < items; i = shares[1].take() * chunk)
    for (int64_t item = i; item < std::min(items, i + chunk); item++) run(item);
}

}  // namespace millrace
