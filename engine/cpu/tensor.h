// Weights, repacked as they arrive.
#ifndef MILLRACE_CPU_TENSOR_H
#define MILLRACE_CPU_TENSOR_H

#include <string>

#include "../device/millrace.h"
#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace millrace {

// Tensor is a matrix [rows, cols] in panels, or a vector [cols] of floats.
class Tensor {
 public:
  // Throws Error for a shape no plan can use. keep_f16: the kernels multiply
  // f16 panels; otherwise f16 weights become f32, which loses nothing.
  Tensor(const char* name, mr_dtype dtype, int rank, const int64_t* shape, bool keep_f16);

  // check_write throws Error if n rows from first on do not exist or are not
  // that many bytes.
  void check_write(int64_t first, int64_t n, int64_t bytes) const;
  // write stores n rows beginning at row first, src being row-major elements
  // of the announced type; pool's workers share the repacking.
  void write(Pool& pool, int64_t first, int64_t n, const void* src);

  const std::string& name() const { return name_; }
  bool matrix() const { return matrix_; }
  bool complete() const { return written_ == rows_; }
  int rows() const { return static_cast<int>(rows_); }
  int cols() const { return static_cast<int>(cols_); }
  Element element() const { return element_; }
  size_t bytes() const { return data_.bytes(); }

  int panels() const { return (rows() + kPanel - 1) / kPanel; }
  size_t panel_size() const { return panel_bytes(element_, cols()); }
  const char* panel(int p) const { return data_.data() + p * panel_size(); }
  const float* vector() const { return data_.as<float>(); }
  // row decodes one row of a matrix into cols floats.
  void row(int r, float* out) const;

 private:
  void pack(const char* src, int64_t first, int64_t n, int64_t panel);

  std::string name_;
  mr_dtype dtype_;    // of what is written
  Element element_;   // of what is kept
  bool matrix_;
  int64_t rows_ = 1, cols_ = 0, written_ = 0;
  Mapping data_;
};

float float_from_f16(uint16_t bits);
inline float float_from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float f;
  __builtin_memcpy(&f, &wide, 4);
  return f;
}
// Rounds to nearest, ties to even; what is too large becomes the largest f16,
// since an infinity in the cache would spoil its sequence. NaN stays NaN.
uint16_t f16_from_float(float f);

}  // namespace millrace
#endif
