package engine

// Repetition ends a sequence that goes round in circles: one whose last tokens
// are the same Min to Max tokens, Count times over. The zero value never does.
type Repetition struct {
	Min, Max int // 1 … MaxRepeated
	Count    int // at least 2
}

// MaxRepeated bounds Repetition.Max: looking for repetitions takes as many
// comparisons for each token.
const MaxRepeated = 1024

// check refuses what makes no sense.
func (r Repetition) check() error {
	switch {
	case r == Repetition{}:
	case r.Min < 1 || r.Max < r.Min || r.Max > MaxRepeated:
		return invalid("repetitions of %d to %d tokens: must be 1 to %d", r.Min, r.Max, MaxRepeated)
	case r.Count < 2:
		return invalid("repetitions end a sequence after %d times, must be at least 2", r.Count)
	}
	return nil
}

// sizes is how many lengths a repetition may have.
func (r Repetition) sizes() int {
	if r.Count == 0 {
		return 0
	}
	return r.Max - r.Min + 1
}

// repeats reads the newest token of s and reports whether its last tokens are a
// repetition. The same n tokens come Count times where n × (Count − 1) tokens in a
// row equal those n before them, so it counts these for each n.
func (s *sequence) repeats() (found bool) {
	r, newest := s.req.Repetition, s.generated-1
	for i := range s.equal {
		before := newest - r.Min - i
		if before < 0 {
			break
		}
		if s.id(before) != s.id(newest) {
			s.equal[i] = 0
			continue
		}
		s.equal[i]++
		found = found || int(s.equal[i]) >= (r.Min+i)*(r.Count-1)
	}
	return found
}
