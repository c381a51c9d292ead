package cuda_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// newEmbedding opens a backend with one tensor, which is written next. read gives it a plan that
// answers tokens with their rows of it, and asks for some.
func newEmbedding(t *testing.T, format plan.Format, vocab, width int) (b device.Backend, read func(ids []int32) []float32) {
	t.Helper()
	op := func(kind plan.Kind, out, in, weight int32) plan.Op {
		o := plan.NewOp(kind)
		o.Out[0], o.In[0], o.Weight[0] = out, in, weight
		return o
	}
	p := &plan.Plan{
		Family: "test", Vocab: vocab, Hidden: width, MaxPos: 16,
		Values:  []plan.Value{{Width: int32(width), Of: plan.None}, {Width: int32(width), Of: plan.None}},
		Tensors: []plan.Tensor{{Name: "embedding", Shape: []int{vocab, width}}},
		Ops: []plan.Op{
			op(plan.OpEmbed, 0, plan.None, 0),
			op(plan.OpRows, 1, 0, plan.None),
			op(plan.OpOutput, plan.None, 1, plan.None),
		},
	}
	p.Ops[0].F[plan.EmbedScale] = 1
	if err := plan.Check(p); err != nil {
		t.Fatal(err)
	}
	b, err := cuda.Open(library(t), device.Limits{MaxTokens: 16, MaxRows: 16, MaxSlots: 1, MaxPagesPerSlot: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if h, err := b.NewTensor("embedding", format, []int{vocab, width}); err != nil || h != 0 {
		t.Fatal(h, err)
	}
	return b, func(ids []int32) []float32 {
		t.Helper()
		if _, err := b.SetModel(p); err != nil {
			t.Fatal(err)
		}
		if err := b.InitCache(1, 0); err != nil {
			t.Fatal(err)
		}
		batch := b.Batch(0)
		batch.Clear()
		for i, id := range ids {
			batch.Tokens, batch.Pos = append(batch.Tokens, id), append(batch.Pos, int32(i))
			batch.Rows = append(batch.Rows, device.Row{Kind: device.RowOutput, Token: int32(i)})
		}
		batch.Seqs = append(batch.Seqs, device.Seq{Count: int32(len(ids)), KVLen: int32(len(ids))})
		for _, call := range []func(int) error{b.Forward, b.Sample, b.Wait} {
			if err := call(0); err != nil {
				t.Fatal(err)
			}
		}
		return batch.Outputs[:len(ids)*width]
	}
}

// TestWeightsInFlight writes an embedding of more than one stage of the ring, and in more
// writes than the ring has stages, from memory that changes as soon as a write returns.
func TestWeightsInFlight(t *testing.T) {
	const vocab, width = 5000, 512 // 10 MB
	b, read := newEmbedding(t, plan.F32, vocab, width)
	at := 0
	write := func(n int) {
		src := make([]byte, 4*width*n)
		for i := range n * width {
			binary.LittleEndian.PutUint32(src[4*i:], math.Float32bits(float32(at*width+i)))
		}
		if err := b.WriteTensor(0, at, n, src); err != nil {
			t.Fatal(err)
		}
		at += n
		clear(src)
	}
	for range 50 {
		write(10)
	}
	write(vocab - at)
	ids := []int32{0, 9, 10, 41, 499, 500, 2547, 2548, 4595, 4596, 4999}
	rows := read(ids)
	for i, id := range ids {
		for j, v := range rows[i*width:][:width] {
			if want := float32(int(id)*width + j); v != want {
				t.Fatalf("column %d of row %d is %v, was written as %v", j, id, v, want)
			}
		}
	}
}
