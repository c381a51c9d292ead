// Weights, repacked as they arrive.
#ifndef MILLRACE_CPU_TENSOR_H
#define MILLRACE_CPU_TENSOR_H

#include <string>
#include <vector>

#include "../../device/abi/millrace.h"
#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace millrace {

// Tensor is matrices [rows, cols] in panels, each with panels of its own, or a
// vector [cols] of floats.
class Tensor {
 public:
  // Throws Error for a shape no plan can use. keep_f16: the kernels multiply
  // f16 panels; otherwise f16 weights become f32, which loses nothing.
  Tensor(const char* name, mr_format format, int rank, const int64_t* shape, bool keep_f16);

  // check_write throws Error if n rows from first on, counted through all
  // matrices, do not exist, are not that many bytes or were written before.
  void check_write(int64_t first, int64_t n, int64_t bytes) const;
  // write stores n rows beginning at row first, src being row-major elements
  // of the announced format; pool's workers share the repacking.
  void write(Pool& pool, int64_t first, int64_t n, const void* src);

  // adopt keeps packed, matrices as this class packs them itself, instead of a copy
  // of rows; it throws Error if they cannot be used so.
  void adopt(const void* packed, int64_t bytes);

  const std::string& name() const { return name_; }
  bool complete() const { return missing_ == 0; }
  int matrices() const { return static_cast<int>(matrices_); }
  int rows() const { return static_cast<int>(rows_); }  // of a matrix
  int cols() const { return static_cast<int>(cols_); }
  Element element() const { return element_; }
  bool quantized() const { return element_ >= kW8; }
  bool integers() const { return element_ == kW8 || element_ == kW4; }
  const Codes& codes() const { return codes_; }  // if quantized
  size_t bytes() const { return bytes_; }

  int panels() const { return (rows() + kPanel - 1) / kPanel; }  // of a matrix
  size_t panel_size() const { return quantized() ? codes_.panel_bytes() : panel_bytes(element_, cols()); }
  const char* panel(int p, int matrix = 0) const {
    return packed_ + (int64_t(matrix) * panels() + p) * panel_size();
  }
  const float* vector() const { return reinterpret_cast<const float*>(packed_); }
  // row decodes one row of a matrix into cols floats.
  void row(int r, float* out, int matrix = 0) const;

 private:
  int64_t row_bytes() const;  // of what is written
  void pack(const char* src, int64_t first, int64_t n, int64_t panel);
  void pack_codes(const char* const* lane, char* dst) const;
  void code_row(const char* panel, int lane, float* out) const;

  std::string name_;
  mr_format format_;  // of what is written
  Element element_;   // of what is kept
  Codes codes_{};
  bool matrix_;
  int64_t matrices_ = 1, rows_ = 1, cols_ = 0;
  std::vector<bool> written_;  // by row, through all matrices
  int64_t missing_;            // rows not yet written
  size_t bytes_;
  Mapping data_;                  // empty until the first write, and of an adopted tensor
  const char* packed_ = nullptr;  // in data_, or adopted
};

// codes_of returns how a quantised format's panels of k columns are laid out.
Codes codes_of(mr_format format, int k);

float float_from_f16(uint16_t bits);
inline float float_from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float f;
  __builtin_memcpy(&f, &wide, 4);
  return f;
}

}  // namespace millrace
#endif
