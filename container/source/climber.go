package source

// climber finds how many connections a link wants: it adds some, keeps them
// if the rate grew, and takes them back if not. It is told the rate of one
// window after the other.
type climber struct {
	limit, most int
	hold        int     // windows until the next step up
	before      int     // the limit before the last step up, 0 when that has been judged
	rate        float64 // bytes per second that the limit gave
}

const (
	growth   = 1.1 // rates differ if by this factor
	holdNext = 1   // windows after a step that helped: connections need a while to get going
	holdLong = 10  // windows after one that did not
	fewest   = 2
)

// next takes the rate of the last window, and whether the other side asked for
// less, and returns how many connections there should be.
func (c *climber) next(rate float64, throttled bool) int {
	switch {
	case throttled:
		c.limit, c.before, c.rate, c.hold = max(fewest, c.limit/2), 0, 0, holdLong
	case c.hold > 0:
		c.hold--
		if c.before == 0 {
			c.rate = max(c.rate, rate)
		}
	case c.before != 0 && rate < c.rate*growth:
		// More connections brought nothing: they share one link or one core.
		c.limit, c.before, c.hold = c.before, 0, holdLong
	case c.limit < c.most:
		c.before, c.rate, c.hold = c.limit, rate, holdNext
		c.limit = min(c.most, c.limit+max(1, c.limit/2))
	default:
		c.before, c.hold = 0, holdLong
	}
	return c.limit
}
