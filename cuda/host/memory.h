// Memory that goes back by itself.
#ifndef MILLRACE_CUDA_MEMORY_H
#define MILLRACE_CUDA_MEMORY_H

#include <cstddef>
#include <utility>

#include "error.h"

namespace millrace {

// Memory is memory of the device, or of the host where the device can read and write it,
// at the same address.
class Memory {
 public:
  enum Where { device, host };
  Memory() = default;
  Memory(Where where, size_t bytes, const char* what) : where_(where), bytes_(bytes) {
    if (bytes == 0) return;
    const cudaError_t error =
        where == device ? cudaMalloc(&data_, bytes) : cudaHostAlloc(&data_, bytes, cudaHostAllocMapped);
    if (error == cudaSuccess) return;
    cudaGetLastError();  // so that the next call does not say it again
    size_t free = 0, total = 0;
    if (error == cudaErrorMemoryAllocation && where == device && cudaMemGetInfo(&free, &total) == cudaSuccess)
      fail(MR_NO_MEMORY, "%.1f MiB of device memory for %s, of which %.1f of %.1f MiB are free", double(bytes) / 0x1p20, what,
           double(free) / 0x1p20, double(total) / 0x1p20);
    check(error, what);
  }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory() {
    if (data_ != nullptr) where_ == device ? cudaFree(data_) : cudaFreeHost(data_);
  }

  char* data() const { return static_cast<char*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Memory& other) {
    std::swap(where_, other.where_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  Where where_ = device;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Arena cuts arrays from one piece of memory. Without memory it only measures: what is
// laid out twice, in the same order, is measured first.
class Arena {
 public:
  explicit Arena(char* base) : base_(base) {}
  bool measures() const { return base_ == nullptr; }
  template <class T>
  T* take(size_t n) {
    T* at = reinterpret_cast<T*>(base_ + used_);
    used_ += (n * sizeof(T) + 255) / 256 * 256;
    return at;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace millrace
#endif
