#ifndef MILLRACE_CPU_CHECKPLAN_H
#define MILLRACE_CPU_CHECKPLAN_H

#include <memory>
#include <vector>

#include "../device/millrace.h"
#include "tensor.h"

namespace millrace {

// check_plan throws Error unless every operation refers to what exists, with
// the right shape, after it was computed.
void check_plan(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors);

}  // namespace millrace
#endif
