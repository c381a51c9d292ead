#include "tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../../device/abi/error.h"

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

// Writes what four rows have at four columns, words of four bytes, to four lanes of the
// four lines of a panel.
void transpose(char* dst, const char* const* src, int64_t at) {
  typedef uint32_t Four __attribute__((vector_size(16)));
  const Four low{0, 4, 1, 5}, high{2, 6, 3, 7};
  const auto row = [&](int l) { return read<Four>(src[l] + at); };
  const auto line = [&](int i, Four v) { std::memcpy(dst + i * kPanel * 4, &v, sizeof v); };
  const Four a = row(0), b = row(1), c = row(2), d = row(3);
  const Four ac = __builtin_shuffle(a, c, low), bd = __builtin_shuffle(b, d, low);
  line(0, __builtin_shuffle(ac, bd, low));
  line(1, __builtin_shuffle(ac, bd, high));
  const Four ac2 = __builtin_shuffle(a, c, high), bd2 = __builtin_shuffle(b, d, high);
  line(2, __builtin_shuffle(ac2, bd2, low));
  line(3, __builtin_shuffle(ac2, bd2, high));
}

// Writes one 16-row panel column by column, so that stores stream and the 16
// sources are read sequentially. Word holds what moves as one: a float, an f16
// or a pair of bf16.
template <class Word>
void interleave(char* dst, const char* const* src, int lanes, int64_t words) {
  if (lanes == kPanel) {
    int64_t i = 0;
    if (sizeof(Word) == 4)
      for (; i + 4 <= words; i += 4, dst += 4 * kPanel * 4)
        for (int l = 0; l < kPanel; l += 4) transpose(dst + l * 4, src + l, i * 4);
    for (; i < words; i++, dst += kPanel * sizeof(Word)) {
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

// What the codes of MR_W4 stand for, by mr_format's MR_CODES.
const int8_t kTables[][16] = {
    {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7},
    {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
    {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
    {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127},
};

float float_from_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const float v = (code & 0x7f) == 0x7f ? NAN : exponent == 0 ? float(fraction) * 0x1p-9f : std::ldexp(float(8 + fraction), exponent - 10);
  return code >= 0x80 ? -v : v;
}

bool has_nan(const char* codes, int64_t n) {
  return std::any_of(codes, codes + n, [](char c) { return (c & 0x7f) == 0x7f; });
}

const float kNaN = NAN;

// Of the four nibbles of x the first in the lowest byte, and so on.
uint32_t spread(uint32_t x) {
  x = (x | x << 8) & 0x00ff00ff;
  return (x | x << 4) & 0x0f0f0f0f;
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

Codes codes_of(mr_format format, int k) {
  const int table = (format & MR_CODES_MASK) / MR_CODES_E2M1;
  return {Element(format & MR_KIND_MASK),
          {k, (format & MR_GROUP_MASK) >> MR_GROUP_SHIFT},
          (format & MR_WITH_MINIMUM) != 0,
          table == 0 ? nullptr : kTables[table]};
}

Tensor::Tensor(const char* name, mr_format format, int rank, const int64_t* shape, bool keep_f16)
    : name_(name), format_(format), matrix_(rank > 1) {
  constexpr int64_t kMost = int64_t(1) << 28;
  constexpr int64_t kMostSummed = 1 << 17;  // columns of a group of integers: more could exceed 32 bits
  const int kind = format & MR_KIND_MASK, group = (format & MR_GROUP_MASK) >> MR_GROUP_SHIFT;
  if (format < 0 || kind > MR_F8 || (kind < MR_W8 && format != kind) || group % 16 != 0)
    fail(MR_UNSUPPORTED, "tensor %s: format %#x is unknown", name, unsigned(format));
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
  element_ = !matrix_ || format == MR_F32 || (format == MR_F16 && !keep_f16) ? kF32 : Element(kind);
  if (kind >= MR_W8) {
    if (!matrix_) fail(MR_INVALID, "tensor %s is a vector, which cannot be quantised", name);
    codes_ = codes_of(format, int(cols_));
    if (integers() && codes_.groups.each() > kMostSummed)
      fail(MR_UNSUPPORTED, "tensor %s: %d columns share a scale, at most %lld can", name, codes_.groups.each(),
           static_cast<long long>(kMostSummed));
  }
  bytes_ = matrix_ ? size_t(matrices_) * panels() * panel_size() : size_t(cols_) * 4;
}

int64_t Tensor::row_bytes() const {
  if (!quantized() || !matrix_) return cols_ * (format_ == MR_F32 ? 4 : 2);
  const int64_t codes = element_ == kW4 ? (cols_ + 1) / 2 : cols_;
  return codes + codes_.groups.count() * ((element_ == kF8 ? 4 : 2) + (codes_.minimum ? 2 : 0));
}

void Tensor::check_write(int64_t first, int64_t n, int64_t bytes) const {
  const int64_t all = matrices_ * rows_;
  if (first < 0 || n < 0 || first > all || n > all - first)
    fail(MR_INVALID, "tensor %s: rows %lld to %lld of %lld", name_.c_str(), static_cast<long long>(first),
         static_cast<long long>(first + n), static_cast<long long>(all));
  if (bytes != n * row_bytes())
    fail(MR_INVALID, "tensor %s: %lld bytes for %lld rows, want %lld", name_.c_str(), static_cast<long long>(bytes),
         static_cast<long long>(n), static_cast<long long>(n * row_bytes()));
  const auto again = std::find(written_.begin() + first, written_.begin() + first + n, true);
  if (again != written_.begin() + first + n)
    fail(MR_INVALID, "tensor %s: row %lld is written twice", name_.c_str(),
         static_cast<long long>(again - written_.begin()));
}

void Tensor::write(Pool& pool, int64_t first, int64_t n, const void* src) {
  if (n == 0) return;
  if (packed_ == nullptr) {
    data_ = Mapping(bytes_);
    packed_ = data_.data();
  }
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
    pool.help(job);
  }
  std::fill_n(written_.begin() + first, n, true);
  missing_ -= n;
}

void Tensor::adopt(const void* packed, int64_t bytes) {
  if (!matrix_ || element_ != Element(format_ & MR_KIND_MASK))
    fail(MR_UNSUPPORTED, "tensor %s is kept in another format than it is packed in", name_.c_str());
  if (missing_ < matrices_ * rows_) fail(MR_INVALID, "tensor %s is adopted after rows were written", name_.c_str());
  if (bytes != static_cast<int64_t>(bytes_))
    fail(MR_INVALID, "tensor %s: %lld bytes packed, want %zu", name_.c_str(), static_cast<long long>(bytes), bytes_);
  if (reinterpret_cast<uintptr_t>(packed) % 64 != 0)
    fail(MR_INVALID, "tensor %s: packed memory is not aligned to 64 bytes", name_.c_str());
  packed_ = static_cast<const char*>(packed);
  written_.assign(written_.size(), true);
  missing_ = 0;
}

// Packs what panel p, counted through all matrices, has of the n rows at src,
// the first of which is row first.
void Tensor::pack(const char* src, int64_t first, int64_t n, int64_t p) {
  char* dst = data_.data() + p * panel_size();
  const int64_t matrix = p / panels(), row = p % panels() * kPanel;  // the panel's first
  const char* lane[kPanel] = {};
  int lanes = 0;
  for (int l = 0; l < kPanel && row + l < rows_; l++) {
    const int64_t r = matrix * rows_ + row + l;
    if (r < first || r >= first + n) continue;
    lane[l] = src + (r - first) * row_bytes();
    lanes++;
  }
  if (quantized()) {
    pack_codes(lane, dst);
  } else if (format_ == MR_F32) {
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

// Packs quantised rows, those of lane that are not null.
void Tensor::pack_codes(const char* const* lane, char* dst) const {
  const Groups& groups = codes_.groups;
  const int64_t row_codes = element_ == kW4 ? (cols_ + 1) / 2 : cols_;
  const auto word = [&](int l, int64_t at) {  // four bytes of codes, zeros after the last
    uint32_t w = 0;
    if (lane[l] != nullptr) std::memcpy(&w, lane[l] + at, size_t(std::min<int64_t>(4, row_codes - at)));
    return w;
  };
  const bool whole = std::all_of(lane, lane + kPanel, [](const char* l) { return l != nullptr; });
  const auto put = [&](char* line, const uint32_t* words) {
    for (int l = 0; l < kPanel; l++)
      if (whole || lane[l] != nullptr) std::memcpy(line + 4 * l, words + l, 4);
  };
  uint32_t words[kPanel];
  char* line = dst;
  for (int64_t at = 0; at < row_codes; at += 4) {
    for (int l = 0; l < kPanel; l++) words[l] = word(l, at);
    if (element_ == kF8) {
      for (int k = 0; k < 4 && at + k < cols_; k++, line += kPanel)
        for (int l = 0; l < kPanel; l++)
          if (lane[l] != nullptr) line[l] = char(words[l] >> 8 * k);
      continue;
    }
    for (uint32_t& w : words) w = element_ == kW8 ? w ^ 0x80808080u : spread(w & 0xffff) | spread(w >> 16) << 4;
    put(line, words);
    line += 64;
  }
  const int each = element_ == kF8 ? 4 : 2;
  char *scales = dst + codes_.code_bytes(), *minimums = scales + codes_.scale_bytes();
  for (int l = 0; l < kPanel; l++) {
    if (lane[l] == nullptr) continue;
    const char* from = lane[l] + row_codes;
    for (int g = 0; g < groups.count(); g++) {
      const size_t at = size_t(g * kPanel + l) * each;
      std::memcpy(scales + at, from + g * each, each);
      if (codes_.minimum) std::memcpy(minimums + at, from + (groups.count() + g) * each, each);
      // Products do not see which codes are NaN, but the scale.
      const int64_t first = int64_t(g) * groups.each();
      if (element_ == kF8 && has_nan(lane[l] + first, std::min<int64_t>(groups.each(), cols_ - first)))
        std::memcpy(scales + at, &kNaN, sizeof kNaN);
    }
  }
}

void Tensor::row(int r, float* out, int matrix) const {
  const char* p = panel(r / kPanel, matrix);
  const int lane = r % kPanel;
  if (quantized()) return code_row(p, lane, out);
  for (int k = 0; k < cols(); k++) {
    const size_t at = panel_offset(element_, lane, k);
    switch (element_) {
      case kF16:
        out[k] = float_from_f16(reinterpret_cast<const uint16_t*>(p)[at]);
        break;
      case kBF16:
        out[k] = float_from_bf16(reinterpret_cast<const uint16_t*>(p)[at]);
        break;
      default:
        out[k] = reinterpret_cast<const float*>(p)[at];
    }
  }
}

// Decodes a row of quantised panel p.
void Tensor::code_row(const char* p, int lane, float* out) const {
  const char *scales = p + codes_.code_bytes(), *minimums = scales + codes_.scale_bytes();
  for (int k = 0; k < cols(); k++) {
    const int64_t group = k / codes_.groups.each() * kPanel + lane;
    if (element_ == kF8) {
      out[k] = read<float>(scales + group * 4) * float_from_e4m3(uint8_t(p[int64_t(k) * kPanel + lane]));
      continue;
    }
    int code;
    if (element_ == kW8) {
      code = uint8_t(p[k / 4 * 64 + lane * 4 + k % 4]) - 128;
    } else {
      code = uint8_t(p[k / 8 * 64 + lane * 4 + k % 4]) >> (k / 4 % 2 * 4) & 15;
      if (!codes_.minimum) code = (codes_.table == nullptr ? kTables[0] : codes_.table)[code];
    }
    out[k] = float_from_f16(read<uint16_t>(scales + group * 2)) * float(code);
    if (codes_.minimum) out[k] += float_from_f16(read<uint16_t>(minimums + group * 2));
  }
}

}  // namespace millrace
