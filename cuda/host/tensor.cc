#include "tensor.h"

#include "error.h"

namespace millrace {
namespace {

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Bytes of the codes, or elements, of n columns.
int64_t code_bytes(int32_t kind, int64_t n) {
  return kind == MR_F32 ? 4 * n : kind == MR_W4 ? (n + 1) / 2 : kind >= MR_W8 ? n : 2 * n;
}

}  // namespace

Tensor::Tensor(const char* name, int32_t format, int rank, const int64_t* shape, cudaStream_t stream)
    : name_(name), format_(format) {
  constexpr int64_t kMost = int64_t(1) << 31;
  if (rank < 1 || rank > 3) fail(MR_INVALID, "tensor %s has %d dimensions", name, rank);
  for (int i = 0; i < rank; i++)
    if (shape[i] <= 0 || shape[i] >= kMost) fail(MR_INVALID, "tensor %s has a dimension of %lld", name, (long long)shape[i]);
  const int64_t cols = shape[rank - 1], rows = rank > 1 ? shape[rank - 2] : 1;
  if (rank == 3) matrices_ = shape[0];
  Weight& w = weight_;
  w.kind = format & MR_KIND_MASK;
  const int64_t group = (format & MR_GROUP_MASK) >> MR_GROUP_SHIFT;
  const bool minimum = (format & MR_WITH_MINIMUM) != 0, scaled = w.kind >= MR_W8;
  if (w.kind > MR_F8) fail(MR_UNSUPPORTED, "tensor %s is in format %d", name, format);
  if (scaled && rank == 1) fail(MR_INVALID, "tensor %s is a vector of codes", name);
  w.rows = int32_t(rows);
  w.cols = int32_t(cols);
  w.padded_rows = int32_t(rank == 1 ? 1 : round_up(rows, kTileN));
  w.group = int32_t(group == 0 ? cols : group);
  w.groups = int32_t((cols + w.group - 1) / w.group);
  w.table = minimum ? 4 : (format & MR_CODES_MASK) >> 24;

  const int64_t padded = round_up(cols, kTileK), scale = w.kind == MR_F8 ? 4 : 2;
  w.row_bytes = int32_t(code_bytes(w.kind, padded));
  const size_t all = size_t(matrices_) * size_t(w.padded_rows);
  missing_ = matrices_ * rows;

  char *codes = nullptr, *scales = nullptr;
  uint16_t* minimums = nullptr;
  const auto lay_out = [&](Arena arena) {
    codes = arena.take<char>(all * size_t(w.row_bytes));
    if (scaled) scales = arena.take<char>(all * size_t(w.groups * scale));
    if (minimum) minimums = arena.take<uint16_t>(all * size_t(w.groups));
    return arena.used();
  };
  memory_ = Memory(Memory::device, lay_out(Arena(nullptr)), name);
  lay_out(Arena(memory_.data()));
  w.codes = codes;
  w.scales = scaled ? scales : nullptr;
  w.minimums = minimum ? minimums : nullptr;
  check(cudaMemsetAsync(memory_.data(), 0, memory_.bytes(), stream), "clearing a tensor");
}

size_t Tensor::row_bytes(int32_t format) const {
  const int32_t kind = format & MR_KIND_MASK;
  const int64_t cols = weight_.cols, codes = code_bytes(kind, cols);
  if (kind < MR_W8) return size_t(codes);
  const int64_t group = (format & MR_GROUP_MASK) >> MR_GROUP_SHIFT, groups = group == 0 ? 1 : (cols + group - 1) / group;
  return size_t(codes + groups * ((kind == MR_F8 ? 4 : 2) + ((format & MR_WITH_MINIMUM) != 0 ? 2 : 0)));
}

void Tensor::check_write(int32_t format, int64_t first, int64_t rows, int64_t bytes) const {
  const int64_t all = matrices_ * weight_.rows, expected = int64_t(row_bytes(format));
  if (format != format_ && !converts(format, weight_))
    fail(MR_UNSUPPORTED, "tensor %s is in format %d, rows in format %d", name_.c_str(), format_, format);
  if (first < 0 || rows < 0 || first > all - rows)
    fail(MR_INVALID, "tensor %s: %lld rows from %lld on, it has %lld", name_.c_str(), (long long)rows, (long long)first,
         (long long)all);
  if (bytes != rows * expected)
    fail(MR_INVALID, "tensor %s: %lld bytes for %lld rows, expected %lld", name_.c_str(), (long long)bytes, (long long)rows,
         (long long)(rows * expected));
}

}  // namespace millrace
