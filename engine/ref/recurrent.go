package ref

import (
	"math"

	"github.com/millrace-ai/millrace/engine/plan"
)

// state returns what a cache of states keeps of a sequence.
func (b *Backend) state(cache int32, s *slot) []float32 {
	c := &b.plan.Caches[cache]
	return b.states[s.live][b.offsets[cache]:][:c.Elements()]
}

// conv is OpConv. The tokens of a sequence are consecutive, so each moves the
// sequence's state, its last inputs, on by one.
func (b *Backend) conv(op *plan.Op, p *pass, out, x matrix, w, bias []float32) {
	kind, width := plan.Activation(op.I[plan.ConvAct]), out.width
	for t := range p.rows {
		last := b.state(op.I[plan.ConvCache], p.rows[t].slot) // [K-1, width]
		k := len(last)/width + 1
		for i := range width {
			sum := float64(w[i*k+k-1]) * float64(x.row(t)[i])
			for j := range k - 1 {
				sum += float64(w[i*k+j]) * float64(last[j*width+i])
			}
			if bias != nil {
				sum += float64(bias[i])
			}
			out.row(t)[i] = float32(act(kind, sum))
		}
		if k > 1 {
			copy(last, last[width:])
			copy(last[(k-2)*width:], x.row(t))
		}
	}
}

// gatedDelta is OpGatedDelta. The state is rounded to float32 after each token,
// so that where a prompt is cut does not show.
func (b *Backend) gatedDelta(op *plan.Op, p *pass, out matrix, in [plan.MaxIn]matrix, w0, w1 []float32) {
	c := &b.plan.Caches[op.I[plan.DeltaCache]]
	heads, keyHeads := int(c.Heads), int(op.I[plan.DeltaKeyHeads])
	keyWidth, valueWidth := int(c.KeyWidth), int(c.ValueWidth)
	for t := range p.rows {
		state := b.state(op.I[plan.DeltaCache], p.rows[t].slot)
		for h := range heads {
			q := unit(part(in[0], t, h*keyHeads/heads, keyHeads), op.F[plan.DeltaEps])
			k := unit(part(in[1], t, h*keyHeads/heads, keyHeads), op.F[plan.DeltaEps])
			v, to := part(in[2], t, h, heads), part(out, t, h, heads)
			g := decays(in[3].row(t), w0[h], w1, h, keyWidth, op.I[plan.DeltaChannels] == 1)
			beta := sigmoid(float64(in[4].row(t)[h])) * float64(1+op.I[plan.DeltaNegative])
			s := state[h*keyWidth*valueWidth:][:keyWidth*valueWidth]
			for j := range valueWidth { // a column of the state
				known := 0.0
				for i := range keyWidth {
					known += g[i] * float64(s[i*valueWidth+j]) * k[i]
				}
				change, sum := beta*(float64(v[j])-known), 0.0
				for i := range keyWidth {
					at := &s[i*valueWidth+j]
					*at = float32(g[i]*float64(*at) + k[i]*change)
					sum += float64(*at) * q[i]
				}
				to[j] = float32(sum * float64(op.F[plan.DeltaScale]))
			}
		}
	}
}

// decays are the factors of each row of head h's state, which with channels each
// have an a and a bias of their own.
func decays(a []float32, logA float32, bias []float32, h, keyWidth int, channels bool) []float64 {
	g := make([]float64, keyWidth)
	for i := range g {
		at := h
		if channels {
			at = h*keyWidth + i
		}
		g[i] = math.Exp(-math.Exp(float64(logA)) * softplus(float64(a[at])+float64(bias[at])))
	}
	return g
}

// unit divides x by its length, if eps > 0.
func unit(x []float32, eps float32) []float64 {
	inv := 1.0
	if eps > 0 {
		inv = 1 / math.Sqrt(dot(x, x)+float64(eps))
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v) * inv
	}
	return out
}

// ssm is OpSSM. Its state is rounded as that of gatedDelta.
func (b *Backend) ssm(op *plan.Op, p *pass, out matrix, in [plan.MaxIn]matrix, w [plan.MaxWeights][]float32) {
	c := &b.plan.Caches[op.I[plan.SSMCache]]
	heads, groups := int(c.Heads), int(op.I[plan.SSMGroups])
	keyWidth, valueWidth := int(c.KeyWidth), int(c.ValueWidth)
	for t := range p.rows {
		state := b.state(op.I[plan.SSMCache], p.rows[t].slot)
		for h := range heads {
			x, to := part(in[0], t, h, heads), part(out, t, h, heads)
			from, read := part(in[1], t, h*groups/heads, groups), part(in[2], t, h*groups/heads, groups)
			d := softplus(float64(in[3].row(t)[h]) + float64(w[1][h]))
			d = min(max(d, float64(op.F[plan.SSMMin])), float64(op.F[plan.SSMMax]))
			decay := math.Exp(-math.Exp(float64(w[0][h])) * d)
			s := state[h*keyWidth*valueWidth:][:keyWidth*valueWidth]
			for j := range valueWidth {
				sum := float64(w[2][h]) * float64(x[j])
				for i := range keyWidth {
					at := &s[i*valueWidth+j]
					*at = float32(decay*float64(*at) + float64(from[i])*d*float64(x[j]))
					sum += float64(*at) * float64(read[i])
				}
				to[j] = float32(sum)
			}
		}
	}
}

// selectiveScan is OpSelectiveScan. Its state is rounded as that of gatedDelta.
func (b *Backend) selectiveScan(op *plan.Op, p *pass, out matrix, in [plan.MaxIn]matrix, logA, skip []float32) {
	c := &b.plan.Caches[op.I[plan.ScanCache]]
	keyWidth, valueWidth := int(c.KeyWidth), int(c.ValueWidth)
	for t := range p.rows {
		state := b.state(op.I[plan.ScanCache], p.rows[t].slot) // [keyWidth, valueWidth]
		from, read := in[2].row(t), in[3].row(t)
		for j := range valueWidth {
			x, d := float64(in[0].row(t)[j]), softplus(float64(in[1].row(t)[j]))
			sum := float64(skip[j]) * x
			for i := range keyWidth {
				at := &state[i*valueWidth+j]
				*at = float32(math.Exp(-math.Exp(float64(logA[j*keyWidth+i]))*d)*float64(*at) + float64(from[i])*d*x)
				sum += float64(*at) * float64(read[i])
			}
			out.row(t)[j] = float32(sum)
		}
	}
}
