// Whether this GPU computes with the kernels of tiled.cu what it does with those of linear.cu.
#ifndef MILLRACE_CUDA_SELFTEST_H
#define MILLRACE_CUDA_SELFTEST_H

#include <string>

#include "kernels.h"

namespace millrace {

struct Tested {
  Tiled tiled{};    // without what kernels work in
  uint32_t attention = 0;  // a bit for each attention_shape()
  std::string off;  // what is not on, as a sentence; empty: all is
};

// test_tiled compares each of the kernels with those that are plainly right, bit by bit, on
// the device that is current. It does so once in a process for each device: what it takes is
// less than reading what it found last time would save. MILLRACE_CUDA_TILED=off turns all
// off, to debug.
const Tested& test_tiled(cudaStream_t stream);

}  // namespace millrace
#endif
