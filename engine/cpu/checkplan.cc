#include "checkplan.h"

#include "error.h"
#include "program.h"

namespace millrace {
namespace {

enum class Holds { nothing, tokens, logit_rows };

// Checker walks a plan in order and knows what each value holds.
class Checker {
 public:
  Checker(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors)
      : plan_(plan), tensors_(tensors), holds_(plan.n_values, Holds::nothing) {}

  void check(int i) {
    at_ = i;
    const mr_op& op = plan_.ops[i];
    const bool last = i == plan_.n_ops - 1;
    require((op.kind == kLogits) == last, "logits are the last operation and only that");
    switch (op.kind) {
      case kEmbed:
        tokens_only();
        makes(op.out);
        weight(op.weight, plan_.vocab, width(op.out));
        break;
      case kRMSNorm:
        reads(op.in);
        makes(op.out, op.in);
        require(op.group > 0 && width(op.in) % op.group == 0, "its groups do not divide the width");
        vector(op.weight, op.group);
        break;
      case kLinear:
        reads(op.in);
        makes(op.out);
        require(op.in != op.out, "the output is the input");
        weight(op.weight, width(op.out), width(op.in));
        if (op.bias != -1) vector(op.bias, width(op.out));
        break;
      case kRope:
        tokens_only();
        reads(op.in);
        require(op.out == op.in, "a rotation works in place");
        heads(op.heads, op.head_dim, width(op.in));
        require(op.rotary >= 0 && op.rotary % 2 == 0 && op.rotary <= op.head_dim,
                "it rotates an odd number of dimensions, or more than a head has");
        require(op.table >= 0 && op.table < plan_.n_tables && plan_.table_len[op.table] >= op.rotary / 2,
                "its table does not exist or is too short");
        break;
      case kKVWrite:
        tokens_only();
        reads(op.in);
        reads(op.in2);
        heads(op.kv_heads, op.head_dim, plan_.kv_width);
        require(width(op.in) == plan_.kv_width && width(op.in2) == plan_.kv_width, "keys or values have another width");
        layer(op.layer);
        break;
      case kAttention:
        tokens_only();
        reads(op.in);
        makes(op.out, op.in);
        require(op.in != op.out, "the output is the input");
        heads(op.heads, op.head_dim, width(op.in));
        heads(op.kv_heads, op.head_dim, plan_.kv_width);
        require(op.heads % op.kv_heads == 0, "its heads are no multiple of the cache's");
        require(op.window >= 0, "its window is negative");
        layer(op.layer);
        break;
      case kSiluMul:
      case kGeluMul:
      case kAdd:
        reads(op.in);
        reads(op.in2);
        makes(op.out, op.in);
        require(width(op.in) == width(op.in2), "its operands differ in width");
        break;
      case kRows:
        require(exists(op.in) && holds_[op.in] == Holds::tokens && op.in != op.out,
                "its input has no row per token, or is the output too");
        rows_ = Holds::logit_rows;
        makes(op.out, op.in);
        break;
      case kLogits:
        reads(op.in);
        require(rows_ == Holds::logit_rows, "no rows operation stands before it");
        weight(op.weight, plan_.vocab, width(op.in));
        break;
      default:
        require(false, "unknown kind");
    }
  }

 private:
  void require(bool good, const char* what) const {
    if (!good) fail(MR_INVALID, "operation %d of the plan, kind %d: %s", at_, plan_.ops[at_].kind, what);
  }
  bool exists(int v) const { return v >= 0 && v < plan_.n_values; }
  int width(int v) const { return plan_.widths[v]; }
  void tokens_only() const { require(rows_ == Holds::tokens, "it needs a row per token, after rows were picked"); }
  void reads(int v) const {
    require(exists(v) && holds_[v] == rows_, "a value it reads is not computed, or not for these rows");
  }
  void makes(int v) {
    require(exists(v), "its output does not exist");
    holds_[v] = rows_;
  }
  void makes(int v, int like) {
    makes(v);
    require(width(v) == width(like), "its output differs in width from its input");
  }
  void heads(int count, int dim, int total) const {
    require(count > 0 && dim > 0 && dim <= 4096 && int64_t(count) * dim == total, "its heads do not fill the width");
  }
  void layer(int l) const { require(l >= 0 && l < plan_.layers, "its layer does not exist"); }
  const Tensor& tensor(int w) const {
    require(w >= 0 && w < static_cast<int>(tensors_.size()), "its weight does not exist");
    return *tensors_[w];
  }
  void weight(int w, int rows, int cols) const {
    const Tensor& t = tensor(w);
    if (!t.matrix() || t.rows() != rows || t.cols() != cols)
      fail(MR_INVALID, "operation %d of the plan: tensor %s is [%d %d], want [%d %d]", at_, t.name().c_str(), t.rows(),
           t.cols(), rows, cols);
  }
  void vector(int w, int n) const {
    const Tensor& t = tensor(w);
    if (t.matrix() || t.cols() != n)
      fail(MR_INVALID, "operation %d of the plan: tensor %s has %d elements, want a vector of %d", at_,
           t.name().c_str(), t.rows() * t.cols(), n);
  }

  const mr_plan& plan_;
  const std::vector<std::unique_ptr<Tensor>>& tensors_;
  std::vector<Holds> holds_;
  Holds rows_ = Holds::tokens;
  int at_ = 0;
};

}  // namespace

void check_plan(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors) {
  constexpr int kVersion = 1, kMost = 1 << 24;
  if (plan.version != kVersion) fail(MR_INVALID, "plan version %d, this backend runs %d", plan.version, kVersion);
  if (plan.vocab <= 0 || plan.layers < 0 || plan.kv_width < 0 || plan.n_values < 0 || plan.n_tables < 0 ||
      plan.n_ops <= 0 || plan.n_ops > kMost || plan.layers > kMost)
    fail(MR_INVALID, "plan of %d operations, %d values, %d layers, vocabulary %d, KV width %d", plan.n_ops,
         plan.n_values, plan.layers, plan.vocab, plan.kv_width);
  if (plan.n_tensors != static_cast<int>(tensors.size()))
    fail(MR_INVALID, "plan of %d tensors, %zu were announced", plan.n_tensors, tensors.size());
  for (int v = 0; v < plan.n_values; v++)
    if (plan.widths[v] <= 0 || plan.widths[v] > kMost)
      fail(MR_INVALID, "value %d of the plan is %d wide", v, plan.widths[v]);
  for (int t = 0; t < plan.n_tables; t++)
    if (plan.table_len[t] < 0 || plan.table_len[t] > kMost)
      fail(MR_INVALID, "table %d of the plan has %d entries", t, plan.table_len[t]);
  for (const auto& t : tensors)
    if (!t->complete()) fail(MR_INVALID, "tensor %s was not written in full", t->name().c_str());
  Checker checker(plan, tensors);
  for (int i = 0; i < plan.n_ops; i++) checker.check(i);
}

}  // namespace millrace
