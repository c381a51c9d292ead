#include "tensor.h"

#include <algorithm>
#include <cstring>

#include "error.h"

namespace millrace {
namespace {

template <class T>
T read(const char* p) {
  T v;
  std::memcpy(&v, p, sizeof v);  // sources may be unaligned
  return v;
}

float element_as_float(mr_format format, const char* src, int64_t i) {
  switch (format) {
    case MR_F16:
      return float_from_f16(read<uint16_t>(src + i * 2));
    case MR_BF16:
      return float_from_bf16(read<uint16_t>(src + i * 2));
    default:
      return read<float>(src + i * 4);
  }
}

// Writes one 16-row panel column by column, so that stores stream and the 16
// sources are read sequentially. Word holds what moves as one: a float, an f16
// or a pair of bf16.
template <class Word>
void interleave(char* dst, const char* const* src, int lanes, int64_t words) {
  if (lanes == kPanel) {
    for (int64_t i = 0; i < words; i++, dst += kPanel * sizeof(Word)) {
      Word line[kPanel];
      for (int l = 0; l < kPanel; l++) line[l] = read<Word>(src[l] + i * sizeof(Word));
      std::memcpy(dst, line, sizeof line);
    }
    return;
  }
  for (int64_t i = 0; i < words; i++, dst += kPanel * sizeof(Word))
    for (int l = 0; l < kPanel; l++)
      if (src[l] != nullptr) std::memcpy(dst + l * sizeof(Word), src[l] + i * sizeof(Word), sizeof(Word));
}

}  // namespace

float float_from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  if (exponent == 0) {
    const float tiny = float(fraction) * 0x1p-24f;
    return sign != 0 ? -tiny : tiny;
  }
  const uint32_t wide = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
  float f;
  std::memcpy(&f, &wide, 4);
  return f;
}

Tensor::Tensor(const char* name, mr_format format, int rank, const int64_t* shape, bool keep_f16)
    : name_(name), format_(format), matrix_(rank > 1) {
  constexpr int64_t kMost = int64_t(1) << 28;
  if (format != MR_F32 && format != MR_F16 && format != MR_BF16)
    fail(MR_UNSUPPORTED, "tensor %s: format %d is none of F32, F16, BF16", name, int(format));
  if (rank < 1 || rank > 3) fail(MR_INVALID, "tensor %s has %d dimensions, want 1 to 3", name, rank);
  for (int i = 0; i < rank; i++)
    if (shape[i] <= 0 || shape[i] > kMost)
      fail(MR_INVALID, "tensor %s: dimension %d is %lld", name, i, static_cast<long long>(shape[i]));
  if (rank == 3) matrices_ = shape[0];
  if (matrix_) rows_ = shape[rank - 2];
  cols_ = shape[rank - 1];
  if (matrices_ > kMost / rows_)
    fail(MR_INVALID, "tensor %s has %lld matrices of %lld rows", name, static_cast<long long>(matrices_),
         static_cast<long long>(rows_));
  missing_ = matrices_ * rows_;
  written_.resize(missing_);
  element_ = !matrix_ || format == MR_F32 || (format == MR_F16 && !keep_f16) ? kF32 : Element(format);
  data_ = Mapping(matrix_ ? size_t(matrices_) * panels() * panel_size() : size_t(cols_) * 4);
}

void Tensor::check_write(int64_t first, int64_t n, int64_t bytes) const {
  const int64_t all = matrices_ * rows_, row_bytes = cols_ * (format_ == MR_F32 ? 4 : 2);
  if (first < 0 || n < 0 || first > all || n > all - first)
    fail(MR_INVALID, "tensor %s: rows %lld to %lld of %lld", name_.c_str(), static_cast<long long>(first),
         static_cast<long long>(first + n), static_cast<long long>(all));
  if (bytes != n * row_bytes)
    fail(MR_INVALID, "tensor %s: %lld bytes for %lld rows, want %lld", name_.c_str(), static_cast<long long>(bytes),
         static_cast<long long>(n), static_cast<long long>(n * row_bytes));
  const auto again = std::find(written_.begin() + first, written_.begin() + first + n, true);
  if (again != written_.begin() + first + n)
    fail(MR_INVALID, "tensor %s: row %lld is written twice", name_.c_str(),
         static_cast<long long>(again - written_.begin()));
}

void Tensor::write(Pool& pool, int64_t first, int64_t n, const void* src) {
  if (n == 0) return;
  const char* from = static_cast<const char*>(src);
  if (!matrix_) {
    for (int64_t i = 0; i < cols_; i++) data_.as<float>()[i] = element_as_float(format_, from, i);
  } else {
    const auto panel_of = [&](int64_t row) { return row / rows_ * panels() + row % rows_ / kPanel; };
    const int64_t begin = panel_of(first), end = panel_of(first + n - 1) + 1;
    Shares shares;
    const auto job = [&](int) {
      for (int64_t p = begin + shares.take(); p < end; p = begin + shares.take()) pack(from, first, n, p);
    };
    pool.run(job);
  }
  std::fill_n(written_.begin() + first, n, true);
  missing_ -= n;
}

// Packs what panel p, counted through all matrices, has of the n rows at src,
// the first of which is row first.
void Tensor::pack(const char* src, int64_t first, int64_t n, int64_t p) {
  char* dst = data_.data() + p * panel_size();
  const int64_t row_bytes = cols_ * (format_ == MR_F32 ? 4 : 2);
  const int64_t matrix = p / panels(), row = p % panels() * kPanel;  // the panel's first
  const char* lane[kPanel] = {};
  int lanes = 0;
  for (int l = 0; l < kPanel && row + l < rows_; l++) {
    const int64_t r = matrix * rows_ + row + l;
    if (r < first || r >= first + n) continue;
    lane[l] = src + (r - first) * row_bytes;
    lanes++;
  }
  if (format_ == MR_F32) {
    interleave<uint32_t>(dst, lane, lanes, cols_);
  } else if (element_ == kF16) {
    interleave<uint16_t>(dst, lane, lanes, cols_);
  } else if (element_ == kBF16) {
    interleave<uint32_t>(dst, lane, lanes, cols_ / 2);
    for (int l = 0; l < kPanel && cols_ % 2 != 0; l++)
      if (lane[l] != nullptr)
        std::memcpy(dst + panel_offset(kBF16, l, int(cols_ - 1)) * 2, lane[l] + (cols_ - 1) * 2, 2);
  } else {  // f16 becomes f32
    for (int l = 0; l < kPanel; l++)
      for (int64_t k = 0; k < cols_ && lane[l] != nullptr; k++)
        reinterpret_cast<float*>(dst)[k * kPanel + l] = element_as_float(format_, lane[l], k);
  }
}

void Tensor::row(int r, float* out, int matrix) const {
  const char* p = panel(r / kPanel, matrix);
  const int lane = r % kPanel;
  for (int k = 0; k < cols(); k++) {
    const size_t at = panel_offset(element_, lane, k);
    switch (element_) {
      case kF32:
        out[k] = reinterpret_cast<const float*>(p)[at];
        break;
      case kF16:
        out[k] = float_from_f16(reinterpret_cast<const uint16_t*>(p)[at]);
        break;
      case kBF16:
        out[k] = float_from_bf16(reinterpret_cast<const uint16_t*>(p)[at]);
        break;
    }
  }
}

}  // namespace millrace
