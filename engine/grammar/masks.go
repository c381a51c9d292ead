package grammar

import (
	"errors"
	"time"

	"github.com/millrace-ai/millrace/engine/native"
)

// ErrLate is a mask that is not there at the deadline. The workers go on with
// it; the sequence sits this step out and asks again.
var ErrLate = errors.New("grammar mask is late")

// work computes masks, one library call each. A call that computes a whole
// step's would use one core, and hold every row back for the slowest.
func (c *Compiler) work() {
	for j := range c.jobs {
		j.done <- j.native.Mask(j.mask)
	}
}

// A job is a mask to compute. It has what it needs of its Matcher, which may
// be closed meanwhile.
type job struct {
	native *native.Matcher
	mask   []uint32
	done   chan<- error
}

// Begin has the workers compute the next mask of m. Any method of m waits for
// it; Masks collects it.
func (c *Compiler) Begin(m *Matcher) {
	if m.begun || m.ready || m.err != nil || m.native == nil {
		return
	}
	if m.mask == nil {
		m.mask = make([]uint32, c.MaskWords())
	}
	m.begun = true
	c.jobs <- job{m.native, m.mask, m.done}
}

// Masks computes the masks of a step in parallel, those not begun and those
// that are: rows[i] becomes the mask of ms[i], each of them a different one, or
// errs[i] says why not. ErrLate where the deadline came first (never, if it is zero).
func (c *Compiler) Masks(ms []*Matcher, rows [][]uint32, errs []error, deadline time.Time) {
	for _, m := range ms {
		c.Begin(m)
	}
	var late <-chan time.Time
	if !deadline.IsZero() {
		c.timer.Reset(time.Until(deadline))
		defer c.timer.Stop()
		late = c.timer.C
	}
	expired := false
	for i, m := range ms {
		errs[i] = nil
		if m.begun && !expired {
			select {
			case err := <-m.done:
				m.settled(err)
			case <-late:
				expired = true
			}
		}
		if m.begun {
			select {
			case err := <-m.done:
				m.settled(err)
			default:
				errs[i] = ErrLate
				continue
			}
		}
		errs[i] = m.Mask(rows[i])
	}
}
