// Weights on the device.
#ifndef MILLRACE_CUDA_TENSOR_H
#define MILLRACE_CUDA_TENSOR_H

#include <string>

#include "kernels.h"
#include "memory.h"

namespace millrace {

// Tensor is a weight of the plan, kept in the format in which it comes.
class Tensor {
 public:
  // Throws Error for a shape no plan can use. Its memory begins as zeros, which padding
  // remains.
  Tensor(const char* name, int32_t format, int rank, const int64_t* shape, cudaStream_t stream);

  const std::string& name() const { return name_; }
  const Weight& weight() const { return weight_; }
  int matrices() const { return int(matrices_); }
  size_t bytes() const { return memory_.bytes(); }
  int32_t format() const { return format_; }
  size_t row_bytes(int32_t format) const;  // of a row as it comes
  bool complete() const { return missing_ == 0; }
  void check_write(int32_t format, int64_t first, int64_t rows, int64_t bytes) const;
  void wrote(int64_t rows) { missing_ -= rows; }

 private:
  std::string name_;
  int64_t matrices_ = 1, missing_;
  int32_t format_;
  Weight weight_{};
  Memory memory_;
};

}  // namespace millrace
#endif
