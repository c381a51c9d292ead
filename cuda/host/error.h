// check turns what CUDA says into the errors of the ABI.
#ifndef MILLRACE_CUDA_ERROR_H
#define MILLRACE_CUDA_ERROR_H

#include <cuda_runtime.h>

#include "../../engine/device/abi/error.h"

namespace millrace {

// check throws what CUDA says went wrong. All but a lack of memory is for good: after a
// fault of a kernel every call fails.
inline void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  fail(error == cudaErrorMemoryAllocation ? MR_NO_MEMORY : MR_LOST, "%s: %s", doing, cudaGetErrorString(error));
}

}  // namespace millrace
#endif
