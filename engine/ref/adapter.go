package ref

import (
	"slices"

	"github.com/millrace-ai/millrace/engine/device"
)

// adapter is a device.Adapter of its own memory.
type adapter struct {
	rank    int
	targets []device.AdapterTarget
}

// LoadAdapter implements device.Backend.
func (b *Backend) LoadAdapter(id int32, a *device.Adapter) error {
	mine := adapter{rank: a.Rank, targets: slices.Clone(a.Targets)}
	for i := range mine.targets {
		t := &mine.targets[i]
		t.A, t.B = slices.Clone(t.A), slices.Clone(t.B)
	}
	b.adapters[id] = mine
	return nil
}

// DropAdapter implements device.Backend.
func (b *Backend) DropAdapter(id int32) error {
	delete(b.adapters, id)
	return nil
}

// apply adds B A x to out, which is x times a matrix of a tensor of the plan.
func (a adapter) apply(tensor int32, matrix int, out []float64, x []float32) {
	for _, t := range a.targets {
		if t.Tensor != int(tensor) {
			continue
		}
		low := make([]float64, a.rank)
		for k := range low {
			low[k] = dot(x, t.A[(matrix*a.rank+k)*len(x):])
		}
		for i := range t.Rows {
			for k, v := range low {
				out[t.First+i] += float64(t.B[(matrix*t.Rows+i)*a.rank+k]) * v
			}
		}
	}
}
