#include "upload.h"

#include <algorithm>
#include <cstring>

#include "error.h"

namespace millrace {

Uploader::Uploader() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "opening the GPU");
  for (Stage& s : stages_) check(cudaEventCreateWithFlags(&s.done, cudaEventDisableTiming), "opening the GPU");
}

Uploader::~Uploader() {
  cudaStreamSynchronize(stream_);
  for (Stage& s : stages_) cudaEventDestroy(s.done);
  cudaStreamDestroy(stream_);
}

void Uploader::write(const Tensor& tensor, int32_t from_format, int64_t first, int64_t rows, const void* src) {
  constexpr size_t kLeast = size_t(64) << 10;  // until a tensor needs more
  const size_t row = tensor.row_bytes(from_format);
  const int64_t each = std::max<int64_t>(1, int64_t(kBytes / row));
  const char* from = static_cast<const char*>(src);
  last_ = tensor.name();
  for (int64_t done = 0; done < rows; done += each) {
    Stage& s = stages_[next_];
    next_ = (next_ + 1) % kStages;
    wait(s);
    const int64_t n = std::min(each, rows - done);
    const size_t bytes = size_t(n) * row;
    if (s.pinned.bytes() < bytes) {
      const size_t room = bytes <= kLeast ? kLeast : std::max(bytes, kBytes);
      s.pinned = Memory();
      s.device = Memory();
      s.pinned = Memory(Memory::host, room, "rows on their way in");
      s.device = Memory(Memory::device, room, "rows on their way in");
    }
    std::memcpy(s.pinned.data(), from + size_t(done) * row, bytes);
    const std::string doing = "copying tensor " + last_;
    check(cudaMemcpyAsync(s.device.data(), s.pinned.data(), bytes, cudaMemcpyHostToDevice, stream_), doing.c_str());
    if (from_format == tensor.format())
      store_rows(stream_, tensor.weight(), s.device.data(), first + done, n, row);
    else
      convert_rows(stream_, tensor.weight(), from_format, s.device.data(), first + done, n, row);
    check(cudaPeekAtLastError(), doing.c_str());
    check(cudaEventRecord(s.done, stream_), doing.c_str());
    s.busy = true;
  }
}

// An error may be of any rows that are in flight.
void Uploader::wait(Stage& s) {
  if (!s.busy) return;
  s.busy = false;
  const cudaError_t error = cudaEventSynchronize(s.done);
  if (error != cudaSuccess) check(error, ("storing tensors up to " + last_).c_str());
}

void Uploader::finish() {
  for (Stage& s : stages_) {
    wait(s);
    s.pinned = Memory();
    s.device = Memory();
  }
  check(cudaStreamSynchronize(stream_), "storing tensors");  // those that nothing was written of, too
}

}  // namespace millrace
