package sim

import (
	"math"

	"github.com/millrace-ai/millrace/engine/device"
)

// choices sums up the inputs of a Batch that count from Sample on.
func choices(x *device.Batch) uint64 {
	h := mix(uint64(len(x.Masks)), uint64(x.MaskWords))
	for _, r := range x.Rows {
		h = mix(h, uint64(uint32(r.Target))<<32|uint64(uint32(r.Mask))<<2|uint64(r.Kind))
	}
	for _, w := range x.Masks {
		h = mix(h, uint64(w))
	}
	return h
}

// checksum sums up the other inputs, which count from Forward on.
func checksum(x *device.Batch) uint64 {
	h := mix(uint64(len(x.Tokens)), uint64(len(x.Rows)))
	add := func(a, b int32) { h = mix(h, uint64(uint32(a))<<32|uint64(uint32(b))) }
	for i := range x.Tokens {
		add(x.Tokens[i], x.Pos[i])
	}
	h = mix(h, rowHash(x.Embeds))
	for _, a := range x.Axes {
		add(a, 0)
	}
	for _, s := range x.Spans {
		add(s.Start, s.Count)
	}
	for _, q := range x.Seqs {
		add(q.Slot, q.Start)
		add(q.Count, q.KVLen)
		add(q.Adapter, q.RopeLen)
	}
	for _, r := range x.Rows {
		add(r.Token, r.Slot)
		add(r.Index, r.TopN)
	}
	for _, p := range x.Pages {
		add(p.Slot, p.Group)
		add(p.Index, p.Page)
	}
	for _, d := range x.States {
		add(d.Slot, d.Live)
		add(d.From, d.Save)
	}
	for i := range x.Params {
		p := &x.Params[i]
		add(p.Slot, int32(math.Float32bits(p.Params.Temperature)))
		add(int32(math.Float32bits(p.Params.MinP)), 0)
		h = mix(h, p.Params.Seed)
	}
	for _, c := range x.Counts {
		add(c.Slot, c.Token)
		add(c.Generated, 0)
	}
	for _, d := range x.Biases {
		add(d.Slot, d.Token)
		add(int32(math.Float32bits(d.Bias)), 0)
	}
	return h
}
