//go:build !static

package cuda

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

static void mr_call_memory(void *fn, int64_t *free, int64_t *total) {
	((void (*)(int64_t *, int64_t *))fn)(free, total);
}

static void mr_call_peaks(void *fn, double *bytes, double *operations) {
	((void (*)(double *, double *))fn)(bytes, operations);
}
*/
import "C"

import (
	"fmt"
	"sync"
	"unsafe"
)

// What a library has: a backend's table of functions, an mr_backend of millrace.h, and
// what tells how much memory is free, and what the GPU can do.
const (
	backendSymbol = "mr_backend_v6"
	memorySymbol  = "mr_cuda_memory"
	peaksSymbol   = "mr_cuda_peaks"
)

// library is one that is open.
type library struct{ backend, memory, peaks unsafe.Pointer }

var (
	mu        sync.Mutex
	libraries = map[string]*library{} // by path
)

// open opens a library, which stays open: a driver that has started does not like to be
// unloaded.
func open(path string) (*library, error) {
	mu.Lock()
	defer mu.Unlock()
	if l, ok := libraries[path]; ok {
		return l, nil
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(name, C.RTLD_NOW|C.RTLD_LOCAL)
	if handle == nil {
		return nil, fmt.Errorf("opening the CUDA backend: %s", C.GoString(C.dlerror()))
	}
	l := &library{}
	for symbol, at := range map[string]*unsafe.Pointer{backendSymbol: &l.backend, memorySymbol: &l.memory, peaksSymbol: &l.peaks} {
		name := C.CString(symbol)
		*at = C.dlsym(handle, name)
		C.free(unsafe.Pointer(name))
		if *at == nil {
			C.dlclose(handle)
			return nil, fmt.Errorf("opening the CUDA backend: %s has no symbol %s", path, symbol)
		}
	}
	libraries[path] = l
	return l, nil
}

func (l *library) free() (free, total int64) {
	var f, t C.int64_t
	C.mr_call_memory(l.memory, &f, &t)
	return int64(f), int64(t)
}

func (l *library) measure() (bytes, operations float64) {
	var b, o C.double
	C.mr_call_peaks(l.peaks, &b, &o)
	return float64(b), float64(o)
}
