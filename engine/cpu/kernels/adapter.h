// Adapters: low-rank changes of linear layers.
#ifndef MILLRACE_CPU_ADAPTER_H
#define MILLRACE_CPU_ADAPTER_H

#include <memory>
#include <vector>

#include "tensor.h"

namespace millrace {

// AdapterTarget adds x aᵀ bᵀ to columns of what a linear layer makes with one
// tensor of the plan.
struct AdapterTarget {
  int tensor, first;             // first column
  std::unique_ptr<Tensor> a, b;  // [rank, cols of the tensor], [columns, rank]
};

struct Adapter {
  // Use is a target where a linear layer's matrix has it; its x aᵀ stands at
  // `low` of a row of all those of the layer's stage.
  struct Use {
    const AdapterTarget* target;
    size_t low;
  };

  std::vector<AdapterTarget> targets;
  std::vector<std::vector<Use>> uses;  // by twice the operation's number, + 1 for its second matrix
  size_t low_width = 0;                // floats of the widest stage

  const std::vector<Use>& of(int op, int matrix) const { return uses[2 * op + matrix]; }
};

}  // namespace millrace
#endif
