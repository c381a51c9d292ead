// Errors are exceptions that carry the ABI's status and a sentence; backend.cc turns them
// into return values.
#ifndef MILLRACE_CUDA_ERROR_H
#define MILLRACE_CUDA_ERROR_H

#include <cuda_runtime.h>
#include <millrace.h>

#include <cstdarg>
#include <cstdio>
#include <stdexcept>

namespace millrace {

class Error : public std::runtime_error {
 public:
  Error(mr_status status, const char* sentence) : std::runtime_error(sentence), status_(status) {}
  mr_status status() const { return status_; }

 private:
  mr_status status_;
};

// fail throws an Error with a printf-formatted sentence.
[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(mr_status status, const char* format, ...) {
  char sentence[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(sentence, sizeof sentence, format, args);
  va_end(args);
  throw Error(status, sentence);
}

// check throws what CUDA says went wrong. All but a lack of memory is for good: after a
// fault of a kernel every call fails.
inline void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  fail(error == cudaErrorMemoryAllocation ? MR_NO_MEMORY : MR_LOST, "%s: %s", doing, cudaGetErrorString(error));
}

}  // namespace millrace
#endif
