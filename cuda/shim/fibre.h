// Fibres: threads that take turns on one stack pointer.
#ifndef MILLRACE_SHIM_FIBRE_H
#define MILLRACE_SHIM_FIBRE_H

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace shim {

// A Fibre runs an entry function on a stack of its own. switch_to stops the one and goes
// on with the other where that stopped last, or at its entry.
class Fibre {
 public:
  static constexpr size_t kStack = 256 << 10;

  Fibre() = default;
  ~Fibre() {
    if (stack_ != nullptr) munmap(stack_, kStack);
  }
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  bool owns(const void* at) const { return size_t(static_cast<const char*>(at) - stack_) < kStack; }

  // start makes the next switch_to this begin with entry, which never returns.
  void start(void (*entry)()) {
    if (stack_ == nullptr) {
      void* p = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) throw std::bad_alloc();
      stack_ = static_cast<char*>(p);
    }
#ifdef __x86_64__
    // What the switch pops: six registers, then the address to return to. A function is
    // entered with the stack pointer at 8 modulo 16.
    void** top = reinterpret_cast<void**>(stack_ + kStack - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    top -= 6;
    at_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#endif
  }

  void switch_to(Fibre& other);

 private:
  char* stack_ = nullptr;  // of the host thread's own fibre: none
#ifdef __x86_64__
  void* at_ = nullptr;
#else
  ucontext_t context_;
#endif
};

#ifdef __x86_64__
extern "C" void millrace_shim_switch(void** from, void* to);
inline void Fibre::switch_to(Fibre& other) { millrace_shim_switch(&at_, other.at_); }
#else
inline void Fibre::switch_to(Fibre& other) { swapcontext(&context_, &other.context_); }
#endif

}  // namespace shim
#endif
