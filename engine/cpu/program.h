// An op plan made ready to run: checked, its operations gathered into stages.
#ifndef MILLRACE_CPU_PROGRAM_H
#define MILLRACE_CPU_PROGRAM_H

#include <memory>
#include <vector>

#include "../device/millrace.h"
#include "tensor.h"

namespace millrace {

// plan.Kind
enum Kind : int32_t {
  kEmbed,
  kRMSNorm,
  kLinear,
  kRope,
  kKVWrite,
  kAttention,
  kSiluMul,
  kGeluMul,
  kAdd,
  kRows,
  kLogits,
};

// What follows a matrix product while its result is still in the cache.
enum class Epilogue { none, add, silu_mul, gelu_mul };

// Product is one linear layer, or two of the same shape and input whose
// results only meet in an activation (gate and up), with what follows fused.
struct Product {
  const Tensor* weight[2] = {};
  const float* bias[2] = {};  // null: none
  int in = -1;
  Epilogue epilogue = Epilogue::none;
  int residual = -1;  // of add
  int target = -1;    // where the result goes

  int matrices() const { return weight[1] != nullptr ? 2 : 1; }
};

// Stage is what runs between two barriers. Its rows are the batch's tokens or
// its logit rows.
struct Stage {
  enum Kind {
    rows,      // operations that know no other row, one after the other
    products,  // independent of each other, split by output panels
    attention,
    pick,      // kRows
  };
  Kind kind = rows;
  bool logit_rows = false;
  std::vector<mr_op> ops;
  std::vector<const Tensor*> weights;  // of ops, null for none
  std::vector<Product> linear;
};

// Angles is one way to rotate heads: frequencies and a factor on the sines.
struct Angles {
  std::vector<float> frequencies;  // rotary/2
  float factor;
};

// Program is immutable. It refers to the tensors it was made from.
class Program {
 public:
  // A cache of up to exact_bytes per token is float32 whatever the weights.
  // Throws Error if the plan cannot be right.
  Program(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors, size_t exact_bytes);

  int vocab, layers;
  int kv_heads = 0, head_dim = 0;            // of the cache
  int group = 1;                             // most query heads on a KV head
  Element cache = kF32;                      // element type of the KV cache
  std::vector<int> widths;                   // of values
  std::vector<bool> by_token, by_logit_row;  // which rows of a value are stored
  std::vector<Angles> angles;                // mr_op.table of a rotation is an index here
  std::vector<Stage> stages;
  mr_op logits;
  const Tensor* head;  // [vocab, width of the last value]

 private:
  void add(const std::vector<mr_op>& ops, size_t i, const std::vector<std::unique_ptr<Tensor>>& tensors);
  void add_product(const Product& p);
  void take_angles(mr_op& op, const mr_plan& plan);
  void take_cache(const mr_op& op, bool first);
  void mark_stored();
  Stage& stage(Stage::Kind kind);

  bool picked_ = false;  // kRows has passed
};

}  // namespace millrace
#endif
