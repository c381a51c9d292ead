package source

// window is how many connections are used at once. It grows while more of them
// bring a higher rate, and halves when the other side asks for less: an AIMD
// window, except that it grows by a share of its size. It is told the rate of one interval after another.
type window struct {
	limit, most int
	hold        int     // intervals until the next step up
	before      int     // the limit before the last step up, 0 when that has been judged
	rate        float64 // bytes per second that the limit gave
}

const (
	growth   = 1.1 // rates differ if by this factor
	holdNext = 1   // intervals after a step that helped: connections need a while to reach their speed
	holdLong = 10  // intervals after one that did not
	fewest   = 2
)

// next takes the rate of the last interval, and whether the other side asked for
// less, and returns how many connections there should be.
func (w *window) next(rate float64, throttled bool) int {
	switch {
	case throttled:
		w.limit, w.before, w.rate, w.hold = max(fewest, w.limit/2), 0, 0, holdLong
	case w.hold > 0:
		w.hold--
		if w.before == 0 {
			w.rate = max(w.rate, rate)
		}
	case w.before != 0 && rate < w.rate*growth:
		// More connections bring nothing when they share one link or one core.
		w.limit, w.before, w.hold = w.before, 0, holdLong
	case w.limit < w.most:
		w.before, w.rate, w.hold = w.limit, rate, holdNext
		w.limit = min(w.most, w.limit+max(1, w.limit/2))
	default:
		w.before, w.hold = 0, holdLong
	}
	return w.limit
}
