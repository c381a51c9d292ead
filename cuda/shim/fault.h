// What the parts of the shim tell each other of the kernel that is running.
#ifndef MILLRACE_SHIM_FAULT_H
#define MILLRACE_SHIM_FAULT_H

#include <cstddef>
#include <string>

#include "shim.h"

namespace shim {

void run_kernel(const Call& call);

// asked_to_fail reports whether MILLRACE_SHIM_FAULT=name:n asks for a fault here.
bool asked_to_fail(const char* name);

// does_nothing reports whether this is the device that does nothing.
bool does_nothing();

// run_other_device runs the next work of some device none of whose work is under way, and
// reports whether there was any.
bool run_other_device();
// another_device_is_lost reports whether a device has failed that is not the running one.
bool another_device_is_lost();

// fault ends the kernel from a thread of it, fault_outside from the scheduler.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));
void fault_outside(const char* format, ...) __attribute__((format(printf, 1, 2)));
// report makes a fault the error of the device that runs.
void report(const std::string& what);

bool in_kernel();
int current_thread();
unsigned current_syncs();  // __syncwarp of its warp so far
bool on_stack(const void* at);
bool on_any_stack(const void* at);
bool in_shared(const void* at, size_t bytes);
bool in_any_shared(const void* at);  // or where more could be
size_t shared_offset(const void* at);

}  // namespace shim
#endif
