// Errors inside a backend in C++ are exceptions that carry the ABI's status and a
// sentence; entries.h turns them into return values.
#ifndef MILLRACE_ERROR_H
#define MILLRACE_ERROR_H

#include <cstdarg>
#include <cstdio>
#include <stdexcept>

#include "millrace.h"

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

}  // namespace millrace
#endif
