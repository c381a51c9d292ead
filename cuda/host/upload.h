// Weights on their way to the device.
#ifndef MILLRACE_CUDA_UPLOAD_H
#define MILLRACE_CUDA_UPLOAD_H

#include <string>

#include "memory.h"
#include "tensor.h"

namespace millrace {

// Uploader copies rows of tensors to the device, and to where the tensor keeps them, on a
// stream of its own: while the caller reads the next rows, those before them are copied, and
// converted. They go through pinned memory, from which a GPU copies without the processor.
class Uploader {
 public:
  Uploader();
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  cudaStream_t stream() const { return stream_; }

  // write takes rows of a tensor in format from, the tensor's or one that converts() knows; src may
  // change afterwards. What went wrong with them a later call may say, finish at the latest.
  void write(const Tensor& tensor, int32_t from, int64_t first, int64_t rows, const void* src);

  // finish waits for all that was written, and gives back the memory that it went through.
  void finish();

 private:
  // Stage is rows in flight: in pinned memory, and as they came on the device.
  struct Stage {
    Memory pinned, device;
    cudaEvent_t done = nullptr;
    bool busy = false;
  };
  static constexpr int kStages = 4;
  static constexpr size_t kBytes = size_t(4) << 20;  // of a stage: enough for the speed of the link

  void wait(Stage& stage);

  cudaStream_t stream_ = nullptr;
  Stage stages_[kStages];
  int next_ = 0;
  std::string last_;  // tensor
};

}  // namespace millrace
#endif
