package loader

import (
	"github.com/millrace-ai/millrace/engine/plan"
)

// allKinds is the set of all kinds of formats.
const allKinds = ^uint32(0)

// Formats of tensors that are quantised here. The numbers of IQ4_NL lose a third less than
// 16 equal steps (make quality).
const (
	int4Format = plan.W4 | plan.CodesIQ4NL | 32<<8

	// mixedFormat is for what is stored in few bits and cannot stay as it is: 8 bits
	// lose little of 4 that were grouped otherwise.
	mixedFormat = plan.W8 | 32<<8
)

// narrow is the width of the hidden state below which groups of 8 bits are the smaller
// ones. Most of what 8 bits lose is not of the weights, but of what they are multiplied
// with, where the greatest number of a group decides for all of it: with groups of 32,
// products of Gemma-3-270M, which is 640 wide, lose half of what they do with 64. The
// perplexity says the same, +0.3 % and +0.7 %, of which some is noise. Groups of 32 take
// 3 % more memory and so of the time of decoding, which wider models are spared.
const narrow = 768

// int8Format is the format of 8 bits for a model.
func int8Format(p *plan.Plan) plan.Format {
	if p.Hidden < narrow {
		return plan.W8 | 32<<8
	}
	return plan.W8 | 64<<8
}

// rules choose the formats of a plan's tensors.
type rules struct {
	plan  *plan.Plan
	kinds uint32 // that the backend takes
	may   []bool // by tensor: it can be quantised
	keep  []bool // by tensor: floats stay floats, which take next to no memory and decide much
	table []bool // by tensor: it is an embedding or the output head, which are sensitive to 4 bits
}

// fewRows is the height below which a projection is a gate or the like.
const fewRows = 64

func newRules(p *plan.Plan, kinds uint32) *rules {
	n := len(p.Tensors)
	r := &rules{plan: p, kinds: kinds, may: plan.Quantizable(p), keep: make([]bool, n), table: make([]bool, n)}
	routed := map[int32]bool{} // values that choose experts
	for _, op := range p.Ops {
		if op.Kind == plan.OpRoute {
			routed[memory(p, op.In[0])] = true
		}
	}
	for _, op := range p.Ops {
		w := op.Weight[0]
		switch op.Kind {
		case plan.OpEmbed, plan.OpLogits:
			if w != plan.None {
				r.table[w] = true
			}
		case plan.OpLinear:
			second := op.Weight[2]
			rows := p.Tensors[w].Shape[0]
			if second != plan.None {
				rows += p.Tensors[second].Shape[0]
			}
			small := rows < fewRows || routed[memory(p, op.Out[0])]
			if r.keep[w] = r.keep[w] || small; second != plan.None {
				r.keep[second] = r.keep[second] || small
			}
		}
	}
	return r
}

// memory is the value whose memory v is in.
func memory(p *plan.Plan, v int32) int32 {
	if of := p.Values[v].Of; of != plan.None {
		return of
	}
	return v
}

// format chooses that of tensor i.
func (r *rules) format(i int, uses []*use, sources []*source) plan.Format {
	format, floats := plan.Format(-1), plan.Format(-1)
	quantized, few, rows := true, 0, 0 // each part; rows of those that are, and of all
	for j, u := range uses {
		stored := sources[j].format
		if stored.Quantized() && !u.allColumns() {
			stored = mixedFormat
		}
		if rows += u.Rows.N; stored.Quantized() {
			few += u.Rows.N
		}
		quantized = quantized && stored.Quantized()
		if j == 0 {
			format, floats = stored, sources[j].float
			continue
		}
		if format != stored {
			format = mixedFormat
		}
		if floats != sources[j].float {
			floats = plan.F32 // the narrower ones do not contain each other
		}
	}
	// A few rows of floats, gates that were merged, do not make the others large.
	if !quantized && few <= rows-few {
		format = floats
	}
	if wanted := r.wanted(i); wanted != plan.F32 && !(format.Quantized() && format.Kind() == plan.W4) &&
		!(format.Kind() == plan.W8 && wanted.Kind() == plan.W8) {
		format = wanted
	}
	if format.Quantized() && (!r.may[i] || r.kinds>>format.Kind()&1 == 0) {
		return floats
	}
	return format
}

// wanted is the format that the plan asks for tensor i, F32 if for none.
func (r *rules) wanted(i int) plan.Format {
	switch {
	case r.keep[i] || r.plan.Quantize == plan.QuantizeNone:
		return plan.F32
	case r.plan.Quantize == plan.QuantizeInt4 && !r.table[i] && !r.plan.Wide[r.plan.Tensors[i].Name]:
		return int4Format
	}
	return int8Format(r.plan)
}

// asked is the set of kinds that the plan asks for.
func (r *rules) asked() (kinds uint32) {
	switch r.plan.Quantize {
	case plan.QuantizeInt4:
		return 1<<plan.W4 | 1<<plan.W8
	case plan.QuantizeInt8:
		return 1 << plan.W8
	}
	return 0
}
