package sample

import "math"

var inf32 = float32(math.Inf(1))

// Alternative is a token and its log-probability.
type Alternative struct {
	Token   int32
	Logprob float32 // natural log
}

// Sampler chooses tokens and scores them; it is scratch memory for rows of one
// vocabulary and allocates only while that grows. Not for concurrent use.
type Sampler struct {
	ranked []candidate
	best   []candidate
}

// Input is what the scores of one row depend on beside its logits. It is only
// read.
type Input struct {
	Params *Params
	Mask   []uint32 // which ids may be chosen, a bit each; nil: all
	Biases []Bias   // of tokens below the vocabulary's size
	Prev   int32    // the token that the row belongs to; read with Params.Watermark
	Counts *Counts  // read if Params.Counts()
	Index  int32    // how many tokens were generated before this one
}

// Sample chooses a token from the logits of one row, and writes up to n
// alternatives, with ties as many as top has room for, to top; it returns how
// many. ok is false, and nothing else means anything, if the row is invalid.
//
// logits is overwritten with the processed scores, -Inf for tokens that were
// masked or filtered out.
func (s *Sampler) Sample(logits []float32, in *Input, n int, top []Alternative) (choice Alternative, tops int, ok bool) {
	if !valid(logits) {
		return Alternative{}, 0, false
	}
	s.process(logits, in)
	peak, best := largest(logits)
	if math.IsInf(float64(peak), 0) {
		return Alternative{}, 0, false // masked, or penalties pushed every score out of range
	}

	norm := float64(peak) + math.Log(expSum(logits, peak))
	if in.Params.Sample == 1 {
		best = draw(logits, peak, Uniform(in.Params.Seed, in.Index))
	}
	return Alternative{best, logprob(logits[best], norm)}, s.alternatives(logits, norm, n, top), true
}

// Score gives the log-probability of target under the raw logits, and
// alternatives as Sample does. logits is left as it is.
func (s *Sampler) Score(logits []float32, target int32, n int, top []Alternative) (score Alternative, tops int, ok bool) {
	if !valid(logits) {
		return Alternative{}, 0, false
	}
	peak, _ := largest(logits)
	norm := float64(peak) + math.Log(expSum(logits, peak))
	return Alternative{target, logprob(logits[target], norm)}, s.alternatives(logits, norm, n, top), true
}

// process is steps 2 to 12 of the definition, in place.
func (s *Sampler) process(l []float32, in *Input) {
	p := in.Params
	if in.Mask != nil {
		mask(l, in.Mask)
	}
	for _, b := range in.Biases {
		l[b.Token] += b.Bias
	}
	if p.Watermark == 1 {
		watermark(l, in.Prev)
	}
	if p.Counts() {
		penalise(l, p, in.Counts)
	}
	if p.Sample != 1 {
		return
	}
	peak, _ := largest(l)
	if peak == -inf32 {
		return // nothing left to filter
	}
	if p.Temperature != 1 {
		for i := range l {
			l[i] = (l[i] - peak) / p.Temperature
		}
	}
	if p.TopK > 0 && int(p.TopK) < len(l) {
		s.topK(l, int(p.TopK))
	}
	if p.TopP < 1 {
		s.topP(l, float64(p.TopP))
	}
	if p.TypicalP < 1 {
		s.typicalP(l, float64(p.TypicalP))
	}
	if p.MinP > 0 {
		minP(l, float64(p.MinP))
	}
}

// valid reports whether a row can be sampled from: step 1.
func valid(l []float32) bool {
	finite := false
	for _, v := range l {
		if v != v || v == inf32 {
			return false
		}
		finite = finite || v != -inf32
	}
	return finite
}

// Allowed reports whether a mask lets id through.
func Allowed(mask []uint32, id int32) bool {
	word := int(id / 32)
	return word < len(mask) && mask[word]>>(id%32)&1 == 1
}

func mask(l []float32, bits []uint32) {
	for i := range l {
		if !Allowed(bits, int32(i)) {
			l[i] = -inf32
		}
	}
}

// penalise is steps 5 to 7.
func penalise(l []float32, p *Params, counts *Counts) {
	for _, id := range counts.seen {
		v := l[id]
		if v < 0 {
			v *= p.RepetitionPenalty
		} else {
			v /= p.RepetitionPenalty
		}
		if n := counts.Generated(id); n > 0 {
			// The conversion keeps the compiler from fusing the two roundings.
			v -= float32(p.FrequencyPenalty * float32(n))
			v -= p.PresencePenalty
		}
		l[id] = min(v, math.MaxFloat32)
	}
}

// largest returns the largest score and the lowest id that has it.
func largest(l []float32) (peak float32, id int32) {
	peak = -inf32
	for i, v := range l {
		if v > peak {
			peak, id = v, int32(i)
		}
	}
	return peak, id
}

// weight is the unnormalised probability of a score.
func weight(v, peak float32) float64 {
	if v == -inf32 {
		return 0 // most of a filtered row: not worth an exponential
	}
	return math.Exp(float64(v) - float64(peak))
}

func expSum(l []float32, peak float32) float64 {
	sum := 0.0
	for _, v := range l {
		sum += weight(v, peak)
	}
	return sum
}

func logprob(v float32, norm float64) float32 { return float32(float64(v) - norm) }

// draw walks the kept tokens by id until their running weight exceeds the
// u-th part of the whole.
func draw(l []float32, peak float32, u float64) int32 {
	target := u * expSum(l, peak)
	last, sum := int32(0), 0.0
	for i, v := range l {
		if v == -inf32 {
			continue
		}
		last = int32(i)
		if sum += weight(v, peak); sum > target {
			break
		}
	}
	return last
}

// alternatives is step 15.
func (s *Sampler) alternatives(l []float32, norm float64, n int, top []Alternative) int {
	n = min(n, len(top))
	if n <= 0 {
		return 0
	}
	best := s.best[:0] // sorted by score, then by id
	for i, v := range l {
		if v == -inf32 || len(best) == len(top) && float64(v) <= best[len(best)-1].key {
			continue
		}
		if len(best) < len(top) {
			best = append(best, candidate{})
		}
		at := len(best) - 1
		for ; at > 0 && best[at-1].key < float64(v); at-- {
			best[at] = best[at-1]
		}
		best[at] = candidate{key: float64(v), id: int32(i)}
	}
	s.best = best

	end := min(n, len(best))
	for end < len(best) && best[end].key == best[end-1].key {
		end++
	}
	for i, c := range best[:end] {
		top[i] = Alternative{c.id, logprob(float32(c.key), norm)}
	}
	return end
}
