// Rows of tensors that come in another format than they are kept in. What is computed, and in which
// order, is that of quant.Encode, so that weights have the same bits wherever they were converted.
#include <algorithm>

#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128;

// Source is a row as it comes: elements or, of FP8, codes and then a scale for each group.
struct Source {
  const char* row;
  int32_t kind, cols, group;
  __device__ float at(int i) const {
    switch (kind) {
      case MR_F32:
        return reinterpret_cast<const float*>(row)[i];
      case MR_F16:
        return from_f16(reinterpret_cast<const uint16_t*>(row)[i]);
      case MR_BF16:
        return from_bf16(reinterpret_cast<const uint16_t*>(row)[i]);
    }
    const uint8_t* scale = reinterpret_cast<const uint8_t*>(row) + cols + size_t(i / group) * 4;  // of any alignment
    const uint32_t bits = uint32_t(scale[0]) | uint32_t(scale[1]) << 8 | uint32_t(scale[2]) << 16 | uint32_t(scale[3]) << 24;
    return __uint_as_float(bits) * from_e4m3(uint8_t(row[i]));
  }
};

// Rounds a number below 2^22 to the nearest, ties to even.
__device__ __forceinline__ float whole(float v) {
  constexpr float kShift = 3 << 22;  // there, numbers are whole
  return v + kShift - kShift;
}
__device__ __forceinline__ float between(float v, float least, float most) { return fmaxf(fminf(v, most), least); }

// The codes of a table that ascends, or is 16 whole numbers, or neither.
struct Table {
  const int8_t* codes;
  int which;
  __device__ int nearest(float v) const {
    if (which == 0) return int(whole(between(v, -8.f, 7.f)) + 8.f);
    if (which != MR_CODES_E2M1 >> 24) {
      int code = 0;  // how many of the middles between neighbours are below v
      for (int step = 8; step > 0; step /= 2)
        if (v > float(codes[code + step - 1] + codes[code + step]) / 2.f) code += step;
      return code;
    }
    float least = INFINITY;
    int code = 0;
    for (int i = 0; i < 16; i++) {
      const float d = fabsf(v - float(codes[i]));
      if (d < least) {
        least = d;
        code = i;
      }
    }
    return code;
  }
};

// The scale that loses least of elements [first, end), of those near the one that brings most, the
// number of the greatest magnitude, to the greatest code.
__device__ float fit(const Source& x, int first, int end, const Table& table, float most) {
  if (most == 0.f) return 0.f;
  float far = 0;
  for (int i = 0; i < 16; i++)
    if (fabsf(float(table.codes[i])) > fabsf(far)) far = table.codes[i];
  const float stretches[6] = {1.f, 0.95f, 0.9f, 0.85f, 1.05f, 1.1f};
  float best = most / far, gain = -1;
  for (int s = 0; s < 6; s++) {
    const float inverse = far / most * stretches[s];
    float xc = 0, cc = 0;
    MR_LOOP
    for (int i = first; i < end; i++) {
      const float v = x.at(i), c = table.codes[table.nearest(v * inverse)];
      xc += c * v;
      cc += c * c;
    }
    const float keeps = xc * xc / cc;
    if (cc > 0.f && keeps > gain) {
      best = xc / cc;
      gain = keeps;
    }
  }
  return best;
}

// A thread makes a group of codes, so that sums are in the order of the elements.
__device__ void encode_group(const Weight& w, const Source& x, char* to, int matrix, int row, int g) {
  const int first = g * w.group, end = min(w.cols, first + w.group);
  float low = 0, high = 0;
  for (int i = first; i < end; i++) {
    low = fminf(low, x.at(i));
    high = fmaxf(high, x.at(i));
  }
  const Table table = {kCodes[w.table], w.table};
  const bool bytes = w.kind == MR_W8;
  float scale = fmaxf(-low, high) + 0.f;  // not -0
  if (bytes)
    scale /= 127.f;
  else
    scale = fit(x, first, end, table, -low > high ? low : scale);
  const uint16_t bits = to_f16(scale);
  const_cast<uint16_t*>(static_cast<const uint16_t*>(w.scales))[w.scale_at(matrix, g, row)] = bits;
  scale = from_f16(bits);
  const float inverse = scale == 0.f ? 0.f : 1.f / scale;
  if (bytes) {
    for (int i = first; i < end; i++) to[i] = char(int8_t(whole(between(x.at(i) * inverse, -127.f, 127.f))));
    return;
  }
  for (int i = first; i < end; i += 2) {
    const int high_code = i + 1 < end ? table.nearest(x.at(i + 1) * inverse) : 0;
    to[i / 2] = char(table.nearest(x.at(i) * inverse) | high_code << 4);
  }
}

// A NaN of BF16 keeps the bits that it has.
__device__ __forceinline__ uint16_t shorten(float v) { return v != v ? uint16_t(__float_as_uint(v) >> 16) : to_bf16(v); }

__global__ void __launch_bounds__(kThreads) convert_rows_kernel(Weight w, int32_t kind, int32_t group, const char* src, int64_t first,
                                                                size_t src_row_bytes) {
  const int64_t r = first + blockIdx.x;
  const int matrix = int(r / w.rows), row = int(r % w.rows);
  const Source x = {src + size_t(blockIdx.x) * src_row_bytes, kind, w.cols, group};
  char* to = const_cast<char*>(w.row(matrix, row));
  if (w.kind >= MR_W8) {
    for (int g = threadIdx.x; g < w.groups; g += kThreads) encode_group(w, x, to, matrix, row, g);
    return;
  }
  for (int i = threadIdx.x; i < w.cols; i += kThreads) {
    const float v = x.at(i);
    if (w.kind == MR_F32)
      reinterpret_cast<float*>(to)[i] = v;
    else
      reinterpret_cast<uint16_t*>(to)[i] = w.kind == MR_F16 ? to_f16(v) : shorten(v);
  }
}

}  // namespace

bool converts(int32_t from, const Weight& w) {
  const int kind = from & MR_KIND_MASK;
  const bool whole_groups = w.kind != MR_W4 || w.groups == 1 || w.group % 2 == 0;  // of bytes
  return (kind <= MR_BF16 || kind == MR_F8) && w.kind <= MR_W4 && w.minimums == nullptr && whole_groups;
}

void convert_rows(cudaStream_t stream, const Weight& w, int32_t from, const void* src, int64_t first, int64_t rows,
                  size_t src_row_bytes) {
  const int group = (from & MR_GROUP_MASK) >> MR_GROUP_SHIFT;
  MR_LAUNCH(convert_rows_kernel, unsigned(rows), kThreads, stream, w, from & MR_KIND_MASK, group == 0 ? w.cols : group,
            static_cast<const char*>(src), first, src_row_bytes);
}

}  // namespace millrace
