//go:build !static

package cuda

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

static void mr_call_memory(void *fn, int32_t device, int64_t *free, int64_t *total) {
	((void (*)(int32_t, int64_t *, int64_t *))fn)(device, free, total);
}

static void *mr_call_device(void *fn, int32_t first, int32_t devices, int32_t device) {
	return ((void *(*)(int32_t, int32_t, int32_t))fn)(first, devices, device);
}

static void *mr_call_group(void *fn) { return ((void *(*)(void))fn)(); }

static void mr_call_abandon(void *fn, void *group) { ((void (*)(void *))fn)(group); }

static int32_t mr_call_convert(void *fn, void *ctx, int32_t handle, int32_t from, int64_t first, int64_t rows, const void *src, int64_t bytes) {
	return ((int32_t (*)(void *, int32_t, int32_t, int64_t, int64_t, const void *, int64_t))fn)(ctx, handle, from, first, rows, src, bytes);
}

static void mr_call_peaks(void *fn, double *bytes, double *operations) {
	((void (*)(double *, double *))fn)(bytes, operations);
}
*/
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// What a library has: a backend's table of functions, an mr_backend of millrace.h, and
// what tells how much memory is free, and what the GPU can do; and of several GPUs the table
// of each, and what ends their waiting for each other; and what converts rows of tensors.
const (
	backendSymbol = "mr_backend_v8"
	memorySymbol  = "mr_cuda_device_memory"
	peaksSymbol   = "mr_cuda_peaks"
	deviceSymbol  = "mr_cuda_device"
	groupSymbol   = "mr_cuda_group"
	abandonSymbol = "mr_cuda_abandon"
	convertSymbol = "mr_cuda_tensor_convert"
)

// library is one that is open.
type library struct{ backend, memory, peaks, device, made, abandon, convert unsafe.Pointer }

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
	runtime.LockOSThread() // dlerror knows what went wrong on its own thread only
	defer runtime.UnlockOSThread()
	handle := C.dlopen(name, C.RTLD_NOW|C.RTLD_LOCAL)
	if handle == nil {
		return nil, fmt.Errorf("opening the CUDA backend: %s", C.GoString(C.dlerror()))
	}
	l := &library{}
	for symbol, at := range map[string]*unsafe.Pointer{
		backendSymbol: &l.backend, memorySymbol: &l.memory, peaksSymbol: &l.peaks,
		deviceSymbol: &l.device, groupSymbol: &l.made, abandonSymbol: &l.abandon,
		convertSymbol: &l.convert,
	} {
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

func (l *library) free(device int) (free, total int64) {
	var f, t C.int64_t
	C.mr_call_memory(l.memory, C.int32_t(device), &f, &t)
	return int64(f), int64(t)
}

// table is the backend of GPU first+i, of n from first on that are being opened for a model.
func (l *library) table(first, n, i int) unsafe.Pointer {
	return C.mr_call_device(l.device, C.int32_t(first), C.int32_t(n), C.int32_t(i))
}

// group returns what ends the waiting of the group that was opened last.
func (l *library) group() (abandon func()) {
	made := C.mr_call_group(l.made)
	return func() {
		if made != nil {
			C.mr_call_abandon(l.abandon, made)
		}
	}
}

// tensorConvert returns an mr_status.
func (l *library) tensorConvert(ctx unsafe.Pointer, h device.Handle, from plan.Format, first, rows int, src []byte) int32 {
	return int32(C.mr_call_convert(l.convert, ctx, C.int32_t(h), C.int32_t(from), C.int64_t(first), C.int64_t(rows),
		unsafe.Pointer(unsafe.SliceData(src)), C.int64_t(len(src))))
}

func (l *library) measure() (bytes, operations float64) {
	var b, o C.double
	C.mr_call_peaks(l.peaks, &b, &o)
	return float64(b), float64(o)
}
