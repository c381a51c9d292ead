// Memory that lives outside every heap: weights, the KV cache, activations.
#ifndef MILLRACE_CPU_MEMORY_H
#define MILLRACE_CPU_MEMORY_H

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace millrace {

// Pages of a Mapping. A weight matrix read once per token misses the TLB on every
// small page; of large arrays that are mostly empty a huge page wastes nearly all.
enum class Pages { huge, small };

// Mapping is zeroed anonymous memory, in huge pages if asked for and where the
// kernel grants them. The address is aligned to 64 bytes, in huge pages to 2 MB
// from 2 MB on.
class Mapping {
 public:
  Mapping() = default;
  // Throws std::bad_alloc if the kernel refuses.
  explicit Mapping(size_t bytes, Pages pages = Pages::huge) : bytes_(bytes) {
    if (bytes == 0) return;
    const size_t slack = pages == Pages::huge && bytes >= kHuge ? kHuge : 0;
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    length_ = bytes + slack + kGuard;
    void* p = mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = p;
    data_ = static_cast<char*>(p);
    if (slack != 0) {
      data_ += (kHuge - reinterpret_cast<uintptr_t>(p) % kHuge) % kHuge;
      madvise(data_, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
    }
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(data_ + bytes, static_cast<char*>(base_) + length_ - (data_ + bytes));
#endif
  }
  Mapping(Mapping&& other) noexcept { swap(other); }
  Mapping& operator=(Mapping&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Mapping() {
    if (base_ == nullptr) return;
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(base_, length_);
#endif
    munmap(base_, length_);
  }

  char* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kHuge = size_t(2) << 20;
  // AddressSanitizer knows nothing of mapped memory: this much after a mapping
  // is poisoned by hand, as it does itself after what comes from the heap.
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t kGuard = 4096;
#else
  static constexpr size_t kGuard = 0;
#endif

  void swap(Mapping& other) {
    std::swap(base_, other.base_);
    std::swap(data_, other.data_);
    std::swap(length_, other.length_);
    std::swap(bytes_, other.bytes_);
  }

  void* base_ = nullptr;
  char* data_ = nullptr;
  size_t length_ = 0, bytes_ = 0;
};

}  // namespace millrace
#endif
