// Tensors on their way in.
#include "common.cuh"

namespace millrace {
namespace {

// src has rows as package plan lays them out: codes, scales, minimums.
__global__ void store_rows_kernel(Weight w, const char* src, int64_t first, size_t src_row_bytes) {
  const int64_t r = first + blockIdx.x;
  const int64_t matrix = r / w.rows, row = r % w.rows;
  const char* from = src + size_t(blockIdx.x) * src_row_bytes;
  char* to = const_cast<char*>(w.row(int(matrix), int(row)));
  const int codes = w.kind == MR_F32 ? 4 * w.cols : w.kind == MR_W4 ? (w.cols + 1) / 2 : w.kind >= MR_W8 ? w.cols : 2 * w.cols;
  for (int i = threadIdx.x; i < codes; i += blockDim.x) to[i] = from[i];
  if (w.kind < MR_W8) return;
  const int each = w.kind == MR_F8 ? 4 : 2;
  // Of i bytes of scales or minimums, those of a group are far from those of the next.
  const auto place = [&](int i, int each) { return w.scale_at(int(matrix), i / each, int(row)) * each + i % each; };
  char* scales = static_cast<char*>(const_cast<void*>(w.scales));
  for (int i = threadIdx.x; i < w.groups * each; i += blockDim.x) scales[place(i, each)] = from[codes + i];
  if (w.minimums == nullptr) return;
  char* minimums = reinterpret_cast<char*>(const_cast<uint16_t*>(w.minimums));
  for (int i = threadIdx.x; i < w.groups * 2; i += blockDim.x) minimums[place(i, 2)] = from[codes + w.groups * each + i];
}

__global__ void decode_rows_kernel(Weight w, float* out) {
  for (int i = threadIdx.x; i < w.cols; i += blockDim.x)
    out[size_t(blockIdx.x) * w.cols + i] = element(w, int(blockIdx.x) / w.rows, int(blockIdx.x) % w.rows, i);
}

}  // namespace

void store_rows(cudaStream_t stream, const Weight& w, const void* src, int64_t first, int64_t rows, size_t src_row_bytes) {
  MR_LAUNCH(store_rows_kernel, unsigned(rows), 128, stream, w, static_cast<const char*>(src), first, src_row_bytes);
}

void decode_rows(cudaStream_t stream, const Weight& w, int matrices, float* out) {
  MR_LAUNCH(decode_rows_kernel, unsigned(matrices * w.rows), 128, stream, w, out);
}

}  // namespace millrace
