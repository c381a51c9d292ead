package local

import "math/rand/v2"

// cutter cuts a stream of bytes into parts at places that have nothing to do
// with how the bytes came. Half of the parts are shorter than a hundred bytes,
// so that they end inside an event; the others hold several.
type cutter struct {
	rng  *rand.Rand
	held []byte
	next int // length of the next part
}

const longestPart = 4096

func newCutter(seed, stream uint64) *cutter {
	c := &cutter{rng: rand.New(rand.NewPCG(seed, stream))}
	c.draw()
	return c
}

func (c *cutter) draw() {
	c.next = 1 + c.rng.IntN(96)
	if c.rng.IntN(2) == 0 {
		c.next = 1 + c.rng.IntN(longestPart)
	}
}

// push takes bytes and returns the parts that are full. Some bytes may be held back.
func (c *cutter) push(b []byte) (parts [][]byte) {
	c.held = append(c.held, b...)
	for len(c.held) >= c.next {
		parts = append(parts, c.held[:c.next:c.next])
		c.held = c.held[c.next:]
		c.draw()
	}
	return parts
}

// rest returns what was held back, nil if there is nothing.
func (c *cutter) rest() []byte {
	b := c.held
	c.held = nil
	return b
}
