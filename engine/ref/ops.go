package ref

import (
	"math"

	"github.com/millrace-ai/millrace/engine/device"
)

// The operations of package plan, each on whole activation matrices [rows,
// width] stored row by row, one row at a time and independent of the others.
// Sums and transcendental functions are float64, what is stored is float32.

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

// embed: out[t] = w[ids[t]] * scale, w [vocab, width].
func embed(out []float32, ids []int32, w []float32, width int, scale float32) {
	for t, id := range ids {
		row := w[int(id)*width:][:width]
		for i, v := range row {
			out[t*width+i] = v * scale
		}
	}
}

// rmsNorm: each group of len(w) elements g of x becomes
// g / sqrt(mean(g²) + eps) * (w + shift). out may be x.
func rmsNorm(out, x, w []float32, eps, shift float32) {
	for at := 0; at < len(x); at += len(w) {
		g := x[at:][:len(w)]
		inv := 1 / math.Sqrt(dot(g, g)/float64(len(g))+float64(eps))
		for i, v := range g {
			out[at+i] = float32(float64(v) * inv * float64(w[i]+shift))
		}
	}
}

// linear: out = x wᵀ + bias, x [rows, in], w [len(out)/rows, in], bias [width] or nil.
func linear(out, x, w, bias []float32, in int) {
	width := len(w) / in
	for r := range len(x) / in {
		for o := range width {
			sum := dot(x[r*in:][:in], w[o*in:])
			if bias != nil {
				sum += float64(bias[o])
			}
			out[r*width+o] = float32(sum)
		}
	}
}

// rope rotates each head of x [tokens, heads*headDim] in place by its token's
// position: dimensions i and i+len(freqs) turn by pos*freqs[i] and grow by
// scale; those from 2*len(freqs) on stay.
func rope(x []float32, pos []int32, freqs []float32, heads, headDim int, scale float32) {
	half := len(freqs)
	for t, p := range pos {
		for i, f := range freqs {
			// The angle is rounded to float32 because the models were
			// trained so: far positions feel it.
			sin, cos := math.Sincos(float64(float32(p) * f))
			sin, cos = sin*float64(scale), cos*float64(scale)
			for h := range heads {
				head := x[(t*heads+h)*headDim:]
				a, b := float64(head[i]), float64(head[i+half])
				head[i] = float32(a*cos - b*sin)
				head[i+half] = float32(b*cos + a*sin)
			}
		}
	}
}

// siluMul: out = x/(1+exp(-x)) * y.
func siluMul(out, x, y []float32) {
	for i, v := range x {
		v := float64(v)
		out[i] = float32(v / (1 + math.Exp(-v)) * float64(y[i]))
	}
}

// geluMul: out = gelu(x) * y with the tanh approximation (Hendrycks and
// Gimpel, Gaussian Error Linear Units, 2016, §2).
func geluMul(out, x, y []float32) {
	for i, v := range x {
		v := float64(v)
		gelu := 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
		out[i] = float32(gelu * float64(y[i]))
	}
}

// add: out = x + y. out may be either.
func add(out, x, y []float32) {
	for i, v := range x {
		out[i] = v + y[i]
	}
}

// softcap bounds v to ±limit smoothly; limit 0 leaves it.
func softcap(v float64, limit float32) float64 {
	if limit <= 0 {
		return v
	}
	return float64(limit) * math.Tanh(v/float64(limit))
}

// kvLayer is the cache of one layer: keys and values [pages*PageTokens, width].
type kvLayer struct{ keys, values []float32 }

// cacheIndex returns the index of a position's first element, given the page table of
// its sequence.
func cacheIndex(pages []int32, pos, width int) int {
	return (int(pages[pos/device.PageTokens])*device.PageTokens + pos%device.PageTokens) * width
}

// attention writes to out what one token sees through its query heads q, both
// [heads*headDim]: softmax over the positions from first to last of the scaled
// and capped products with the keys, times the values. The heads share
// kvHeads key-value heads in order.
func (l *kvLayer) attention(out, q []float32, pages []int32, first, last int, shape attentionShape, scratch []float64) {
	width := shape.kvHeads * shape.headDim
	for h := range shape.heads {
		head := h * shape.headDim
		kv := h * shape.kvHeads / shape.heads * shape.headDim

		scores, peak := scratch[:0], math.Inf(-1)
		for pos := first; pos <= last; pos++ {
			key := l.keys[cacheIndex(pages, pos, width)+kv:]
			s := softcap(float64(shape.scale)*dot(q[head:head+shape.headDim], key), shape.cap)
			scores, peak = append(scores, s), max(peak, s)
		}

		sum := 0.0
		for i, s := range scores {
			scores[i] = math.Exp(s - peak)
			sum += scores[i]
		}
		for i := range shape.headDim {
			mix := 0.0
			for j, weight := range scores {
				mix += weight * float64(l.values[cacheIndex(pages, first+j, width)+kv+i])
			}
			out[head+i] = float32(mix / sum)
		}
	}
}

// attentionShape is the constant part of an attention: F0 is scale, F1 cap.
type attentionShape struct {
	heads, kvHeads, headDim int
	scale, cap              float32
}
