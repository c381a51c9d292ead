package sample

import "math"

// candidate is a token that a filter has kept so far. Candidates are ordered
// by key, then by id, both ascending; weight is what a filter counts.
type candidate struct {
	key    float64
	weight float64
	id     int32
}

func (a candidate) before(b candidate) bool {
	return a.key < b.key || a.key == b.key && a.id < b.id
}

// topK filters out all scores below the k-th largest.
func (s *Sampler) topK(l []float32, k int) {
	s.rank(l, func(v float32) (key, weight float64) { return -float64(v), 1 })
	kept := shortest(s.ranked, float64(k))
	kth := inf32
	for _, c := range s.ranked[:kept] {
		kth = min(kth, l[c.id])
	}
	for _, c := range s.ranked[kept:] {
		if l[c.id] < kth {
			l[c.id] = -inf32
		}
	}
}

// topP filters out what lies beyond the mass p of the likeliest tokens.
func (s *Sampler) topP(l []float32, p float64) {
	peak, _ := largest(l)
	s.rank(l, func(v float32) (key, weight float64) {
		return -float64(v), math.Exp(float64(v) - float64(peak))
	})
	s.keep(l, shortest(s.ranked, p*s.mass()))
}

// typicalP filters out what lies beyond the mass p of the tokens whose
// surprise is nearest to the entropy.
func (s *Sampler) typicalP(l []float32, p float64) {
	peak, _ := largest(l)
	s.rank(l, func(v float32) (key, weight float64) {
		key = float64(v) - float64(peak)
		return key, math.Exp(key)
	})
	mass, mean := s.mass(), 0.0
	for _, c := range s.ranked {
		mean += c.weight * c.key
	}
	mean /= mass // of ln p + ln mass, so that |-ln p - H| = |mean - key|
	for i := range s.ranked {
		s.ranked[i].key = math.Abs(mean - s.ranked[i].key)
	}
	s.keep(l, shortest(s.ranked, p*mass))
}

// minP filters out what is less likely than the part p of the likeliest token.
func minP(l []float32, p float64) {
	peak, _ := largest(l)
	for i, v := range l {
		if weight(v, peak) < p {
			l[i] = -inf32
		}
	}
}

// rank fills s.ranked with the tokens not yet filtered out.
func (s *Sampler) rank(l []float32, measure func(v float32) (key, weight float64)) {
	s.ranked = s.ranked[:0]
	for i, v := range l {
		if v != -inf32 {
			key, weight := measure(v)
			s.ranked = append(s.ranked, candidate{key, weight, int32(i)})
		}
	}
}

func (s *Sampler) mass() float64 {
	sum := 0.0
	for _, c := range s.ranked {
		sum += c.weight
	}
	return sum
}

// keep filters out all but the first n of s.ranked.
func (s *Sampler) keep(l []float32, n int) {
	for _, c := range s.ranked[n:] {
		l[c.id] = -inf32
	}
}

// shortest brings the shortest prefix of c, in candidate order, that weighs at
// least need to the front, unordered, and returns its length: at least 1,
// len(c) if all of it weighs less. It is quickselect (Hoare 1961) by weight,
// linear on average, which a vocabulary of 128k needs.
func shortest(c []candidate, need float64) int {
	lo, hi := 0, len(c) // the prefix ends in [lo, hi]
	sum := 0.0          // weight of c[:lo]
	for lo < hi && sum < need {
		pivot := partition(c[lo:hi]) + lo
		left := 0.0
		for _, x := range c[lo:pivot] {
			left += x.weight
		}
		if sum+left >= need {
			hi = pivot
			continue
		}
		sum += left + c[pivot].weight
		lo = pivot + 1
	}
	return max(1, min(lo, hi))
}

// partition moves what comes before a pivot of its choice to the front and
// returns the pivot's index, len(c) ≥ 1.
func partition(c []candidate) int {
	last := len(c) - 1
	mid := last / 2
	// Median of three: sorted rows, as tests have them, are not the worst case.
	if c[mid].before(c[0]) {
		c[mid], c[0] = c[0], c[mid]
	}
	if c[last].before(c[0]) {
		c[last], c[0] = c[0], c[last]
	}
	if c[last].before(c[mid]) {
		c[last], c[mid] = c[mid], c[last]
	}
	pivot := c[mid]
	c[mid], c[last] = c[last], c[mid]
	at := 0
	for i := range c[:last] {
		if c[i].before(pivot) {
			c[i], c[at] = c[at], c[i]
			at++
		}
	}
	c[at], c[last] = c[last], c[at]
	return at
}
