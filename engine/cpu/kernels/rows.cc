// Model's operations that know of one row at a time.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model.h"

namespace millrace {

void Model::run_rows(const Stage& s, int worker, Shares& shares) {
  const int rows = rows_of(s);
  const int chunk = std::clamp(rows / (4 * threads_), 1, 16);
  for (int64_t row = shares.take() * chunk; row < rows; row = shares.take() * chunk)
    for (int r = int(row); r < std::min<int64_t>(rows, row + chunk); r++)
      for (const Op& op : s.ops) run_row(op, r, scratch(worker));
}

void Model::run_row(const Op& op, int row, float* scratch) {
  const auto at = [&](int v) { return values_[v].row(row); };
  switch (op.kind) {
    case MR_OP_EMBED:
      return run_embed(op, row);
    case MR_OP_EMBED_POSITION:
      return op.tensor[0]->row(step_.batch->pos[row] + op.i[MR_EMBED_OFFSET], at(op.out[0]));
    case MR_OP_RMSNORM:
    case MR_OP_LAYERNORM:
      return run_norm(op, row);
    case MR_OP_ROPE: {
      const auto rotate = op.i[MR_ROPE_INTERLEAVED] == 1 ? kernels_.rope_pairs : kernels_.rope;
      float* x = at(op.in[0]) + op.i[MR_ROPE_FIRST];
      for (int h = 0; h < op.i[MR_ROPE_HEADS]; h++, x += op.i[MR_ROPE_HEAD_DIM])
        rotate(x, angles_of(op.angles, row), op.i[MR_ROPE_ROTARY]);
      return;
    }
    case MR_OP_CACHE_WRITE:
      return write_cache(op, row, scratch);
    case MR_OP_ACTIVATE:
      return run_activation(op, row);
    case MR_OP_ROUTE:
      return run_route(op, row, scratch);
    case MR_OP_SCALE:
      return run_scale(op, row);
    case MR_OP_SPARSIFY:
      return kernels_.sparsify(at(op.in[0]), op.f[MR_SPARSIFY_DEVIATIONS], at(op.out[0]), program_.width(op.out[0]));
    case MR_OP_JOIN:
      return run_join(op, row);
    case MR_OP_EMBEDDING_BAG:
      return run_embedding_bag(op, row, scratch);
    default:  // MR_OP_ADD
      kernels_.add(at(op.in[0]), at(op.in[1]), op.f[MR_ADD_SCALE], at(op.out[0]), program_.width(op.out[0]));
  }
}

void Model::run_embed(const Op& op, int row) {
  float* out = values_[op.out[0]].row(row);
  const int width = program_.width(op.out[0]);
  int token = step_.tokens[row];
  if (op.i[MR_EMBED_BESIDE] == 1) {
    if (token < 0 || token >= op.tensor[0]->rows()) token = 0;
  } else if (token < 0) {  // device.EmbedRow
    const float* row_of = step_.batch->embeds + size_t(-1 - token) * program_.embeds_width;
    std::memcpy(out, row_of + op.i[MR_EMBED_FIRST], width * sizeof(float));
    return;
  } else if (op.tensor[0] == nullptr) {
    std::memset(out, 0, width * sizeof(float));
    return;
  }
  op.tensor[0]->row(token, out);
  if (op.f[MR_EMBED_SCALE] != 1) kernels_.scale(out, op.f[MR_EMBED_SCALE], out, width);
}

void Model::run_norm(const Op& op, int row) {
  const bool rms = op.kind == MR_OP_RMSNORM;
  const int group = op.i[MR_NORM_GROUP], width = program_.width(op.in[0]);
  NormArgs a{};
  a.gate_kind = rms ? op.i[MR_NORM_GATE] : MR_GATE_NONE;
  a.n = group;
  a.eps = op.f[MR_NORM_EPS];
  a.shift = op.f[MR_NORM_SHIFT];
  // A weight is as wide as a group or as the row.
  const auto part = [&](int w, int g) {
    return op.tensor[w] == nullptr ? nullptr : op.vector(w) + g % op.tensor[w]->cols();
  };
  for (int g = 0; g < width; g += group) {
    a.x = values_[op.in[0]].row(row) + g;
    a.out = values_[op.out[0]].row(row) + g;
    a.weight = part(0, g);
    if (!rms) a.bias = part(1, g);
    if (a.gate_kind != MR_GATE_NONE) a.gate = values_[op.in[1]].row(row) + g;
    (rms ? kernels_.rmsnorm : kernels_.layernorm)(a);
  }
}

void Model::run_activation(const Op& op, int row) {
  Activation act = {op.i[MR_ACT_KIND], op.f[MR_ACT_LIMIT], op.f[MR_ACT_ALPHA]};
  if (act.kind == MR_ACT_XIELU) {
    act.positive = float(softplus(*op.vector(0)));
    act.negative = act.alpha + float(softplus(*op.vector(1)));
  } else if (op.tensor[0] != nullptr) {  // MR_ACT_CLIP
    act.negative = *op.vector(0);
    act.positive = *op.vector(1);
  }
  const float* x = values_[op.in[0]].row(row);
  const float* y = op.in[1] < 0 ? nullptr : values_[op.in[1]].row(row);
  float* out = values_[op.out[0]].row(row);
  const int width = program_.width(op.out[0]);
  if (program_.width(op.in[0]) == width) {
    kernels_.activate(act, x, y, out, width);
    return;
  }
  constexpr int kAtOnce = 256;
  float same[kAtOnce];  // one column for all of y's
  std::fill_n(same, kAtOnce, *x);
  for (int i = 0; i < width; i += kAtOnce) kernels_.activate(act, same, y + i, out + i, std::min(kAtOnce, width - i));
}

void Model::run_scale(const Op& op, int row) {
  const Value &x = values_[op.in[0]], &to = values_[op.out[0]];
  const int width = program_.width(op.out[0]), length = op.i[MR_SCALE_LENGTH];
  double factor = op.f[MR_SCALE_FACTOR];
  if (length > 0)
    factor *= 1 + op.f[MR_SCALE_LOG] * std::log1p(double((step_.batch->pos[row] + op.i[MR_SCALE_OFFSET]) / length));
  const float* weight = op.vector(0);
  if (weight != nullptr && op.tensor[0]->cols() == 1) factor *= *weight;
  kernels_.scale(x.row(row), float(factor), to.row(row), width);
  if (weight != nullptr && op.tensor[0]->cols() > 1)
    kernels_.activate({MR_ACT_NONE, 0, 0}, to.row(row), weight, to.row(row), width);
}

void Model::run_join(const Op& op, int row) {
  float* out = values_[op.out[0]].row(row);
  for (const int v : op.in) {
    if (v < 0) break;
    const int width = program_.width(v);
    std::memcpy(out, values_[v].row(row), width * sizeof(float));
    out += width;
  }
}

void Model::run_embedding_bag(const Op& op, int row, float* scratch) {
  const float *numbers = values_[op.in[0]].row(row), *weights = values_[op.in[1]].row(row);
  float* out = values_[op.out[0]].row(row);
  const int width = program_.width(op.out[0]), last = op.tensor[0]->rows() - 1;
  for (int k = 0; k < program_.width(op.in[0]); k++) {
    const float number = numbers[k] > 0 ? numbers[k] : 0;  // NaN is 0
    op.tensor[0]->row(number < float(last) ? int(number) : last, scratch);
    if (k == 0)
      kernels_.scale(scratch, weights[k], out, width);
    else
      kernels_.add(out, scratch, weights[k], out, width);
  }
}

void Model::compute_angles(Shares& shares) {
  if (program_.angles.empty()) return;
  for (int64_t t = shares.take(); t < step_.batch->n_tokens; t = shares.take())
    for (size_t set = 0; set < program_.angles.size(); set++)
      token_angles(program_.angles[set], int(t), angles_of(int(set), int(t)));
}

void Model::token_angles(const Angles& a, int t, float* out) const {
  const mr_batch& b = *step_.batch;
  const int half = a.rotary / 2, length = std::max(seq_of(t).rope_len, b.pos[t] + 1);
  const bool beyond = a.original > 0 && length > a.original, dynamic = beyond && a.longer.empty();
  const std::vector<float>& table = beyond && !dynamic ? a.longer : a.frequencies;
  double base = 0;
  if (dynamic)
    base = a.theta * std::pow(double(a.factor) * length / a.original - (double(a.factor) - 1),
                              double(a.rotary) / (a.rotary - 2));
  for (int i = 0; i < half; i++) {
    const float frequency = dynamic ? float(std::pow(base, -2.0 * i / a.rotary)) : table[i];
    int pos = b.pos[t];
    if (!a.axes.empty() && b.n_axes > 0) pos = b.axes[int(a.axes[i]) * b.n_tokens + t];
    // Models were trained with the angle rounded to float.
    const double angle = float(pos) * frequency;
    const float cosine = float(std::cos(angle) * a.scale), sine = float(std::sin(angle) * a.scale);
    if (a.pairs) {
      out[2 * i] = out[2 * i + 1] = cosine;
      out[a.rotary + 2 * i] = -sine;
      out[a.rotary + 2 * i + 1] = sine;
    } else {
      out[i] = cosine;
      out[half + i] = sine;
    }
  }
}

namespace {

// The k greatest of n values in order, the lower index first among equals.
void best(const float* values, int n, int k, int* chosen) {
  int size = 0;
  for (int i = 0; i < n; i++) {
    if (size == k && !(values[i] > values[chosen[k - 1]])) continue;
    if (size < k) size++;
    int at = size - 1;
    for (; at > 0 && values[i] > values[chosen[at - 1]]; at--) chosen[at] = chosen[at - 1];
    chosen[at] = i;
  }
}

}  // namespace

// Scores, what is compared, sums of groups, the chosen and the groups kept.
size_t Model::route_floats(const Op& op) const { return size_t(5) * program_.width(op.in[0]); }

void Model::run_route(const Op& op, int row, float* scratch) {
  const float* logits = values_[op.in[0]].row(row);
  const int n = program_.width(op.in[0]), k = op.i[MR_ROUTE_TOP_K], score = op.i[MR_ROUTE_SCORE];
  float *scores = scratch, *compared = scores + n, *sums = compared + n;
  int* chosen = reinterpret_cast<int*>(sums + n);
  int* kept = chosen + n;
  const auto softmax = [&](float* x, int n) {
    kernels_.exp_shift(x, kernels_.highest(x, n), x, n);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    kernels_.scale(x, float(1 / sum), x, n);
  };

  std::memcpy(scores, logits, n * sizeof(float));
  if (score == MR_SCORE_SOFTMAX) softmax(scores, n);
  if (score == MR_SCORE_SIGMOID) kernels_.activate({MR_ACT_SIGMOID, 0, 0}, scores, nullptr, scores, n);
  std::memcpy(compared, scores, n * sizeof(float));
  if (op.tensor[0] != nullptr) kernels_.add(compared, op.vector(0), 1, compared, n);

  const int groups = op.i[MR_ROUTE_GROUPS], keep = op.i[MR_ROUTE_TOP_GROUPS];
  if (groups > 1) {
    const int size = n / groups, judges = op.i[MR_ROUTE_GROUP_BEST] == 1 ? 1 : std::min(2, size);
    for (int g = 0; g < groups; g++) {
      best(compared + g * size, size, judges, chosen);
      sums[g] = 0;
      for (int i = 0; i < judges; i++) sums[g] += compared[g * size + chosen[i]];
    }
    best(sums, groups, keep, kept);
    for (int g = 0; g < groups; g++)
      if (std::find(kept, kept + keep, g) == kept + keep) std::fill_n(compared + g * size, size, -INFINITY);
  }

  best(compared, n, k, chosen);
  float *numbers = values_[op.out[0]].row(row), *weights = values_[op.out[1]].row(row);
  for (int i = 0; i < k; i++) {
    numbers[i] = float(chosen[i]);
    weights[i] = scores[chosen[i]];
  }
  if (score == MR_SCORE_SOFTMAX_CHOSEN) softmax(weights, k);
  if (score == MR_SCORE_SPARSE_MIXER) {
    float* left = compared;  // logits of the experts not chosen before
    std::memcpy(left, logits, n * sizeof(float));
    for (int i = 0; i < k; i++) {
      const double peak = logits[chosen[i]];
      double sum = 0;
      for (int e = 0; e < n; e++) {
        const double l = logits[e];
        const bool far = (peak - l) / std::max(std::fabs(l), peak) > 2 * double(op.f[MR_ROUTE_JITTER]);
        if (!far) sum += std::exp(left[e] - peak);
      }
      weights[i] = float(1 / sum);
      left[chosen[i]] = -INFINITY;
    }
  }
  double scale = op.f[MR_ROUTE_SCALE];
  if (op.i[MR_ROUTE_NORMALIZE] == 1) {
    double sum = op.f[MR_ROUTE_EPS];
    for (int i = 0; i < k; i++) sum += weights[i];
    scale /= sum;
  }
  const float* factors = op.vector(1);
  for (int i = 0; i < k; i++) {
    weights[i] = float(weights[i] * scale);
    if (factors != nullptr) weights[i] *= factors[chosen[i]];
  }
}

}  // namespace millrace
