package ref

import (
	"math"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// The operations of package plan that know of one row at a time. Sums and
// transcendental functions are float64, what is stored is float32.

// dot adds in four strands, which is all the speed the suite needs.
func dot(a, b []float32) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += float64(a[i]) * float64(b[i])
		s1 += float64(a[i+1]) * float64(b[i+1])
		s2 += float64(a[i+2]) * float64(b[i+2])
		s3 += float64(a[i+3]) * float64(b[i+3])
	}
	for ; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i])
	}
	return s0 + s1 + s2 + s3
}

// softcap bounds v to ±limit smoothly; limit 0 leaves it.
func softcap(v float64, limit float32) float64 {
	if limit <= 0 {
		return v
	}
	return float64(limit) * math.Tanh(v/float64(limit))
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func silu(x float64) float64 { return x * sigmoid(x) }

// softplus is log(1 + exp(x)) without overflow.
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// act is an activation of one input.
func act(kind plan.Activation, x float64) float64 {
	switch kind {
	case plan.ActSilu:
		return silu(x)
	case plan.ActGelu:
		return 0.5 * x * (1 + math.Erf(x/math.Sqrt2))
	case plan.ActGeluTanh: // Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, §2
		return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	case plan.ActRelu:
		return relu(x)
	case plan.ActRelu2:
		return relu(x) * relu(x)
	case plan.ActSigmoid:
		return sigmoid(x)
	case plan.ActTanh:
		return math.Tanh(x)
	case plan.ActQuickGelu: // arXiv 1606.08415 §2
		return x * sigmoid(1.702*x)
	}
	return x
}

// clip is plan.ActClip. It keeps a NaN.
func clip(x, least, most float64) float64 { return max(min(x, most), least) }

// xielu is plan.ActXIELU with p and n of its learned factors.
func xielu(x, p, n, beta float64) float64 {
	if x > 0 {
		return p*x*x + beta*x
	}
	return n*(math.Expm1(x)-x) + beta*x
}

// relu is max(x, 0) that keeps a NaN.
func relu(x float64) float64 {
	if x < 0 {
		return 0
	}
	return x
}

// gated is an activation of x that y is multiplied with. limit and alpha are
// of plan.ActClampedSwiGLU.
func gated(kind plan.Activation, x, y float64, limit, alpha float32) float64 {
	if kind == plan.ActClampedSwiGLU {
		l := float64(limit)
		x, y = min(x, l), max(min(y, l), -l)
		return x * sigmoid(float64(alpha)*x) * (y + 1)
	}
	return single(kind, x, limit) * y
}

// single is an activation of one input that may have a limit.
func single(kind plan.Activation, x float64, limit float32) float64 {
	if kind == plan.ActClip {
		return clip(x, -float64(limit), float64(limit))
	}
	return act(kind, x)
}

// activate is OpActivate.
func activate(op *plan.Op, out, x, y matrix, w0, w1 []float32) {
	kind := plan.Activation(op.I[plan.ActKind])
	limit, alpha := op.F[plan.ActLimit], op.F[plan.ActAlpha]
	for r := range out.rows {
		for i := range out.width {
			v := float64(x.row(r)[min(i, x.width-1)])
			switch {
			case kind == plan.ActXIELU:
				beta := float64(alpha)
				v = xielu(v, softplus(float64(w0[0])), beta+softplus(float64(w1[0])), beta)
			case kind == plan.ActClip && w0 != nil:
				v = clip(v, float64(w0[0]), float64(w1[0]))
			case y.data == nil:
				v = single(kind, v, limit)
			default:
				v = gated(kind, v, float64(y.row(r)[i]), limit, alpha)
			}
			out.row(r)[i] = float32(v)
		}
	}
}

// rmsNorm is OpRMSNorm.
func rmsNorm(op *plan.Op, out, x, gate matrix, w []float32) {
	n, kind := int(op.I[plan.NormGroup]), plan.Gate(op.I[plan.NormGate])
	g := make([]float64, n)
	for r := range out.rows {
		for at := 0; at < out.width; at += n {
			sum, magnitude := 0.0, 0.0
			if kind == plan.GateMagnitude {
				y := gate.row(r)[at:][:n]
				magnitude = math.Sqrt(dot(y, y) / float64(n))
			}
			for i := range g {
				g[i] = float64(x.row(r)[at+i])
				if kind == plan.GateBefore {
					g[i] *= silu(float64(gate.row(r)[at+i]))
				}
				sum += g[i] * g[i]
			}
			inv := 1 / math.Sqrt(sum/float64(n)+float64(op.F[plan.NormEps]))
			for i, v := range g {
				v *= inv
				if w != nil {
					v *= float64(w[(at+i)%len(w)] + op.F[plan.NormShift])
				}
				switch kind {
				case plan.GateAfter:
					v *= silu(float64(gate.row(r)[at+i]))
				case plan.GateSigmoid:
					v *= sigmoid(float64(gate.row(r)[at+i]))
				case plan.GateMagnitude:
					v *= magnitude
				}
				out.row(r)[at+i] = float32(v)
			}
		}
	}
}

// layerNorm is OpLayerNorm.
func layerNorm(op *plan.Op, out, x matrix, w, bias []float32) {
	n := int(op.I[plan.NormGroup])
	for r := range out.rows {
		for at := 0; at < out.width; at += n {
			g := x.row(r)[at:][:n]
			mean, variance := 0.0, 0.0
			for _, v := range g {
				mean += float64(v) / float64(n)
			}
			for _, v := range g {
				variance += (float64(v) - mean) * (float64(v) - mean) / float64(n)
			}
			inv := 1 / math.Sqrt(variance+float64(op.F[plan.NormEps]))
			for i, v := range g {
				v := (float64(v) - mean) * inv
				if w != nil {
					v *= float64(w[(at+i)%len(w)] + op.F[plan.NormShift])
				}
				if bias != nil {
					v += float64(bias[(at+i)%len(bias)])
				}
				out.row(r)[at+i] = float32(v)
			}
		}
	}
}

// linear is OpLinear with all that lowering can add to it.
func (b *Backend) linear(op *plan.Op, p *pass, out, x, residual matrix) {
	kind := plan.Activation(op.I[plan.LinearAct])
	for r := range out.rows {
		in, to := x.row(r), out.row(r)
		first := b.project(op.Weight[0], op.Weight[1], 0, in, p.rows[r].seq)
		var second []float64
		if op.Weight[2] != plan.None {
			second = b.project(op.Weight[2], op.Weight[3], 0, in, p.rows[r].seq)
		}
		for i, v := range first {
			if second != nil {
				v = gated(kind, v, second[i], op.F[plan.ActLimit], op.F[plan.ActAlpha])
			} else {
				v = single(kind, v, op.F[plan.ActLimit])
			}
			if residual.data != nil {
				v = float64(residual.row(r)[i]) + float64(op.F[plan.LinearScale])*v
			}
			to[i] = float32(v)
		}
	}
}

// project returns x wᵀ of one matrix of w, changed by the sequence's adapter, + the bias.
func (b *Backend) project(w, bias int32, matrix int, x []float32, seq *device.Seq) []float64 {
	out := b.tensors[w].times(matrix, x)
	if seq.Adapter != 0 {
		b.adapters[seq.Adapter].apply(w, matrix, out, x)
	}
	if bias != plan.None {
		for i := range out {
			out[i] += float64(b.tensors[bias].data[matrix*len(out)+i])
		}
	}
	return out
}

// linearHeads is OpLinearHeads.
func (b *Backend) linearHeads(op *plan.Op, p *pass, out, x matrix) {
	heads := int(op.I[plan.HeadsCount])
	for r := range out.rows {
		for h := range heads {
			copyRounded(part(out, r, h, heads), b.project(op.Weight[0], plan.None, h, part(x, r, h, heads), p.rows[r].seq))
		}
	}
}

func copyRounded(to []float32, from []float64) {
	for i, v := range from {
		to[i] = float32(v)
	}
}

// rope is OpRope.
func (b *Backend) rope(op *plan.Op, p *pass, x matrix) {
	heads, dim, first := int(op.I[plan.RopeHeads]), int(op.I[plan.RopeHeadDim]), int(op.I[plan.RopeFirst])
	half, scale := int(op.I[plan.RopeRotary])/2, float64(op.F[plan.RopeScale])
	axes := b.table(op.I[plan.RopeAxes])
	for t := range p.rows {
		tok := &p.rows[t]
		for i, f := range b.frequencies(op, tok)[:half] {
			pos := float32(tok.pos)
			if axes != nil {
				pos = float32(tok.axes[int(axes[i])])
			}
			// The angle is rounded to float32 because the models were
			// trained so: far positions feel it.
			sin, cos := math.Sincos(float64(pos * f))
			sin, cos = sin*scale, cos*scale
			at, pair := first+i, first+i+half
			if op.I[plan.RopeInterleaved] == 1 {
				at, pair = first+2*i, first+2*i+1
			}
			for h := range heads {
				head := x.row(t)[h*dim:][:dim]
				a, b := float64(head[at]), float64(head[pair])
				head[at] = float32(a*cos - b*sin)
				head[pair] = float32(b*cos + a*sin)
			}
		}
	}
}

// frequencies returns those of an OpRope for one token.
func (b *Backend) frequencies(op *plan.Op, tok *token) []float32 {
	length, original := max(int(tok.seq.RopeLen), tok.pos+1), int(op.I[plan.RopeOriginal])
	if original == 0 || length <= original {
		return b.table(op.I[plan.RopeTable])
	}
	if long := b.table(op.I[plan.RopeLong]); long != nil {
		return long
	}
	rotary, factor := float64(op.I[plan.RopeRotary]), float64(op.F[plan.RopeFactor])
	grown := factor*float64(length)/float64(original) - (factor - 1)
	base := float64(op.F[plan.RopeTheta]) * math.Pow(grown, rotary/(rotary-2))
	out := make([]float32, int(rotary)/2)
	for i := range out {
		out[i] = float32(math.Pow(base, -2*float64(i)/rotary))
	}
	return out
}

// route is OpRoute. Scores are rounded to float32 before they are compared.
func route(op *plan.Op, experts, weights, x matrix, bias, factors []float32) {
	k := int(op.I[plan.RouteTopK])
	for r := range x.rows {
		logits := x.row(r)
		scores := make([]float32, len(logits))
		for e, l := range logits {
			scores[e] = l
			if plan.Scoring(op.I[plan.RouteScore]) == plan.ScoreSigmoid {
				scores[e] = float32(sigmoid(float64(l)))
			}
		}
		if plan.Scoring(op.I[plan.RouteScore]) == plan.ScoreSoftmax {
			softmax(scores)
		}
		compared := append([]float32(nil), scores...)
		for e, v := range bias {
			compared[e] += v
		}
		if groups := int(op.I[plan.RouteGroups]); groups > 1 {
			dropGroups(compared, groups, int(op.I[plan.RouteTopGroups]), 2-int(op.I[plan.RouteGroupBest]))
		}

		chosen, out := best(compared, k), weights.row(r)
		for i, e := range chosen {
			experts.row(r)[i] = float32(e)
			out[i] = scores[e]
		}
		switch plan.Scoring(op.I[plan.RouteScore]) {
		case plan.ScoreSoftmaxChosen:
			softmax(out)
		case plan.ScoreSparseMixer:
			mix(out, scores, chosen, op.F[plan.RouteJitter])
		}
		scale := float64(op.F[plan.RouteScale])
		if op.I[plan.RouteNormalize] == 1 {
			sum := float64(op.F[plan.RouteEps])
			for _, v := range out {
				sum += float64(v)
			}
			scale /= sum
		}
		for i, v := range out {
			out[i] = float32(float64(v) * scale)
			if factors != nil {
				out[i] *= factors[chosen[i]]
			}
		}
	}
}

// mix sets the weights of the chosen experts to those of plan.ScoreSparseMixer.
func mix(weights, logits []float32, chosen []int, jitter float32) {
	left := append([]float32(nil), logits...)
	for i, e := range chosen {
		peak, sum := float64(logits[e]), 0.0
		for j, l := range left {
			v := float64(logits[j])
			if far := (peak-v)/max(math.Abs(v), peak) > 2*float64(jitter); !far {
				sum += math.Exp(float64(l) - peak)
			}
		}
		weights[i] = float32(1 / sum)
		left[e] = float32(math.Inf(-1))
	}
}

// dropGroups makes -Inf of the scores in all but the best of so many equal
// groups, which are judged by the sum of their judges best, one or two.
func dropGroups(scores []float32, groups, keep, judges int) {
	size := len(scores) / groups
	sums := make([]float32, groups)
	for g := range sums {
		group := scores[g*size:][:size]
		for _, e := range best(group, min(judges, size)) {
			sums[g] += group[e]
		}
	}
	kept := make([]bool, groups)
	for _, g := range best(sums, keep) {
		kept[g] = true
	}
	for e := range scores {
		if !kept[e/size] {
			scores[e] = float32(math.Inf(-1))
		}
	}
}

// best returns the indices of the k greatest, the lower index first among
// equals. A NaN is greater than nothing.
func best(scores []float32, k int) []int {
	var chosen []int
	taken := make([]bool, len(scores))
	for range k {
		next := -1
		for i, v := range scores {
			if !taken[i] && (next < 0 || v > scores[next]) {
				next = i
			}
		}
		taken[next] = true
		chosen = append(chosen, next)
	}
	return chosen
}

func softmax(x []float32) {
	peak, sum := math.Inf(-1), 0.0
	for _, v := range x {
		peak = max(peak, float64(v))
	}
	for _, v := range x {
		sum += math.Exp(float64(v) - peak)
	}
	for i, v := range x {
		x[i] = float32(math.Exp(float64(v)-peak) / sum)
	}
}

// experts is OpExperts. The first matrix of each expert, if gated the third as
// well, is [inner, width(x)], the fifth [width(out), inner].
func (b *Backend) experts(op *plan.Op, p *pass, out, x, chosen, weights matrix) {
	kind := plan.Activation(op.I[plan.ActKind])
	for r := range out.rows {
		seq, sum := p.rows[r].seq, make([]float64, out.width)
		for k, expert := range chosen.row(r) {
			e, in, weight := int(expert), x.row(r), weights.row(r)[k]
			if op.I[plan.ExpertsScaleInput] == 1 {
				in = append([]float32(nil), in...)
				for i := range in {
					in[i] *= weight
				}
				weight = 1
			}
			first := b.project(op.Weight[0], op.Weight[1], e, in, seq)
			var second []float64
			if op.Weight[2] != plan.None {
				second = b.project(op.Weight[2], op.Weight[3], e, in, seq)
			}
			mid := make([]float32, len(first))
			for i, v := range first {
				if second != nil {
					v = gated(kind, v, second[i], op.F[plan.ActLimit], op.F[plan.ActAlpha])
				} else {
					v = single(kind, v, op.F[plan.ActLimit])
				}
				mid[i] = float32(v)
			}
			for i, v := range b.project(op.Weight[4], op.Weight[5], e, mid, seq) {
				sum[i] += float64(weight) * v
			}
		}
		copyRounded(out.row(r), sum)
	}
}

// scale is OpScale.
func scale(op *plan.Op, p *pass, out, x matrix, w []float32) {
	for r := range out.rows {
		factor := float64(op.F[plan.ScaleFactor])
		if length := int(op.I[plan.ScaleLength]); length > 0 {
			chunks := (p.rows[r].pos + int(op.I[plan.ScaleOffset])) / length
			factor *= 1 + float64(op.F[plan.ScaleLog])*math.Log1p(float64(chunks))
		}
		for i, v := range x.row(r) {
			v := float64(v) * factor
			if w != nil {
				v *= float64(w[i%len(w)])
			}
			out.row(r)[i] = float32(v)
		}
	}
}

// sparsify is OpSparsify.
func sparsify(op *plan.Op, out, x matrix) {
	n := float64(x.width)
	for r := range out.rows {
		mean, variance := 0.0, 0.0
		for _, v := range x.row(r) {
			mean += float64(v) / n
		}
		for _, v := range x.row(r) {
			variance += (float64(v) - mean) * (float64(v) - mean) / n
		}
		least := mean + float64(op.F[plan.SparsifyDeviations])*math.Sqrt(variance)
		for i, v := range x.row(r) {
			out.row(r)[i] = float32(relu(float64(v) - least))
		}
	}
}

// join is OpJoin.
func join(out matrix, in []matrix) {
	for r := range out.rows {
		to := out.row(r)
		for _, x := range in {
			if x.data != nil {
				to = to[copy(to, x.row(r)):]
			}
		}
	}
}

// meanRows is OpRows with RowsMean: the mean of count rows from first on.
func meanRows(out []float32, x matrix, first, count int) {
	for i := range out {
		sum := 0.0
		for k := range count {
			sum += float64(x.row(first + k)[i])
		}
		out[i] = float32(sum / float64(count))
	}
}

// embeddingBag is OpEmbeddingBag.
func embeddingBag(out, numbers, weights matrix, w []float32) {
	rows := len(w) / out.width
	for r := range out.rows {
		sum := make([]float64, out.width)
		for k, number := range numbers.row(r) {
			row := 0
			if number > 0 { // not NaN
				row = int(min(number, float32(rows-1)))
			}
			for i := range sum {
				sum[i] += float64(weights.row(r)[k]) * float64(w[row*out.width+i])
			}
		}
		copyRounded(out.row(r), sum)
	}
}
