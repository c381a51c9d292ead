// Adapters: low-rank changes of linear layers.
#ifndef MILLRACE_CPU_ADAPTER_H
#define MILLRACE_CPU_ADAPTER_H

#include <memory>
#include <vector>

#include "program.h"
#include "tensor.h"

namespace millrace {

// AdapterTarget is what an adapter adds to rows x of one matrix of the plan, or of
// several: x aᵀ, from column `low` on, times bᵀ of each part. The matrices a of all
// parts are stacked, so that one pass over x serves them.
struct AdapterTarget {
  struct Part {
    int panel;                  // of the plan's matrix, which the first panel of b is added to
    int low;                    // column of x aᵀ
    std::unique_ptr<Tensor> b;  // [matrices, columns, rank]
  };
  int tensor;
  std::unique_ptr<Tensor> a;  // [matrices, all ranks, each in whole panels, cols of the tensor]
  std::vector<Part> parts;

  int low_width() const { return a->panels() * kPanel; }
  size_t bytes() const {
    size_t sum = a->bytes();
    for (const Part& p : parts) sum += p.b->bytes();
    return sum;
  }
};

struct Adapter {
  // Use is a target where an operation has its tensor. What a makes stands from `low` on
  // in the row that the operation's stage keeps of each row of x.
  struct Use {
    const AdapterTarget* target = nullptr;  // null: the adapter leaves this matrix alone
    size_t low = 0;
  };
  std::vector<AdapterTarget> targets;
  std::vector<Use> uses;  // by operation and matrix
  size_t low_width = 0;   // floats of the widest row that a stage keeps

  const Use& of(int op, int matrix) const { return uses[kMatrices * op + matrix]; }
};

// AdapterRun is a run of rows that have one adapter and one of a tensor's matrices.
struct AdapterRun {
  const Adapter* adapter;
  int begin, end;
  int matrix;
};

// AdaptedRows are the rows of a product that adapters change, those of an adapter
// together. What is counted are positions in that order: position i is row rows[i], or
// where rows is null row i - first.
struct AdaptedRows {
  const AdapterRun* runs = nullptr;
  int count = 0;
  const int* rows = nullptr;
  int first = 0;
};

}  // namespace millrace
#endif
