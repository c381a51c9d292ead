// Package cuda is the backend for NVIDIA GPUs. It is a library of its own, which is opened
// when it is asked for: libmillrace_cuda.so, or one with the same kernels compiled for the
// CPU, libmillrace_cuda_shim.so. The folder cuda has its sources.
package cuda

import (
	"fmt"

	"github.com/millrace-ai/millrace/engine/device"
)

// Open returns a backend without a model.
func Open(path string, limits device.Limits) (*device.Native, error) {
	l, err := open(path)
	if err != nil {
		return nil, err
	}
	return device.NewNative(l.backend, limits)
}

// Probe says what this machine offers. Caps.Name is empty if there is no GPU that the
// library can use, and Caps.Detail says why.
func Probe(path string) (device.Caps, error) {
	l, err := open(path)
	if err != nil {
		return device.Caps{}, err
	}
	return device.ProbeNative(l.backend)
}

// Memory returns the bytes of the GPU that are free for weights and caches, and all that it
// has.
func Memory(path string) (free, total int64, err error) {
	l, err := open(path)
	if err != nil {
		return 0, 0, err
	}
	if free, total = l.free(); total == 0 {
		return 0, 0, fmt.Errorf("how much memory the GPU has free cannot be found out")
	}
	return free, total, nil
}

// Peaks measures what the GPU can do at most: bytes a second that a copy in its memory reads
// and writes, and operations a second of products in bfloat16. The latter are of mma.sync,
// which is less than the tensor cores of compute capability 9.0 reach by other means.
func Peaks(path string) (bytes, operations float64, err error) {
	l, err := open(path)
	if err != nil {
		return 0, 0, err
	}
	if bytes, operations = l.measure(); bytes == 0 || operations == 0 {
		return 0, 0, fmt.Errorf("the GPU cannot be measured")
	}
	return bytes, operations, nil
}
