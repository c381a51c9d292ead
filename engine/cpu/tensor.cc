#include "tensor.h"

#include <algorithm>
#include <cmath>
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

float element_as_float(mr_dtype dtype, const char* src, int64_t i) {
  switch (dtype) {
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

uint16_t f16_from_float(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const uint16_t sign = bits >> 16 & 0x8000;
  float a = std::fabs(f);
  if (f != f) return sign | 0x7e00;
  if (a >= 65504) return sign | 0x7bff;
  if (a < 0x1p-14f) {
    a += 0.5f;  // the sum's last bit is worth 2^-24, as f16's below 2^-14
    std::memcpy(&bits, &a, 4);
    return sign | uint16_t(bits & 0x7fff);
  }
  std::memcpy(&bits, &a, 4);
  return sign | uint16_t((bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13);
}

Tensor::Tensor(const char* name, mr_dtype dtype, int rank, const int64_t* shape, bool keep_f16)
    : name_(name), dtype_(dtype), matrix_(rank == 2) {
  constexpr int64_t kMost = int64_t(1) << 28;
  if (dtype != MR_F32 && dtype != MR_F16 && dtype != MR_BF16)
    fail(MR_INVALID, "tensor %s: element type %d is none of f32, f16, bf16", name, int(dtype));
  if (rank != 1 && rank != 2) fail(MR_INVALID, "tensor %s has %d dimensions, want 1 or 2", name, rank);
  for (int i = 0; i < rank; i++)
    if (shape[i] <= 0 || shape[i] > kMost)
      fail(MR_INVALID, "tensor %s: dimension %d is %lld", name, i, static_cast<long long>(shape[i]));
  if (matrix_) rows_ = shape[0];
  cols_ = shape[rank - 1];
  element_ = !matrix_ || dtype == MR_F32 || (dtype == MR_F16 && !keep_f16) ? kF32 : Element(dtype);
  data_ = Mapping(matrix_ ? panels() * panel_size() : size_t(cols_) * 4);
}

void Tensor::check_write(int64_t first, int64_t n, int64_t bytes) const {
  const int64_t row_bytes = cols_ * (dtype_ == MR_F32 ? 4 : 2);
  if (first < 0 || n < 0 || first > rows_ || n > rows_ - first)
    fail(MR_INVALID, "tensor %s: rows %lld to %lld of %lld", name_.c_str(), static_cast<long long>(first),
         static_cast<long long>(first + n), static_cast<long long>(rows_));
  if (bytes != n * row_bytes)
    fail(MR_INVALID, "tensor %s: %lld bytes for %lld rows, want %lld", name_.c_str(), static_cast<long long>(bytes),
         static_cast<long long>(n), static_cast<long long>(n * row_bytes));
}

void Tensor::write(Pool& pool, int64_t first, int64_t n, const void* src) {
  if (n == 0) return;
  const char* from = static_cast<const char*>(src);
  if (!matrix_) {
    for (int64_t i = 0; i < cols_; i++) data_.as<float>()[i] = element_as_float(dtype_, from, i);
  } else {
    const int64_t begin = first / kPanel, end = (first + n + kPanel - 1) / kPanel;
    Shares shares;
    const auto job = [&](int) {
      for (int64_t p = begin + shares.take(); p < end; p = begin + shares.take()) pack(from, first, n, p);
    };
    pool.run(job);
  }
  written_ += n;
}

// Packs what panel p has of the n rows at src, the first of which is row first.
void Tensor::pack(const char* src, int64_t first, int64_t n, int64_t p) {
  char* dst = data_.data() + p * panel_size();
  const int64_t row_bytes = cols_ * (dtype_ == MR_F32 ? 4 : 2);
  const char* lane[kPanel] = {};
  int lanes = 0;
  for (int l = 0; l < kPanel; l++) {
    const int64_t r = p * kPanel + l;
    if (r < first || r >= first + n) continue;
    lane[l] = src + (r - first) * row_bytes;
    lanes++;
  }
  if (dtype_ == MR_F32) {
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
        reinterpret_cast<float*>(dst)[k * kPanel + l] = element_as_float(dtype_, lane[l], k);
  }
}

void Tensor::row(int r, float* out) const {
  const char* p = panel(r / kPanel);
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
