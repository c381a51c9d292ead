// Package cuda is the backend for NVIDIA GPUs. It is a library of its own, which is opened
// when it is asked for: libmillrace_cuda.so, or one with the same kernels compiled for the
// CPU, libmillrace_cuda_shim.so. The folder cuda has its sources.
package cuda

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
*/
import "C"

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/device"
)

// symbol is the name of a backend's table of functions in its library, an mr_backend of
// millrace.h.
const symbol = "mr_backend_v4"

var (
	mu     sync.Mutex
	tables = map[string]unsafe.Pointer{} // by library
)

// table returns the table of a library, which stays open: a driver that has started does
// not like to be unloaded.
func table(library string) (unsafe.Pointer, error) {
	mu.Lock()
	defer mu.Unlock()
	if t, ok := tables[library]; ok {
		return t, nil
	}
	path, name := C.CString(library), C.CString(symbol)
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(path, C.RTLD_NOW|C.RTLD_LOCAL)
	if handle == nil {
		return nil, fmt.Errorf("opening the CUDA backend: %s", C.GoString(C.dlerror()))
	}
	t := C.dlsym(handle, name)
	if t == nil {
		C.dlclose(handle)
		return nil, fmt.Errorf("opening the CUDA backend: %s has no symbol %s", library, symbol)
	}
	tables[library] = t
	return t, nil
}

// Open returns a backend without a model.
func Open(library string, limits device.Limits) (*device.Native, error) {
	t, err := table(library)
	if err != nil {
		return nil, err
	}
	return device.NewNative(t, limits)
}

// Probe says what this machine offers. Caps.Name is empty if there is no GPU that the
// library can use, and Caps.Detail says why.
func Probe(library string) (device.Caps, error) {
	t, err := table(library)
	if err != nil {
		return device.Caps{}, err
	}
	return device.ProbeNative(t)
}
