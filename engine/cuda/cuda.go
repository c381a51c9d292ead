// Package cuda is the backend for NVIDIA GPUs. It is a library of its own, which is opened
// when it is asked for: libmillrace_cuda.so, or one with the same kernels compiled for the
// CPU, libmillrace_cuda_shim.so. The folder cuda has its sources.
package cuda

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/shard"
)

// Open returns a backend without a model, on the first GPU of the machine.
func Open(path string, limits device.Limits) (device.Backend, error) {
	return OpenOn(path, limits, 0, 1)
}

// opening is held while the GPUs of a model are opened: one model at a time.
var opening sync.Mutex

// OpenOn returns a backend without a model on n GPUs of the machine, from number first on.
// It divides the model among them.
func OpenOn(path string, limits device.Limits, first, n int) (device.Backend, error) {
	if n < 1 || n > plan.MaxShards {
		return nil, fmt.Errorf("a model on %d GPUs, expected 1 to %d", n, plan.MaxShards)
	}
	l, err := open(path)
	if err != nil {
		return nil, err
	}
	opening.Lock()
	defer opening.Unlock()
	var shards []device.Backend
	for i := range n {
		b, err := device.NewNative(l.table(first, n, i), limits)
		if err != nil {
			for _, s := range shards {
				err = errors.Join(err, s.Close())
			}
			l.group()
			return nil, err
		}
		shards = append(shards, &backend{b, l})
	}
	if n == 1 {
		return shards[0], nil
	}
	return shard.New(shards, l.group()), nil
}

// backend is a GPU's.
type backend struct {
	*device.Native
	library *library
}

var _ device.Converter = (*backend)(nil)

// Converts implements device.Converter: elements of 16 and 32 bits and FP8 to other floats, W8
// and W4.
func (b *backend) Converts(from, to plan.Format) bool {
	floats := func(f plan.Format) bool { return f == plan.F32 || f == plan.F16 || f == plan.BF16 }
	return from != to && (floats(from) || from.Kind() == plan.F8) &&
		(floats(to) || (to.Kind() == plan.W8 || to.Kind() == plan.W4) && !to.Minimum())
}

// ConvertTensor implements device.Converter.
func (b *backend) ConvertTensor(h device.Handle, first, n int, src []byte, from plan.Format) error {
	return b.Call(func(ctx unsafe.Pointer) int32 { return b.library.tensorConvert(ctx, h, from, first, n, src) })
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

// Memory returns the bytes of n GPUs that are free for weights and caches, and all that they
// have, the first ones of the machine. What they share they need in equal parts, so that the
// one with the least decides.
func Memory(path string, n int) (free, total int64, err error) {
	l, err := open(path)
	if err != nil {
		return 0, 0, err
	}
	for i := range n {
		f, t := l.free(i)
		if t == 0 {
			return 0, 0, fmt.Errorf("how much memory GPU %d has free cannot be found out", i)
		}
		if i == 0 || f < free {
			free = f
		}
		if i == 0 || t < total {
			total = t
		}
	}
	return int64(n) * free, int64(n) * total, nil
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
