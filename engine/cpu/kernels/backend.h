/* What this package's C++ shows to Go. */
#ifndef MILLRACE_CPU_BACKEND_H
#define MILLRACE_CPU_BACKEND_H

#include "../../device/abi/millrace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The CPU backend's table. */
const mr_backend *mr_cpu_backend(void);

#ifdef __cplusplus
}
#endif
#endif
