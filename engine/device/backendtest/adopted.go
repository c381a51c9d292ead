package backendtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/sample"
)

// adopted: tensors in the layout that caps state answer as those that were written row
// by row, bit for bit, and their memory is given back when the backend is closed.
func (s *suite) adopted(t *testing.T) {
	b := device.Checked(s.open(t, limits), limits)
	defer b.Close()
	caps := b.Caps()
	if caps.Layout == "" {
		h, err := b.NewTensor("w", plan.BF16, []int{16, 16})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.AdoptTensor(h, make([]byte, 512), nil); !errors.Is(err, device.ErrUnsupported) {
			t.Errorf("AdoptTensor without a layout: %v", err)
		}
		if err := b.WriteTensor(h, 0, 16, make([]byte, 512)); err != nil {
			t.Errorf("WriteTensor after that: %v", err)
		}
		return
	}
	if caps.Layout != plan.Panels {
		t.Fatalf("layout %q: this suite packs %q", caps.Layout, plan.Panels)
	}
	for _, tt := range models() {
		for _, format := range s.formats(t) {
			if caps.Adopted>>format.Kind()&1 == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", tt.name, format), func(t *testing.T) {
				answers := func(m *model) []answer {
					h := s.host(t, m, limits)
					return h.step(chunk{seq: h.start(prompt(9, 20, m.plan.Vocab), sample.Greedy()), n: 20, score: true})
				}
				written, m := tt.build(format), tt.build(format)
				written.quantizeEmbeddings, m.quantizeEmbeddings = true, true
				m.adopted = &adopted{}
				t.Cleanup(func() {
					if a := m.adopted; a.taken == 0 || a.released != a.taken {
						t.Errorf("%d tensors adopted, %d released", a.taken, a.released)
					}
				})
				same(t, answers(m), answers(written))
				if n := m.adopted.released; n != 0 {
					t.Errorf("%d tensors released before Close", n)
				}
			})
		}
	}
}

// adopted counts tensors that a backend has adopted, and released.
type adopted struct{ taken, released int }

// adopt gives a tensor packed, if the backend takes it so.
func (a *adopted) adopt(t *testing.T, b device.Backend, i int, w weights) bool {
	t.Helper()
	if len(w.shape) < 2 || b.Caps().Adopted>>w.format.Kind()&1 == 0 {
		return false
	}
	all, cols := w.matrix()
	rows := w.shape[len(w.shape)-2]
	packed, err := b.HostAlloc(w.format.PackedBytes(w.shape))
	if err != nil {
		t.Fatal(err)
	}
	for m := range all / rows {
		at := m * w.format.PackedBytes([]int{rows, cols})
		quant.Pack(packed[at:], w.data[m*rows*w.format.RowBytes(cols):], 0, rows, cols, w.format)
	}
	if err := b.AdoptTensor(device.Handle(i), packed, func() { a.released++ }); err != nil {
		t.Fatalf("AdoptTensor %d: %v", i, err)
	}
	a.taken++
	return true
}
